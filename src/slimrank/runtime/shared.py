"""A request's shared features encoded, looked up and multiplied once for all its candidates.

scorer = SharedScorer(load("run/artifact"))
scorer.predict({"user": 7, "hour": 21}, {"item": [42, 43, 44]}).probability

For each set of shared fields the artifact's graph is split once (`slimrank.graphs.shared`) and held against the unsplit
one. Where that cannot be, the shared values are encoded once all the same and joined to every candidate. Safe to use
from several threads at once.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slimrank.config import InputError, nearest
from slimrank.data.encoding import Inputs
from slimrank.data.schema import Field, Schema
from slimrank.runtime.checks import Checks
from slimrank.runtime.encoder import RowEncoder
from slimrank.runtime.model import Model, Predictions, sigmoid
from slimrank.runtime.rows import as_table
from slimrank.runtime.session import open_session

if TYPE_CHECKING:
    from slimrank.runtime.rows import Rows

MOST_SETS = 8  # each holds a session of its own: unpacked tables are its own, and making one takes some 0.1 s
LARGEST_DIFFERENCE = 1e-5  # of a logit, relative to max(1, |logit|): floats are added in another order
CHECKED_ROWS = 64
TIMED_ROWS = 256
TURNS = 9
NO_FIELDS = Schema.model_construct(fields=())  # which no model has
SEPARATE = "the set's columns are all on one side"
SLOWER = "the unsplit graph takes less time"

Background = Callable[[Callable[[], object]], object]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Side:
    """The fields of one side, of the request or of its candidates.

    Attributes:
        encoder: of their raw values, or None where there are no fields.
        ids: their columns of the unsplit graph's `ids`; `numbers`: those of `numbers`.
    """

    encoder: RowEncoder | None
    checks: Checks
    ids: NDArray[np.int64]
    numbers: NDArray[np.int64]

    @classmethod
    def of(cls, whole: RowEncoder, fields: Sequence[Field]) -> Side:
        """The side of a model that holds `fields`."""
        names, schema = {field.name for field in fields}, whole.encoding.schema
        encoder = whole.part(fields)
        ids = [place for place, name in enumerate(schema.columns) if name in names]
        numbers = [place for place, field in enumerate(schema.numeric) if field.name in names]
        sides = (np.array(each, np.int64) for each in (ids, numbers))
        checks = Checks.of(encoder.encoding.schema, encoder.encoding.sizes)
        return cls(encoder if fields else None, checks, *sides)

    def encoded(self, rows: Rows, count: int) -> tuple[Inputs, dict[str, int], dict[str, int]]:
        """The inputs of `count` raw rows, and by field how many values are unknown and how many rows are too long.

        Raises:
            InputError: as `Model.predict`.
        """
        if self.encoder is None:
            as_table(rows, NO_FIELDS)  # refuses what is no rows
            return Inputs(np.empty((count, 0), np.int32), np.empty((count, 0), np.float32)), {}, {}
        told = self.encoder(rows)
        self.checks(told[0])
        return told


@dataclass(frozen=True, eq=False)
class SharedSet:
    """What is kept for one set of shared fields.

    Attributes:
        session: the split graph's, or None where rows are joined.
        why_joined: why they are, else nothing.
        feeds: names of the split graph's inputs.
    """

    shared: Side
    own: Side
    session: Any
    why_joined: str
    feeds: tuple[str, ...] = ()

    def answers(self, shared: Inputs, own: Inputs) -> NDArray[np.float32]:
        """Logits [N] of the split graph."""
        given = {"shared_ids": shared.ids, "shared_numbers": shared.numbers, "ids": own.ids, "numbers": own.numbers}
        logits: NDArray[np.float32] = self.session.run(["logit"], {name: given[name] for name in self.feeds})[0]
        return logits

    def joined(self, shared: Inputs, own: Inputs) -> Inputs:
        """The inputs of the unsplit graph: the shared row beside each of the candidates'."""
        ids = np.empty((len(own), len(self.shared.ids) + len(self.own.ids)), np.int32)
        numbers = np.empty((len(own), len(self.shared.numbers) + len(self.own.numbers)), np.float32)
        for side, given in ((self.shared, shared), (self.own, own)):
            ids[:, side.ids] = given.ids
            numbers[:, side.numbers] = given.numbers
        return Inputs(ids, numbers)


class SharedScorer:
    """Scores the candidates of requests by a loaded model.

    The `most` sets of shared fields that were asked for last have a split graph; while one is being split, rows are
    joined. With `fastest` both graphs are timed first, and rows are joined where that takes less, as it does of a model
    that is hardly more than its lookups. Graphs are split by the call that asks for them, or by `background` (such as
    an executor's `submit`), so that no call waits for it.
    """

    def __init__(
        self, model: Model, *, most: int = MOST_SETS, fastest: bool = False, background: Background | None = None
    ):
        self.model = model
        self.most = most
        self.fastest = fastest
        self.background = background
        fields = model.encoding.schema.fields
        self._columns = {field.name: tuple(name for name in (field.name, field.pair) if name) for field in fields}
        self._inputs = tuple(dict.fromkeys(name for names in self._columns.values() for name in names))
        self._sets: OrderedDict[frozenset[str], SharedSet] = OrderedDict()
        self._looking, self._making = Lock(), Lock()

    def predict(self, shared: Mapping[str, Any], candidates: Rows) -> Predictions:
        """Probabilities of the candidates [N], as `Model.predict` gives them of rows that hold the shared values too.

        `shared` has one value for each shared column, `candidates` the other columns: a list of rows, a mapping of
        columns or a polars frame. What is unknown or too long of shared fields is counted once. Where the columns of
        one field are on both sides (a text pair: the query shared, the document not), the shared one is repeated.

        Raises:
            InputError: a column is on both sides or on neither; else as `Model.predict`, with the faults of both sides.
        """
        count = _count(candidates)
        fields, repeated = self._sides(shared, _names(candidates))
        kept = self._asked(fields)
        rows = _with_columns(candidates, {name: shared[name] for name in repeated}, count)
        faults, found = [], []
        row = {name: [shared[name]] for field in fields for name in self._columns[field]}
        sides = (partial(kept.shared.encoded, row, 1), partial(kept.own.encoded, rows, count))
        for encoded in sides:
            try:
                found.append(encoded())
            except InputError as error:
                faults.append(str(error))
        if faults:
            raise InputError("\n".join(faults))
        (once, unknown, shortened), (each, own_unknown, own_shortened) = found
        counts = {**unknown, **own_unknown}, {**shortened, **own_shortened}
        return Predictions(sigmoid(self._score(kept, once, each)), *counts)

    def score(self, fields: Iterable[str], shared: Inputs, own: Inputs) -> NDArray[np.float32]:
        """Logits [N] of encoded rows: one of the shared `fields`, N of the others, columns in the schema's order.

        Raises:
            InputError: unknown fields; as `Model.score` of either side.
        """
        kept = self.prepared(frozenset(fields))
        kept.shared.checks(shared)
        kept.own.checks(own)
        if len(shared) != 1:
            raise InputError(f"shared inputs have {len(shared)} rows, must be one")
        return self._score(kept, shared, own)

    def fields_of(self, shared: Iterable[str]) -> frozenset[str]:
        """The fields all columns of which are shared."""
        given = set(shared)
        return frozenset(field for field, columns in self._columns.items() if given.issuperset(columns))

    @property
    def known(self) -> tuple[frozenset[str], ...]:
        """The sets of shared fields that something is kept for, the one asked for last at the end."""
        with self._looking:
            return tuple(self._sets)

    def prepared(self, fields: frozenset[str]) -> SharedSet:
        """What is kept for shared `fields`; it is made now where it is not there yet.

        Raises:
            InputError: a field is unknown.
        """
        kept = self._look(fields)
        return self._made_now(fields) if kept is None else kept

    def _asked(self, fields: frozenset[str]) -> SharedSet:
        """What is kept for shared `fields`, made in the background where there is one: rows are joined meanwhile."""
        kept = self._look(fields)
        if kept is not None:
            return kept
        if self.background is None:
            return self._made_now(fields)
        if not self._making.locked():
            self.background(partial(self.prepared, fields))
        return SharedSet(*self._of(fields), None, "a graph is being split")

    def _look(self, fields: frozenset[str]) -> SharedSet | None:
        with self._looking:
            kept = self._sets.get(fields)
            if kept is not None:
                self._sets.move_to_end(fields)
            return kept

    def _made_now(self, fields: frozenset[str]) -> SharedSet:
        sides = self._of(fields)
        if not self._making.acquire(blocking=False):
            return SharedSet(*sides, None, "a graph is being split")
        try:
            kept = self._look(fields) or self._split(*sides)
            if kept.why_joined not in ("", SEPARATE, SLOWER):
                told = ", ".join(sorted(fields))
                _log.warning("%s: %s shared, rows are joined: %s", self.model.artifact.path, told, kept.why_joined)
            with self._looking:
                self._sets[fields] = kept
                while len(self._sets) > self.most:
                    self._sets.popitem(last=False)
            return kept
        finally:
            self._making.release()

    def _of(self, fields: frozenset[str]) -> tuple[Side, Side]:
        encoder = self.model.encoder
        known = {field.name: field for field in encoder.encoding.schema.fields}
        unknown = sorted(fields - set(known))
        if unknown:
            raise InputError("\n".join(f"unknown field {name!r}. {nearest(name, known)}" for name in unknown))
        shared = [field for name, field in known.items() if name in fields]
        own = [field for name, field in known.items() if name not in fields]
        return Side.of(encoder, shared), Side.of(encoder, own)

    def _sides(self, shared: Mapping[str, Any], names: set[str]) -> tuple[frozenset[str], list[str]]:
        """The shared fields, and the shared columns of fields that have others at the candidates."""
        if not isinstance(shared, Mapping):
            raise InputError(f"shared is a {type(shared).__name__}, must map column names to values")
        both = [name for name in self._inputs if name in shared and name in names]
        missing = [name for name in self._inputs if name not in shared and name not in names]
        if both or missing:
            given = [str(name)[:80] for name in islice(chain(shared, names), 100)]  # hostile rows have a million keys
            faults = [f"column {name!r} is both shared and the candidates'" for name in both]
            faults += [f"missing column {name!r}. {nearest(name, given)}" for name in missing]
            raise InputError("\n".join(faults))
        fields = self.fields_of(shared)
        left = [name for field, columns in self._columns.items() if field not in fields for name in columns]
        return fields, [name for name in left if name in shared]

    def _score(self, kept: SharedSet, shared: Inputs, own: Inputs) -> NDArray[np.float32]:
        if kept.session is None or len(own) == 0:
            return self.model.logits(kept.joined(shared, own))  # both sides were checked
        return kept.answers(shared, own)

    def _split(self, shared: Side, own: Side) -> SharedSet:
        """Both sides with the session of the split graph, or with why there is none."""

        def without(why: str) -> SharedSet:
            return SharedSet(shared, own, None, why)

        if shared.encoder is None or own.encoder is None:
            return without(SEPARATE)
        try:
            from slimrank.graphs.shared import split_shared
        except ImportError as error:
            return without(f"{error.name} is not installed: pip install 'slimrank[graphs]'")
        artifact = self.model.artifact
        threads = self.model.session.get_session_options().intra_op_num_threads
        try:
            split = split_shared(artifact.files["model.onnx"], shared.ids.tolist(), shared.numbers.tolist())
            session = open_session(artifact, threads, graph=split.proto.SerializeToString())
            kept = SharedSet(shared, own, session, "", tuple(each.name for each in session.get_inputs()))
            why = self._difference(kept) or (SLOWER if self.fastest and self._slower(kept) else "")
        except Exception as error:  # those of onnx share no other base class, and the unsplit graph answers as well
            return without(str(error) or type(error).__name__)
        if not artifact.unchanged():
            why = "the artifact was replaced since it was opened"
        return without(why) if why else kept

    def _difference(self, kept: SharedSet) -> str:
        """Why the split graph's scores are not those of the unsplit one, on made rows; nothing where they are."""
        draw = np.random.default_rng(0)
        for rows in (1, CHECKED_ROWS):
            once, each = (_made(side, count, draw) for side, count in ((kept.shared, 1), (kept.own, rows)))
            expected = self.model.score(kept.joined(once, each)).astype(np.float64)
            apart = np.abs(kept.answers(once, each) - expected) / np.maximum(1.0, np.abs(expected))
            if not (apart <= LARGEST_DIFFERENCE).all():
                return f"scores of {rows} made rows differ by {apart.max():.1e}, allowed {LARGEST_DIFFERENCE:.0e}"
        return ""

    def _slower(self, kept: SharedSet) -> bool:
        """Whether the split graph takes longer than the unsplit one, in turns, by the median."""
        draw = np.random.default_rng(0)
        once, each = (_made(side, count, draw) for side, count in ((kept.shared, 1), (kept.own, TIMED_ROWS)))
        ratios = []
        for _ in range(TURNS):
            begun = perf_counter()
            self.model.logits(kept.joined(once, each))
            between = perf_counter()
            kept.answers(once, each)
            ratios.append((perf_counter() - between) / (between - begun))
        return float(np.median(ratios)) > 1.0


def _made(side: Side, rows: int, draw: np.random.Generator) -> Inputs:
    """Ids that their tables have, and numbers of the size of scaled ones."""
    ids = draw.integers(0, side.checks.limits, (rows, len(side.checks.limits))).astype(np.int32)
    return Inputs(ids, draw.normal(size=(rows, len(side.numbers))).astype(np.float32))


def _count(candidates: Any) -> int:
    """How many candidates there are."""
    if isinstance(candidates, Mapping):
        column = next(iter(candidates.values()), ())
        return len(column) if hasattr(column, "__len__") else 0
    return len(candidates) if hasattr(candidates, "__len__") else 0


def _names(candidates: Any) -> set[str]:
    """The columns that candidates have, in whichever form they come."""
    if isinstance(candidates, Mapping):
        return set(candidates)
    if isinstance(candidates, Sequence) and not isinstance(candidates, str | bytes):
        return set(chain.from_iterable(row for row in candidates if isinstance(row, Mapping)))
    return set(getattr(candidates, "columns", ()))


def _with_columns(candidates: Any, values: Mapping[str, Any], count: int) -> Any:
    """The candidates with further columns of one value each."""
    if not values:
        return candidates
    if isinstance(candidates, Mapping):
        return {**candidates, **{name: [value] * count for name, value in values.items()}}
    if isinstance(candidates, Sequence):
        return [{**row, **values} if isinstance(row, Mapping) else row for row in candidates]
    import polars

    return candidates.with_columns([polars.Series(name, [value] * count) for name, value in values.items()])
