"""A small packed network: fields of a quantised table, integer layers, and what reads the rows as floats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from slimrank.models.quantized import ActivationQuantizer, InputQuantizer, PackedLinear, QuantizedLinear
from slimrank.tables.integer import BYTE_ZERO, dequantize_linear, unpack_bytes

FIELDS, DIM, ROWS = 5, 8, 40


class Columns(InputQuantizer):
    """A quantiser that is told its steps, one a column."""

    zero_point = BYTE_ZERO

    def __init__(self, steps: Tensor):
        super().__init__()
        self.told = steps

    def steps(self) -> Tensor:
        return self.told

    def forward(self, values: Tensor) -> Tensor:
        return values


class Network(nn.Module):
    """ids [N, 5] (and numbers [N, M]) to logits [N]: packed rows, two integer layers; `cross` reads the rows too."""

    def __init__(
        self, bits: int = 4, numbers: int = 0, *, cross: bool = False, joined: bool = False, zeros: float = 0.0
    ):
        super().__init__()
        torch.manual_seed(bits)
        self.bits, self.cross, self.joined = bits, cross, joined
        self.scale = torch.rand(FIELDS) * 0.05 + 0.01
        self.register_buffer("packed", torch.randint(0, 256, (FIELDS * ROWS, DIM * bits // 8), dtype=torch.uint8))
        self.register_buffer("offsets", (torch.arange(FIELDS) * ROWS).to(torch.int32))
        self.register_buffer("steps", self.scale.unsqueeze(1))
        self.register_buffer("one", torch.ones(()))
        self.register_buffer("middle", torch.tensor(BYTE_ZERO, dtype=torch.uint8))
        steps = self.scale.repeat_interleave(DIM)
        width = FIELDS * DIM
        if joined:
            steps, width = torch.cat([steps, torch.full((numbers,), 0.03)]), width + numbers
        self.first = self._layer(32, width, Columns(steps), zeros)
        self.last = self._layer(1, 32, ActivationQuantizer(torch.tensor(0.05), 0), zeros)
        self.numbers = (
            self._layer(32, numbers, ActivationQuantizer(torch.full((numbers,), 0.02), 128), 0.0) if numbers else None
        )

    def _layer(self, out: int, width: int, inputs: InputQuantizer, zeros: float) -> PackedLinear:
        weight = torch.randn(out, width) * 0.2
        weight[torch.rand(out, width) < zeros] = 0.0
        return QuantizedLinear(weight, torch.randn(out), inputs).pack()

    def forward(self, ids: Tensor, numbers: Tensor | None = None) -> Tensor:
        codes = unpack_bytes(functional.embedding(ids + self.offsets, self.packed), self.bits)
        rows = dequantize_linear(codes, self.one, self.middle) * self.steps
        if self.joined and numbers is not None:
            hidden = self.first(torch.cat([rows.flatten(1), numbers], dim=1))
        else:
            hidden = self.first(rows.flatten(1))
            if self.numbers is not None:
                hidden = hidden + self.numbers(numbers)
        logit = self.last(torch.relu(hidden)).squeeze(1)
        return logit + rows.square().sum(dim=(1, 2)) if self.cross else logit


def ids_of(rows: int) -> Tensor:
    """Ids [rows, 5], reproducible."""
    return torch.randint(0, ROWS, (rows, FIELDS), generator=torch.Generator().manual_seed(rows), dtype=torch.int32)


@pytest.fixture
def network() -> Callable[..., nn.Module]:
    return lambda *args, **options: Network(*args, **options).eval()


@pytest.fixture
def scores() -> Callable[..., np.ndarray]:
    """Logits of a graph in ONNX Runtime."""

    def run(path: Path, ids: Tensor, numbers: Tensor | None = None) -> np.ndarray:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        feed = {"ids": ids.numpy()} | ({} if numbers is None else {"numbers": numbers.numpy()})
        logit: np.ndarray = session.run(["logit"], feed)[0]
        return logit

    return run


@pytest.fixture
def sample() -> Callable[[int], Tensor]:
    return ids_of
