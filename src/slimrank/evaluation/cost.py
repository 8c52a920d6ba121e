"""What a model costs: bytes on disk, on the wire and resident, and milliseconds beside what it is compared with.

Everything is measured on the artifact that ships, by the runtime that serves it. Latency is that of `session.run` on
rows that are already encoded: it leaves out reading the request, looking up the vocabulary and validating ids, which
are the same for every model compared. Left out: requests over a network, which the service measures.
"""

from __future__ import annotations

import gc
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slimrank.artifact import open_artifact
from slimrank.config import InputError
from slimrank.data.encoding import Encoding, Inputs
from slimrank.runtime.wire import NUMBERS, WORDS, measurable, sent

LEAST_SAMPLES = 368
"""With fewer, no sample is a bound of the 99th percentile at 97.5%: .99 ** 368 < .025."""

WARM_UP = 20
SPREAD = (5, 25, 50, 75, 95, 99)  # percent of the calls
STRETCHES = 64  # of rows that throughput goes round: the same ones again and again would stay in the cache
TURN = 10
"""Calls in a row: one at a time, a small model would be timed right after a large one has emptied the cache."""


def bytes_of(path: Path) -> dict[str, int]:
    """Bytes of an artifact, as `result.json` holds them.

    - `disk`: the graph and its weights (`model.onnx` and its external data), and an index of its own.
    - `vocabulary`: the vocabulary file, and the tokenizer of a text.
    - `wire`, `wire_graph`, `wire_vocabulary`, `wire_brotli`: what is sent of it (`runtime.wire.sent`).
    - `resident`: memory that loading it and scoring 256 rows adds to a child process whose libraries are in use
      already (see `resident`); pages of a mapped file count once touched, shared or not.

    Raises:
        InputError: `path` is not a sound artifact.
    """
    return {**stored_bytes(path), **sent_bytes(path), "resident": resident_bytes(path)}


def stored_bytes(path: Path) -> dict[str, int]:
    """Of these `disk` and `vocabulary`."""
    return {"disk": disk_bytes(path), "vocabulary": files_bytes(path, WORDS)}


def compared_bytes(models: Mapping[str, Path]) -> dict[str, dict[str, int]]:
    """By name of those that are artifacts what they take on disk and, where that can be told here, on the wire."""
    artifacts = {name: path for name, path in models.items() if path.is_dir()}
    return {
        name: {**stored_bytes(path), **(sent_bytes(path) if measurable() else {})} for name, path in artifacts.items()
    }


def disk_bytes(path: Path) -> int:
    """Bytes of an artifact's graph, its weights and its index."""
    return files_bytes(path, NUMBERS)


def files_bytes(path: Path, names: tuple[str, ...]) -> int:
    """Bytes of an artifact's files whose names begin with one of `names`."""
    return sum(file.stat().st_size for name, file in open_artifact(path).files.items() if name.startswith(names))


def sent_bytes(path: Path) -> dict[str, int]:
    """Bytes on the wire of the files of the artifact in `path`, as `runtime.wire.sent` has them."""
    return sent(open_artifact(path))


def resident_bytes(path: Path) -> int:
    """Memory that `slimrank.evaluation.resident` measures for this artifact in a fresh process.

    Raises:
        InputError: the artifact does not load; with the child's words.
    """
    command = [sys.executable, "-m", "slimrank.evaluation.resident", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = done.stderr.strip() or f"the child ended with {done.returncode}"
        raise InputError(f"{path}: cannot measure resident memory: {words.splitlines()[-1]}")
    return int(json.loads(done.stdout)["resident"])


class Timed(Protocol):
    """Whatever has an onnxruntime session, such as a `runtime.Model`."""

    @property
    def session(self) -> Any:
        """The session, with inputs `ids` and, where there are numbers, `numbers`."""


def latency(
    models: Mapping[str, Timed],
    inputs: Inputs | Mapping[str, Inputs],
    sizes: Sequence[int] = (1, 32, 256),
    samples: int = 400,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Milliseconds of `session.run` on encoded rows: name -> rows ("1", ...) -> `p50`, `p99`, `samples`, intervals.

    `p50_interval` and `p99_interval` are 95% intervals that assume nothing of the distribution (`quantile_interval`).

    The models take turns of `TURN` calls in one run, so that whatever else the machine does hits all of them, while
    each has its weights in the cache as it has where it is served alone; every sample is another stretch of rows, so
    that lookups are as cold as they would be. After a warm-up, with garbage collection off.
    The number of threads is that of each session.

    Args:
        models: name -> loaded model.
        inputs: encoded rows, for all models or by name where models encode differently.
        sizes: rows per call.
        samples: calls per model and size; at least 368.

    Raises:
        InputError: too few samples, no rows.
    """
    if samples < LEAST_SAMPLES:
        raise InputError(f"samples: got {samples}, allowed {LEAST_SAMPLES} or more; fewer cannot bound a p99")
    rows = inputs if isinstance(inputs, Mapping) else dict.fromkeys(models, inputs)
    empty = [name for name in models if not len(rows[name].ids)]
    if empty:
        raise InputError(f"no rows to time: {', '.join(empty)}")
    found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in models}
    for size in sizes:
        calls = {name: _calling(model.session, rows[name], size) for name, model in models.items()}
        for name, taken in take_turns(calls, samples).items():
            found[name][str(size)] = summary(taken / 1e6)
    return found


def summary(taken: NDArray[np.float64]) -> dict[str, Any]:
    """Median and 99th percentile of milliseconds, with their intervals, other quantiles, and of how many calls."""
    p50, p99 = (round(float(value), 6) for value in np.percentile(taken, [50, 99]))
    of_p50, of_p99 = ([round(bound, 6) for bound in quantile_interval(taken, share)] for share in (0.5, 0.99))
    others = {str(share): round(float(np.percentile(taken, share)), 6) for share in SPREAD}
    known = {"p50": p50, "p99": p99, "samples": len(taken), "p50_interval": of_p50, "p99_interval": of_p99}
    return {**known, "quantiles": others}


def quantile_interval(values: ArrayLike, share: float, level: float = 0.95) -> tuple[float, float]:
    """An interval for a quantile of whatever distribution: two of the sorted values.

    Below the quantile lie B of n values, B being binomial (n, share): the interval from the l-th to the u-th
    value holds it with at least `level`, l and u being the points of B at (1 - level) / 2 on either side (David and
    Nagaraja 2003, "Order statistics", section 7.1).

    >>> quantile_interval(range(1, 101), 0.5)
    (40.0, 61.0)

    Raises:
        InputError: too few values for any of them to be a bound.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    count = len(ordered)
    below = np.cumsum(_binomial(count, share))  # chance that at most k values lie below the quantile
    rest = (1 - level) / 2
    low = int(np.searchsorted(below, rest, side="right"))
    high = int(np.searchsorted(below, 1 - rest, side="left")) + 1
    if low < 1 or high > count:
        raise InputError(f"{count} values bound no {share:.0%} quantile at {level:.0%}")
    return float(ordered[low - 1]), float(ordered[high - 1])


def _binomial(count: int, share: float) -> NDArray[np.float64]:
    """The chance of k successes out of `count`, for k from 0 on."""
    successes = np.arange(count + 1)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])
    logs = factorials[count] - factorials[successes] - factorials[count - successes]
    return np.asarray(np.exp(logs + successes * math.log(share) + (count - successes) * math.log1p(-share)))


def throughput(
    models: Mapping[str, Timed], inputs: Mapping[str, Inputs], workers: int, size: int = 256, seconds: float = 0.4
) -> dict[str, float]:
    """Rows a second of each model, `workers` callers asking at once for `size` rows a call; models take two turns.

    Raises:
        InputError: there are no rows.
    """
    empty = [name for name in models if not len(inputs[name].ids)]
    if empty:
        raise InputError(f"no rows to score: {', '.join(empty)}")
    rates: dict[str, list[float]] = {name: [] for name in models}
    with _no_collection(), ThreadPoolExecutor(workers) as pool:
        for _ in range(2):
            for name, model in models.items():
                names = {one.name for one in model.session.get_inputs()}
                feeds = [_stretch(inputs[name], start * size, size, names) for start in range(STRETCHES)]
                begin = time.perf_counter()
                until = begin + seconds
                calls = sum(pool.map(lambda _, s=model.session, f=feeds, u=until: _calls(s, f, u), range(workers)))
                rates[name].append(calls * size / (time.perf_counter() - begin))
    return {name: max(found) for name, found in rates.items()}


def _calls(session: Any, feeds: Sequence[dict[str, NDArray[Any]]], until: float) -> int:
    """How often the session answered before that time, asked for one stretch of rows after the other."""
    count = 0
    while time.perf_counter() < until:
        session.run(None, feeds[count % len(feeds)])
        count += 1
    return count


Prepared = Callable[[int], Callable[[], object]]
"""What gets sample number i ready, untimed, and gives the call that is timed."""


def take_turns(calls: Mapping[str, Prepared], samples: int) -> dict[str, NDArray[np.int64]]:
    """Nanoseconds of every call [samples], `TURN` calls of each name after the other; after a warm-up."""
    taken = {name: np.empty(samples, dtype=np.int64) for name in calls}
    with _no_collection():
        for start in range(-WARM_UP, samples, TURN):
            for name, prepare in calls.items():
                for sample in range(start, min(start + TURN, samples)):
                    call = prepare(sample)
                    begin = time.perf_counter_ns()
                    call()
                    # A negative sample is warm-up: it is overwritten by the real ones at the end of the list.
                    taken[name][sample] = time.perf_counter_ns() - begin
    return taken


def _calling(session: Any, rows: Inputs, size: int) -> Prepared:
    """Runs of the session, `size` rows a call, every sample another stretch of `rows`."""
    names = {one.name for one in session.get_inputs()}

    def prepare(sample: int) -> Callable[[], object]:
        feeds = _stretch(rows, sample * size, size, names)
        return lambda: session.run(None, feeds)

    return prepare


def _stretch(inputs: Inputs, start: int, size: int, names: set[str]) -> dict[str, NDArray[Any]]:
    """`size` rows from `start` on, round and round, as the session's feeds."""
    index = np.arange(start, start + size) % len(inputs.ids)
    feeds = {"ids": inputs.ids, "numbers": inputs.numbers}
    return {name: array[index] for name, array in feeds.items() if name in names}


@contextmanager
def _no_collection() -> Iterator[None]:
    """Garbage collected before and off within."""
    gc.collect()
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


@dataclass(frozen=True)
class Floor:
    """The lookups of a model and nothing else; `latency` times it like a model, on its own `inputs`."""

    session: Any
    inputs: Inputs


def floor(inputs: Inputs, encoding: Encoding, table_bytes: int, threads: int = 1) -> Floor:
    """The same ids, looked up in onnxruntime in one table of the same bytes: no model of these lookups is faster.

    Args:
        inputs: encoded rows, local ids [N, K].
        encoding: names the field behind each column, and how many ids it has.
        table_bytes: of all tables of the model together; a row of the floor's has table_bytes / ids, at least one.
        threads: as the models'.

    Raises:
        InputError: there are no ids, or the table is 2 GB or more, which no single graph can hold.
    """
    if not encoding.sizes:
        raise InputError("the floor needs a categorical or sequence field: this model looks nothing up")
    num_rows = sum(encoding.sizes.values())
    width = max(1, round(table_bytes / num_rows))
    if num_rows * width >= 2**31 - 2**16:
        raise InputError(f"the floor needs a table below 2 GB, got {num_rows} rows of {width} bytes")
    starts = dict(zip(encoding.sizes, np.cumsum([0, *encoding.sizes.values()]), strict=False))
    offsets = np.array([starts[name] for name in encoding.schema.columns])
    numbers = np.empty((len(inputs.ids), 0), dtype=np.float32)
    ids = (inputs.ids + offsets).astype(np.int32)
    return Floor(_lookup(num_rows, width, len(offsets), threads), Inputs(ids, numbers))


def _lookup(num_rows: int, width: int, columns: int, threads: int) -> Any:
    """A session of one Gather from uint8 [num_rows, width]."""
    import onnxruntime
    from onnx import TensorProto, helper

    content = np.random.default_rng(0).bytes(num_rows * width)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["rows"])],
        "floor",
        [helper.make_tensor_value_info("ids", TensorProto.INT32, ["n", columns])],
        [helper.make_tensor_value_info("rows", TensorProto.UINT8, ["n", columns, width])],
        [helper.make_tensor("table", TensorProto.UINT8, [num_rows, width], content, raw=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
