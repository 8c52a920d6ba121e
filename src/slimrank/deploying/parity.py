"""Whether deployments answer as their artifact does: made requests through every target's own runtime, held together.

What differs is told as a probability, for each row, and as the first ten of each request. Requests are drawn as golden
rows are, so that nobody's rows are needed; a file of rows can be given. Left out: speed, which is of the machine.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slimrank.config import Config, InputError, as_config, entries, name_of, nearest
from slimrank.data.encoding import Inputs
from slimrank.data.golden import made_rows
from slimrank.deploying.asking import WITHIN, ask, deployed_graph, difference, golden_feeds, tensor_graph
from slimrank.deploying.deploy import RECORD, deploy
from slimrank.files import read_json
from slimrank.runtime import Graph, Retriever
from slimrank.runtime.files import read_rows
from slimrank.runtime.loading import load_any
from slimrank.runtime.opened import Opened

if TYPE_CHECKING:
    from slimrank.runtime.rows import Rows

FEWEST, MOST = 10, 100  # candidates of a made request
TOP = 10
SHARE = 0.999  # of requests, at least, have rows within `WITHIN` and the same first ten
TIED = 1e-6  # of max(1, |x|): scores as near as this have no order
POOL = 256  # times eight golden rows, whose fields are mixed
ITEMS = 2048  # of a catalogue
QUERIES = 256  # of those that are made for a model that finds items

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Requests:
    """What is asked: tensors by input, and where each request's rows begin (and the last one ends)."""

    feeds: Arrays
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1


@dataclass(frozen=True)
class Parity:
    """What one target's answers are to the artifact's.

    Attributes:
        target: its name.
        refused: why nothing was asked of it; empty where it was.
        bytes: of its folder.
        rows: of all requests.
        largest: difference, as `difference` measures it.
        rows_within: the share of rows that are within 1e-3.
        requests_within: the share of requests all of whose rows are.
        same_top: the share of requests with the same first ten; None where there are none to rank.
        agrees: whether both shares are at least 99.9%.
    """

    target: str
    refused: str = ""
    bytes: int = 0
    rows: int = 0
    largest: float = 0.0
    rows_within: float = 0.0
    requests_within: float = 0.0
    same_top: float | None = None
    agrees: bool = False

    def plain(self) -> dict[str, Any]:
        """As JSON has it: a difference that is not finite as text."""
        found = asdict(self)
        return {**found, "largest": found["largest"] if np.isfinite(found["largest"]) else "infinite"}


def parity(
    artifact: str | Path,
    targets: Sequence[str | Mapping[str, Any] | Config],
    *,
    requests: int = 1000,
    rows: Rows | Path | None = None,
    folders: Sequence[str | Path] = (),
    seed: int = 0,
) -> list[Parity]:
    """Deploy the artifact to every target, ask each the golden rows and the same requests, and compare the answers.

    Args:
        artifact: what answers are held to, as ONNX Runtime gives them here.
        targets: names, or configs as `deploy` takes them.
        requests: how many are made, of 10 to 100 candidates each (of one query, for a model that finds items).
        rows: raw rows to ask instead, in requests of `MOST`: a .parquet or .csv file, a frame, a mapping of columns or
            a list.
        folders: what was deployed before, which has to be of this very artifact.
        seed: of the drawing.

    Raises:
        InputError: a target is unknown, a folder is of another artifact, or rows do not fit. What a target refuses is
            in its result.
    """
    opened = load_any(artifact)
    configs = [_config(target) for target in targets]
    found = [(_recorded(Path(folder), opened, configs), Path(folder)) for folder in folders]
    asked = _given(opened, rows) if rows is not None else _made(opened, requests, seed)
    wanted = _all_answers(tensor_graph(opened), opened, asked)
    results = []
    told = {name_of(config) for config, _ in found}
    for config in configs:
        if name_of(config) not in told:
            with tempfile.TemporaryDirectory() as work:
                try:
                    folder = deploy(f"model={artifact}", Path(work), config)
                except InputError as error:
                    results.append(Parity(name_of(config), refused=str(error)))
                    continue
                results.append(_held(opened, config, folder, asked, wanted))
    return results + [_held(opened, config, folder, asked, wanted) for config, folder in found]


def _config(target: str | Mapping[str, Any] | Config) -> Config:
    config: Config = as_config("deployment target", target)
    if name_of(config) not in entries("deployed"):
        allowed = nearest(name_of(config), entries("deployed"))
        raise InputError(f"target {name_of(config)!r} has no runtime that could be asked here. {allowed}")
    return config


def _recorded(folder: Path, opened: Opened | Graph, configs: Sequence[Config]) -> Config:
    """The target of a folder that was deployed: as it was given, or as the record has it."""
    try:
        record: Any = read_json(folder / RECORD)
        target, digest = dict(record["target"]), record["artifact"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{folder}: was not deployed by slimrank, its {RECORD} cannot be read: {error}") from None
    if digest != opened.artifact.digest:
        raise InputError(f"{folder}: was deployed from artifact {str(digest)[:12]}, not {opened.artifact.digest[:12]}")
    return next((each for each in configs if name_of(each) == target.get("name")), None) or _config(target)


def _held(opened: Opened | Graph, config: Config, folder: Path, asked: Requests, wanted: list[Arrays]) -> Parity:
    """One target's answers, held to the artifact's."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != RECORD)
    try:
        found = _all_answers(deployed_graph(opened, config, folder), opened, asked)
        _check_shapes(wanted, found)
    except InputError as error:
        return Parity(name_of(config), refused=str(error), bytes=size)
    golden = max((_apart(a, b).max() for a, b in zip(wanted[1:], found[1:], strict=True)), default=0.0)
    apart = _apart(wanted[0], found[0])
    within = apart <= WITHIN
    per_request = np.array([within[a:b].all() for a, b in zip(asked.starts, asked.starts[1:], strict=False)])
    top = same_top(opened, asked, wanted[0], found[0])
    shares = [float(per_request.mean()), *([] if top is None else [top])]
    return Parity(
        target=name_of(config),
        bytes=size,
        rows=len(apart),
        largest=float(max(apart.max(), golden)),
        rows_within=float(within.mean()),
        requests_within=shares[0],
        same_top=top,
        agrees=min(shares) >= SHARE and bool(golden <= WITHIN),
    )


def _all_answers(graph: Graph, opened: Opened | Graph, asked: Requests) -> list[Arrays]:
    """The answers to the requests, and to the golden rows where there are any."""
    golden = golden_feeds(opened)
    feeds = asked.feeds
    return [ask(graph, each) for each in ([feeds] if golden is None else [feeds, golden])]


def _check_shapes(wanted: list[Arrays], found: list[Arrays]) -> None:
    """Raises `InputError` where an answer is of another shape: there is nothing to hold it to, number by number."""
    for a, b in zip(wanted, found, strict=True):
        for name, array in a.items():
            if b[name].shape != array.shape:
                raise InputError(f"{name} is {list(b[name].shape)} where the artifact gives {list(array.shape)}")


def _apart(wanted: Arrays, found: Arrays) -> NDArray[np.float64]:
    """By row how far answers are apart, at most."""
    parts = []
    for name, array in wanted.items():
        parts.append(difference(name, array, found[name]).reshape(len(array) if array.ndim else 1, -1).max(axis=1))
    rows = max(map(len, parts))
    apart: NDArray[np.float64] = np.stack([each if len(each) == rows else np.full(rows, each.max()) for each in parts])
    return np.asarray(apart.max(axis=0))


# requests


def _made(opened: Opened | Graph, count: int, seed: int) -> Requests:
    """Requests that no one made. Of a model that is asked by tensors: its golden rows, with other ids and numbers."""
    if count < 1:
        raise InputError(f"requests: got {count}, allowed 1 or more")
    draw = np.random.default_rng(seed)
    if isinstance(opened, Graph):
        return _of_tensors(opened, draw)
    one_each = isinstance(opened, Retriever)
    lengths = np.ones(min(count, QUERIES), np.int64) if one_each else draw.integers(FEWEST, MOST + 1, count)
    schema, sizes = opened.encoding.schema, opened.encoding.sizes
    pool = [made_rows(schema, sizes, seed + place) for place in range(POOL)]
    ids, numbers = (np.concatenate([getattr(each, side) for each in pool]) for side in ("ids", "numbers"))
    rows = int(lengths.sum())
    names = np.array(schema.columns)
    for name in dict.fromkeys(schema.columns):  # a field's columns go together
        ids = _mixed(ids, np.flatnonzero(names == name), rows, draw)
    for column in range(numbers.shape[1]):
        numbers = _mixed(numbers, np.array([column]), rows, draw)
    return _requests(opened, Inputs(ids[:rows], numbers[:rows]), lengths)


def _mixed(pool: NDArray[Any], columns: NDArray[np.int64], rows: int, draw: np.random.Generator) -> NDArray[Any]:
    """The pool, made long enough, with some columns from other rows of it."""
    long = np.resize(pool, (max(rows, len(pool)), pool.shape[1]))
    long[:, columns] = pool[draw.integers(0, len(pool), len(long))][:, columns]
    return long


def _given(opened: Opened | Graph, rows: Rows | Path) -> Requests:
    """Raw rows, in requests of `MOST` in their order."""
    if isinstance(opened, Graph):
        raise InputError(f"{opened.artifact.path}: is asked by the tensors of its graph, and takes no rows")
    inputs = opened.encoder(read_rows(rows, [opened.encoding]) if isinstance(rows, Path) else rows)[0]
    if not len(inputs.ids):
        raise InputError("rows: there are none")
    size = 1 if isinstance(opened, Retriever) else MOST
    lengths = [min(size, len(inputs.ids) - start) for start in range(0, len(inputs.ids), size)]
    return _requests(opened, inputs, np.array(lengths))


def _requests(opened: Opened, inputs: Inputs, lengths: NDArray[np.int64]) -> Requests:
    given: Arrays = {"ids": inputs.ids, "numbers": inputs.numbers}
    if isinstance(opened, Retriever) and "items" in opened.feeds:
        places = np.unique(np.linspace(0, opened.count - 1, min(opened.count, ITEMS)).astype(np.int32))
        given["items"] = (opened.first_item + places).astype(np.int32)
    feeds = {name: np.ascontiguousarray(given[name]) for name in opened.feeds}
    return Requests(feeds, np.concatenate([[0], np.cumsum(lengths)]))


def _of_tensors(graph: Graph, draw: np.random.Generator) -> Requests:
    golden = golden_feeds(graph)
    if golden is None:
        raise InputError(f"{graph.artifact.path}: has no golden rows, which say what it is asked")
    feeds = {}
    for name, array in golden.items():
        if array.dtype.kind == "f":
            feeds[name] = draw.normal(size=array.shape).astype(array.dtype)
            continue
        feeds[name] = array.copy()
        for first, last, rows in graph.bounds.get(name, []):
            part = feeds[name] if last is None else feeds[name][:, first:last]
            part[...] = draw.integers(0, rows, part.shape)
    rows = max((len(each) for each in ask(graph, feeds).values() if each.ndim), default=1)
    return Requests(feeds, np.array([0, rows]))


# the first ten


def same_top(opened: Opened | Graph, asked: Requests, wanted: Arrays, found: Arrays) -> float | None:
    """The share of requests with the same first ten; scores that are equal but for the last places have no order."""
    if isinstance(opened, Graph):
        return None
    a, b = _rankings(asked, wanted), _rankings(asked, found)
    return None if not a else float(np.mean([_is_same(one, other) for one, other in zip(a, b, strict=True)]))


def _rankings(asked: Requests, answers: Arrays) -> list[NDArray[np.float64]]:
    """By request the scores of its candidates; none where nothing is ranked."""
    if "logit" in answers:
        logits = answers["logit"].astype(np.float64)
        return [logits[a:b] for a, b in zip(asked.starts, asked.starts[1:], strict=False)]
    if "scores" in answers:
        return list(answers["scores"].astype(np.float64))
    if "item_vector" in answers:
        return list(answers["vector"].astype(np.float64) @ answers["item_vector"].astype(np.float64).T)
    return []


def _is_same(wanted: NDArray[np.float64], found: NDArray[np.float64]) -> bool:
    count = min(TOP, len(wanted))
    first = np.argsort(-np.nan_to_num(found, nan=-np.inf), kind="stable")[:count]
    cut = np.sort(wanted)[-count]
    tied = TIED * max(1.0, abs(cut)) if np.isfinite(cut) else 0.0
    left_out = np.delete(wanted, first)
    return bool((wanted[first] >= cut - tied).all() and (left_out <= cut + tied).all())
