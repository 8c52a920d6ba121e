"""The arithmetic of linear models of items: which items are met together, and the weights that tell one from others.

X [users, items] holds 1 where a user met an item. Every item is a ridge regression on all others,
min |X - X B|^2 + l2 |B|^2 with a diagonal of 0, and all of them share one matrix X^T X. float64 throughout: the inverse
of a matrix of counts loses half of its digits. Left out: values other than 0 and 1, and weights for users.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slimrank.config import InputError

Floats = NDArray[np.float64]
USERS_AT_ONCE = 2048  # users whose items stand side by side as 0 and 1


def met_together(user: NDArray[np.int64], item: NDArray[np.int64], items: int) -> Floats:
    """X^T X [items, items]: how many users met both items; a pair of user and item counts once, [M] each.

    >>> met_together(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), 3).tolist()
    [[1.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 0.0]]
    """
    pairs = np.unique(np.unique(user, return_inverse=True)[1].astype(np.int64) * items + item)
    owner, met = pairs // items, pairs % items
    total = np.zeros((items, items))
    users = int(owner[-1]) + 1 if len(owner) else 0
    for start in range(0, users, USERS_AT_ONCE):
        first, last = np.searchsorted(owner, [start, start + USERS_AT_ONCE])
        own = np.zeros((min(USERS_AT_ONCE, users - start), items), np.float32)
        own[owner[first:last] - start, met[first:last]] = 1.0
        total += own.T @ own
    return total


def weights_of_all(together: Floats, l2: float) -> Floats:
    """EASE (Steck 2019, arXiv 1905.03375): weights [items, items] of every item for every other, 0 on the diagonal.

    With P = (X^T X + l2 I)^-1 they are -P_ij / P_jj; item i adds weight [i, j] to the score of item j.

    Raises:
        InputError: the matrix cannot be inverted at this `l2`.
    """
    try:
        precision = np.linalg.inv(together + l2 * np.eye(len(together)))
    except np.linalg.LinAlgError:
        raise InputError(_too_small(l2)) from None
    with np.errstate(divide="ignore", invalid="ignore"):
        weights: Floats = -precision / np.diag(precision)
    np.fill_diagonal(weights, 0.0)
    if not np.isfinite(weights).all():
        raise InputError(_too_small(l2))
    return weights


def weights_of_some(together: Floats, l2: float, kept: NDArray[np.bool_]) -> Floats:
    """The same with only the weights where `kept` [items, items] is true, each item's the best that these can be.

    Steck 2019, "Markov random fields for collaborative filtering", arXiv 1910.09645, without its approximation by
    blocks: for item j with kept set s, (G_ss + l2 I) w = G_sj with G = X^T X. The diagonal stays 0.

    Raises:
        InputError: a system cannot be solved at this `l2`.
    """
    weights = np.zeros_like(together)
    regular = together + l2 * np.eye(len(together))
    for item in range(len(together)):
        own = np.flatnonzero(kept[:, item])
        own = own[own != item]
        if len(own):
            try:
                weights[own, item] = np.linalg.solve(regular[np.ix_(own, own)], together[own, item])
            except np.linalg.LinAlgError:
                raise InputError(_too_small(l2)) from None
    return weights


def least_loss(together: Floats, weights: Floats) -> float:
    """|X - X B|^2 + l2 |B|^2 of weights B that are the best for their places: tr(G) - sum of G B by elements."""
    return float(np.trace(together) - (together * weights).sum())


def _too_small(l2: float) -> str:
    return f"l2 is {l2:g}: too small for these rows, some items are met by the same users alone; raise it"
