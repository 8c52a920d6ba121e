"""`torch.nn.Conv1d` as a linear layer over windows, so that steps treat it as they do any other.

A convolution of kernel size K is a product of its weight [out, in * K] with every window of K places: the same numbers,
K times as many inputs in memory. Left out: groups, and padding with anything but zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from slimrank.config import InputError
from slimrank.models.attention import linear_of
from slimrank.models.layers import by_row


class WindowedConv1d(nn.Module):
    """What a `torch.nn.Conv1d` computes, with its call contract.

    Raises:
        InputError: the convolution has groups, or pads with something else than zeros.
    """

    def __init__(self, source: nn.Conv1d):
        super().__init__()
        if source.groups != 1 or source.padding_mode != "zeros":
            raise InputError("groups and padding_mode of a convolution are not supported")
        self.size, self.stride, self.dilation = source.kernel_size[0], source.stride[0], source.dilation[0]
        self.padding = _sides(source)
        self.linear = linear_of(source.weight.flatten(1), source.bias)

    def forward(self, values: Tensor) -> Tensor:
        """[N, in, L] to [N, out, L'], or [in, L] to [out, L']."""
        wide = functional.pad(values if values.dim() == 3 else values.unsqueeze(0), self.padding)
        count = (wide.shape[2] - self.dilation * (self.size - 1) - 1) // self.stride + 1
        span = (count - 1) * self.stride + 1
        starts = [place * self.dilation for place in range(self.size)]
        windows = torch.stack([wide[:, :, start : start + span : self.stride] for start in starts], dim=2)
        out = by_row(self.linear, windows.flatten(1, 2).transpose(1, 2)).transpose(1, 2)
        return out if values.dim() == 3 else out.squeeze(0)

    @torch.no_grad()
    def write_to(self, source: nn.Conv1d) -> None:
        """Give the weights, of a linear layer of floats, to `source`; it is as wide as they are afterwards."""
        weight = _windows(self)
        if weight.shape == source.weight.shape:
            source.weight.copy_(weight)
            if source.bias is not None:
                source.bias.copy_(self.linear.bias)
            return
        source.out_channels, source.in_channels = weight.shape[:2]
        source.weight = nn.Parameter(weight.clone(), requires_grad=source.weight.requires_grad)
        if source.bias is not None:
            source.bias = nn.Parameter(self.linear.bias.clone(), requires_grad=source.bias.requires_grad)


class PaddedConv1d(nn.Conv1d):
    """What a `WindowedConv1d` over floats computes, by torch's own convolution, for those who know no windows."""

    def __init__(self, source: WindowedConv1d):
        weight = _windows(source)
        out, into, size = weight.shape
        super().__init__(into, out, size, source.stride, dilation=source.dilation, bias=False, device="meta")
        self.sides = source.padding
        self.weight = nn.Parameter(weight.clone(), requires_grad=source.linear.weight.requires_grad)
        if source.linear.bias is not None:
            bias = source.linear.bias.detach().clone()
            self.bias = nn.Parameter(bias, requires_grad=source.linear.bias.requires_grad)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        out: Tensor = super()._conv_forward(functional.pad(input, self.sides), weight, bias)
        return out

    def write_to(self, source: WindowedConv1d) -> None:
        """Give the weights to the one that it was made of, where they have another width by now."""
        if self.weight.shape != _windows(source).shape:
            source.linear = linear_of(self.weight.flatten(1), self.bias)


def _windows(source: WindowedConv1d) -> Tensor:
    """The weight as a convolution has it, [out, in, size]."""
    weight = source.linear.weight.detach()
    return weight.view(len(weight), -1, source.size)


def _sides(source: nn.Conv1d) -> tuple[int, int]:
    """How many zeros go in front and behind."""
    if source.padding == "valid":
        return 0, 0
    if source.padding == "same":
        total = source.dilation[0] * (source.kernel_size[0] - 1)
        return total // 2, total - total // 2
    return int(source.padding[0]), int(source.padding[0])
