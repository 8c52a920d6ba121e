"""Split graphs answer as the unsplit ones do, whatever is shared, and layers of integers stay so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from slimrank.compression.steps import Context, compress
from slimrank.config import InputError, as_config, entries, runner
from slimrank.exporting.graph import build_graph, write_graph
from slimrank.exporting.optimized import (
    BESIDE,
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
def test_a_split_graph_answers_as_the_unsplit_one(graphs, architecture: str, steps: str) -> None:
    path, limits = graphs(architecture, steps)
    _, width = opened(path)
    for ids, numbers in splits(len(limits), width):
        for rows in (1, 7, 256):
            assert apart(path, ids, numbers, limits, rows) <= 1e-5, (ids, numbers, rows)


@pytest.mark.parametrize("kind", sorted(set(TABLES) | set(entries("table"))))
def test_every_kind_of_table_is_looked_up_once_for_shared_columns(kind: str, tmp_path: Path) -> None:
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
def test_layers_of_integers_stay_so_and_answer_the_same_bits(graphs, architecture: str, steps: str) -> None:
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


def test_a_layer_of_its_own_for_bytes_is_split_as_a_convolution(tmp_path: Path) -> None:
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


def text_graph(body: str, tmp_path: Path, columns: int = 4, numbers: int = 3) -> Path:
    """A graph of these lines, over ids [N, columns] and numbers [N, numbers], after its tables and matrices."""
    draw = np.random.default_rng(0)
    constants = {
        "table": draw.normal(size=(20, 4)).astype(np.float32),
        "codes": draw.integers(0, 255, (20, 4)).astype(np.uint8),
        "square": draw.normal(size=(4, 4)).astype(np.float32),
        "wide": draw.normal(size=(columns * 4, 5)).astype(np.float32),
        "bytes": draw.integers(-60, 60, (columns * 4, 5)).astype(np.int8),
        "narrow": draw.normal(size=(numbers, 5)).astype(np.float32),
        "steps": (draw.random(columns * 4) + 0.5).astype(np.float32),
        "zeros": np.full(columns * 4, 3, np.uint8),
        "flat": np.array([-1, columns * 4]),
        "blocks": np.array([-1, 2, columns * 2]),
        **{f"i{each}": np.array([each]) for each in (-1, 0, 1, 2, 3)},
        "s0": np.array(0),
        "zero": np.array(3, np.uint8),
        "half": np.array(0.5, np.float32),
        "matrices": draw.normal(size=(columns, 4, 4)).astype(np.float32),
        "both": np.array([1, 2]),
        "turned": np.array([3, 0, 2, 0]),
        "lengths": np.array([1, columns - 1]),
    }
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
    g (int32[N, {columns}] ids, float[N, {numbers}] numbers) => (float[N] logit) {{ {body} }}"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in constants.items())
    onnx.checker.check_model(model)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    return path


LOOK_UP = "v = Gather(table, ids) "
CASES = {  # lines of a graph, and the operators before which parts have to be joined
    "sum of fields": (LOOK_UP + "logit = ReduceSum<keepdims=0>(v, both) ", ()),
    "mean of fields": (LOOK_UP + "m = ReduceMean<keepdims=0>(v, i1) logit = ReduceSum<keepdims=0>(m, i1)", ()),
    "largest and smallest": (
        LOOK_UP + "a = ReduceMax<keepdims=0>(v, i1) b = ReduceMin<keepdims=0>(v, i1) c = Sub(a, b) "
        "logit = ReduceSum<keepdims=0>(c, i1)",
        (),
    ),
    "axes change places": (
        LOOK_UP + "t = Transpose<perm=[0, 2, 1]>(v) m = ReduceSum<keepdims=0>(t, i2) "
        "logit = ReduceMax<keepdims=0>(m, i1)",
        (),
    ),
    "rows change places": (
        LOOK_UP + "t = Transpose<perm=[1, 0, 2]>(v) m = ReduceSum<keepdims=0>(t, i2) u = Transpose<perm=[1, 0]>(m) "
        "logit = ReduceSum<keepdims=0>(u, i1)",
        (),
    ),
    "places turned": (
        LOOK_UP + "g = Gather<axis=1>(v, turned) f = Reshape(g, flat) w = MatMul(f, wide) "
        "logit = ReduceSum<keepdims=0>(w, i1)",
        (),
    ),
    "one place": (LOOK_UP + "g = Gather<axis=1>(v, s0) logit = ReduceSum<keepdims=0>(g, i1)", ()),
    "stretches": (
        LOOK_UP + "a, b = Split<axis=1>(v, lengths) m = ReduceSum<keepdims=0>(b, i1) n = Squeeze(a, i1) d = Mul(m, n) "
        "logit = ReduceSum<keepdims=0>(d, i1)",
        (),
    ),
    "new axes": (
        LOOK_UP + "u = Unsqueeze(v, i1) w = Mul(u, half) x = Squeeze(w, i1) logit = ReduceSum<keepdims=0>(x, both)",
        (),
    ),
    "a product of each field": (LOOK_UP + "m = MatMul(v, square) logit = ReduceSum<keepdims=0>(m, both)", ()),
    "a product of all fields": (
        LOOK_UP + "f = Reshape(v, flat) m = MatMul(f, wide) logit = ReduceMax<keepdims=0>(m, i1)",
        (),
    ),
    "a matrix for each field": (
        LOOK_UP + "t = Transpose<perm=[1, 0, 2]>(v) m = MatMul(t, matrices) u = Transpose<perm=[1, 0, 2]>(m) "
        "logit = ReduceSum<keepdims=0>(u, both)",
        (),
    ),
    "with a bias": (
        LOOK_UP + "f = Reshape(v, flat) n = MatMul(numbers, narrow) m = Gemm(f, wide, n) r = Relu(m) "
        "logit = ReduceSum<keepdims=0>(r, i1)",
        (),
    ),
    "an integer product": (
        "v = Gather(codes, ids) f = Reshape(v, flat) m = MatMulInteger(f, bytes, zero) c = Cast<to=1>(m) "
        "logit = ReduceSum<keepdims=0>(c, i1)",
        (),
    ),
    "a step a column": (
        LOOK_UP + "f = Reshape(v, flat) q = QuantizeLinear<axis=1>(f, steps, zeros) "
        "d = DequantizeLinear<axis=1>(q, steps, zeros) logit = ReduceSum<keepdims=0>(d, i1)",
        (),
    ),
    "blocks that cut fields in two": (
        LOOK_UP + "b = Reshape(v, blocks) m = ReduceMax<keepdims=0>(b, i2) logit = ReduceSum<keepdims=0>(m, i1)",
        ("Reshape",),
    ),
    "a softmax of fields": (
        LOOK_UP + "s = Softmax<axis=1>(v) m = Mul(s, v) logit = ReduceSum<keepdims=0>(m, both)",
        ("Softmax", "Mul"),
    ),
    "all pairs": (
        LOOK_UP + "t = Transpose<perm=[0, 2, 1]>(v) p = MatMul(v, t) logit = ReduceSum<keepdims=0>(p, both)",
        ("MatMul",),
    ),
    "numbers alone": ("w = MatMul(numbers, narrow) r = Relu(w) logit = ReduceSum<keepdims=0>(r, i1)", ()),
    "beside each other": (
        LOOK_UP + "f = Reshape(v, flat) c = Concat<axis=1>(f, numbers) e = Exp(c) logit = ReduceSum<keepdims=0>(e, i1)",
        (),
    ),
    "a running sum": (
        LOOK_UP + "f = ReduceSum<keepdims=0>(v, i2) c = CumSum(f, i1) logit = ReduceMax<keepdims=0>(c, i1)",
        ("CumSum",),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_rule_gives_what_the_unsplit_graph_does(name: str, tmp_path: Path) -> None:
    body, joined = CASES[name]
    path = text_graph(body, tmp_path)
    for ids, numbers in (({0, 2}, {1}), ({1, 2}, set()), ({3}, {0, 1, 2}), ({0, 1, 2, 3}, {0}), (set(), {2})):
        assert apart(path, ids, numbers, [20] * 4, 5) <= 1e-5, (ids, numbers)
    assert split_shared(path, {0, 3}, {1}).joined == joined


def test_a_shape_that_candidates_reach_is_theirs(tmp_path: Path) -> None:
    """The number of rows of a shared value is asked for where a candidate's is spread to it."""
    spread = "s = Slice(ids, i0, i1, i1) n = Shape<end=1>(s) e = ConstantOfShape(n)"
    body = f"{spread} r = ReduceSum<keepdims=0>(numbers, i1) logit = Add(e, r)"
    path = text_graph(body, tmp_path)
    assert apart(path, {0}, set(), [20] * 4, 5) <= 1e-5


def widened(path: Path) -> Path:
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "L"
    onnx.save(model, path)
    return path


def test_what_cannot_be_split_is_said(tmp_path: Path) -> None:
    path = text_graph(CASES["numbers alone"][0], tmp_path)
    with pytest.raises(InputError, match=r"no column 4 of ids, it has 4\n.*no column 9 of numbers, it has 3"):
        split_shared(path, {0, 4}, {9})
    with pytest.raises(InputError, match="'ids' is of any width, as a text is: its columns cannot be split"):
        split_shared(widened(path), {0})
    with pytest.raises(InputError, match="no such file"):
        split_shared(tmp_path / "no.onnx", {0})
