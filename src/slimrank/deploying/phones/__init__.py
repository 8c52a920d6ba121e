"""What runs in the environment of a phone's converter, as a process of its own, where slimrank need not be installed.

`graph` makes a module of torch of an artifact's graph, by `operators`; `program` converts it with the tool that is
there, and asks what was converted. Nothing here imports what is not in this folder, but for the tools inside functions.
"""
