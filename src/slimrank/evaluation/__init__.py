"""Scores to verdict: metrics, the paired comparison, and what a model costs in bytes and milliseconds.

One file per question: `top_k` and `calibration` (does it rank lists, is it calibrated), `paired` (is the difference
real; by `sums`, `bootstrap`, `student`), `slices` (where does a loss hide), `behaviour` (how alike are two models),
`evidence` (all of that of two artifacts or files), `cost` and `resident` (bytes and latency), `measure` (artifacts side
by side), `machine` (on what was it measured). Left out: writing results, which the pipeline does, and showing them,
which the report does.
"""
