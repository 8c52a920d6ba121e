"""How good a model is on validation rows while it is trained and compressed: one number, higher is better.

AUC for clicks, NDCG@10 of every query's documents for relevance, NDCG@10 among the whole catalogue for items. What is
published is measured on the artifact (`evaluation/`); this one only chooses epochs and settings.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from slimrank.metrics import auc
from slimrank.metrics.top_k import ndcg
from slimrank.models.layers import Encoder, Finder, Network
from slimrank.training.examples import Examples, score
from slimrank.training.losses.wide_softmax import parts

CUT = 10
LEAST_QUERIES = 16  # fewer at once, and all items are read for next to nothing


def quality(model: Network, examples: Examples) -> float:
    """The metric of `examples.answer` for `model` on `examples`."""
    if isinstance(model, Finder):
        return catalogue_ndcg(model, examples)
    label, logit = examples.label.cpu().numpy(), score(model, examples)
    if examples.answer == "click":
        return float(auc(label, logit))
    assert examples.group is not None
    return ndcg(label, logit, examples.group.cpu().numpy(), CUT).mean


@torch.inference_mode()
def catalogue_ndcg(model: Finder, examples: Examples) -> float:
    """The mean of 1 / log2(1 + rank) of the label's item, 0 beyond rank 10, ranked among all items but padding.

    Items of equal score have no order: the gain is its mean over all orders of them, as in `evaluation/catalogue.py`.

    Items of the query's own history are left out; a label that is out of vocabulary counts 0.
    """
    training = model.training
    model.eval()
    scores = _scores(model, examples)
    ranges = parts(len(examples), model.num_items, examples.ids.device.type, LEAST_QUERIES)
    gains = [_gains(scores(part), model, examples, part) for part in ranges]
    model.train(training)
    return float(torch.cat(gains).mean())


def _scores(model: Finder, examples: Examples) -> Callable[[slice], Tensor]:
    """What gives the scores [n, num_items] of a range of queries."""
    if not isinstance(model, Encoder):
        return lambda part: model(examples.ids[part], examples.numbers[part])
    items = model.all_items()
    vectors = torch.from_numpy(score(model, examples)).to(items.device)
    return lambda part: vectors[part] @ items.T


def _gains(scores: Tensor, model: Finder, examples: Examples, part: slice) -> Tensor:
    """What each query of a range adds to the mean."""
    first = model.first_item
    scores[:, :first] = -torch.inf
    met = model.met(examples.ids[part])
    label = examples.label[part].to(scores.device)
    if met is not None:
        scores.scatter_(1, torch.where(met == label.unsqueeze(1), 0, met), -torch.inf)
    own = scores.gather(1, label.unsqueeze(1))
    known = label >= first
    sides = scores.sub_(own).sign_()  # 1 above, -1 below, 0 for the label and what ties with it
    lead, apart = sides.sum(dim=1), sides.square_().sum(dim=1)
    above, tied = (apart + lead) / 2, scores.shape[1] - apart
    gains = torch.nn.functional.pad((1 / torch.arange(2, CUT + 2, device=own.device).log2()).cumsum(0), (1, 0))
    to_rank = [torch.where(known, rank, 0).clamp(max=CUT).long() for rank in (above, above + tied)]
    return torch.where(known, (gains[to_rank[1]] - gains[to_rank[0]]) / tied, 0.0)
