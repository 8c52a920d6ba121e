"""Weights that were trained elsewhere, read into models of ours: which tensor goes where.

`teacher.checkpoint` of a recipe names the file. The figures that pmixer/SASRec.pytorch tells of its checkpoints are of
histories read whole, with the validation item, and of items among 100 that the user did not meet; a full ranking of its
kind leaves out all that was met. Left out: training it further, which is a recipe's retraining.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slimrank.config import InputError, nearest
from slimrank.models.layers import Network
from slimrank.models.sasrec import Block, SASRecModel


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        InputError: no such file, or another kind of file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: no safetensors file: {error}") from None
    return tensors


def load_checkpoint(model: Network, tensors: Mapping[str, Tensor], items: NDArray[np.int64]) -> None:
    """Put the weights of pmixer/SASRec.pytorch into `model`.

    Args:
        model: a SASRec of the checkpoint's sizes, with `padding_keys`, since it was trained on zeros in front.
        tensors: the checkpoint.
        items: the raw ids, from 1, of the model's items from its first local id on; the checkpoint's rows are theirs.

    Raises:
        InputError: the model is no SASRec with `padding_keys`, or a tensor is missing, of another shape, or has no row
            for an item.
    """
    if not isinstance(model, SASRecModel):
        raise InputError(f"no checkpoint can be read into a {type(model).__name__}; allowed: sasrec")
    if not all(isinstance(each, Block) and each.attention.padding_keys for each in model.blocks):
        raise InputError("the checkpoint was trained on sequences with zeros in front: set padding_keys")
    if items.size and not 0 < items.min() <= items.max() < len(tensors.get("item_emb.weight", ())):
        raise InputError(f"the checkpoint has no rows for items {items.min()} to {items.max()}")
    source = _Source(tensors)
    with torch.no_grad():
        table = model.embedding.table.weight
        assert isinstance(table, Tensor)
        table.zero_()
        rows = source.take("item_emb.weight", (None, table.shape[1]))
        table[model.first_item :].copy_(rows[torch.tensor(items)])
        positions = model.positions.table.weight
        assert isinstance(positions, Tensor)
        positions.copy_(source.take("pos_emb.weight", (model.length + 1, table.shape[1]))[1:])
        _fill(model.norm.weight, source, "last_layernorm.weight")
        _fill(model.norm.bias, source, "last_layernorm.bias")
        for place, block in enumerate(model.blocks):
            assert isinstance(block, Block)
            _fill_block(block, source, place)
    source.check_all_taken()


class _Source:
    """A checkpoint's tensors, and which of them are still to be taken."""

    def __init__(self, tensors: Mapping[str, Tensor]):
        self.tensors = tensors
        self.left = set(tensors)

    def take(self, name: str, shape: tuple[int | None, ...]) -> Tensor:
        """The tensor called `name`, of that shape (None: any size)."""
        if name not in self.tensors:
            raise InputError(f"the checkpoint has no tensor {name!r}. {nearest(name, self.tensors)}")
        found = self.tensors[name].float()
        if len(found.shape) != len(shape) or any(w not in (None, s) for s, w in zip(found.shape, shape, strict=True)):
            raise InputError(f"the checkpoint's {name} is {list(found.shape)}, the model needs {list(shape)}")
        self.left.discard(name)
        return found

    def check_all_taken(self) -> None:
        """Raises `InputError` where the checkpoint has more than the model."""
        if self.left:
            raise InputError(f"the model has no place for the checkpoint's {', '.join(sorted(self.left))}")


def _fill(target: Tensor, source: _Source, name: str) -> None:
    target.copy_(source.take(name, tuple(target.shape)))


def _fill_block(block: Block, source: _Source, place: int) -> None:
    dim = block.inner.in_features
    weight = source.take(f"attention_layers.{place}.in_proj_weight", (3 * dim, dim))
    bias = source.take(f"attention_layers.{place}.in_proj_bias", (3 * dim,))
    attention = block.attention
    for layer, own, shift in zip(
        (attention.query, attention.key, attention.value), weight.chunk(3), bias.chunk(3), strict=True
    ):
        layer.weight.copy_(own)
        layer.bias.copy_(shift)
    _fill(attention.out.weight, source, f"attention_layers.{place}.out_proj.weight")
    _fill(attention.out.bias, source, f"attention_layers.{place}.out_proj.bias")
    for norm, name in ((block.before, "attention"), (block.between, "forward")):
        _fill(norm.weight, source, f"{name}_layernorms.{place}.weight")
        _fill(norm.bias, source, f"{name}_layernorms.{place}.bias")
    for layer, name in ((block.inner, "conv1"), (block.outer, "conv2")):
        layer.weight.copy_(source.take(f"forward_layers.{place}.{name}.weight", (dim, dim, 1)).squeeze(2))
        _fill(layer.bias, source, f"forward_layers.{place}.{name}.bias")
