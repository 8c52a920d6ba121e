"""Offsets as whole matrices: the same sums, and no other sum is touched."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import parser

from slimrank.exporting.offsets import expand_offsets

HEADER = '<ir_version: 10, opset_import: ["" : 21]>'
OFFSETS = HEADER + "g (int32[N, 3] ids) => (int32[N, 3] rows) <int32[3] o = {5, 0, -7}> { rows = Add(SUM) }"


@pytest.mark.parametrize("order", ["ids, o", "o, ids"])
def test_the_sums_are_the_same(order: str) -> None:
    model = ir.from_proto(parser.parse_model(OFFSETS.replace("SUM", order)))
    assert expand_offsets(model.graph) == 1
    assert [node.op_type for node in model.graph] == ["Shape", "Expand", "Add"]
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    for rows in (0, 1, 9):
        ids = np.arange(3 * rows, dtype=np.int32).reshape(rows, 3)
        np.testing.assert_array_equal(session.run(None, {"ids": ids})[0], ids + np.array([5, 0, -7]))


@pytest.mark.parametrize(
    "body",
    [
        "g (float[N, 3] x) => (float[N, 3] y) <float[3] o = {1, 2, 3}> { y = Add(x, o) }",
        "g (int32[N, 3] x) => (int32[N, 3] y) <int32 o = {1}> { y = Add(x, o) }",
        "g (int32[N, 2, 3] x) => (int32[N, 2, 3] y) <int32[3] o = {1, 2, 3}> { y = Add(x, o) }",
        "g (int32[N, 3] x) => (int32[N, 3] y) { y = Add(x, x) }",
        "g (int32[N, 3] x) => (int32[N, 3] y) <int32[3] o = {1, 2, 3}> { y = Mul(x, o) }",
    ],
)
def test_other_sums_stay(body: str) -> None:
    model = ir.from_proto(parser.parse_model(HEADER + body))
    assert expand_offsets(model.graph) == 0
    assert len(model.graph) == 1
