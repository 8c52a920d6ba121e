"""TorchRec: models over an EmbeddingBagCollection take a `KeyedJaggedTensor`, and here ids by feature as well.

A graph cannot cut a `KeyedJaggedTensor` at lengths that it only learns as it runs. So what is exported is called with a
mapping of features to their ids in place of it: {"user": [N], "genres": [N, L]}, the same number of ids for every row,
or a `JaggedTensor` with offsets where that number varies. A module of one's own that holds a collection is called the
same way with `forward=lambda module, batch: module(keyed(batch))`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_modules import EmbeddingBagCollectionInterface
from torchrec.sparse.jagged_tensor import JaggedTensor, KeyedJaggedTensor

from slimrank.adaptors.adaptor import Adaptor
from slimrank.compression.modules import call


@dataclass(frozen=True)
class Rows:
    """Bags of one length: what a collection asks of a part of a `KeyedJaggedTensor`, and bags pool without offsets."""

    ids: Tensor

    def values(self) -> Tensor:
        """Ids [N, L]."""
        return self.ids

    def offsets(self) -> None:
        """None are needed."""

    def weights(self) -> None:
        """All weigh the same."""


def keyed(features: Mapping[str, Tensor | JaggedTensor]) -> KeyedJaggedTensor:
    """Ids by feature, [N], [N, L] or jagged, as what a collection that slimrank is working on takes."""
    parts = {
        name: each if isinstance(each, JaggedTensor) else Rows(each.reshape(each.shape[0], -1))
        for name, each in features.items()
    }
    first = next(iter(features.values()))
    count = first.offsets().shape[0] - 1 if isinstance(first, JaggedTensor) else first.shape[0]
    nothing = torch.zeros(0, dtype=torch.int64)
    return KeyedJaggedTensor(
        list(features),
        nothing,
        lengths=nothing,
        offsets=nothing,
        stride=count,
        stride_per_key=[count] * len(features),
        length_per_key=[0] * len(features),
        offset_per_key=[0] * (len(features) + 1),
        jt_dict=parts,
    )


def asked(module: nn.Module, batch: Any) -> Any:
    """The module called with a batch, in which a mapping of features stands for a `KeyedJaggedTensor`."""
    if isinstance(module, EmbeddingBagCollectionInterface) and isinstance(batch, Mapping):
        return module(keyed(batch))
    if isinstance(batch, Mapping):
        return call(module, {name: _argument(each) for name, each in batch.items()})
    return call(module, tuple(map(_argument, batch)) if isinstance(batch, tuple | list) else batch)


def _argument(value: Any) -> Any:
    return keyed(value) if isinstance(value, Mapping) else value


ADAPTOR = Adaptor(forward=asked)
