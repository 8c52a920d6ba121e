"""Real graphs: exported by torch, and put together node by node as other converters do."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from slimrank.exporting.optimized import BESIDE
from slimrank.graphs.shared import split_shared

Arrays = dict[str, np.ndarray]
ROWS, USERS, ITEMS, HISTORY = 400, 60, 90, 5


class Clicks(nn.Module):
    """A ranker of DLRM's form: tables, a bag of a history, numbers through a tower of their own."""

    def __init__(self, dim: int = 16):
        super().__init__()
        self.user, self.item = nn.Embedding(USERS, dim), nn.Embedding(ITEMS, dim, padding_idx=0)
        self.history = nn.EmbeddingBag(ITEMS, dim, mode="mean")
        self.numbers = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, dim), nn.ReLU())
        self.tower = nn.Sequential(nn.Linear(4 * dim, 48), nn.ReLU(), nn.Linear(48, 24), nn.ReLU(), nn.Linear(24, 1))

    def forward(self, user: Tensor, item: Tensor, history: Tensor, numbers: Tensor) -> Tensor:
        parts = [self.user(user), self.item(item), self.history(history), self.numbers(numbers)]
        return torch.sigmoid(self.tower(torch.cat(parts, dim=1)).squeeze(1))


class Sequences(nn.Module):
    """A transformer block over a history, scored against every item of the same table."""

    def __init__(self, dim: int = 32):
        super().__init__()
        self.items, self.places = nn.Embedding(ITEMS, dim, padding_idx=0), nn.Embedding(HISTORY, dim)
        self.block = nn.TransformerEncoderLayer(dim, 2, 2 * dim, batch_first=True, norm_first=True, activation="gelu")

    def forward(self, history: Tensor) -> Tensor:
        states = self.block(self.items(history) + self.places.weight)
        return states[:, -1] @ self.items.weight.T


def arrays_of(rows: int = ROWS, seed: int = 0) -> Arrays:
    draw = np.random.default_rng(seed)
    return {
        "user": draw.integers(0, USERS, rows),
        "item": draw.integers(0, ITEMS, rows),
        "history": draw.integers(0, ITEMS, (rows, HISTORY)),
        "numbers": draw.normal(size=(rows, 4)).astype(np.float32),
    }


def exported(module: nn.Module, names: Sequence[str], path: Path, opset: int, *, external: bool = False) -> Path:
    """The module as torch exports it, with any number of rows."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    arrays = arrays_of(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            tuple(torch.from_numpy(arrays[name]) for name in names),
            dynamo=True,
            opset_version=opset,
            input_names=list(names),
            dynamic_shapes=tuple({0: torch.export.Dim.DYNAMIC} for _ in names),
            verbose=False,
        )
    logging.getLogger("torch.onnx").setLevel(level)
    assert program is not None
    program.save(path, external_data=external)
    return path


@pytest.fixture(scope="session")
def clicks(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The ranker at an opset, exported once for each."""
    folder, made = tmp_path_factory.mktemp("clicks"), dict[int, Path]()

    def at(opset: int) -> Path:
        if opset not in made:
            torch.manual_seed(1)
            names = ("user", "item", "history", "numbers")
            made[opset] = exported(Clicks(), names, folder / f"clicks-{opset}.onnx", opset)
        return made[opset]

    return at


@pytest.fixture(scope="session")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(2)
    return exported(Sequences(), ("history",), tmp_path_factory.mktemp("sequences") / "sequences.onnx", 20)


@pytest.fixture
def arrays() -> Callable[..., Arrays]:
    return arrays_of


def saved(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Sequence[Any]]],
    outputs: Sequence[str],
    constants: Mapping[str, np.ndarray],
    opset: int = 17,
    *,
    external: bool = False,
) -> Path:
    """A graph from its nodes; inputs are name to type and axes."""
    graph = helper.make_graph(
        list(nodes),
        "made",
        [helper.make_tensor_value_info(name, kind, list(axes)) for name, (kind, axes) in inputs.items()],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    model.metadata_props.add(key="owner", value="search")
    if external:
        onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=0)
    else:
        onnx.save(model, path)
    return path


INT64, FLOAT = onnx.TensorProto.INT64, onnx.TensorProto.FLOAT


@pytest.fixture
def lookup(tmp_path: Path) -> Callable[..., Path]:
    """ids [N, K] to rows of one table [rows, D], with an offset a column where there are `starts`."""

    def make(table: np.ndarray, starts: Sequence[int] = (), opset: int = 17, *, external: bool = False) -> Path:
        nodes, constants, ids = [], {"table": table}, "ids"
        if starts:
            nodes.append(helper.make_node("Add", ["ids", "starts"], ["shifted"]))
            constants["starts"], ids = np.array(starts, np.int64), "shifted"
        nodes.append(helper.make_node("Gather", ["table", ids], ["rows"], axis=0))
        inputs = {"ids": (INT64, ["N", max(1, len(starts))])}
        return saved(tmp_path / "lookup.onnx", nodes, inputs, ["rows"], constants, opset, external=external)

    return make


@pytest.fixture
def graph_file(tmp_path: Path) -> Callable[..., Path]:
    """A graph from nodes, inputs (name to type and axes), outputs and constants."""
    return lambda *parts, **options: saved(tmp_path / "graph.onnx", *parts, **options)


@pytest.fixture
def layer(tmp_path: Path) -> Callable[..., Path]:
    """x [N, in], or [N, T, in], through the given nodes, which read constants; the last output is y."""

    def make(
        nodes: Sequence[onnx.NodeProto], constants: Mapping[str, np.ndarray], axes: Sequence[Any], opset: int = 17
    ):
        return saved(tmp_path / "layer.onnx", nodes, {"x": (FLOAT, axes)}, ["y"], constants, opset)

    return make


def answers(path: Path, feeds: Arrays) -> np.ndarray:
    """The first output of a graph in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    known = {each.name for each in session.get_inputs()}
    found: np.ndarray = session.run(None, {name: array for name, array in feeds.items() if name in known})[0]
    return found


@pytest.fixture
def run() -> Callable[[Path, Arrays], np.ndarray]:
    return answers


@pytest.fixture
def constants() -> Callable[[Path], Arrays]:
    """The initialisers of a graph, by name."""
    return lambda path: {each.name: numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}


def decibels(signal: np.ndarray, other: np.ndarray) -> float:
    error = float(np.square(signal.astype(np.float64) - other).mean())
    return 10 * np.log10(float(np.square(signal).mean()) / max(error, 1e-30))


@pytest.fixture
def over_noise() -> Callable[[np.ndarray, np.ndarray], float]:
    return decibels


def session(graph: Path | bytes, beside: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if beside is not None:
        options.add_session_config_entry(BESIDE, str(beside))
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def apart(path: Path, ids: set[int], numbers: set[int], limits: Sequence[int], rows: int, seed: int = 0) -> float:
    """The largest difference between the split graph's logits and the unsplit one's, relative to max(1, |logit|)."""
    draw = np.random.default_rng(seed)
    (unsplit, width), split = opened(path), split_of(path, frozenset(ids), frozenset(numbers))
    whole = {
        "ids": np.stack([draw.integers(0, limit, rows) for limit in limits], axis=1).astype(np.int32),
        "numbers": draw.normal(size=(rows, width)).astype(np.float32),
    }
    feeds = {}
    for name, columns in (("ids", sorted(ids)), ("numbers", sorted(numbers))):
        whole[name][:, columns] = whole[name][:1, columns]
        feeds |= {name: np.delete(whole[name], columns, axis=1), f"shared_{name}": whole[name][:1, columns]}
    (expected,) = unsplit.run(["logit"], {each.name: whole[each.name] for each in unsplit.get_inputs()})
    (found,) = split.run(["logit"], {each.name: feeds[each.name] for each in split.get_inputs()})
    all_shared = not any(each.name in ("ids", "numbers") for each in split.get_inputs())
    assert found.shape == ((1,) if all_shared else (rows,))
    return float((np.abs(found - expected) / np.maximum(1, np.abs(expected))).max())


@cache
def opened(path: Path) -> tuple[onnxruntime.InferenceSession, int]:
    """The unsplit session, and how many numbers it takes."""
    unsplit = session(path)
    return unsplit, next((each.shape[1] for each in unsplit.get_inputs() if each.name == "numbers"), 0)


@cache
def split_of(path: Path, ids: frozenset[int], numbers: frozenset[int]) -> onnxruntime.InferenceSession:
    return session(split_shared(path, ids, numbers).proto.SerializeToString(), path.parent)


@pytest.fixture(name="apart")
def apart_fixture() -> Callable[..., float]:
    """Measures how far the answers of a split graph lie from those of the unsplit one."""
    return apart
