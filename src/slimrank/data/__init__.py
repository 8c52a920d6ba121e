"""Rows to batches: schema, encoding fitted on train only, splits, and the datasets.

Importing this loads neither polars nor a dataset: the runtime reads `data.schema` and `data.encoding` alone.
"""
