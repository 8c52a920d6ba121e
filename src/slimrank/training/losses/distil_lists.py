"""Losses of ranked lists against a teacher's scores, and of vectors against a teacher's, as pure functions.

`scores`, `teacher` and `mask` are [G, n] as in `lists`: G queries of up to n documents. `weight` [G, n], where it is
given, is the confidence in the teacher's score of each document (DLLM2Rec, Cui et al. 2024, arXiv 2405.00338): one of
weight w counts as w copies of it would, one of weight 0 as if it were not there; and a group counts in the mean over
groups by the mean weight of its documents. Left out: soft labels of single rows (`cross_entropy`).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from slimrank.config import InputError
from slimrank.training.losses.lists import (
    better,
    differences,
    kept,
    log_softmax,
    log_sum,
    mean_over_groups,
    mean_over_pairs,
)


def margin_mse(
    scores: Tensor, teacher: Tensor, mask: Tensor, labels: Tensor | None = None, weight: Tensor | None = None
) -> Tensor:
    """Squared error of the student's margins against the teacher's, a scalar (Hofstaetter et al., arXiv 2010.02666).

    Of a group the mean of ((s_i - s_j) - (t_i - t_j))**2 over its pairs with y_i > y_j; without labels over all pairs.
    Scores may be shifted by a constant a group, and not scaled.
    """
    scores, teacher = kept(scores, mask), kept(teacher, mask)
    if labels is None:
        pairs = mask.unsqueeze(2) & mask.unsqueeze(1) & _above_diagonal(mask)
    else:
        pairs = better(kept(labels, mask), mask)
    shares, of_group = _weights(scores, mask, weight)
    both = pairs * shares.unsqueeze(2) * shares.unsqueeze(1)
    return mean_over_pairs(differences(scores - teacher).square(), both, of_group)


def soft_list(
    scores: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    temperature: float = 1.0,
    anchor: bool = False,
    weight: Tensor | None = None,
) -> Tensor:
    """How far the student's softmax over a list is from the teacher's, a scalar, 0 where they agree.

    Of a group T**2 * sum_i p_i log(p_i / q_i), p and q the softmax of teacher / T and scores / T over its documents
    (ListNet's top-one probabilities, with the temperature of Hinton et al. 2015, arXiv 1503.02531).

    It does not see a constant that is added to all scores of a list, so probabilities made of them are lost. With
    `anchor` every list has one more place whose score is 0 for teacher and student (the anchor of Yan et al. 2022,
    "Scale calibration of deep ranking models"): the only least value is then where each score is the teacher's, and
    sigmoid(score) stays as calibrated as the teacher's. A list of one document is then binary cross-entropy, less the
    teacher's own.
    """
    scores, teacher = kept(scores, mask) / temperature, kept(teacher, mask) / temperature
    shares, of_group = _weights(scores, mask, weight)
    counted = (mask & (shares > 0)).any(1)
    if anchor:
        scores, teacher = _anchored(scores, 0.0), _anchored(teacher, 0.0)
        mask, shares = _anchored(mask, True), _anchored(shares, 1.0)
    present = mask & (shares > 0)
    copies = torch.where(present, shares, 1).log()
    target = log_softmax(teacher + copies, present)
    reached = log_softmax(scores + copies, present)
    each = torch.where(present, target.exp() * (target - reached), 0.0).sum(1)
    return temperature**2 * mean_over_groups(each, counted, of_group)


def relaxed_ranking(
    scores: Tensor, teacher: Tensor, mask: Tensor, *, interesting: int, weight: Tensor | None = None
) -> Tensor:
    """The chance of the teacher's first documents in its order with all others below, a scalar: its -log.

    Relaxed ranking distillation (DE-RRD, Kang et al. 2020, arXiv 2012.04357). With pi the `interesting` documents that
    the teacher puts first (fewer in a shorter list; ties in the order of the list), of a group
    -sum_k log(exp(s_pi_k) / (sum_(i >= k) exp(s_pi_i) + sum_j exp(s_j))), j over all other documents, which have no
    order among themselves. Which documents make the list (all, or a sample of the uninteresting) is the caller's to
    choose. A group of one document has nothing to tell. With `weight` a term counts by its document's.

    Raises:
        InputError: `interesting` is below 1.
    """
    if interesting < 1:
        raise InputError(f"interesting: got {interesting}, allowed 1 or more")
    shares, of_group = _weights(scores, mask, weight)
    present = mask & (shares > 0)
    order = torch.argsort(torch.where(present, teacher, -torch.inf), dim=1, descending=True, stable=True)
    scores, shares = kept(scores, present).gather(1, order), shares.gather(1, order)
    present = present.gather(1, order)
    first = min(interesting, scores.shape[1])
    places = torch.arange(scores.shape[1], device=scores.device)
    left = present.unsqueeze(1) & (places >= places[:first].unsqueeze(1))
    copies = torch.where(present, shares, 1).log()
    below = log_sum((scores + copies).unsqueeze(1).expand(left.shape).flatten(0, 1), left.flatten(0, 1))
    terms = kept(below.view(left.shape[:2]) - (scores + copies)[:, :first], present[:, :first]) * shares[:, :first]
    return mean_over_groups(terms.sum(1), present.sum(1) > 1, of_group)


def embedding_alignment(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor | None = None,
    *,
    form: Literal["cosine", "mse"] = "cosine",
    matrix: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """How far the student's vectors [N, D] are from the teacher's [N, E], a scalar, 0 where they agree.

    The mean over rows of 1 - cos(v, t), or of the mean square of v - t, with v = student @ matrix; `matrix` [D, E] may
    be learned with the student or given, and may be left out where D = E. Rows count where `mask` [N] is True, and by
    `weight` [N]. A vector of zeros has the cosine 0 with any.

    Raises:
        InputError: the dimensions do not fit.
    """
    present = torch.ones(len(student), dtype=torch.bool, device=student.device) if mask is None else mask
    if weight is not None:
        weight = kept(weight, present)
        present = present & (weight > 0)
    student, teacher = (kept(each, present.unsqueeze(1)) for each in (student, teacher))
    mapped = student if matrix is None else student @ matrix
    if mapped.shape != teacher.shape:
        through = "without a matrix" if matrix is None else f"through a matrix {list(matrix.shape)}"
        raise InputError(f"vectors do not fit: student {list(student.shape)} {through}, teacher {list(teacher.shape)}")
    if form == "cosine":
        each = 1 - (normalize(mapped, dim=1) * normalize(teacher, dim=1)).sum(1)
    else:
        each = (mapped - teacher).square().mean(1)
    return mean_over_groups(each, present, weight)


def ensemble(teachers: Tensor, present: Tensor | None = None) -> Tensor:
    """The mean over T teachers of their scores [T, ...], each place over the teachers that have one there.

    `present` [T, ...] is True where a teacher has a score (None: everywhere); a place that none has is 0.
    """
    if present is None:
        return teachers.mean(0)
    return kept(teachers, present).sum(0) / present.sum(0).clamp(min=1)


def _weights(scores: Tensor, mask: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Of each document its weight, 0 at masked places, and of each group the mean (None: all groups count alike)."""
    if weight is None:
        return mask.to(scores.dtype), None
    shares = kept(weight, mask).to(scores.dtype)
    return shares, shares.sum(1) / mask.sum(1).clamp(min=1)


def _anchored(values: Tensor, value: float | bool) -> Tensor:
    """`values` [G, n] with one more column of `value`."""
    return torch.cat([values, values.new_full((len(values), 1), value)], 1)


def _above_diagonal(mask: Tensor) -> Tensor:
    """[n, n] True where the first place stands before the second, so that every pair is met once."""
    size = mask.shape[1]
    return torch.ones(size, size, dtype=torch.bool, device=mask.device).triu(1)
