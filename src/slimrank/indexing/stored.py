"""Vectors as they are stored: as floats, or as bytes with a scale for each dimension or vector.

What `exact` searches, and what other kinds order their candidates by. A byte is v / scale rounded to -127 to 127, the
scale being the largest absolute value / 127 (Guan et al. 2019, arXiv 1911.02079). Left out: searching them.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from slimrank.indexing.index import Arrays, Vectors, fit

Stored = Literal["float32", "float16", "int8"]
ScaleOf = Literal["dimension", "vector"]
TYPES = {"vectors": "float32 float16 int8", "scale": "float32"}


def stored(vectors: Vectors, values: Stored, scale_of: ScaleOf = "dimension") -> Arrays:
    """The arrays that keep `vectors` [C, D]: `vectors`, and for bytes `scale` [D] or [C]."""
    if values != "int8":
        limit = np.finfo(values).max  # a value beyond it becomes the largest, not infinite
        return {"vectors": np.clip(vectors, -limit, limit).astype(values)}
    most = np.abs(vectors).max(axis=0 if scale_of == "dimension" else 1)
    scale = np.where(most > 0, most / 127, 1).astype(np.float32)
    codes = np.rint(vectors / _across(scale, scale_of))
    return {"vectors": np.clip(codes, -127, 127).astype(np.int8), "scale": scale}


def restored(arrays: Arrays, which: Any, scale_of: ScaleOf = "dimension") -> Vectors:
    """[n, D] the vectors of the rows that `which` (places or a slice) names."""
    whole = arrays["vectors"]
    rows: NDArray[Any] = whole[which] if isinstance(which, slice) else whole.take(which, axis=0)
    if "scale" not in arrays:
        return rows.astype(np.float32, copy=False)
    scale = arrays["scale"] if scale_of == "dimension" else arrays["scale"][which]
    return np.asarray(rows * _across(scale, scale_of), dtype=np.float32)


def check_stored(arrays: Arrays, kind: str, items: int, dim: int, scale_of: ScaleOf = "dimension") -> None:
    """Raises `InputError` where they are not those of `items` vectors of `dim` numbers."""
    fit("vectors" in arrays and arrays["vectors"].shape == (items, dim), kind, f"vectors must be [{items}, {dim}]")
    bytewise = arrays["vectors"].dtype == np.int8
    fit(bytewise == ("scale" in arrays), kind, "bytes have a scale, floats have none")
    length = dim if scale_of == "dimension" else items
    fit(not bytewise or arrays["scale"].shape == (length,), kind, f"scale must be [{length}]")
    for array in arrays.values():
        known = np.issubdtype(array.dtype, np.integer) or bool(np.isfinite(array).all())
        fit(known, kind, "a value is NaN or infinite")


def longest(arrays: Arrays, scale_of: ScaleOf, chunk: int) -> float:
    """The length of the longest vector."""
    starts = range(0, len(arrays["vectors"]), chunk)
    parts = (restored(arrays, slice(start, start + chunk), scale_of) for start in starts)
    return max(float(np.sqrt(np.einsum("nd,nd->n", part, part, dtype=np.float64).max())) for part in parts)


def _across(scale: NDArray[np.float32], scale_of: ScaleOf) -> NDArray[np.float32]:
    return scale if scale_of == "dimension" else scale[:, None]
