"""Marks in a graph that is being exported: what depends on the id of a row alone can be computed once for every row.

A packed table may take many operations from an id to its bytes. Written after the gather they cost every lookup; done
at load, over all rows, they cost memory. Which of the two is better hangs on the table's size, and is decided when the
graph is rewritten (`slimrank.exporting.hoisting`). Elsewhere, in eager mode and where a user exports a graph that
nobody rewrites, the marks are the standard operations that they stand for. Left out: the rewriting.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

DOMAIN = "slimrank"  # of the operators that exist between tracing and rewriting, and in no file
BAND_OF, BY_ROW, EVERY_ROW = "BandOf", "ByRow", "EveryRow"
_marked: ContextVar[bool] = ContextVar("_marked", default=False)


@contextmanager
def marking() -> Iterator[None]:
    """In it exported graphs have marks: only for who takes them out again."""
    before = _marked.set(True)
    try:
        yield
    finally:
        _marked.reset(before)


def is_marking() -> bool:
    """Whether a graph is being exported that is to have marks."""
    return _marked.get()


def band_of(ids: Tensor, firsts: Tensor) -> Tensor:
    """The band of each of `ids` [...], int32: band b holds the ids from firsts[b] on, and firsts [bands] rise from 0.

    >>> band_of(torch.tensor([0, 4, 5, 9]), torch.tensor([0, 5]))
    tensor([0, 0, 1, 1], dtype=torch.int32)
    """
    if is_marking():
        inputs = (ids, firsts[1:].to(ids.dtype))
        return torch.onnx.ops.symbolic(f"{DOMAIN}::{BAND_OF}", inputs, dtype=torch.int32, shape=ids.shape, version=1)
    return torch.bucketize(ids.contiguous(), firsts[1:].to(ids.dtype), right=True, out_int32=True)


def by_row(values: Tensor, ids: Tensor, num_rows: int) -> Tensor:
    """`values` [..., dim], of which those of each of `ids` [...] < `num_rows` depend on that id and nothing else."""
    if not is_marking():
        return values
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{BY_ROW}", (values, ids), {"rows": num_rows}, dtype=values.dtype, shape=values.shape, version=1
    )


def every_row(start: int, stop: int) -> Tensor:
    """Row numbers start to stop - 1 as a column [rows, 1], int64, which an exporter does not take for a constant yet.

    It would store what hangs on it, and the point is that a file does not.
    """
    if not is_marking():
        return torch.arange(start, stop).unsqueeze(1)
    attributes: dict[str, int] = {"start": start, "stop": stop}
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{EVERY_ROW}",
        (),
        attributes,  # type: ignore[arg-type]
        dtype=torch.int64,
        shape=(stop - start, 1),
        version=1,
    )
