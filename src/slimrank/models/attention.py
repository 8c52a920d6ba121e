"""`torch.nn.MultiheadAttention` in parts: each projection a linear layer of its own, so that steps and graphs see it.

torch keeps the three input projections in one parameter that no layer owns, and multiplies it inside a function.
Vaswani et al. 2017, arXiv 1706.03762. Left out: `bias_k`, `bias_v` and `add_zero_attn`.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional

from slimrank.config import InputError
from slimrank.models.layers import by_row

PROJECTIONS = ("query", "key", "value")


class SplitAttention(nn.Module):
    """What a `torch.nn.MultiheadAttention` computes, with its call contract.

    Raises:
        InputError: the module adds keys or values of its own.
    """

    in_proj_bias = None  # transformer layers of torch look for it before they go around the layers

    def __init__(self, source: nn.MultiheadAttention):
        super().__init__()
        if source.bias_k is not None or source.add_zero_attn:
            raise InputError("add_bias_kv and add_zero_attn are not supported")
        self.embed_dim, self.num_heads, self.dropout = source.embed_dim, source.num_heads, source.dropout
        self.batch_first = source.batch_first
        weights = (
            source.in_proj_weight.chunk(3)
            if source.in_proj_weight is not None
            else [getattr(source, f"{letter}_proj_weight") for letter in "qkv"]
        )
        biases = [None] * 3 if source.in_proj_bias is None else source.in_proj_bias.chunk(3)
        for name, weight, bias in zip(PROJECTIONS, weights, biases, strict=True):
            setattr(self, name, linear_of(weight, bias))
        self.out_proj = linear_of(source.out_proj.weight, source.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As torch's: `query` [N, L, E], `key` and `value` [N, S, *], or [L, N, E] and so on, or without N.

        Returns:
            [N, L, E], and the weights [N, L, S], or [N, heads, L, S] where they are not averaged, or None.

        Raises:
            InputError: `is_causal` without the mask that it tells of.
        """
        if is_causal and attn_mask is None:
            raise InputError("is_causal tells what attn_mask is, and there is none")
        one = query.dim() == 2
        batch = 0 if self.batch_first else 1
        sides = [each.unsqueeze(batch) if one else each for each in (query, key, value)]
        if not self.batch_first:
            sides = [each.transpose(0, 1) for each in sides]
        queries, keys, values = (self._split(name, each) for name, each in zip(PROJECTIONS, sides, strict=True))
        mask = _mask(key_padding_mask, attn_mask, queries)
        mixed, weights = self._mix(queries, keys, values, mask, need_weights)
        out = by_row(self.out_proj, mixed.transpose(1, 2).flatten(2))
        out = out if self.batch_first else out.transpose(0, 1)
        if weights is not None and average_attn_weights:
            weights = weights.mean(dim=1)
        if one:
            return out.squeeze(batch), None if weights is None else weights.squeeze(0)
        return out, weights

    def _split(self, name: str, values: Tensor) -> Tensor:
        """[N, L, width] to [N, heads, L, E / heads], projected."""
        projected = by_row(self.get_submodule(name), values)
        return _unflatten(projected, 2, self.num_heads).transpose(1, 2)

    def _mix(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """[N, heads, L, E / heads], and the weights [N, heads, L, S] where they are needed."""
        dropout = self.dropout if self.training else 0.0
        if not need_weights:
            return functional.scaled_dot_product_attention(query, key, value, mask, dropout), None
        scores = (query / sqrt(query.shape[3])) @ key.transpose(2, 3)
        weights = functional.dropout((scores if mask is None else scores + mask).softmax(dim=3), dropout)
        return weights @ value, weights

    @torch.no_grad()
    def write_to(self, source: nn.MultiheadAttention) -> None:
        """Give the weights of all four projections, which are linear layers of floats, to `source`."""
        layers = [self.get_submodule(name) for name in PROJECTIONS]
        weights: list[Tensor] = [layer.get_parameter("weight") for layer in layers]
        if source.in_proj_weight is not None:
            source.in_proj_weight.copy_(torch.cat(weights))
        else:
            for letter, weight in zip("qkv", weights, strict=True):
                source.get_parameter(f"{letter}_proj_weight").copy_(weight)
        if source.in_proj_bias is not None:
            source.in_proj_bias.copy_(torch.cat([layer.get_parameter("bias") for layer in layers]))
        source.out_proj.weight.copy_(self.out_proj.weight)
        if source.out_proj.bias is not None:
            source.out_proj.bias.copy_(self.out_proj.bias)


def _mask(padding: Tensor | None, mask: Tensor | None, query: Tensor) -> Tensor | None:
    """What is added to scores [N, heads, L, S], as it broadcasts: -inf where a bool mask is True."""
    found = []
    if padding is not None:
        keys = padding.unsqueeze(0) if padding.dim() == 1 else padding
        found.append(_added(keys, query)[:, None, None, :])
    if mask is not None:
        own = _added(mask, query)
        found.append(own if own.dim() == 2 else _unflatten(own, 0, query.shape[0]))
    return sum(found[1:], found[0]) if found else None


def _added(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -torch.inf)


def _unflatten(values: Tensor, place: int, first: int) -> Tensor:
    """The dimension `place` as two, of `first` and the rest."""
    shape = values.shape
    return values.reshape(*shape[:place], first, shape[place] // first, *shape[place + 1 :])


def linear_of(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer over copies of `weight` [out, in] and `bias` [out]."""
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    made.weight = nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().clone(), requires_grad=bias.requires_grad)
    return made
