"""Benchmarks: slimrank beside a peer, beside the floor or beside a goal, in one run; results as files.

`python -m bench --list` names them. Nothing here is a test, and nothing asserts a time.
"""
