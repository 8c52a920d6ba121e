"""What a graph computes on sample rows: the ids that reach its tables, the inputs of its layers, its answers.

Everything is observed on the graph as it was given, in floats: what a layer is fed with depends little on the steps
before, and a table of gigabytes is then mapped by the runtime, and not one that would have to be written first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from slimrank.config import InputError
from slimrank.data.feeds import Feeds
from slimrank.exporting.optimized import BESIDE

Array = NDArray[Any]


class Seen(NamedTuple):
    """A value as it was seen: [n, last axis], all axes before the last put together, and how many axes it has."""

    values: Array
    rank: int


@dataclass(frozen=True)
class Calibration:
    """Sample rows, and the graph that they are run through: `proto` as read from `path`."""

    proto: onnx.ModelProto
    path: Path
    feeds: Feeds
    seed: int = 0

    def observe(
        self, names: Sequence[str], rows: int, session: onnxruntime.InferenceSession | None = None
    ) -> dict[str, Seen]:
        """The values of that name in runs on about `rows` rows, of this graph or of the `session` of another one.

        Of values with many places a row, as many places are drawn evenly as there are rows.

        Raises:
            InputError: ONNX Runtime cannot run the graph, or not on these rows.
        """
        fed = {name for name in names if name in self.feeds.arrays}
        computed = sorted(set(names) - fed)
        session = session or (self._session(computed) if computed else None)
        seen: dict[str, list[Array]] = {name: [] for name in names}
        ranks = {}
        for batch in self.feeds.batches(rows, self.seed):
            size = len(next(iter(batch.values())))
            found = dict(zip(computed, run(session, computed, batch), strict=True)) if session else {}
            for name, value in (found | {name: batch[name] for name in fed}).items():
                seen[name].append(_thinned(value, size))
                ranks[name] = value.ndim
        return {name: Seen(np.concatenate(parts), ranks[name]) for name, parts in seen.items()}

    def _session(self, outputs: Sequence[str]) -> onnxruntime.InferenceSession:
        """The graph with values of its inside as outputs, its data mapped from where it lies."""
        options = quiet()
        options.add_session_config_entry(BESIDE, str(self.path.resolve().parent))
        kept = list(self.proto.graph.output)
        del self.proto.graph.output[:]
        try:
            self.proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
            return opened(self.proto.SerializeToString(), options)
        finally:
            del self.proto.graph.output[:]
            self.proto.graph.output.extend(kept)


def quiet() -> onnxruntime.SessionOptions:
    """Options of a session on one thread that warns of nothing."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return options


def opened(model: bytes | Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """A session of `model`.

    Raises:
        InputError: ONNX Runtime cannot run it.
    """
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's errors have no base class but this
        raise InputError(f"ONNX Runtime cannot run the graph: {_said(error)}") from None


def run(session: onnxruntime.InferenceSession, outputs: Sequence[str], batch: dict[str, Array]) -> list[Array]:
    """The outputs of that name.

    Raises:
        InputError: the rows do not fit the graph, such as ids that a table has no row for.
    """
    try:
        found: list[Array] = session.run(list(outputs), batch)
    except Exception as error:
        raise InputError(f"data: the graph does not run on these rows: {_said(error)}") from None
    return found


def _said(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _thinned(value: Array, rows: int) -> Array:
    """[..., C] as at most `rows` rows [n, C], evenly drawn; [N] as [N, 1]."""
    flat = value.reshape(-1, 1 if value.ndim < 2 else value.shape[-1])
    return flat[:: max(1, len(flat) // max(1, rows))] if value.ndim > 2 else flat
