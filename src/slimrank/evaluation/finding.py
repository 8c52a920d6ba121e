"""What an artifact that answers with items finds on the rows of a split, and what it takes to ask it.

Scores are the artifact's own, of the whole catalogue, a chunk of queries at a time. Where an index is stored
with the model they are of its answers; `retrieval.py` compares indices with the exact one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slimrank.data.encoding import Inputs
from slimrank.data.schema import Schema
from slimrank.evaluation.catalogue import AT, Found, Scorer, find_in_catalogue, product
from slimrank.runtime import Retriever

if TYPE_CHECKING:
    import polars

ASKED = 10  # items a query is asked for where it is timed

DEPTH = 100  # items that a stored index is asked for: a reciprocal rank beyond counts for nothing


def find_items(
    model: Retriever, frame: polars.DataFrame, schema: Schema, *, leave_out_met: bool = True, at: Sequence[int] = AT
) -> Found:
    """Metrics of the items that the rows of `frame` are to find among the whole catalogue; `at` as there.

    Items of a row's own history are left out (but for the one that is to be found, which some meet again), those that
    the model does not read too. An item that train never met is missed, and counted. Where an index is stored with the
    model it is the one that is asked, for the first `DEPTH` items or more: what is not among them is missed.
    """
    inputs = model.encoding.encode(frame)
    target = model.encoding.encode_label(frame[schema.label]) - model.first_item
    target = np.where(target < 0, -1, target)
    met = model.met(frame) if leave_out_met else None
    left_out = None if met is None else met.where(met.values != target[met.query])
    if not model.has_index:
        return find_in_catalogue(scorer(model, inputs), target, model.count, left_out, at)
    places, _ = model.search(inputs, max(DEPTH, *at), left_out)
    hits = (places == target[:, None]) & (places >= 0)
    rank = np.where(hits.any(axis=1), hits.argmax(axis=1), -1)
    falling = -np.arange(places.shape[1], dtype=np.float32)  # each list as a catalogue of its own, in its order
    found = find_in_catalogue(lambda start, stop: np.tile(falling, (stop - start, 1)), rank, len(falling), at=at)
    return replace(found, unknown=int((target < 0).sum()))


def scorer(model: Retriever, inputs: Inputs) -> Scorer:
    """Scores of all items for chunks of encoded queries; vectors are made once."""
    if "scores" in model.outputs:
        return lambda start, stop: model.scores(inputs.take(slice(start, stop)))
    return product(model.vectors(inputs), model.item_vectors())


@dataclass(frozen=True)
class Asked:
    """A retriever as something that is timed: encoded queries in, the places of the first ten items out."""

    model: Retriever

    @property
    def session(self) -> Any:
        """Itself: it has what the timing calls of a session."""
        return self

    def get_inputs(self) -> list[Any]:
        """The inputs of queries."""
        return [each for each in self.model.session.get_inputs() if each.name != "items"]

    def run(self, outputs: None, feeds: dict[str, NDArray[Any]]) -> NDArray[np.int64]:
        """The places of the first items."""
        ids = feeds["ids"]
        numbers = feeds.get("numbers", np.zeros((len(ids), 0), np.float32))
        return self.model.search(Inputs(ids, numbers), ASKED)[0]
