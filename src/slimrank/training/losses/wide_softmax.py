"""Cross-entropy with a softmax over very many items, without ever holding the scores of all places and items.

The scores of a few places at a time are made, turned into the gradient of the loss and multiplied back while they are
in the cache; what is kept for the backward pass is the gradient of both factors (as Liger, Hsu et al. 2024, arXiv
2410.10989, and cut cross-entropy, Wijmans et al. 2024, arXiv 2411.09009, do on GPUs). Left out: items that are
drawn for a batch, few enough to hold their scores (`catalogue.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

AT_ONCE = {"cpu": 1 << 19, "cuda": 1 << 26}  # scores held at once, by kind of device: more leave the cache
LEAST_PLACES = 128  # fewer at once, and adding up the gradient of the items costs more than the scores do


class SoftLabels(NamedTuple):
    """Teachers' softmax at a temperature: their vectors [T, E] of the same places and [C, E] of the same items."""

    weight: float
    temperature: float
    sides: Sequence[tuple[Tensor, Tensor]]


def wide_cross_entropy(vectors: Tensor, items: Tensor, place: Tensor, soft: SoftLabels | None = None) -> Tensor:
    """The mean over places of cross-entropy with the scores `vectors @ items.T`, a scalar; 0 without places.

    With soft labels w and temperature H it is (1 - w) * cross-entropy + w * H**2 * cross-entropy of softmax(scores / H)
    with the mean of the teachers' probabilities. Under autocast products are of halves; softmax, loss and sums are
    of floats, as those of torch's own cross-entropy are.

    Args:
        vectors: [T, D] of the places.
        items: [C, D].
        place: [T] which of the items is the one.
        soft: what the teachers say.
    """
    loss: Tensor = _WideCrossEntropy.apply(vectors, items, place, soft)  # type: ignore[no-untyped-call]
    return loss


class _WideCrossEntropy(torch.autograd.Function):
    """Both factors' gradients are made on the way forward, and scaled on the way back."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, items: Tensor, place: Tensor, soft: SoftLabels | None) -> Tensor:
        device = vectors.device.type
        whole = torch.promote_types(torch.promote_types(vectors.dtype, items.dtype), torch.float32)
        fast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else whole
        with torch.autocast(device, enabled=False):
            queries, keys = vectors.to(fast), items.to(fast)
            sides = [] if soft is None else [(a.to(fast), b.to(fast)) for a, b in soft.sides]
            of_vectors, of_items = (torch.zeros_like(each, dtype=whole) for each in (vectors, items))
            total = torch.zeros((), dtype=whole, device=vectors.device)
            for part in parts(len(vectors), len(items), device, LEAST_PLACES):
                scores = (queries[part] @ keys.T).to(whole)
                loss, change = _of_scores(scores, place[part], soft, [(a[part], b) for a, b in sides])
                total += loss
                change = change.to(fast)
                if ctx.needs_input_grad[0]:
                    of_vectors[part] = (change @ keys).to(whole)
                if ctx.needs_input_grad[1]:
                    of_items += change.T @ queries[part]
        count = max(len(vectors), 1)
        ctx.save_for_backward((of_vectors / count).to(vectors.dtype), (of_items / count).to(items.dtype))
        return total / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, Tensor, None, None]:
        of_vectors, of_items = ctx.saved_tensors
        return of_vectors * given.to(of_vectors.dtype), of_items * given.to(of_items.dtype), None, None


def parts(places: int, items: int, device: str, least: int) -> Iterator[slice]:
    """Ranges of `least` places or more whose scores of all `items` are held at once."""
    step = max(least, AT_ONCE.get(device, AT_ONCE["cpu"]) // max(items, 1))
    return (slice(start, min(start + step, places)) for start in range(0, places, step))


def _of_scores(
    scores: Tensor, place: Tensor, soft: SoftLabels | None, sides: Sequence[tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """The sum over places of the loss of `scores` [n, C], and its gradient [n, C]."""
    own = place.unsqueeze(1)
    chances, log_sum = _softmax(scores)
    hard = (log_sum - scores.gather(1, own)).sum()
    if soft is None:
        return hard, chances.scatter_add_(1, own, chances.new_full(own.shape, -1.0))
    heat, weight = soft.temperature, soft.weight
    labels = reduce(torch.add, [_warm((a @ b.T).to(scores.dtype), heat).softmax(dim=1) for a, b in sides]) / len(sides)
    change, soft_sum = chances, log_sum
    if heat != 1:
        softer, soft_sum = _softmax(scores / heat)
        change = softer.mul_(weight * heat).add_(chances, alpha=1 - weight)
    # -sum of labels * log softmax, the labels of a place adding up to 1.
    distance = soft_sum.sum() - labels.flatten() @ scores.flatten() / heat
    change.sub_(labels, alpha=weight * heat).scatter_add_(1, own, change.new_full(own.shape, weight - 1.0))
    return weight * heat**2 * distance + (1 - weight) * hard, change


def _warm(scores: Tensor, heat: float) -> Tensor:
    return scores if heat == 1 else scores / heat


def _softmax(scores: Tensor) -> tuple[Tensor, Tensor]:
    """softmax(`scores`) [n, C], and log sum exp(`scores`) [n, 1]."""
    chances = scores.softmax(dim=1)
    # The largest chance is 1 / C or more, so that its logarithm is there; `max` would look for its place as well.
    return chances, scores.amax(dim=1, keepdim=True) - chances.amax(dim=1, keepdim=True).log()
