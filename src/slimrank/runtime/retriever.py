"""A loaded artifact that answers with items: raw queries in, vectors or the first k of the catalogue out.

A graph gives either a `vector` for each query, which an index compares with those of the items, or the `scores` of all
items. The index is in the artifact, or it is made at load: of the vectors that the graph gives of its own item table,
or of the table's codes, whose sub-scores are added up. Safe to use from several threads at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slimrank.config import InputError
from slimrank.data.encoding import Inputs
from slimrank.data.ragged import Ragged
from slimrank.data.text import TextCodec
from slimrank.data.vocabulary import Identity, Vocabulary
from slimrank.indexing.codes import CodesIndex
from slimrank.indexing.exact import Exact
from slimrank.indexing.heads import first_of
from slimrank.indexing.index import Index, build_index, open_index
from slimrank.runtime.opened import Opened, opened
from slimrank.runtime.rows import as_table

if TYPE_CHECKING:
    import polars

    from slimrank.runtime.rows import Rows

AT_ONCE = 256  # queries a call of the session: each may hold a vector for every place of its history
TEXTS_AT_ONCE = 16  # attention takes the square of the longest text for each of them
ITEMS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class TopK:
    """The first items of every query, best first.

    Attributes:
        items: raw values as they were in train, a list for each query, shorter than k where too few are left.
        places: int64 [N, k], by place in the catalogue, -1 where too few are left.
        scores: float32 [N, k], -inf there.
        unknown: by field, how many ids were not in the vocabulary.
        shortened: by field, how many queries were longer than the model reads; their most recent items were kept.
    """

    items: list[list[Any]]
    places: NDArray[np.int64]
    scores: NDArray[np.float32]
    unknown: dict[str, int]
    shortened: dict[str, int]


@dataclass(frozen=True, eq=False)
class Retriever(Opened):
    """One verified artifact, ready to find. Made by `load_retriever`."""

    @property
    def first_item(self) -> int:
        """The first local id of the catalogue's field that is an item."""
        name = self.encoding.schema.catalogue
        return next(each.first_value for each in self.encoding.schema.fields if each.name == name)

    @property
    def count(self) -> int:
        """Items in the catalogue, C."""
        return self.encoding.sizes[str(self.encoding.schema.catalogue)] - self.first_item

    @cached_property
    def items(self) -> list[Any]:
        """The raw values of the catalogue, by place.

        Raises:
            InputError: the artifact encodes queries and has no catalogue.
        """
        codec = None if self.encoding.schema.catalogue is None else self.encoding.codecs[self.encoding.schema.catalogue]
        if isinstance(codec, Vocabulary):
            return list(codec.values.to_list())
        if isinstance(codec, Identity):
            return list(range(codec.num_ids))
        raise InputError(f"{self.artifact.path}: has no catalogue; it gives vectors (`encode`) and no top-k")

    @property
    def has_index(self) -> bool:
        """Whether an index is stored with the graph, which may find less than comparing every item does."""
        return isinstance(self.artifact.manifest.get("index"), Mapping)

    @cached_property
    def index(self) -> Index:
        """What the vectors of queries are compared with.

        Raises:
            InputError: the artifact has no item vectors.
        """
        if self.has_index:
            return open_index(self.artifact.manifest["index"], self.artifact.path)
        if "item_vector" not in self.outputs:
            raise InputError(f"{self.artifact.path}: has no vectors of items")
        if "item_codes" in self.outputs:
            entries = self._run(["entries"], self._no_query(), np.zeros(1, np.int32))[0]
            return CodesIndex.of_codes(self._of_items("item_codes").astype(np.uint8), entries)
        return build_index(Exact(), self.item_vectors())

    def prepare(self) -> None:
        """Make now what the first query would wait for: the catalogue's values, and the index over its vectors."""
        _ = self.items
        if self.has_index or "item_vector" in self.outputs:
            _ = self.index

    def item_vectors(self) -> NDArray[np.float32]:
        """Vectors [C, D] of all items, by place, as the graph gives them."""
        return self._of_items("item_vector")

    def vectors(self, inputs: Inputs) -> NDArray[np.float32]:
        """Vectors, float32 [N, D], of encoded queries.

        Raises:
            InputError: a type, shape or id is not allowed (`Checks`), or the graph gives scores and no vectors.
        """
        if "vector" not in self.outputs:
            raise InputError(f"{self.artifact.path}: gives scores of items, not vectors")
        return self._of_queries("vector", inputs)

    def scores(self, inputs: Inputs) -> NDArray[np.float32]:
        """Scores, float32 [N, C], of all items for encoded queries, by place; N should be small."""
        if "scores" in self.outputs:
            return self._of_queries("scores", inputs)[:, self.first_item :]
        return self.vectors(inputs) @ self.item_vectors().T

    def scores_of(self, inputs: Inputs, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scores, float32 [N, P], of the items at `places` [P] for encoded queries, whatever the catalogue holds."""
        if "scores" in self.outputs:
            return self.scores(inputs)[:, places]
        return self.vectors(inputs) @ self._of_items("item_vector", places).T

    def encode(self, rows: Rows) -> NDArray[np.float32]:
        """Vectors, float32 [N, D], of raw queries: a frame, a mapping of columns or a list of rows.

        Raises:
            InputError: as `Model.predict`.
        """
        return self.vectors(self.encoder(rows)[0])

    def top_k(self, rows: Rows, k: int = 10, *, leave_out_met: bool = True) -> TopK:
        """The `k` best items of every raw query, or all where the catalogue has fewer.

        Args:
            rows: queries, as in `encode`.
            k: how many.
            leave_out_met: whether items of a query's own history are left out, those beyond what the model reads too.

        Raises:
            InputError: k is below 1; as `encode`.
        """
        if type(k) is not int or k < 1:
            raise InputError(f"k: got {k!r}, allowed 1 or more")
        frame = as_table(rows, self.encoding.schema)
        inputs, unknown, shortened = self.encoding.encode_telling(frame)
        left_out = self.met(frame) if leave_out_met else None
        places, scores = self.search(inputs, k, left_out)
        names = self.items
        items = [[names[place] for place in row if place >= 0] for row in places]
        return TopK(items, places, scores, unknown, shortened)

    def places(self, items: Sequence[Any]) -> NDArray[np.int64]:
        """The places in the catalogue, int64 [M], of raw values; -1 of those that it does not hold.

        Raises:
            InputError: the artifact has no catalogue, or a value cannot be an item.
        """
        import polars

        codec = self.encoding.codecs[str(self.encoding.schema.catalogue)]
        assert not isinstance(codec, TextCodec)  # the schema holds to it
        try:
            column = polars.Series(self.encoding.schema.label, items)
        except (TypeError, OverflowError, polars.exceptions.PolarsError):
            raise InputError("items must be integers of 64 bits, or text, all of them") from None
        return codec.codes(column)[0].astype(np.int64) - 1

    def met(self, frame: polars.DataFrame) -> Ragged | None:
        """The places of the items in every query's history, or None where the catalogue's field is no sequence."""
        name = str(self.encoding.schema.catalogue)
        if name not in (each.name for each in self.encoding.schema.sequences):
            return None
        ids, lengths = self.encoding.whole_lists(name, frame[name])
        lists = Ragged(ids - self.first_item, np.concatenate([[0], np.cumsum(lengths)]))
        return lists.where(lists.values >= 0)

    def search(
        self, inputs: Inputs, k: int, left_out: Ragged | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Places, int64 [N, k], and scores, float32 [N, k], of the first `k` items for encoded queries."""
        if "scores" not in self.outputs:
            return self.index.search(self.vectors(inputs), k, left_out)
        places = np.full((len(inputs), min(k, self.count)), -1, np.int64)
        scores = np.full(places.shape, -np.inf, np.float32)
        for start in range(0, len(inputs), AT_ONCE):
            stop = min(start + AT_ONCE, len(inputs))
            found = self.scores(inputs.take(slice(start, stop)))
            if left_out is not None:
                part = left_out.part(start, stop)
                found[part.query, part.values] = -np.inf
            places[start:stop], scores[start:stop] = first_of(found, k)
        return places, scores

    def _of_queries(self, output: str, inputs: Inputs) -> NDArray[np.float32]:
        self.checks(inputs)
        order, at_once = np.arange(len(inputs)), TEXTS_AT_ONCE if self.encoding.schema.texts else AT_ONCE
        if self.any_length:  # queries of like length go together, so that little padding is computed
            order = np.argsort((inputs.ids != 0).sum(axis=1), kind="stable")
        parts = [
            self._run([output], inputs.take(order[start : start + at_once]), np.zeros(1, np.int32))[0]
            for start in range(0, max(len(inputs), 1), at_once)
        ]
        return np.concatenate(parts)[np.argsort(order)]

    def _of_items(self, output: str, places: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """What the graph gives of the items at `places`, or of all."""
        ids = (self.first_item + (np.arange(self.count) if places is None else places)).astype(np.int32)
        starts = range(0, len(ids), ITEMS_AT_ONCE)
        parts = [self._run([output], self._no_query(), ids[s : s + ITEMS_AT_ONCE])[0] for s in starts]
        return np.concatenate(parts)

    def _no_query(self) -> Inputs:
        """One query of padding alone: a graph has both sides, and not every kernel takes no rows."""
        numbers = np.zeros((1, len(self.encoding.schema.numeric)), np.float32)
        return Inputs(np.zeros((1, len(self.encoding.schema.columns)), np.int32), numbers)

    def _run(self, outputs: list[str], inputs: Inputs, items: NDArray[np.int32]) -> list[NDArray[Any]]:
        inputs = inputs if len(inputs) else self._no_query()
        given = {"ids": self.padded(inputs.ids), "numbers": inputs.numbers, "items": items}
        found: list[NDArray[Any]] = self.session.run(outputs, {name: given[name] for name in self.feeds})
        return found


def load_retriever(path: str | Path, *, threads: int = 1) -> Retriever:
    """Verify the artifact in `path`, which answers with items or vectors, and open it with that many threads per call.

    Raises:
        InputError: as `load`; the artifact answers with scores of rows.
    """
    return opened(Retriever, path, threads, with_items=True)
