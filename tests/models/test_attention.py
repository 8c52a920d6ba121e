"""Attention in parts against `torch.nn.MultiheadAttention`, whose contract it keeps."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from slimrank.config import InputError
from slimrank.models.attention import SplitAttention

N, L, S, E, HEADS = 3, 4, 5, 8, 2


def pair(**settings: object) -> tuple[nn.MultiheadAttention, SplitAttention]:
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(E, HEADS, **settings)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return theirs, SplitAttention(theirs)


def sides(batch_first: bool, keys: int = E, values: int = E) -> list[Tensor]:
    draw = torch.Generator().manual_seed(1)
    made = [torch.randn(N, length, width, generator=draw) for length, width in ((L, E), (S, keys), (S, values))]
    return made if batch_first else [each.transpose(0, 1) for each in made]


MASKS = {
    "none": None,
    "bool": torch.arange(L).unsqueeze(1) < torch.arange(S),
    "float": torch.linspace(-2, 2, L * S).view(L, S),
    "by head": torch.linspace(-2, 2, N * HEADS * L * S).view(N * HEADS, L, S),
}
PADDING = {"none": None, "bool": torch.arange(S) >= torch.tensor([[5], [3], [2]])}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("padding", PADDING)
@pytest.mark.parametrize("batch_first", [True, False])
def test_it_is_that_of_torch(mask: str, padding: str, batch_first: bool) -> None:
    theirs, ours = pair(batch_first=batch_first)
    asked = sides(batch_first)
    for need, average in product((True, False), (True, False)):
        kept = {"key_padding_mask": PADDING[padding], "attn_mask": MASKS[mask]}
        if mask in ("float", "by head") and padding == "bool":  # torch wants both of one kind
            kept["key_padding_mask"] = torch.zeros(N, S).masked_fill(PADDING["bool"], -torch.inf)
        options = {**kept, "need_weights": need, "average_attn_weights": average}
        expected, found = theirs(*asked, **options), ours(*asked, **options)
        torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=1e-5)
        assert (found[1] is None) == (expected[1] is None) == (not need)
        if need:
            torch.testing.assert_close(found[1], expected[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("settings", [{"bias": False}, {"kdim": 6, "vdim": 7}, {"kdim": 6, "vdim": 7, "bias": False}])
def test_widths_and_biases_are_those_of_torch(settings: dict[str, int]) -> None:
    theirs, ours = pair(batch_first=True, **settings)
    asked = sides(True, settings.get("kdim", E), settings.get("vdim", E))
    torch.testing.assert_close(ours(*asked)[0], theirs(*asked)[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("batch_first", [True, False])
def test_one_sequence_needs_no_batch(batch_first: bool) -> None:
    theirs, ours = pair(batch_first=batch_first)
    asked = [each[0] for each in sides(True)]
    options = {"key_padding_mask": PADDING["bool"][1]}
    expected, found = theirs(*asked, **options), ours(*asked, **options)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_gradients_are_those_of_torch() -> None:
    theirs, ours = pair(batch_first=True)
    asked = [each.requires_grad_() for each in sides(True)]
    expected = torch.autograd.grad(theirs(*asked, need_weights=False)[0].square().sum(), asked)
    found = torch.autograd.grad(ours(*asked, need_weights=False)[0].square().sum(), asked)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"bias": False}, {"kdim": 6, "vdim": 7}])
def test_weights_go_back(settings: dict[str, int]) -> None:
    theirs, ours = pair(batch_first=True, **settings)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.mul_(-1.5)
    ours.write_to(theirs)
    asked = sides(True, settings.get("kdim", E), settings.get("vdim", E))
    torch.testing.assert_close(ours(*asked)[0], theirs(*asked)[0], atol=1e-5, rtol=1e-5)


def test_dropout_is_of_training_alone() -> None:
    _, ours = pair(batch_first=True, dropout=0.5)
    asked = sides(True)
    for need in (True, False):
        assert not torch.equal(*(ours(*asked, need_weights=need)[0] for _ in range(2)))
        ours.eval()
        torch.testing.assert_close(*(ours(*asked, need_weights=need)[0] for _ in range(2)), atol=0, rtol=0)
        ours.train()


@pytest.mark.parametrize("settings", [{"add_bias_kv": True}, {"add_zero_attn": True}])
def test_what_is_not_supported_is_told(settings: dict[str, bool]) -> None:
    with pytest.raises(InputError, match="add_bias_kv and add_zero_attn are not supported"):
        pair(**settings)


def test_a_hint_needs_its_mask() -> None:
    with pytest.raises(InputError, match="there is none"):
        pair(batch_first=True)[1](*sides(True), is_causal=True)
