"""Rewrites of the graph: what they may cost in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from slimrank.exporting.checks import memory_faults, optimized_graph
from slimrank.exporting.graph import build_graph, write_graph
from slimrank.tables.integer import dequantize_linear, quantize_linear
from slimrank.tables.mixed import Mixed, mixed
from slimrank.tables.scaled import Scaled, scaled
from slimrank.tables.stacked import stacked
from slimrank.tables.table import Table

ROWS, DIM = 1000, 16


class Total(nn.Module):
    """The sum of the vectors of a row."""

    def __init__(self, table: Table):
        super().__init__()
        self.table = table

    def forward(self, ids: Tensor) -> Tensor:
        vectors: Tensor = self.table(ids, tuple(range(ids.shape[1])))
        return vectors.sum(dim=(1, 2))


def tables(kind: str) -> Table:
    """Three tables that take 16,000 bytes each, unpacked."""
    rows = torch.randn(3, ROWS, DIM, generator=torch.Generator().manual_seed(0))
    if kind == "scaled":
        parts: list[Table] = [scaled(Scaled(bits=bits), own) for bits, own in zip((1, 4, 1), rows, strict=True)]
    else:
        parts = [mixed(Mixed(bands=(((10, 8), (ROWS - 10, 1)),)), own) for own in rows]
    return stacked(parts).pack()


@pytest.mark.parametrize("kind", ["scaled", "mixed"])
@pytest.mark.parametrize(("limit", "unpacked"), [(0, 0), (2 * ROWS * DIM, 2), (3 * ROWS * DIM, 3)])
def test_all_tables_together_keep_to_the_limit_at_load(kind: str, limit: int, unpacked: int, tmp_path: Path) -> None:
    module = Total(tables(kind)).eval()
    (path,) = write_graph(build_graph(module, 3, unpack_limit=limit), tmp_path / "model.onnx")
    graph, optimized = onnx.load(path), optimized_graph(path)
    assert memory_faults(graph, optimized, limit=limit + 1000) == []
    assert sum(tensor.dims == [ROWS, DIM] for tensor in optimized.graph.initializer) == unpacked
    ids = torch.tensor([[0, ROWS, 2 * ROWS], [ROWS - 1, 2 * ROWS - 1, 3 * ROWS - 1], [9, ROWS + 10, 2 * ROWS + 500]])
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(None, {"ids": ids.to(torch.int32).numpy()})[0]
    np.testing.assert_allclose(found, module(ids).detach().numpy(), atol=1e-4)


class Quantized(nn.Module):
    """Numbers as bytes, by a step for each column."""

    def __init__(self, steps: Tensor, zero_point: int):
        super().__init__()
        self.register_buffer("steps", steps)
        self.register_buffer("zero", torch.full_like(steps, zero_point, dtype=torch.uint8))
        self.register_buffer("one", torch.ones(()))

    def forward(self, ids: Tensor, numbers: Tensor) -> Tensor:
        codes = quantize_linear(numbers, self.steps, self.zero)  # type: ignore[arg-type]
        zero = torch.zeros((), dtype=torch.uint8)
        return dequantize_linear(codes, self.one, zero) + 0 * ids.sum()  # type: ignore[arg-type]


@pytest.mark.parametrize("zero_point", [0, 128])
def test_numbers_are_divided_by_the_steps_of_their_columns(zero_point: int, tmp_path: Path) -> None:
    """To the same bytes: halves, ends of the range and all."""
    steps = torch.tensor([0.1, 0.25, 3.0])
    module = Quantized(steps, zero_point).eval()
    (path,) = write_graph(build_graph(module, 1, 3), tmp_path / "model.onnx")
    nodes = [node.op_type for node in onnx.load(path).graph.node]
    assert nodes.count("Div") == nodes.count("QuantizeLinear") == 1
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    numbers = torch.cat([torch.arange(-600, 600).unsqueeze(1) / 2 * steps, torch.full((1, 3), 1e30)])
    ids = torch.zeros(len(numbers), 1, dtype=torch.int32)
    found = session.run(None, {"ids": ids.numpy(), "numbers": numbers.numpy()})[0]
    np.testing.assert_array_equal(found, module(ids, numbers).numpy())
