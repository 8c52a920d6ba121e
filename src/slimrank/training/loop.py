"""The training loop: batches in, a model fitted to them out, the weights of the best epoch kept.

Everything that happens at the end of a step or an epoch and is not the loop itself is a hook: progress, checkpoints,
zeros that stay zero. The order of rows and the noise of dropout are functions of (seed, epoch), so that a run that
was killed goes on from its last epoch as if nothing had been.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from slimrank.config import Config, InputError
from slimrank.data.schema import JUDGED
from slimrank.models.layers import ByteDropout, ItemScorer, Network, Ranker
from slimrank.models.quantized import QuantizedLinear
from slimrank.tables.embedding import Row
from slimrank.training.examples import Examples
from slimrank.training.losses.cross_entropy import lookup_penalty, row_penalty
from slimrank.training.losses.loss import Loss, Objective, objective_of
from slimrank.training.optimizers import one_cycle, optimizers
from slimrank.training.quality import quality


class Training(Config):
    """How a model is fitted.

    `l2` is the weight of half the sum of squares of what the batch looks up: with `l2_of` "lookups" the mean over the
    batch's rows, so that an id is pulled to 0 as often as it is met; with "rows" each distinct row of the table once.
    `sparse_learning_rate` is the peak rate of tables with sparse gradients, as `learning_rate` is that of all else;
    None: the same rate. A step of row-wise Adagrad shrinks as a row is met again, so it bears a larger one.
    `loss` is a registered loss; None: that of what the rows' label is (`losses/loss.py`). Without `dropout` that of the
    model is off: a model of few bits that learns from soft labels has no capacity to spare for it.
    """

    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=1024, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    sparse_learning_rate: float | None = Field(default=None, gt=0)
    schedule: Literal["constant", "one-cycle"] = "one-cycle"
    warm_up: float = Field(default=0.1, gt=0, lt=1)
    l2: float = Field(default=0.0, ge=0)
    l2_of: Literal["lookups", "rows"] = "lookups"
    weight_decay: float = Field(default=0.0, ge=0)
    sparse_optimizer: Literal["adagrad", "adam"] = "adagrad"
    patience: int = Field(default=3, ge=0)
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    loss: Loss | None = None
    dropout: bool = True
    LATER: ClassVar = frozenset({"loss", "dropout"})


@dataclass
class State:
    """Where a training is. `history` has one record an epoch."""

    model: Network
    optimizers: list[Optimizer]
    epoch: int = 0
    best_epoch: int = -1
    best_quality: float = -math.inf
    best: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    def stale(self, patience: int) -> bool:
        """Whether `patience` epochs (0: any number) have gone by without a better one."""
        return patience > 0 and self.epoch - 1 - self.best_epoch >= patience


class Hook:
    """Does nothing; override what is needed."""

    def on_start(self, state: State) -> None:
        """Before the first epoch of this process; may restore an earlier state."""

    def on_step(self, state: State) -> None:
        """After the optimisers' step on a batch."""

    def on_trained(self, state: State) -> None:
        """After the last step of an epoch, before it is validated; may change the weights."""

    def on_epoch(self, state: State) -> None:
        """After an epoch was validated and recorded."""

    def on_end(self, state: State) -> None:
        """When training ends, by itself or by an error."""


def fit(
    model: Network,
    train: Examples,
    valid: Examples,
    config: Training,
    *,
    seed: int,
    objective: Objective | None = None,
    hooks: Sequence[Hook] = (),
) -> list[dict[str, Any]]:
    """Fit `model` in place to `train`; it ends with the weights of the epoch that was best on `valid`.

    What is best is told by AUC for clicks and NDCG@10 for all else (`quality.py`). Without an `objective` it is the
    config's loss, and no teacher. Where the weights have a closed form, it is one epoch that solves for them.

    Returns:
        One record an epoch: `epoch`, `loss` (mean over the epoch's batches), `valid_auc` or `valid_ndcg@10`.

    Raises:
        InputError: the loss is no longer finite.
    """
    if isinstance(model, ItemScorer):
        loss = model.solve(train.ids, train.label, train.group)
        return [{"epoch": 1, "loss": loss, f"valid_{JUDGED[valid.answer]}": quality(model, valid)}]
    objective = objective or objective_of(config.loss, train.answer)
    state = State(model, optimizers(model, **_optimizer_options(config)))
    for hook in hooks:
        hook.on_start(state)
    try:
        while state.epoch < config.epochs and not state.stale(config.patience):
            loss = _run_epoch(state, train, config, seed, objective, hooks)
            for hook in hooks:
                hook.on_trained(state)
            _validate(state, loss, valid)
            for hook in hooks:
                hook.on_epoch(state)
    finally:
        for hook in hooks:
            hook.on_end(state)
    model.load_state_dict(state.best)
    return state.history


def _optimizer_options(config: Training) -> dict[str, Any]:
    return {
        "learning_rate": config.learning_rate,
        "sparse_learning_rate": config.sparse_learning_rate or config.learning_rate,
        "sparse": config.sparse_optimizer,
        "weight_decay": config.weight_decay,
    }


def _run_epoch(
    state: State, train: Examples, config: Training, seed: int, objective: Objective, hooks: Sequence[Hook]
) -> float:
    """Every batch of one epoch once; returns the mean loss."""
    torch.manual_seed(seed * 1_000_003 + state.epoch)
    state.model.train()
    if not config.dropout:
        for module in state.model.modules():
            if isinstance(module, ByteDropout):
                module.eval()
    total, batches = torch.zeros(()), math.ceil(len(train) / config.batch_size)
    for number, batch in enumerate(train.batches(config.batch_size, seed, state.epoch)):
        _set_rate(state.optimizers, config, (state.epoch + number / batches) / config.epochs)
        total += _step(state, batch, config, objective).to("cpu")
        for hook in hooks:
            hook.on_step(state)
    return float(total) / (number + 1)


def _step(state: State, batch: Examples, config: Training, objective: Objective) -> Tensor:
    """One step of the optimisers on one batch; returns its loss."""
    loss = _loss(state.model, batch, config, objective)
    for optimizer in state.optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    for optimizer in state.optimizers:
        optimizer.step()
    return loss.detach()


def _loss(model: Network, batch: Examples, config: Training, objective: Objective) -> Tensor:
    """The objective on one batch, and the penalty of what a ranker looks up."""
    device = batch.label.device.type
    with torch.autocast(device, torch.bfloat16, enabled=uses_bfloat16(config, device)):
        if not isinstance(model, Ranker):
            return objective(model, batch)
        row = model.row(batch.ids, batch.numbers)
        logit = model.score(batch.ids, row)
    loss = objective(logit.float(), batch)
    return loss + config.l2 * _penalty(model, batch, row, config) if config.l2 else loss


def _penalty(model: Network, batch: Examples, row: Row, config: Training) -> Tensor:
    """The L2 penalty of what the batch looks up."""
    if config.l2_of == "lookups":
        return lookup_penalty(row.fields)
    return row_penalty(model.embedding.distinct_rows(batch.ids))


def uses_bfloat16(config: Training, device: str) -> bool:
    """Whether matrix products are taken in bfloat16; "auto" means where the processor multiplies it natively."""
    if config.precision != "auto":
        return config.precision == "bfloat16"
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    found = torch.cpu.get_capabilities()
    return any(bool(found.get(name)) for name in ("avx512_bf16", "amx_bf16"))


def _set_rate(chosen: list[Optimizer], config: Training, progress: float) -> None:
    factor = one_cycle(progress, config.warm_up) if config.schedule == "one-cycle" else 1.0
    for optimizer in chosen:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor


def _validate(state: State, loss: float, valid: Examples) -> None:
    """Note an epoch, and keep its weights if none before was better on `valid`."""
    if not math.isfinite(loss):
        raise InputError(f"training diverged in epoch {state.epoch + 1}: the loss is {loss}; lower learning_rate")
    found = quality(state.model, valid)
    state.history.append({"epoch": state.epoch + 1, "loss": loss, f"valid_{JUDGED[valid.answer]}": found})
    if found > state.best_quality:
        state.best_quality, state.best_epoch = found, state.epoch
        state.best = {name: tensor.detach().clone() for name, tensor in state.model.state_dict().items()}
    state.epoch += 1


class KeepZeros(Hook):
    """Weights of dense layers that are exactly 0 when training starts (pruned ones) are 0 after every step."""

    def on_start(self, state: State) -> None:
        weights = [m.weight for m in state.model.modules() if isinstance(m, nn.Linear | QuantizedLinear)]
        self.masks = [(weight, weight.detach() != 0) for weight in weights if bool((weight == 0).any())]

    @torch.no_grad()
    def on_step(self, state: State) -> None:
        for weight, mask in self.masks:
            weight.mul_(mask)
