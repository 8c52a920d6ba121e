"""Validation rows in two: one half that a search is led by, one that chooses among what it found.

What was best of many on some rows looks better there than it is (the winner's curse), so that neither of the two
choices can be judged on rows that made it.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import polars as pl

from slimrank.config import InputError
from slimrank.data.rows import Dataset, label_faults

GROUPS = 40  # from here on whole groups go to either half


def halve(dataset: Dataset, seed: int = 0) -> tuple[Dataset, pl.DataFrame]:
    """The dataset with one half of its validation rows, and the other half.

    Rows of one group (a user, a query) hang together, so groups stay whole where there are enough of them.

    Raises:
        InputError: one of the halves has rows of one class only.
    """
    rows, generator = dataset.valid, np.random.default_rng(seed)
    group = dataset.schema.group
    if group is not None and rows[group].n_unique() >= GROUPS:
        names = rows[group].unique().sort()
        chosen = names.gather(np.sort(generator.permutation(len(names))[: len(names) // 2]))
        first = rows[group].is_in(chosen.implode(), nulls_equal=True)
    else:
        first = pl.Series(generator.permutation(len(rows)) < len(rows) // 2)
    parts = {"search": rows.filter(first), "selection": rows.filter(~first)}
    for name, part in parts.items():
        faults = ["no rows"] if part.is_empty() else label_faults(part[dataset.schema.label])
        if faults:
            raise InputError(f"{dataset.name}, valid, {name} half: {faults[0]}; a search needs more validation rows")
    print_of_half = hashlib.sha256(f"{dataset.fingerprint} search half {seed}".encode()).hexdigest()
    return replace(dataset, valid=parts["search"], fingerprint=print_of_half), parts["selection"]
