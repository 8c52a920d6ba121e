"""Step on graphs: magnitude pruning. Weights of dense layers with |w| <= tau become 0 and are stored sparse.

The file gets smaller; nothing gets faster. Han et al. 2015, arXiv 1506.02626.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx_ir as ir
from pydantic import Field, model_validator

from slimrank.config import Config, check_one_given, register
from slimrank.graphs.chunks import Floats
from slimrank.graphs.layers import find_layers
from slimrank.graphs.steps import KIND, Context


class PruneWeights(Config):
    """Set weights of MatMul and Gemm with |w| <= tau to 0; give tau or a sparsity."""

    name: Literal["prune-weights"] = "prune-weights"
    tau: float | None = Field(default=None, ge=0)
    sparsity: float | None = Field(default=None, ge=0, lt=1)

    @model_validator(mode="after")
    def _one_way(self) -> PruneWeights:
        check_one_given(self, "tau", "sparsity")
        return self


@register(KIND, PruneWeights)
def prune_weights(model: ir.Model, config: PruneWeights, context: Context) -> None:
    """Small weights at 0, by one threshold for all dense layers."""
    weights = {layer.name: layer.weight for layer in find_layers(model, context)}
    if not weights:
        context.skip("weights", "the graph has no other dense layer of floats")
        return
    arrays = {name: np.array(value.const_value.numpy()) for name, value in weights.items() if value.const_value}
    tau = config.tau if config.tau is not None else threshold(list(arrays.values()), float(config.sparsity or 0.0))
    for name, array in arrays.items():
        small = (np.abs(array) <= tau) & (array != 0)
        zeroed = int(np.count_nonzero(small))
        if not zeroed:
            context.skip(name, f"no weight other than 0 is at most {tau:.3g} in size")
            continue
        array[small] = 0
        weights[name].const_value = ir.tensor(array, name=name)
        context.sparse.add(name)
        context.change(name, f"{zeroed:,} of {array.size:,} weights to 0", array.nbytes)
    zeros = sum(int(np.count_nonzero(array == 0)) for array in arrays.values())
    context.note(tau=tau, sparsity=zeros / sum(array.size for array in arrays.values()))


def threshold(weights: list[Floats], sparsity: float) -> float:
    """The tau at which the fraction `sparsity` of all weights, rounded down, is at most tau in size; 0 if none.

    >>> threshold([np.array([1.0, -2.0, 3.0, -4.0], np.float32)], 0.5)
    2.0
    """
    sizes = np.concatenate([np.abs(weight).reshape(-1) for weight in weights])
    count = int(sparsity * len(sizes))
    return float(np.partition(sizes, count - 1)[count - 1]) if count else 0.0
