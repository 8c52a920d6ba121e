"""EASE (Steck 2019, arXiv 1905.03375): an item's score is the sum of the weights that a history's items have for it.

Its table has a row for every item of the history and a column for every item of the catalogue, and is found by one
matrix inverse. What makes it small is pruning (`prune-neighbours`): a table of the kind `sparse`, whose weights are
then found again, all that are kept at once. Left out: how often or in which order an item was met.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from slimrank.config import Config, InputError, register
from slimrank.models.item_weights import least_loss, met_together, weights_of_all, weights_of_some
from slimrank.models.layers import ItemScorer
from slimrank.tables.dense import DenseTable
from slimrank.tables.embedding import FusedEmbedding, Layout
from slimrank.tables.sparse import SparseTable

MOST_ITEMS = 20_000  # four matrices of float64 at this size are 13 GB


class EASE(Config):
    """A linear model of items in closed form: weights of every item for every other, of a history alone."""

    name: Literal["ease"] = "ease"
    l2: float = Field(default=400.0, gt=0)


class EASEModel(ItemScorer):
    """scores [N, items] = X B: X says which items a history holds, B has a diagonal of 0. Untrained, B is 0."""

    def __init__(self, config: EASE, layout: Layout):
        if len(layout.names) != 1 or not layout.sequences or layout.numbers:
            fields = ", ".join(layout.names) or "no ids"
            raise InputError(
                f"model ease multiplies one history by weights, and these rows have {fields} and "
                f"{layout.numbers} numbers: take a sequence field of items alone, or another model"
            )
        size = layout.num_rows
        if size > MOST_ITEMS:
            raise InputError(
                f"model ease has a weight for every pair of items, and {size:,} items make {size**2 * 8:,} bytes of "
                f"them while it is fitted; allowed are {MOST_ITEMS:,} items: raise min_count, or take another model"
            )
        super().__init__(FusedEmbedding(layout, DenseTable(torch.zeros(size, size), torch.tensor(layout.starts))))
        self.catalogue = layout.names[0]
        self.l2 = config.l2

    def forward(self, ids: Tensor, numbers: Tensor | None = None) -> Tensor:
        held = torch.zeros(ids.shape[0], self.embedding.table.num_rows, dtype=torch.int32, device=ids.device)
        items = (ids >= self.first_item).to(torch.int32)  # padding and the unknown weigh nothing, whatever codes say
        scores: Tensor = self.embedding.table.summed(held.scatter(1, ids.long(), items))
        return scores

    def solve(self, ids: Tensor, label: Tensor, group: Tensor | None) -> float:
        """Find the weights; of a pruned table those that it kept. A user is a `group`, or a row where there is none."""
        table = self.embedding.table
        if not isinstance(table, DenseTable | SparseTable):
            raise InputError(f"the weights of ease cannot be found in a {type(table).__name__}: prune them instead")
        items = torch.cat([ids.long(), label.long().unsqueeze(1)], dim=1).cpu().numpy()
        users = np.arange(len(items)) if group is None else group.cpu().numpy()
        known = items >= self.first_item
        together = met_together(np.broadcast_to(users[:, None], items.shape)[known], items[known], table.num_rows)
        if isinstance(table, SparseTable):
            weights = weights_of_some(together, self.l2, table.kept().cpu().numpy())
            table.assign(torch.from_numpy(weights).float().to(ids.device))
        else:
            weights = weights_of_all(together, self.l2)
            table.weight.data.copy_(torch.from_numpy(weights))
        return least_loss(together, weights) / max(len(np.unique(users)), 1)


register("model", EASE)(EASEModel)
