"""A gated recurrent unit (Cho et al. 2014, arXiv 1406.1078) over vectors in order, in the form of torch's `nn.GRU`.

    r, z = sigmoid(W x + b + U h + c)       n = tanh(W x + b + r * (U h + c))       h' = (1 - z) * n + z * h

In a graph it is the one ONNX operator GRU, for any number of vectors: torch's exporter would write out as many steps as
its example has. Weights may be stored as bytes, one scale an output; a runtime turns them to floats once, at load, and
multiplies floats. Left out: products of integers, which no runtime has for this operator, and several layers.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn
from torch.onnx import is_in_onnx_export

from slimrank.tables.affine import round_through
from slimrank.tables.integer import OPSET, Attributes, dequantize_linear

LARGEST = 127  # code of a weight: nothing is multiplied as integers, so all eight bits are of use
WEIGHTS = ("input_weight", "state_weight")
BIASES = ("input_bias", "state_bias")


class Recurrence(nn.Module):
    """Vectors [N, L, width] to states [N, L, state_width], the first state being 0; gates in the order r, z, n."""

    def __init__(self, width: int, state_width: int):
        super().__init__()
        self.width, self.state_width = width, state_width
        most = 1 / sqrt(state_width)
        shapes = ((3 * state_width, width), (3 * state_width, state_width), (3 * state_width,), (3 * state_width,))
        for name, shape in zip((*WEIGHTS, *BIASES), shapes, strict=True):
            self.register_parameter(name, nn.Parameter(torch.empty(shape).uniform_(-most, most)))

    def forward(self, values: Tensor) -> Tensor:
        """The state after each vector."""
        first = values.new_zeros((1, values.shape[0], self.state_width))
        weights = [*self.rounded(), *(self.get_parameter(name) for name in BIASES)]
        states: Tensor = torch.gru(values, first, weights, True, 1, 0.0, self.training, False, True)[0]
        return states

    def rounded(self) -> tuple[Tensor, Tensor]:
        """Both matrices as they are used."""
        return self.get_parameter("input_weight"), self.get_parameter("state_weight")

    def last(self, values: Tensor, count: Tensor) -> Tensor:
        """The state [N, state_width] after the first `count` [N] vectors of each row, at least one."""
        final = (count - 1).clamp(min=0).view(-1, 1, 1).expand(-1, 1, self.state_width)
        states: Tensor = self(values)
        return states.gather(1, final).squeeze(1)

    def pack(self) -> PackedRecurrence:
        """The form that is exported."""
        return PackedRecurrence(self, *self.rounded())


class QuantizedRecurrence(Recurrence):
    """The same with weights that are rounded to bytes as they are used; straight-through gradients."""

    def __init__(self, source: Recurrence):
        super().__init__(source.width, source.state_width)
        self.load_state_dict(source.state_dict())

    def rounded(self) -> tuple[Tensor, Tensor]:
        inputs, states = super().rounded()
        return _rounded(inputs), _rounded(states)

    def pack(self) -> PackedRecurrence:
        """The form that is exported."""
        weights = super().rounded()
        steps = tuple(scales(each).squeeze(1) for each in weights)
        inputs, states = (torch.round(each / scales(each)).to(torch.int8) for each in weights)
        return PackedRecurrence(self, inputs, states, steps)

    @property
    def nbytes(self) -> int:
        """Bytes of the packed form."""
        return self.pack().nbytes


def _rounded(weight: Tensor) -> Tensor:
    scale = scales(weight)
    return round_through(weight / scale) * scale


def scales(weight: Tensor) -> Tensor:
    """The value of one code for each output [out, 1] of `weight` [out, in]."""
    scale = weight.detach().abs().amax(dim=1, keepdim=True) / LARGEST
    return torch.where(scale > 0, scale, torch.ones_like(scale))


class PackedRecurrence(nn.Module):
    """What is exported: gates in ONNX's order z, r, n, and weights as floats, or as int8 codes with their `steps`."""

    input_weight: Tensor
    state_weight: Tensor
    bias: Tensor

    def __init__(self, source: Recurrence, inputs: Tensor, states: Tensor, steps: tuple[Tensor, ...] = ()):
        super().__init__()
        self.state_width = source.state_width
        self.register_buffer("input_weight", self._reordered(inputs))
        self.register_buffer("state_weight", self._reordered(states))
        biases = [self._reordered(source.get_parameter(name)) for name in BIASES]
        self.register_buffer("bias", torch.cat(biases).unsqueeze(0))
        for name, step in zip(WEIGHTS, steps, strict=False):
            self.register_buffer(f"{name}_step", self._reordered(step))

    def forward(self, values: Tensor) -> Tensor:
        """[N, L, width] to the state after each vector, [N, L, state_width]."""
        return self._run(values, None)[0].squeeze(1).transpose(0, 1)

    def last(self, values: Tensor, count: Tensor) -> Tensor:
        """The state [N, state_width] after the first `count` [N] vectors of each row, at least one."""
        return self._run(values, count.clamp(min=1).to(torch.int32))[1].squeeze(0)

    def pack(self) -> PackedRecurrence:
        """Itself."""
        return self

    @property
    def nbytes(self) -> int:
        """Bytes of weights, biases and steps."""
        return sum(each.numel() * each.element_size() for each in self.buffers())

    def _reordered(self, values: Tensor) -> Tensor:
        reset, update, new = values.detach().chunk(3)
        return torch.cat([update, reset, new])

    def _weights(self) -> tuple[Tensor, ...]:
        steps = dict(self.named_buffers())
        return tuple(
            dequantize_linear(steps[name], steps[f"{name}_step"]) if f"{name}_step" in steps else steps[name]
            for name in WEIGHTS
        )

    def _run(self, values: Tensor, count: Tensor | None) -> tuple[Tensor, Tensor]:
        """States [L, 1, N, state_width] and the last [1, N, state_width], as the operator gives them."""
        weights = self._weights()
        rows, places, width = values.shape[0], values.shape[1], self.state_width
        if is_in_onnx_export():
            inputs = (values.transpose(0, 1), *(each.unsqueeze(0) for each in weights), self.bias, count)
            settings: Attributes = {"hidden_size": width, "linear_before_reset": 1}
            shapes = ([places, 1, rows, width], [1, rows, width])
            types = (torch.float32, torch.float32)
            states, last = torch.onnx.ops.symbolic_multi_out(
                "GRU", inputs, settings, dtypes=types, shapes=shapes, version=OPSET
            )
            return states, last
        order = [*weights, *self.bias[0].chunk(2)]
        back = [torch.cat([each.chunk(3)[place] for place in (1, 0, 2)]) for each in order]
        first = values.new_zeros((1, rows, width))
        states = torch.gru(values, first, back, True, 1, 0.0, False, False, True)[0]
        final = (torch.full((rows,), places) if count is None else count.long()) - 1
        last = states.gather(1, final.view(-1, 1, 1).expand(-1, 1, width)).transpose(0, 1)
        return states.transpose(0, 1).unsqueeze(1), last
