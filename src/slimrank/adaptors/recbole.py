"""RecBole: its models are asked by `predict`, with an `Interaction` or a mapping of the same tensors.

What an `Interaction` holds is made known to torch, so that the batches of RecBole's own loaders serve as they are.
`full_sort_predict`, the scores of all items, is asked where it is given as `forward`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from recbole.data.interaction import Interaction
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from slimrank.adaptors.adaptor import Adaptor


def predicted(module: nn.Module, batch: Interaction | Mapping[str, Any]) -> Any:
    """The scores of the pairs in a batch."""
    predict: Any = module.predict
    return predict(batch)


def _parts(batch: Interaction) -> tuple[list[Any], list[str]]:
    return list(batch.interaction.values()), list(batch.interaction)


def _named_parts(batch: Interaction) -> tuple[list[tuple[Any, Any]], list[str]]:
    return [(pytree.MappingKey(name), value) for name, value in batch.interaction.items()], list(batch.interaction)


def _made(parts: Iterable[Any], names: list[str]) -> Interaction:
    """The batch of these parts, which need not be tensors while torch walks through them."""
    made = Interaction({})
    made.interaction.update(zip(names, parts, strict=True))
    # not len(), which would fix the size while a graph is traced
    made.length = next((part.shape[0] for part in made.interaction.values() if isinstance(part, Tensor)), -1)
    return made


if Interaction not in pytree.SUPPORTED_NODES:
    pytree.register_pytree_node(Interaction, _parts, _made, flatten_with_keys_fn=_named_parts)

ADAPTOR = Adaptor(forward=predicted)
