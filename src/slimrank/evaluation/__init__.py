"""Scores to verdict: metrics, the paired comparison, and what a model costs in bytes and milliseconds.

One file per question: `metrics` (does it rank, is it calibrated), `paired` (is the difference real, and where
does it hide), `cost` (bytes and latency of an artifact), `machine` (on what was it measured).
Left out: writing results, which the pipeline does, and showing them, which the report does.
"""
