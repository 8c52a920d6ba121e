"""Losses of ranked lists against relevance labels, as pure functions of padded lists.

Ranking is a matter of a query's documents among themselves, so a loss is of lists: `scores`, `labels` and `mask` are
[G, n], G queries of up to n documents, `mask` True where a document is. What stands where it is not changes nothing,
NaN included, and its gradient is exactly 0. A loss is the mean over the groups that can teach: those with a relevant
document, or with a pair of documents of which one is more relevant; 0 where no group can. Labels are grades, >= 0.
Memory is that of G x n x n floats where pairs are compared. Left out: losses against a teacher (`distil_lists`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus


@dataclass(frozen=True)
class Lists:
    """Where the rows of groups stand in padded lists: `index` [G, n] rows, `mask` [G, n] True where there is one.

    Groups are in rising order of their codes, the rows of a group in the order they came in.
    """

    index: Tensor
    mask: Tensor

    @classmethod
    def of(cls, group: Tensor) -> Lists:
        """The lists of the group codes [N], any integers in any order.

        >>> Lists.of(torch.tensor([7, 3, 7])).pad(torch.tensor([0.5, 2.0, 1.5])).tolist()
        [[2.0, 0.0], [0.5, 1.5]]
        """
        order = torch.argsort(group, stable=True)
        sizes = torch.unique_consecutive(group[order], return_counts=True)[1]
        longest = int(sizes.max()) if len(sizes) else 0
        mask = torch.arange(longest, device=group.device) < sizes.unsqueeze(1)
        index = torch.zeros(mask.shape, dtype=torch.int64, device=group.device)
        index[mask] = order
        return cls(index, mask)

    def pad(self, values: Tensor) -> Tensor:
        """`values` [N] as lists [G, n], 0 where there is no row."""
        if not self.mask.numel():
            return values.new_zeros(self.mask.shape)
        return torch.where(self.mask, values[self.index], 0)


def pairwise_logistic(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Logistic loss of pairs, a scalar (RankNet, Burges et al. 2005, "Learning to rank using gradient descent").

    Of a group the mean of log(1 + exp(-(s_i - s_j))) over its pairs with y_i > y_j.
    """
    scores, labels = kept(scores, mask), kept(labels, mask)
    pairs = better(labels, mask)
    return mean_over_pairs(softplus(-differences(scores)), pairs.to(scores.dtype))


def softmax_list(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Softmax cross-entropy of lists, a scalar (ListNet, Cao et al. 2007, with labels in the place of their softmax).

    Of a group -sum_i y_i / (sum_j y_j) * log(exp(s_i) / sum_j exp(s_j)). Labels are gains as they are; give 2**y - 1
    where grades should count as NDCG counts them.
    """
    scores, labels = kept(scores, mask), kept(labels, mask).to(scores.dtype)
    total = labels.sum(1)
    target = labels / _not_zero(total).unsqueeze(1)
    return mean_over_groups(-(target * log_softmax(scores, mask)).sum(1), total > 0)


def approx_ndcg(scores: Tensor, labels: Tensor, mask: Tensor, temperature: float = 0.1) -> Tensor:
    """1 - NDCG with smooth ranks, a scalar (ApproxNDCG, Qin et al. 2010; Bruch et al. 2019, "Revisiting ApproxNDCG").

    The rank of a document is 1 + sum over the others j of sigmoid((s_j - s_i) / temperature); NDCG is
    sum_i (2**y_i - 1) / log2(1 + rank_i) over the same sum in the best order.
    """
    scores, labels = kept(scores, mask), kept(labels, mask)
    others = mask.unsqueeze(1) & ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    above = torch.sigmoid(-differences(scores) / temperature)
    rank = 1 + torch.where(others, above, 0.0).sum(2)
    gain = gains(labels, scores.dtype)
    best = best_gain(gain)
    reached = (gain / torch.log2(1 + rank)).sum(1) / _not_zero(best)
    return mean_over_groups(1 - reached, best > 0)


def lambda_rank(scores: Tensor, labels: Tensor, mask: Tensor, k: int | None = None) -> Tensor:
    """Logistic loss of pairs by what their order is worth, a scalar (LambdaRank, Burges 2010, MSR-TR-2010-82).

    Of a group the sum over its pairs with y_i > y_j of |change of NDCG where the two are swapped| *
    log(1 + exp(-(s_i - s_j))). The change is that of the ranks which the scores give now, and no gradient goes through
    it (LambdaLoss, Wang et al. 2018). With `k`, only pairs with one of the two among the first k, as in LightGBM's
    truncation level.
    """
    scores, labels = kept(scores, mask), kept(labels, mask)
    gain = gains(labels, scores.dtype)
    with torch.no_grad():
        rank = ranks(scores, mask)
        discount = 1 / torch.log2(2 + rank.to(scores.dtype))
        swap = (differences(gain) * differences(discount)).abs() / _not_zero(best_gain(gain))[:, None, None]
        pairs = better(labels, mask)
        if k is not None:
            pairs &= (rank < k).unsqueeze(2) | (rank < k).unsqueeze(1)
    each = torch.where(pairs, swap * softplus(-differences(scores)), 0.0)
    return mean_over_groups(each.sum((1, 2)), pairs.any(2).any(1))


def kept(values: Tensor, mask: Tensor) -> Tensor:
    """`values` with 0 at masked places, through which no gradient flows whatever stood there."""
    return torch.where(mask, values, 0)


def gains(labels: Tensor, dtype: torch.dtype) -> Tensor:
    """2**y - 1, what NDCG gives for grade y; exact for grades up to 23 in float32."""
    return torch.exp2(labels.to(dtype)) - 1


def best_gain(gain: Tensor) -> Tensor:
    """[G] the discounted sum of `gain` [G, n] in the best order, sum over ranks r of gain / log2(1 + r)."""
    places = torch.arange(gain.shape[1], device=gain.device, dtype=gain.dtype)
    return (gain.sort(dim=1, descending=True).values / torch.log2(2 + places)).sum(1)


def ranks(scores: Tensor, mask: Tensor) -> Tensor:
    """[G, n] int64, from 0: places of documents by falling score, ties in the order of the list, masked ones last."""
    order = torch.argsort(torch.where(mask, scores, -torch.inf), dim=1, descending=True, stable=True)
    return torch.argsort(order, dim=1)


def log_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """[G, n] the logarithm of the softmax among the documents of a group; 0 at masked places."""
    return kept(scores - log_sum(scores, mask).unsqueeze(1), mask)


def log_sum(scores: Tensor, mask: Tensor) -> Tensor:
    """[G] log of the sum of exp(score) over a group's documents; 0 for a group without any.

    A group without documents gets one of score 0, since the logarithm of nothing has no gradient.
    """
    empty = ~mask.any(1, keepdim=True)
    return torch.where(mask | empty, scores, -torch.inf).logsumexp(1) * mask.any(1)


def mean_over_groups(loss: Tensor, counted: Tensor, weight: Tensor | None = None) -> Tensor:
    """The mean of a loss [G] over the groups that count, by their weight [G] where one is given; 0 without any."""
    share = counted.to(loss.dtype) if weight is None else counted * weight
    return (torch.where(counted, loss, 0.0) * share).sum() / _not_zero(share.sum())


def mean_over_pairs(loss: Tensor, weight: Tensor, of_group: Tensor | None = None) -> Tensor:
    """The mean over groups of the mean of `loss` over pairs, both [G, n, n], the pairs by their weight."""
    total = weight.sum((1, 2))
    each = (loss * weight).sum((1, 2)) / _not_zero(total)
    return mean_over_groups(each, total > 0, of_group)


def differences(values: Tensor) -> Tensor:
    """[G, n, n] of values [G, n]: the first of a pair less the second."""
    return values.unsqueeze(2) - values.unsqueeze(1)


def better(labels: Tensor, mask: Tensor) -> Tensor:
    """[G, n, n] whether both of a pair are documents and the first is the more relevant."""
    return (labels.unsqueeze(2) > labels.unsqueeze(1)) & mask.unsqueeze(2) & mask.unsqueeze(1)


def _not_zero(values: Tensor) -> Tensor:
    """1 in the place of 0, so that a quotient that is not used is finite."""
    return torch.where(values == 0, 1, values)
