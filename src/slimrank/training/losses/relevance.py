"""Losses of relevance as a recipe names them: a batch of whole queries to the pure functions of padded lists.

Those of hard labels read grades, those of soft labels the teachers' scores. `lists` and `distil_lists` have the
formulas; batches keep queries whole where a label is a relevance (`Examples.batches`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field
from torch import Tensor

from slimrank.config import Config, InputError, name_of, register
from slimrank.training.losses import distil_lists, lists
from slimrank.training.losses.lists import Lists
from slimrank.training.losses.loss import teacher_of

if TYPE_CHECKING:
    from slimrank.training.examples import Examples


class SoftmaxList(Config):
    """Softmax cross-entropy over the documents of a query (ListNet), each by its gain: 2**grade - 1, or the grade."""

    name: Literal["softmax-list"] = "softmax-list"
    gain: Literal["exponential", "linear"] = "exponential"


class PairwiseLogistic(Config):
    """Logistic loss of the pairs of a query of which one document is more relevant (RankNet)."""

    name: Literal["pairwise-logistic"] = "pairwise-logistic"


class ApproxNDCG(Config):
    """1 - NDCG with ranks made smooth (ApproxNDCG); a lower temperature is nearer to NDCG and harder to learn from."""

    name: Literal["approx-ndcg"] = "approx-ndcg"
    temperature: float = Field(default=0.1, gt=0)


class LambdaRank(Config):
    """Logistic loss of pairs, each by the NDCG that its order is worth (LambdaRank); with `k` one is of the first k."""

    name: Literal["lambda-rank"] = "lambda-rank"
    k: int | None = Field(default=None, ge=1)


class SoftList(Config):
    """Divergence from the teachers' softmax over the documents of a query; with `anchor` scores keep their size."""

    name: Literal["soft-list"] = "soft-list"
    temperature: float = Field(default=1.0, gt=0)
    anchor: bool = False


class MarginMSE(Config):
    """Squared error of the teachers' margins; of pairs where one is more relevant, or of all with `pairs` "all"."""

    name: Literal["margin-mse"] = "margin-mse"
    pairs: Literal["graded", "all"] = "graded"


class RelaxedRanking(Config):
    """The teachers' first documents in their order, all others below without one (relaxed ranking distillation)."""

    name: Literal["relaxed-ranking"] = "relaxed-ranking"
    interesting: int = Field(default=10, ge=1)


@register("loss", SoftmaxList)
def softmax_list(config: SoftmaxList, logit: Tensor, batch: Examples) -> Tensor:
    """`lists.softmax_list` of the batch's queries."""
    scores, found = _scores(config, logit, batch)
    gain = lists.gains(batch.label, logit.dtype) if config.gain == "exponential" else batch.label
    return lists.softmax_list(scores, found.pad(gain), found.mask)


@register("loss", PairwiseLogistic)
def pairwise_logistic(config: PairwiseLogistic, logit: Tensor, batch: Examples) -> Tensor:
    """`lists.pairwise_logistic` of the batch's queries."""
    scores, found = _scores(config, logit, batch)
    return lists.pairwise_logistic(scores, found.pad(batch.label), found.mask)


@register("loss", ApproxNDCG)
def approx_ndcg(config: ApproxNDCG, logit: Tensor, batch: Examples) -> Tensor:
    """`lists.approx_ndcg` of the batch's queries."""
    scores, found = _scores(config, logit, batch)
    return lists.approx_ndcg(scores, found.pad(batch.label), found.mask, config.temperature)


@register("loss", LambdaRank)
def lambda_rank(config: LambdaRank, logit: Tensor, batch: Examples) -> Tensor:
    """`lists.lambda_rank` of the batch's queries."""
    scores, found = _scores(config, logit, batch)
    return lists.lambda_rank(scores, found.pad(batch.label), found.mask, config.k)


@register("loss", SoftList)
def soft_list(config: SoftList, logit: Tensor, batch: Examples) -> Tensor:
    """`distil_lists.soft_list` of the batch's queries."""
    scores, found = _scores(config, logit, batch)
    teacher, weight = found.pad(teacher_of(batch, config)), _confidence(found, batch)
    return distil_lists.soft_list(
        scores, teacher, found.mask, temperature=config.temperature, anchor=config.anchor, weight=weight
    )


@register("loss", MarginMSE)
def margin_mse(config: MarginMSE, logit: Tensor, batch: Examples) -> Tensor:
    """`distil_lists.margin_mse` of the batch's queries."""
    scores, found = _scores(config, logit, batch)
    teacher, weight = found.pad(teacher_of(batch, config)), _confidence(found, batch)
    labels = found.pad(batch.label) if config.pairs == "graded" else None
    return distil_lists.margin_mse(scores, teacher, found.mask, labels, weight)


@register("loss", RelaxedRanking)
def relaxed_ranking(config: RelaxedRanking, logit: Tensor, batch: Examples) -> Tensor:
    """`distil_lists.relaxed_ranking` of the batch's queries."""
    scores, found = _scores(config, logit, batch)
    teacher, weight = found.pad(teacher_of(batch, config)), _confidence(found, batch)
    return distil_lists.relaxed_ranking(scores, teacher, found.mask, interesting=config.interesting, weight=weight)


def _scores(config: Config, logit: Tensor, batch: Examples) -> tuple[Tensor, Lists]:
    """The batch's logits as lists, a list for each query.

    Raises:
        InputError: rows are not the documents of queries.
    """
    if batch.answer != "relevance" or batch.group is None:
        raise InputError(
            f"loss {name_of(config)!r} orders the documents of a query: rows need a group and the answer 'relevance', "
            f"got {batch.answer!r}"
        )
    found = Lists.of(batch.group)
    return found.pad(logit), found


def _confidence(found: Lists, batch: Examples) -> Tensor | None:
    return None if batch.confidence is None else found.pad(batch.confidence)
