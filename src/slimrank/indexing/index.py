"""An index: vectors of a catalogue, kept in few bytes, and the k items whose product with a query is largest.

A kind says which items may be among the first (`candidates`) and what the vector of an item is (`vectors`). From there
on all kinds do the same: what is left out is taken away, the products of the rest are summed in float64, and items of
equal product stand in the order of their places. So an answer hangs neither on the queries beside it nor on the library
that multiplies. Left out: how well an index finds and how fast, which `slimrank.evaluation.retrieval` measures.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slimrank.config import Config, InputError, find, name_of, nearest
from slimrank.data.ragged import Places, Ragged

Vectors = NDArray[np.float32]
Arrays = Mapping[str, NDArray[Any]]
LARGEST = 1e15
"""Of a number in a vector: products of two such are far from overflow of float32."""


class Index(ABC):
    """The items of a catalogue, by place from 0 to C - 1.

    Attributes:
        config: of its kind.
        items: C.
        dim: D, of vectors of items and queries.
        arrays: everything that it is made of, by name, as it is stored.
    """

    TYPES: ClassVar[Mapping[str, str]]
    """The arrays that there may be, and the types that each may have."""

    def __init__(self, config: Config, items: int, dim: int, arrays: Arrays):
        self.config = config
        self.items = items
        self.dim = dim
        self.arrays = dict(arrays)

    @classmethod
    @abstractmethod
    def build(cls, config: Any, vectors: Vectors) -> Index:
        """From vectors [C, D] that `build_index` has looked at."""

    @classmethod
    @abstractmethod
    def of_arrays(cls, config: Any, items: int, dim: int, arrays: Arrays) -> Index:
        """From what `arrays` of another held.

        Raises:
            InputError: they do not go together.
        """

    @abstractmethod
    def candidates(self, queries: Vectors, k: int, spare: int) -> Iterable[Places]:
        """For each of `queries` [n, D] items that may be among its first `k`, after `spare` others are taken away."""

    @abstractmethod
    def vectors(self, places: Places) -> Vectors:
        """[n, D] what the products with the items at `places` [n] are of."""

    @property
    def nbytes(self) -> int:
        """Bytes of all that it is made of, which are those of its files."""
        return sum(array.nbytes for array in self.arrays.values())

    def search(self, vectors: ArrayLike, k: int, left_out: Ragged | None = None) -> tuple[Places, Vectors]:
        """The `k` items of the largest products with each of `vectors` [N, D], and these products.

        Of equal products (as float64) the lower place comes first. Where `k` is larger than the catalogue it is all of
        it; where too few are left, place -1 and product -inf fill the row.

        Returns:
            places [N, min(k, C)] int64 and products [N, min(k, C)] float32, falling.

        Raises:
            InputError: k below 1, vectors that are not [N, D] or not finite, lists that are not of these queries, a
                place left out that is no item.
        """
        queries = checked(vectors, "vectors", self.dim)
        if k < 1:
            raise InputError(f"k: got {k}, allowed 1 or more")
        out = None
        if left_out is not None:
            left_out.check("left_out", len(queries), self.items)
            out = left_out.distinct()
        width = min(k, self.items)
        places = np.full((len(queries), width), -1, np.int64)
        products = np.full((len(queries), width), -np.inf, np.float32)
        for rows, spare in _alike(len(queries), out):
            for row, found in zip(rows, self.candidates(queries[rows], width, spare), strict=True):
                kept = found if out is None else found[~np.isin(found, out[row])]
                own = dots(self.vectors(kept), queries[row])
                order = np.lexsort((kept, -own))[:width]
                places[row, : len(order)], products[row, : len(order)] = kept[order], own[order]
        return places, products

    def record(self) -> dict[str, Any]:
        """What `open_index` needs beside the files, as plain data."""
        arrays = {name: {"dtype": str(array.dtype), "shape": list(array.shape)} for name, array in self.arrays.items()}
        return {"config": self.config.model_dump(mode="json"), "items": self.items, "dim": self.dim, "arrays": arrays}

    def files(self) -> dict[str, bytes]:
        """The content of its files by name: each an array, little-endian, row by row."""
        return {
            file_of(name): np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
            for name, array in self.arrays.items()
        }


def build_index(config: Config, vectors: ArrayLike) -> Index:
    """An index of that kind over `vectors` [C, D], float.

    Raises:
        InputError: they are not [C, D], empty or not finite; the kind cannot be built of them.
    """
    rows = checked(vectors, "vectors")
    if not rows.size:
        raise InputError(f"vectors: an index needs items, got shape {rows.shape}")
    kind: type[Index] = find("index", name_of(config)).run  # type: ignore[assignment]
    return kind.build(config, rows)


def open_index(record: Mapping[str, Any], folder: Path) -> Index:
    """The index that wrote `record` and, into `folder`, its files.

    Raises:
        InputError: the record is none, a file is missing or of another size, or they do not go together.
    """
    try:
        told = dict(record["config"])
        items, dim, arrays = int(record["items"]), int(record["dim"]), dict(record["arrays"])
        entry = find("index", str(told["name"]))
    except (KeyError, TypeError) as error:
        raise InputError(f"{folder}: not the record of an index: {error!r}") from None
    config = entry.config.parse(told, f"index {entry.name}")
    kind: type[Index] = entry.run  # type: ignore[assignment]
    types = kind.TYPES
    foreign = sorted(set(arrays) - set(types))
    if foreign:
        raise InputError(
            f"{folder}: unknown array {foreign[0]!r} of index {entry.name!r}. {nearest(foreign[0], types)}"
        )
    if items < 1 or dim < 1:
        raise InputError(f"{folder}: the record of an index says {items} items of {dim} numbers")
    read = {name: read_array(folder, name, told, types[name].split()) for name, told in arrays.items()}
    return kind.of_arrays(config, items, dim, read)


def read_array(folder: Path, name: str, told: Mapping[str, Any], types: list[str]) -> NDArray[Any]:
    """One array of an index.

    Raises:
        InputError: its record is none, or the file is missing or not of its size.
    """
    path = folder / file_of(name)
    try:
        kind, shape = str(told["dtype"]), tuple(int(size) for size in told["shape"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not the record of an array: {error!r}") from None
    if kind not in types:
        raise InputError(f"{path}: unknown type {kind!r}. {nearest(kind, types)}")
    dtype = np.dtype(kind).newbyteorder("<")
    try:
        found = path.stat().st_size
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != found:
            raise InputError(f"{path}: has {found} bytes, its record says {kind} {list(shape)}")
        return np.fromfile(path, dtype).reshape(shape).astype(kind, copy=False)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def file_of(name: str) -> str:
    """The file that holds an array of an index."""
    return f"index.{name}.bin"


def checked(vectors: ArrayLike, name: str, dim: int | None = None) -> Vectors:
    """`vectors` [N, D] as float32, row by row.

    Raises:
        InputError: another shape, no numbers, NaN or infinite, or longer than a product can hold.
    """
    given = np.asarray(vectors)
    if given.ndim != 2 or not np.issubdtype(given.dtype, np.floating):
        raise InputError(f"{name}: must be floats [N, {dim or 'D'}], got {given.dtype} of shape {given.shape}")
    if dim is not None and given.shape[1] != dim:
        raise InputError(f"{name}: got vectors of {given.shape[1]} numbers, the index has items of {dim}")
    wrong = ~(np.abs(given) < LARGEST).all(axis=1)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise InputError(
            f"{name}: {int(wrong.sum())} of {len(wrong)} are NaN, infinite or beyond {LARGEST:g} (row {at})"
        )
    return np.ascontiguousarray(given, dtype=np.float32)


def _alike(queries: int, out: Ragged | None) -> Iterator[tuple[Places, int]]:
    """The queries that are searched together, and a number that none of them leaves more out than.

    How many candidates a query has must not hang on the queries beside it: it is the power of 2 above its own number.
    """
    if out is None:
        spare = np.zeros(queries, np.int64)
    else:
        spare = np.where(out.lengths > 0, 1 << np.ceil(np.log2(np.maximum(out.lengths, 1))).astype(np.int64), 0)
    for each in set(spare.tolist()):
        yield np.flatnonzero(spare == each), each


def fit(ok: bool, kind: str, why: str) -> None:
    """Raises `InputError` where arrays of an index do not go together."""
    if not ok:
        raise InputError(f"index {kind!r}: its arrays do not go together: {why}")


def dots(vectors: Vectors, query: Vectors) -> NDArray[np.float64]:
    """[n] products of `vectors` [n, D] with `query` [D], each summed alike however many there are."""
    return np.asarray(np.add.reduce(np.multiply(vectors, query, dtype=np.float64), axis=1))
