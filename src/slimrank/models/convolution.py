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
        """Give the weights, of a linear layer of floats, to `source`."""
        source.weight.copy_(self.linear.weight.view_as(source.weight))
        if source.bias is not None:
            source.bias.copy_(self.linear.bias)


def _sides(source: nn.Conv1d) -> tuple[int, int]:
    """How many zeros go in front and behind."""
    if source.padding == "valid":
        return 0, 0
    if source.padding == "same":
        total = source.dilation[0] * (source.kernel_size[0] - 1)
        return total // 2, total - total // 2
    return int(source.padding[0]), int(source.padding[0])
