"""Softmax over the items of a batch, which are one another's negatives, corrected for how often items are drawn.

Every query's item is an item of the batch, so negatives cost no lookup; but a batch holds an item as often as people
met it. Scores less the logarithm of the expected number of draws are those of the softmax over the whole catalogue in
expectation (Bengio and Senecal 2008; Yi et al. 2019, the logQ correction). Items that nobody met are never negatives of
a batch: evenly drawn ones are added (mixed negatives, Yang et al. 2020). Left out: queries of other batches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field, NonNegativeInt
from torch import Tensor
from torch.nn.functional import cross_entropy

from slimrank.config import Config, InputError, register
from slimrank.models.layers import Encoder
from slimrank.models.towers import TowersEncoder

if TYPE_CHECKING:
    from slimrank.training.examples import Examples


class InBatchSoftmax(Config):
    """Softmax over the items of the batch and `negatives` evenly drawn ones, for models in two towers.

    Scores are divided by `temperature`. `correction`: less the logarithm of how often a batch holds each item, which
    the model estimates while it is trained.
    """

    name: Literal["in-batch-softmax"] = "in-batch-softmax"
    negatives: NonNegativeInt = 0
    temperature: float = Field(default=1.0, gt=0)
    correction: bool = True


@register("loss", InBatchSoftmax)
def in_batch_loss(config: InBatchSoftmax, model: Encoder, batch: Examples) -> Tensor:
    """The mean over the batch's queries whose item is known.

    Raises:
        InputError: the model does not count how popular items are.
    """
    if not isinstance(model, TowersEncoder):
        raise InputError(
            "loss in-batch-softmax is for models in two towers, mf and two-tower, and this is a "
            f"{type(model).__name__}: take catalogue-softmax"
        )
    known = batch.label >= model.first_item
    target, query = batch.label[known], model(batch.ids, batch.numbers)[known]
    if not len(target):
        nothing: Tensor = query.sum()  # 0, with a gradient of 0
        return nothing
    drawn = torch.randint(model.first_item, model.num_items, (config.negatives,), device=target.device)
    candidates = torch.cat([target, drawn])
    model.popularity.see(target)
    log_expected = torch.zeros(len(candidates), device=target.device)
    if config.correction:
        items = model.num_items - model.first_item
        log_expected = log_draws(model.popularity.log_share(candidates), config.negatives, items)
    return sampled_softmax(query, model.items(candidates), target, candidates, log_expected, config.temperature)


def log_draws(log_share: Tensor, negatives: int, items: int) -> Tensor:
    """log of the expected number of times that items are among the candidates, [S].

    `log_share` [S] is the logarithm of the share of batches that hold each; `negatives` more are drawn evenly of
    `items`: log(share + negatives / items).
    """
    if not negatives:
        return log_share
    even = log_share.new_full((), negatives / items).log()
    return torch.logaddexp(log_share, even)


def sampled_softmax(
    query: Tensor, vectors: Tensor, target: Tensor, candidates: Tensor, log_expected: Tensor, temperature: float = 1.0
) -> Tensor:
    """Mean over queries of -log softmax of their own candidate, a scalar.

    The candidate of query n is the n-th. Another that is the same item is no negative and does not count.

    Args:
        query: [B, D] vectors of queries.
        vectors: [S, D] of candidates, S >= B.
        target: [B] the item of each query, the ids of the first B candidates.
        candidates: [S] items.
        log_expected: [S] the logarithm of how often each is expected among the candidates; 0 for no correction.
        temperature: what scores are divided by.
    """
    logits = query @ vectors.T / temperature - log_expected
    own = torch.arange(len(target), device=target.device)
    same = target.unsqueeze(1) == candidates
    same[own, own] = False
    return cross_entropy(logits.masked_fill(same, -torch.inf), own)
