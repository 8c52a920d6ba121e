"""GMF (He et al. 2017, arXiv 1708.05031): matrix factorisation of two fields, dimensions weighted."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from slimrank.config import InputError, register
from slimrank.models.architecture import Architecture
from slimrank.models.layers import Ranker
from slimrank.tables.embedding import Layout, Row


class GMF(Architecture):
    """Generalised matrix factorisation: the weighted product of the vectors of two fields, such as user and item."""

    name: Literal["gmf"] = "gmf"


class GMFModel(Ranker):
    """logit = b + sum_d w_d u_d v_d, u and v being the vectors of the two fields.

    `w` starts at ones, where the model is a plain matrix factorisation.
    """

    def __init__(self, config: GMF, layout: Layout):
        if len(layout.names) != 2 or layout.sequences or layout.numbers:
            fields = ", ".join(layout.names) or "no ids"
            raise InputError(
                f"model gmf multiplies the vectors of two categorical fields, and these rows have {fields} and "
                f"{layout.numbers} numbers: take deepfm or dnn, or drop what is not needed"
            )
        super().__init__(config.embed(layout))
        self.weight = nn.Parameter(torch.ones(config.embedding_dim))
        self.bias = nn.Parameter(torch.zeros(1))

    def score(self, ids: Tensor, row: Row) -> Tensor:
        first, second = row.lookups.unbind(dim=1)
        return (first * second) @ self.weight + self.bias


register("model", GMF)(GMFModel)
