"""Split graphs answer as the unsplit ones do, whatever is shared, and layers of integers stay so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from slimrank.compression.steps import Context, compress
from slimrank.config import as_config, entries, runner
from slimrank.exporting.graph import build_graph, write_graph
from slimrank.exporting.optimized import (
    DENSE,
    INTEGER,
    constant_faults,
    gather_faults,
    integer_faults,
    optimized_graph,
)
from slimrank.exporting.pack import pack
from slimrank.graphs.shared import split_shared
from slimrank.models.architecture import build_model
from slimrank.models.layers import Ranker
from slimrank.tables.embedding import FusedEmbedding, Layout
from slimrank.training.examples import Examples

RANKERS = sorted(n for n, e in entries("model").items() if issubclass(e.run, Ranker) and n != "cross-encoder")
STEPS: dict[str, list[Any]] = {
    "floats": [],
    "integers": [{"name": "quantize-tables", "bits": 4}, "quantize-dense"],
    "float tables, integer layers": ["quantize-dense"],
}
FIELDS = Layout(("user", "item", "city", "tags"), (40, 30, 8, 7), (1, 1, 1, 3), 2, ("tags",))
PAIR = Layout(("user", "item"), (40, 30), (1, 1))
TABLES = {
    "codebook": {"parts": 2, "bits": 4},
    "hashed": {"buckets": 16},
    "low-rank": {"rank": 4},
    "sparse": {"keep": 0.5},
    "remapped": {"keep": 0.5, "inner": {"name": "scaled", "bits": 4}},
    "scaled": {"bits": 4},
}
Splits = Sequence[tuple[set[int], set[int]]]


def width_of(path: Path) -> int:
    """How many numbers a graph takes."""
    inputs = onnx.load(path, load_external_data=False).graph.input
    return next((value.type.tensor_type.shape.dim[1].dim_value for value in inputs if value.name == "numbers"), 0)


def splits(columns: int, numbers: int) -> Splits:
    """Nothing shared, everything, a half, a column of each kind alone, and some by chance."""
    draw = np.random.default_rng(columns)
    ids, others = draw.random(columns) < 0.5, draw.random(numbers) < 0.5
    return [
        (set(), set()),
        (set(range(columns)), set(range(numbers))),
        (set(range(0, columns, 2)), set(range(0, numbers, 2))),
        *(({column}, set()) for column in {0, columns - 1}),
        (set(), set(range(numbers))),
        (set(np.flatnonzero(ids).tolist()), set(np.flatnonzero(others).tolist())),
    ]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Makes the graph of a small untrained ranker once: its path, and the number of ids of each column."""
    folder = tmp_path_factory.mktemp("rankers")

    @cache
    def make(architecture: str, steps: str) -> tuple[Path, list[int]]:
        layout = PAIR if architecture == "gmf" else FIELDS
        limits = [size for size, width in zip(layout.sizes, layout.widths, strict=True) for _ in range(width)]
        torch.manual_seed(0)
        small: dict[str, Any] = {"embedding_dim": 8, "hidden": (16, 8), "embedding_std": 0.3}
        if architecture == "logistic-regression":
            small = {}
        if architecture == "gmf":
            del small["hidden"]
        more = {"finalmlp": {"second_hidden": (8,)}, "dlrm": {"bottom": (8,)}}.get(architecture, {})
        model = build_model(as_config("model", {"name": architecture, **small, **more}), layout, seed=1)
        ids = torch.stack([torch.randint(0, limit, (200,)) for limit in limits], dim=1).to(torch.int32)
        rows = Examples(ids, torch.randn(200, layout.numbers), torch.randint(0, 2, (200,)).float())
        model, _ = compress(model, STEPS[steps], Context(rows, rows))
        graph = build_graph(pack(model.eval()), len(limits), layout.numbers)
        path = folder / architecture / steps / "model.onnx"
        path.parent.mkdir(parents=True)
        return write_graph(graph, path, external_from=1 << 8)[0], limits

    return make


@pytest.mark.parametrize("steps", ["floats", "integers"])
@pytest.mark.parametrize("architecture", RANKERS)
def test_a_split_graph_answers_as_the_unsplit_one(graphs, apart, architecture: str, steps: str) -> None:
    path, limits = graphs(architecture, steps)
    width = width_of(path)
    for ids, numbers in splits(len(limits), width):
        for rows in (1, 7, 256):
            assert apart(path, ids, numbers, limits, rows) <= 1e-5, (ids, numbers, rows)


@pytest.mark.parametrize("kind", sorted(set(TABLES) | set(entries("table"))))
def test_every_kind_of_table_is_looked_up_once_for_shared_columns(apart, kind: str, tmp_path: Path) -> None:
    layout = Layout(("a", "b", "c", "d"), (60, 50, 40, 30), (1, 1, 1, 1))
    torch.manual_seed(0)
    config = as_config("table", {"name": kind, **TABLES.get(kind, {})})
    table = runner("table", config)(config, torch.randn(layout.num_rows, 16), torch.tensor(layout.starts))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = FusedEmbedding(layout, table).pack()
            self.out = nn.Linear(4 * 16, 1)

        def forward(self, ids: Tensor) -> Tensor:
            looked_up = self.embedding.look_up(ids, self.embedding.offsets)
            logit: Tensor = self.out(looked_up.flatten(1)).squeeze(1)
            return logit

    path = write_graph(build_graph(Network().eval().requires_grad_(False), 4), tmp_path / "model.onnx")[0]
    for ids in ({0, 2}, {1}, {0, 1, 2, 3}):
        assert apart(path, ids, set(), layout.sizes, 7) <= 1e-5
    assert (split_shared(path, {0, 2}).joined == ()) == (kind != "sparse")  # its rows are as long as they are


@pytest.mark.parametrize("steps", ["integers", "float tables, integer layers"])
@pytest.mark.parametrize("architecture", ["dnn", "dcnv2"])
def test_layers_of_integers_stay_so_and_answer_the_same_bits(graphs, apart, architecture: str, steps: str) -> None:
    path, limits = graphs(architecture, steps)
    before = Counter(node.op_type for node in optimized_graph(path).graph.node)
    for ids, numbers in (({0, 2, 3, 4, 5}, set()), ({1, 2}, {0})):
        split = split_shared(path, ids, numbers).proto
        optimized = optimized_graph(split.SerializeToString(), path.parent)
        after = Counter(node.op_type for node in optimized.graph.node)
        assert [*gather_faults(optimized), *integer_faults(split, optimized), *constant_faults(optimized)] == []
        for operators in (INTEGER - {"MatMulInteger"}, DENSE):
            assert sum(after[name] for name in operators) == sum(before[name] for name in operators)
        assert after["MatMulInteger"] > 0
        if architecture == "dnn":
            assert apart(path, ids, numbers, limits, 256) == 0.0


def test_a_layer_of_its_own_for_bytes_is_split_as_a_convolution(apart, tmp_path: Path) -> None:
    layout = Layout(("a", "b", "c"), (60, 50, 40), (1, 1, 1))
    torch.manual_seed(0)
    ids = torch.stack([torch.randint(0, size, (200,)) for size in layout.sizes], dim=1).to(torch.int32)
    rows = Examples(ids, torch.zeros(200, 0), torch.randint(0, 2, (200,)).float())
    model = build_model(as_config("model", {"name": "dnn", "embedding_dim": 8, "hidden": (16, 8)}), layout, seed=1)
    model, _ = compress(model, STEPS["integers"], Context(rows, rows))
    path = write_graph(build_graph(pack(model.eval()), 3), tmp_path / "model.onnx")[0]
    split = split_shared(path, {0, 2})
    assert split.joined == ()
    operators = Counter(node.op_type for node in optimized_graph(split.proto.SerializeToString()).graph.node)
    assert (operators["QLinearConv"], operators["MatMulInteger"], operators["Conv"]) == (2, 1, 0)
    assert apart(path, {0, 2}, set(), layout.sizes, 256) == 0.0


def sizes(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]


def test_shared_columns_are_looked_up_and_multiplied_for_one_row(graphs) -> None:
    """Of the nodes behind the candidates' ids none looks shared columns up, and their first layers are narrower."""
    path, _ = graphs("deepfm", "floats")
    split = split_shared(path, {0, 3, 4, 5}, {0, 1})
    assert split.joined == ()
    assert split.once > 10
    inputs = {
        value.name: [d.dim_value or d.dim_param for d in value.type.tensor_type.shape.dim]
        for value in split.proto.graph.input
    }
    assert inputs == {"shared_ids": [1, 4], "ids": ["N", 2], "shared_numbers": [1, 2]}
    assert sizes(split.proto.graph.output[0]) == ["N"]


def test_products_of_all_pairs_are_joined_and_said(graphs) -> None:
    path, _ = graphs("dlrm", "floats")
    assert split_shared(path, {0}, set()).joined == ("MatMul",)


def test_weights_beside_the_graph_stay_where_they_are(graphs) -> None:
    path, _ = graphs("dnn", "floats")
    before = onnx.load(path, load_external_data=False)
    split = split_shared(path, {0}, set()).proto
    beside = {each.name for each in before.graph.initializer if each.external_data}
    assert "embedding.table.weight" in beside
    assert {each.name for each in split.graph.initializer if each.external_data} == beside
    assert split.ByteSize() < path.stat().st_size * 4
    assert not [each for each in split.graph.initializer if each.external_data and each.raw_data]
