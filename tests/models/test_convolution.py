"""Convolutions as products of windows against `torch.nn.Conv1d`."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import nn

from slimrank.config import InputError
from slimrank.models.convolution import WindowedConv1d

PADDINGS = (0, 2, "same", "valid")


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_that_of_torch(padding: int | str, bias: bool) -> None:
    torch.manual_seed(0)
    for size, stride, dilation in product((1, 2, 5), (1, 3), (1, 2)):
        if padding == "same" and stride != 1:
            continue
        theirs = nn.Conv1d(3, 4, size, stride, padding, dilation, bias=bias)
        ours = WindowedConv1d(theirs)
        for values in (torch.randn(2, 3, 11), torch.randn(3, 9)):
            torch.testing.assert_close(ours(values), theirs(values), atol=1e-5, rtol=1e-5)


def test_weights_go_back() -> None:
    theirs = nn.Conv1d(3, 4, 2)
    ours = WindowedConv1d(theirs)
    with torch.no_grad():
        ours.linear.weight.mul_(-2.0)
        ours.linear.bias.add_(1.0)
    ours.write_to(theirs)
    values = torch.randn(2, 3, 7)
    torch.testing.assert_close(ours(values), theirs(values), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("settings", [{"groups": 2}, {"padding_mode": "circular", "padding": 1}])
def test_what_is_not_supported_is_told(settings: dict[str, object]) -> None:
    with pytest.raises(InputError, match="groups and padding_mode"):
        WindowedConv1d(nn.Conv1d(4, 4, 3, **settings))  # type: ignore[arg-type]
