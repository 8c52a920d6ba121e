"""Codes that are kept in retraining: grids stand still, what is not met stays, and what is kept is what is packed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slimrank.models.quantized import ActivationQuantizer, QuantizedLinear, TableQuantizer
from slimrank.tables.grid import Grid
from slimrank.tables.scaled import ScaledTable, scaled
from slimrank.training.loop import State
from slimrank.training.optimizers import optimizers
from slimrank.training.stability import KeepCodes, Stability, anchors_of

GRIDS = {
    "8 bits": Grid(bits=8),
    "4 bits": Grid(bits=4),
    "2 bits around zero": Grid(bits=2, levels="midrise"),
    "1 bit": Grid(bits=1),
    "one scale for all": Grid(bits=4, scale="table"),
    "a scale a row": Grid(bits=4, scale="row"),
    "a scale for some rows": Grid(bits=4, scale="row", rows_per_scale=4),
    "a zero point a field": Grid(bits=4, symmetric=False),
    "a zero point a row": Grid(bits=4, scale="row", symmetric=False),
    "fixed": Grid(bits=4, learned=False),
}


def table_of(grid: Grid) -> ScaledTable:
    weight = torch.randn(30, 8, generator=torch.Generator().manual_seed(0))
    table = scaled(grid, weight, torch.tensor([0, 12]))
    assert isinstance(table, ScaledTable)
    return table


class Small(nn.Module):
    """A table of integers, a layer that reads its codes, and one that reads what comes of it."""

    def __init__(self, grid: Grid):
        super().__init__()
        draw = torch.Generator().manual_seed(1)
        self.table = table_of(grid)
        first, last = torch.randn(6, 16, generator=draw), torch.randn(1, 6, generator=draw)
        self.first = QuantizedLinear(first, torch.randn(6, generator=draw), TableQuantizer(self.table, (0, 1)))
        inputs = ActivationQuantizer.calibrated(torch.rand(64, 6, generator=draw) * 4)
        self.last = QuantizedLinear(last, torch.zeros(1), inputs)

    def forward(self, ids: Tensor) -> Tensor:
        hidden = torch.relu(self.first(self.table(ids, (0, 1)).flatten(1)))
        return self.last(hidden).squeeze(1)

    def packed(self) -> dict[str, Tensor]:
        return {
            f"{name}.{key}": value
            for name, part in self.named_children()
            for key, value in part.pack().state_dict().items()  # type: ignore[operator]
        }


def trained(model: Small, pull: float = 0.0, *, steps: int = 12, ids: Tensor | None = None, rate: float = 0.02) -> Any:
    """`model` after some steps on labels of chance, with its anchors."""
    anchors = anchors_of(model, {})
    keep = KeepCodes(anchors, Stability(base=Path("before"), pull=pull))
    draw = torch.Generator().manual_seed(2)
    options: dict[str, Any] = {"sparse": "adagrad", "weight_decay": 0.0}
    chosen = optimizers(model, learning_rate=rate, sparse_learning_rate=rate, **options)
    state = State(model, chosen)  # type: ignore[arg-type]
    for _ in range(steps):
        met = torch.stack([torch.randint(0, 6, (32,), generator=draw), 12 + torch.randint(0, 9, (32,), generator=draw)])
        logit = model(met.T if ids is None else ids)
        label = torch.randint(0, 2, logit.shape, generator=draw).float()
        for one in chosen:
            one.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(logit, label).backward()
        for one in chosen:
            one.step()
        keep.on_step(state)
    return anchors


@pytest.mark.parametrize("name", GRIDS)
def test_what_moves_within_the_margin_is_packed_as_before(name: str) -> None:
    model = nn.ModuleDict({"table": table_of(GRIDS[name])})
    (anchor,) = anchors_of(model, {})
    table = anchor.table
    before = table.pack().state_dict()
    scale, codes = table.grid_at(torch.arange(30))
    middle = (
        (table.weight.detach() / scale + codes.zero_point).round().clamp(codes.low, codes.high) - codes.zero_point
    ) * scale
    draw = torch.Generator().manual_seed(3)
    table.weight.data.copy_(middle + (torch.rand(30, 8, generator=draw) * 1.4 - 0.7) * scale)
    assert not torch.equal(table.pack().state_dict()["packed"], before["packed"])
    anchor.settle(margin=0.25)
    assert anchor.count() == {"codes": 240, "kept": 240, "new": 0}
    for key, value in table.pack().state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("name", GRIDS)
def test_a_table_counts_what_it_kept_as_its_packed_form_has_it(name: str) -> None:
    table = table_of(GRIDS[name])
    (anchor,) = anchors_of(nn.ModuleDict({"table": table}), {})
    before = table.rows(0, 30)
    table.weight.data[5:9] += 3.0
    anchor.settle(margin=0.25)
    same = torch.isclose(table.pack().rows(0, 30), before, atol=1e-4)
    assert anchor.count()["kept"] == int(same.sum()) < 240
    assert same[:5].all()
    assert same[9:].all()


def test_grids_stand_still_while_weights_and_biases_move() -> None:
    model = Small(Grid(bits=4))
    before, weights = model.packed(), model.first.weight.detach().clone()
    anchors = trained(model)
    after = model.packed()
    for key in before:
        if key.endswith(("scale", "step", "step_zero")):
            assert torch.equal(before[key], after[key]), key
    assert not torch.equal(model.first.weight, weights)
    assert not torch.equal(before["first.weight"], after["first.weight"])
    assert not torch.equal(before["table.packed"], after["table.packed"])
    assert {anchor.name for anchor in anchors} == {"table", "first", "last"}


def test_with_an_endless_margin_codes_are_those_of_before_to_the_byte() -> None:
    model = Small(Grid(bits=4))
    before = model.packed()
    for anchor in trained(model):
        anchor.settle(margin=1000.0)
        assert anchor.count()["kept"] == anchor.count()["codes"]
    after = model.packed()
    assert all(torch.equal(before[key], after[key]) for key in before if not key.endswith("bias"))
    assert not torch.equal(before["first.bias"], after["first.bias"])  # the one thing that is free


@pytest.mark.parametrize("margins", [(0.0, 0.25), (0.25, 1.0)])
def test_a_larger_margin_keeps_no_fewer_codes(margins: tuple[float, float]) -> None:
    found = []
    for margin in margins:
        model = Small(Grid(bits=4))
        anchors = trained(model)
        for anchor in anchors:
            anchor.settle(margin)
        found.append(sum(anchor.count()["kept"] for anchor in anchors))
    assert found[0] < found[1]


@pytest.mark.parametrize("sparse", [False, True])
def test_rows_that_are_not_met_are_what_they_were(sparse: bool) -> None:
    model = Small(Grid(bits=4))
    model.table.with_sparse(sparse)
    weight = model.table.weight.detach().clone()
    trained(model, pull=0.1)
    met = (model.table.weight != weight).any(dim=1)
    assert torch.equal(model.table.weight[6:12], weight[6:12])
    assert torch.equal(model.table.weight[21:], weight[21:])
    assert int(met.sum()) > 10


@pytest.mark.parametrize("sparse", [False, True])
def test_a_pull_of_more_than_a_step_lets_nothing_move(sparse: bool) -> None:
    """A step of Adam is some learning rates long at most, and so is one of row-wise Adagrad in each number."""
    model = Small(Grid(bits=4))
    model.table.with_sparse(sparse)
    start = {name: each.detach().clone() for name, each in model.named_parameters()}
    trained(model, pull=20.0)
    for name, each in model.named_parameters():
        assert torch.equal(each, start[name]) == (not name.endswith("bias")), name


def test_an_epoch_is_validated_as_it_would_be_shipped() -> None:
    model = Small(Grid(bits=4))
    anchors = trained(model)
    free = [anchor.count()["kept"] for anchor in anchors]
    KeepCodes(anchors, Stability(base=Path("before"), hysteresis=1000.0)).on_trained(State(model, []))  # type: ignore[arg-type]
    assert all(anchor.count()["kept"] == anchor.count()["codes"] for anchor in anchors)
    assert sum(free) < sum(anchor.count()["codes"] for anchor in anchors)


def test_rows_of_new_ids_are_free() -> None:
    table = table_of(Grid(bits=4))
    old = torch.ones(30, dtype=torch.bool)
    old[[11, 29]] = False
    (anchor,) = anchors_of(nn.ModuleDict({"table": table}), {"table": old})
    table.weight.data += 0.01
    moved = table.weight.detach().clone()
    anchor.settle(margin=0.25)
    assert torch.equal(table.weight[~old], moved[~old])
    assert not torch.equal(table.weight[old], moved[old])
    assert anchor.count() == {"codes": 28 * 8, "kept": 28 * 8, "new": 16}


def test_a_weight_may_not_pass_the_largest_of_its_output() -> None:
    model = Small(Grid(bits=4))
    scale = model.first.pack().scale.clone()
    anchor = next(each for each in anchors_of(model, {}) if each.name == "first")
    model.first.weight.data.mul_(3.0)
    assert not torch.equal(model.first.pack().scale, scale)
    anchor.hold()
    assert torch.equal(model.first.pack().scale, scale)
    assert int(model.first.pack().weight.abs().max()) == 64
