"""A student's table from its teachers' tables: what they learned of each id, rotated into the student's dimensions.

The teachers' vectors of an id stand side by side, and the principal components of each field keep what tells its ids
apart where they are met. A student that starts there needs a fraction of the training, and ends higher, than one that
starts at random: train wide and merge narrow (MLET, arXiv 2309.15881), over an ensemble. Left out: dense layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from slimrank.models.layers import Network
from slimrank.tables.embedding import Layout

SIZE = 0.1  # root mean square of the numbers of the table, weighted by frequency, that Adam moves on from well


@torch.no_grad()
def start_table(
    student: Network, teachers: Sequence[Network], counts: Mapping[str, np.ndarray], size: float = SIZE
) -> None:
    """Set the student's table from the tables of its teachers, whose layouts hold the student's fields.

    `counts` are how often training met each local id, by field. Rows that it never met become 0.
    """
    if not student.embedding.layout.names:
        return
    layout, dim = student.embedding.layout, student.embedding.dim
    blocks, weights = [], []
    for name, rows in zip(layout.names, layout.sizes, strict=True):
        count = torch.as_tensor(counts[name][:rows], dtype=torch.float32).clone()
        if name in layout.sequences:
            count[0] = 0.0  # padding is no id
        wide = torch.cat([_field(teacher, name, rows) for teacher in teachers], dim=1)
        blocks.append(components(wide, count, dim))
        weights.append(count)
    table, weight = torch.cat(blocks), torch.cat(weights)
    mean_square = (table.square().mean(dim=1) * weight).sum() / weight.sum().clamp(min=1.0)
    student.embedding.table.weight.copy_(table * size / mean_square.sqrt().clamp(min=1e-12))  # type: ignore[operator]


def _field(teacher: Network, name: str, rows: int) -> Tensor:
    """The teacher's vectors [rows, dim] of one field, on the CPU."""
    layout: Layout = teacher.embedding.layout
    start = layout.starts[layout.names.index(name)]
    return teacher.embedding.table.rows(start, start + rows).cpu()


def components(wide: Tensor, weight: Tensor, dim: int) -> Tensor:
    """The first `dim` principal components [rows, dim] of `wide` [rows, width], rows counting by `weight` [rows].

    Where there are fewer components than `dim` the rest is 0, and so are rows of weight 0.
    """
    centred = wide - (weight.unsqueeze(1) * wide).sum(dim=0) / weight.sum().clamp(min=1.0)
    covariance = (centred * weight.unsqueeze(1)).double().T @ centred.double()
    directions = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, : min(dim, len(wide))].float()
    narrow = torch.zeros(len(wide), dim)
    narrow[:, : directions.shape[1]] = centred @ directions
    return narrow * (weight > 0).unsqueeze(1)
