"""Matrix factorisation (Koren et al. 2009, "Matrix factorization techniques for recommender systems") for retrieval.

Ids of the query to a vector, the item's id to a vector and a bias. The bias is one more dimension, at which every query
has a 1: so an index needs to know of no biases, and a user that training never met is answered with what is popular.
Left out: the history (see `two_tower.py`), numbers.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from slimrank.config import InputError, register
from slimrank.models.architecture import Architecture
from slimrank.models.towers import Towers, TowersEncoder
from slimrank.tables.embedding import Layout


class MF(Towers, Architecture):
    """Matrix factorisation: the product of a user's vector and an item's, with a bias of the item."""

    name: Literal["mf"] = "mf"


class MFEncoder(TowersEncoder):
    """score = sum of the vectors of the query's ids . item's vector + item's bias; D = embedding_dim + 1."""

    def __init__(self, config: MF, layout: Layout):
        catalogue = config.field_of(layout, "mf")
        if not layout.num_categorical:
            raise InputError(
                "model mf multiplies a vector of the query's categorical fields, such as the user, by those of items, "
                "and these rows have none: take two-tower or ease, which read the history"
            )
        super().__init__(config.embed(layout, config.embedding_dim + 1), catalogue, config.popularity_rate)

    def forward(self, ids: Tensor, numbers: Tensor | None = None) -> Tensor:
        split = self.embedding.layout.num_categorical
        vectors = self.embedding.look_up(ids[:, :split], self.embedding.offsets[:split]).sum(dim=1)
        return torch.cat([vectors[:, :-1], torch.ones_like(vectors[:, :1])], dim=1)

    def items(self, ids: Tensor) -> Tensor:
        return self.item_rows(ids)


register("model", MF)(MFEncoder)
