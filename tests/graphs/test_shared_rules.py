"""Every rule by which a graph is split, on graphs of a few lines, and what of them has to be joined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from slimrank.config import InputError
from slimrank.graphs.shared import split_shared


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
        "outer": (draw.random(5) + 0.5).astype(np.float32),
        "small": np.array(0.002, np.float32),
        "shifts": np.full(5, 7, np.int8),
        "deep": draw.normal(size=(2, 1, columns, 4)).astype(np.float32),
    }
    constants["turned_bytes"] = constants["bytes"].T.copy()
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
    g (int32[N, {columns}] ids, float[N, {numbers}] numbers) => (float[N] logit) {{ {body} }}"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in constants.items())
    onnx.checker.check_model(model)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    return path


LOOK_UP = "v = Gather(table, ids) "
CODES = LOOK_UP + "f = Reshape(v, flat) q = QuantizeLinear(f, half, zero) x = DequantizeLinear(q, half, zero) "
ONE_NUMBER = "a = Slice(numbers, i1, i2, i1) "
SUM = "m = Gemm(x, w) logit = ReduceSum<keepdims=0>(m, i1)"
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
    "a matrix with steps along its places": (
        LOOK_UP + "f = Reshape(v, flat) w = DequantizeLinear<axis=-2>(bytes, steps) m = MatMul(f, w) "
        "logit = ReduceSum<keepdims=0>(m, i1)",
        (),
    ),
    "a turned matrix with steps along its places": (
        LOOK_UP + "f = Reshape(v, flat) w = DequantizeLinear<axis=-1>(turned_bytes, steps) "
        "m = Gemm<transB=1>(f, w) logit = ReduceSum<keepdims=0>(m, i1)",
        (),
    ),
    "codes with steps along their places": (CODES + "w = DequantizeLinear<axis=0>(bytes, steps) " + SUM, ()),
    "codes with steps along their outputs": (CODES + "w = DequantizeLinear<axis=1>(bytes, outer) " + SUM, ()),
    "codes of a matrix with a zero point": (CODES + "w = DequantizeLinear<axis=1>(bytes, outer, shifts) " + SUM, ()),
    "a running sum of the rows": (
        ONE_NUMBER + "c = CumSum(a, i0) d = Concat<axis=1>(c, numbers) logit = ReduceSum<keepdims=0>(d, i1)",
        ("CumSum",),
    ),
    "a sum of the rows": (
        ONE_NUMBER + "c = ReduceSum<keepdims=1>(a, i0) d = Add(c, numbers) logit = ReduceSum<keepdims=0>(d, i1)",
        ("ReduceSum", "Add"),
    ),
    "a softmax of the rows": (
        ONE_NUMBER + "c = Softmax<axis=0>(a) d = Concat<axis=1>(c, numbers) logit = ReduceSum<keepdims=0>(d, i1)",
        ("Softmax",),
    ),
    "the number of rows": (
        ONE_NUMBER + "n = Shape<end=1>(a) f = Cast<to=1>(n) c = Mul(a, f) d = Concat<axis=1>(c, numbers) "
        "logit = ReduceSum<keepdims=0>(d, i1)",
        ("Mul",),
    ),
    "a constant of more axes": (
        LOOK_UP + "s = Shape(v) e = Expand(deep, s) m = Mul(e, v) x = ReduceSum<keepdims=0>(m, i0) "
        "logit = ReduceSum<keepdims=0>(x, both)",
        ("Mul",),
    ),
    "no places": (
        "s = Slice(numbers, i0, i0, i1) c = Concat<axis=1>(s, numbers) logit = ReduceSum<keepdims=0>(c, i1)",
        ("Slice",),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_rule_gives_what_the_unsplit_graph_does(apart, name: str, tmp_path: Path) -> None:
    body, joined = CASES[name]
    path = text_graph(body, tmp_path)
    for ids, numbers in (({0, 2}, {1}), ({1, 2}, set()), ({3}, {0, 1, 2}), ({0, 1, 2, 3}, {0}), (set(), {2})):
        assert apart(path, ids, numbers, [20] * 4, 5) <= 1e-5, (ids, numbers)
    assert split_shared(path, {0, 3}, {1}).joined == joined


ROUNDED = "q = QuantizeLinear(r, small, zero) x = DequantizeLinear(q, small, zero) logit = ReduceSum<keepdims=0>(x, i1)"
WIDE = "f = Reshape(v, flat) "
ROUNDING = {  # what is rounded, and the operators before which parts have to be joined
    "a product": (LOOK_UP + WIDE + "m = MatMul(f, wide) r = Relu(m) ", ("MatMul",)),
    "a layer": (LOOK_UP + WIDE + "m = Gemm(f, wide) r = Relu(m) ", ("Gemm",)),
    "a sum": (LOOK_UP + "s = ReduceSum<keepdims=0>(v, i1) r = Tanh(s) ", ("ReduceSum",)),
    "a mean": (LOOK_UP + "r = ReduceMean<keepdims=0>(v, i1) ", ("ReduceMean",)),
    "what is compared": (
        LOOK_UP + WIDE + "m = MatMul(f, wide) g = Greater(m, half) r = Cast<to=1>(g) ",
        ("MatMul",),
    ),
    "an extreme": (LOOK_UP + "r = ReduceMax<keepdims=0>(v, i1) ", ()),
    "a product of integers": (
        "v = Gather(codes, ids) f = Reshape(v, flat) m = MatMulInteger(f, bytes, zero) c = Cast<to=1>(m) "
        "r = Mul(c, small) ",
        (),
    ),
    "a sum of integers": (
        "v = Gather(codes, ids) i = Cast<to=6>(v) s = ReduceSum<keepdims=0>(i, i1) "
        "c = Cast<to=1>(s) r = Mul(c, small) ",
        (),
    ),
}


@pytest.mark.parametrize("name", ROUNDING)
def test_what_is_rounded_behind_a_sum_is_the_same_to_the_bit(apart, name: str, tmp_path: Path) -> None:
    body, joined = ROUNDING[name]
    path = text_graph(body + ROUNDED, tmp_path)
    for ids in ({0, 2}, {3}, {0, 1, 2}):
        assert max(apart(path, ids, set(), [20] * 4, 4000, seed) for seed in range(3)) == 0.0
    assert split_shared(path, {0, 3}).joined == joined


def test_numbers_of_no_column_are_the_candidates(tmp_path: Path) -> None:
    path = text_graph(LOOK_UP + "logit = ReduceSum<keepdims=0>(v, both)", tmp_path, numbers=0)
    split = split_shared(path, {0}).proto
    assert [each.name for each in split.graph.input] == ["shared_ids", "ids", "numbers"]


def test_a_shape_that_candidates_reach_is_theirs(apart, tmp_path: Path) -> None:
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
