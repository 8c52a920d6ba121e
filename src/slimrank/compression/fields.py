"""Which fields a student needs: the fewer it looks up, the further below the lookups of its teacher it gets.

Permutation importance (Breiman 2001): the loss of the teachers' AUC on validation rows when one field's column is
shuffled, so that its values are as frequent as before and tell nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from slimrank.metrics import auc
from slimrank.models.layers import Network
from slimrank.training.examples import Examples, score


def field_importance(teachers: Sequence[Network], rows: Examples, seed: int) -> dict[str, float]:
    """For every field, by how much the AUC of the teachers' mean logit on `rows` falls when it is shuffled."""
    layout = teachers[0].embedding.layout
    label = rows.label.cpu().numpy()
    generator = torch.Generator().manual_seed(seed)
    whole = auc(label, _mean_logit(teachers, rows))
    drops = {}
    for name in layout.names:
        columns = layout.columns_of({name}).to(rows.ids.device)
        order = torch.randperm(len(rows), generator=generator).to(rows.ids.device)
        ids = rows.ids.clone()
        ids[:, columns] = ids[order][:, columns]
        drops[name] = whole - auc(label, _mean_logit(teachers, replace(rows, ids=ids)))
    return drops


def _mean_logit(teachers: Sequence[Network], rows: Examples) -> np.ndarray:
    mean: np.ndarray = np.mean([score(teacher, rows) for teacher in teachers], axis=0)
    return mean


def needed_fields(importance: dict[str, float], least: float) -> tuple[str, ...]:
    """The fields whose importance is at least `least`, or the most important one if none is.

    >>> needed_fields({"user": 0.05, "hour": 0.0001}, least=0.001)
    ('user',)
    """
    kept = tuple(name for name, drop in importance.items() if drop >= least)
    return kept or (max(importance, key=importance.__getitem__),)
