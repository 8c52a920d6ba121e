"""How good a model is on validation rows while it is trained and compressed: one number, higher is better.

AUC for clicks, NDCG@10 of every query's documents for relevance, NDCG@10 among the whole catalogue for items. What is
published is measured on the artifact (`evaluation/`); this one only chooses epochs and settings.
"""

from __future__ import annotations

import torch
from torch import Tensor

from slimrank.data.schema import Answer
from slimrank.metrics import auc
from slimrank.metrics.top_k import ndcg
from slimrank.models.layers import Encoder, Network
from slimrank.training.examples import Examples, score

METRIC: dict[Answer, str] = {"click": "auc", "relevance": "ndcg@10", "item": "ndcg@10"}
CUT = 10
AT_ONCE = 1 << 24  # scores held at once: queries times items


def quality(model: Network, examples: Examples) -> float:
    """The metric of `examples.answer` for `model` on `examples`."""
    if isinstance(model, Encoder):
        return catalogue_ndcg(model, examples)
    label, logit = examples.label.cpu().numpy(), score(model, examples)
    if examples.answer == "click":
        return float(auc(label, logit))
    assert examples.group is not None
    return ndcg(label, logit, examples.group.cpu().numpy(), CUT).mean


@torch.inference_mode()
def catalogue_ndcg(model: Encoder, examples: Examples) -> float:
    """The mean of 1 / log2(1 + rank) of the label's item, 0 beyond rank 10, ranked among all items but padding.

    Items of the query's own history are left out; a label that is out of vocabulary counts 0.
    """
    training = model.training
    model.eval()
    items = model.all_items()
    vectors = torch.from_numpy(score(model, examples)).to(items.device)
    step = max(1, AT_ONCE // len(items))
    gains = [_gains(vectors, items, model, examples, start, start + step) for start in range(0, len(examples), step)]
    model.train(training)
    return float(torch.cat(gains).mean())


def _gains(vectors: Tensor, items: Tensor, model: Encoder, examples: Examples, start: int, stop: int) -> Tensor:
    """What each query of a range adds to the mean."""
    scores = vectors[start:stop] @ items.T
    first = model.first_item
    scores[:, :first] = -torch.inf
    met = model.met(examples.ids[start:stop])
    label = examples.label[start:stop].to(scores.device)
    if met is not None:
        scores.scatter_(1, torch.where(met == label.unsqueeze(1), 0, met), -torch.inf)
    own = scores.gather(1, label.unsqueeze(1))
    rank = (scores > own).sum(dim=1) + ((scores == own).sum(dim=1) - 1) / 2 + 1
    return torch.where((rank <= CUT) & (label >= first), 1 / torch.log2(rank + 1), 0.0)
