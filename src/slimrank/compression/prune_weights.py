"""Step: magnitude pruning. Weights of dense layers with |w| <= tau become 0 and are stored sparse.

The file gets smaller; nothing gets faster (for that, prune neurons). Han et al. 2015, arXiv 1506.02626.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from slimrank.compression.adopting import linears
from slimrank.compression.steps import Context, skip_others
from slimrank.config import Config, check_one_given, register
from slimrank.data.schema import JUDGED

SPARSITIES = tuple(step / 100 for step in range(98, 0, -2))


class PruneWeights(Config):
    """Set weights of dense layers with |w| <= tau to 0; give tau, a sparsity, or a bound on the loss of quality."""

    name: Literal["prune-weights"] = "prune-weights"
    tau: float | None = Field(default=None, ge=0)
    sparsity: float | None = Field(default=None, ge=0, lt=1)
    max_auc_drop: float | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _one_way(self) -> PruneWeights:
        check_one_given(self, "tau", "sparsity", "max_auc_drop")
        return self


@register("step", PruneWeights)
def prune_weights(model: nn.Module, config: PruneWeights, context: Context) -> nn.Module:
    """The model with small weights at 0, by one threshold for all dense layers."""
    layers = {name: model.get_submodule(name) for name in linears(model, context)}
    if not layers:
        context.skip("weights", "the model has no dense layer of floats")
        return model
    weights = [layer.get_parameter("weight").data for layer in layers.values()]
    if config.tau is not None:
        tau = config.tau
    elif config.sparsity is not None:
        tau = threshold(weights, config.sparsity)
    else:
        tau = largest_threshold(model, weights, float(config.max_auc_drop or 0.0), context)
    for name, weight in zip(layers, weights, strict=True):
        before = int(weight.count_nonzero())
        apply_threshold([weight], tau)
        zeroed = before - int(weight.count_nonzero())
        if zeroed:
            context.touch(f"{name}: {zeroed:,} of {weight.numel():,} weights to 0")
        else:
            context.skip(name, f"no weight other than 0 is at most {tau:.3g} in size")
    skip_others(model, layers, context)
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    context.note(tau=tau, sparsity=zeros / sum(weight.numel() for weight in weights))
    return model


def threshold(weights: list[Tensor], sparsity: float) -> float:
    """The tau at which the fraction `sparsity` of all weights, rounded down, is at most tau in size; 0 if none."""
    sizes = torch.cat([weight.abs().flatten() for weight in weights])
    count = int(sparsity * len(sizes))
    return float(sizes.kthvalue(count).values) if count else 0.0


def apply_threshold(weights: list[Tensor], tau: float) -> None:
    """Set weights with |w| <= tau to 0, in place."""
    for weight in weights:
        weight[weight.abs() <= tau] = 0.0


def largest_threshold(model: nn.Module, weights: list[Tensor], max_auc_drop: float, context: Context) -> float:
    """The tau of the highest sparsity, of 2% to 98%, whose validation AUC is within the bound; 0 if none is."""
    before = context.quality(model)
    kept = [weight.clone() for weight in weights]
    for sparsity in SPARSITIES:
        tau = threshold(kept, sparsity)
        apply_threshold(weights, tau)
        after = context.quality(model)
        for weight, original in zip(weights, kept, strict=True):
            weight.copy_(original)
        if before - after <= max_auc_drop:
            metric = JUDGED[context.valid.answer]
            context.note(**{f"valid_{metric}_before": before, f"valid_{metric}_after": after})
            return tau
    return 0.0
