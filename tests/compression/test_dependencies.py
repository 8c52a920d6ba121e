"""Neurons of modules of the user's own: those that go take along what hangs on them, and nothing else changes."""

from __future__ import annotations

import copy
import gc
import sys
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, weight_norm

from slimrank.api import compress, export
from slimrank.compression.dependencies import Followed, cut
from slimrank.compression.modules import NO_ROWS, ModuleContext
from slimrank.config import InputError
from slimrank.models.quantized import QuantizedLinear
from slimrank.runtime import load_graph

USERS, ITEMS, DIM, NUMBERS, ROWS = 60, 40, 8, 3, 64
WIDTH = 3 * DIM
HALF = {"name": "prune-neurons", "keep": 0.5}


class Ranker(nn.Module):
    """A DLRM's numbers and products, a DCN's crosses, a residual tower, and two branches side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(USERS, DIM), nn.Embedding(ITEMS, DIM)
        self.bottom = nn.Sequential(nn.Linear(NUMBERS, 12), nn.ReLU(), nn.Linear(12, DIM), nn.ReLU())
        self.cross = nn.Linear(WIDTH, WIDTH)  # whole
        self.down, self.up = nn.Linear(WIDTH, 10, bias=False), nn.Linear(10, WIDTH)  # and of low rank
        self.left, self.right = nn.Linear(WIDTH, 20), nn.Linear(WIDTH, 14)
        self.norm = nn.BatchNorm1d(34)
        self.tower = nn.Linear(34, 16)
        self.residual = nn.Linear(16, 16)
        self.out = nn.Linear(16 + WIDTH + 3, 1)

    def forward(self, user: Tensor, item: Tensor, numbers: Tensor) -> Tensor:
        vectors = torch.stack([self.user(user), self.item(item), self.bottom(numbers)], dim=1)
        row, column = torch.triu_indices(3, 3, 1)
        products = (vectors @ vectors.transpose(1, 2))[:, row, column]
        first = vectors.flatten(1)
        crossed = first * self.cross(first) + first
        crossed = first * self.up(self.down(crossed)) + crossed
        branches = torch.cat([self.left(first).relu(), self.right(first).tanh()], dim=-1)
        deep = self.tower(self.norm(branches)).relu()
        deep = deep + self.residual(deep).relu()
        scores: Tensor = self.out(torch.cat([deep, crossed, products], dim=1)).squeeze(1)
        return scores


# Each hidden layer with the layers that read it and where there its neurons begin; layers that share neurons together.
HIDDEN: dict[tuple[str, ...], dict[str, int]] = {
    ("bottom.0",): {"bottom.2": 0},
    ("down",): {"up": 0},
    ("left",): {"tower": 0},
    ("right",): {"tower": 20},
    ("tower", "residual"): {"residual": 0, "out": 0},
}
SIZES = {"bottom.0": 12, "down": 10, "left": 20, "right": 14, "tower": 16, "residual": 16}


def batch(rows: int = ROWS, seed: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        "user": torch.randint(0, USERS, (rows,), generator=draw),
        "item": torch.randint(0, ITEMS, (rows,), generator=draw),
        "numbers": torch.randn(rows, NUMBERS, generator=draw),
    }


@pytest.fixture(scope="module")
def ranker() -> Ranker:
    torch.manual_seed(0)
    model = Ranker()
    for _ in range(20):  # so that the norm has something to say
        model(**batch())
    return model.eval()


@torch.no_grad()
def scores(model: nn.Module, given: dict[str, Tensor] | None = None) -> Tensor:
    return model(**(given or batch(seed=5)))


def reasons(record: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["reason"] for each in record["skipped"]}


@torch.no_grad()
def muted(ranker: Ranker) -> Ranker:
    """A copy in which nobody reads every second neuron."""
    model = copy.deepcopy(ranker)
    for writers, readers in HIDDEN.items():
        for name, start in readers.items():
            model.get_submodule(name).weight[:, start : start + SIZES[writers[0]] : 2] = 0.0
    return model


def test_neurons_that_nobody_reads_go_and_the_scores_stay(ranker) -> None:
    model = muted(ranker)
    assert (scores(model) - scores(ranker)).abs().max() > 0.01
    small, (record,) = compress(model, [HALF], [batch()])
    assert record["touched"] == [f"{name}: {size} neurons to {size // 2}" for name, size in SIZES.items()]
    for rows in (1, 7, ROWS):
        given = batch(rows, seed=rows)
        torch.testing.assert_close(scores(small, given), scores(model, given), atol=1e-6, rtol=0)
    for writers, readers in HIDDEN.items():  # those that stay are the others, in order
        for name in writers:
            whole, left = model.get_submodule(name), small.get_submodule(name)
            rows = whole.weight[1::2]
            assert torch.equal(left.weight, rows[:, 1::2] if name == "residual" else left.weight)
            assert left.out_features == len(left.weight) == SIZES[name] // 2
        for name in readers:
            left = small.get_submodule(name)
            assert left.in_features == left.weight.shape[1]
    kept = torch.cat([torch.arange(1, 20, 2), 20 + torch.arange(1, 14, 2)])
    assert torch.equal(small.norm.running_mean, model.norm.running_mean[kept])
    assert torch.equal(small.norm.weight, model.norm.weight[kept])
    assert small.norm.num_features == 17


def test_what_does_not_hang_on_them_is_untouched(ranker) -> None:
    small, (record,) = compress(ranker, [HALF], [batch()])
    assert reasons(record) == {
        "bottom.2": "its neurons go with the dimensions of item.table, which stay",
        "cross": "its neurons go with the dimensions of item.table, which stay",
        "up": "its neurons go with the dimensions of item.table, which stay",
        "out": "its neurons are what the module answers with",
    }
    before, after = ranker.state_dict(), small.state_dict()
    same = ["user.weight", "item.weight", "cross.weight", "cross.bias", "bottom.2.bias", "up.bias", "out.bias"]
    for name in same:
        assert torch.equal(before[name], after[name])
    assert torch.equal(before["out.weight"][:, 16:], after["out.weight"][:, 8:])
    assert [type(each) for each in small.modules()] == [type(each) for each in ranker.modules()]
    assert record["bytes_after"] < 0.7 * record["bytes_before"]


def test_the_result_is_the_module_with_the_neurons_silent(ranker) -> None:
    small, _ = compress(ranker, [{**HALF, "keep": 0.7}], [batch()])
    silent = copy.deepcopy(ranker)
    for writers, readers in HIDDEN.items():
        whole, left = (each.get_submodule(writers[0]) for each in (silent, small))
        biases = left.bias if left.bias is not None else left.weight[:, 0]
        known = whole.bias if whole.bias is not None else whole.weight[:, 0]
        gone = [place for place, value in enumerate(known.tolist()) if value not in biases.tolist()]
        assert len(gone) == len(known) - len(biases) > 0
        for name, start in readers.items():
            silent.get_submodule(name).weight.data[:, [start + place for place in gone]] = 0.0
    torch.testing.assert_close(scores(small), scores(silent), atol=1e-5, rtol=1e-5)
    assert (scores(small) - scores(ranker)).abs().max() > 1e-3


def test_importance_is_of_all_weights_that_write_and_read_a_neuron() -> None:
    """(0.6, 0.8) and 2 write neuron 0, 3 and 4 read it: sqrt(.36 + .64 + 4) * sqrt(9 + 16)."""
    model = Residual(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1))
    with torch.no_grad():
        model.first.weight.copy_(torch.tensor([[0.6, 0.8], [5.0, 12.0]]))
        model.second.weight.copy_(torch.tensor([[0.0, 2.0], [3.0, 0.0]]))
        model.last.weight.copy_(torch.tensor([[4.0, 0.5]]))
    context = ModuleContext(NO_ROWS, NO_ROWS, batches=[(torch.randn(8, 2),)])
    neurons = Followed(model, context).neurons(model.first)
    assert {part.name for part in neurons.writers()} == {"first", "second"}
    expected = torch.tensor([5.0 * (3.0**2 + 4.0**2), (13.0**2 + 3.0**2) * (2.0**2 + 0.5**2)]).sqrt()
    torch.testing.assert_close(neurons.importance(), expected)


def test_importance_of_a_chain_is_that_of_the_networks_of_slimrank() -> None:
    """Norm in times norm out, 3, 1, .5 and 4: the fraction that stays is rounded up, and never 0."""
    chain = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    with torch.no_grad():
        chain[0].weight.copy_(torch.diag(torch.tensor([3.0, 1.0, 5.0, 2.0])))
        chain[2].weight.copy_(torch.tensor([[1.0, -1.0, 0.1, 2.0]]))
    given = [(torch.randn(8, 4),)]
    for keep, left in ((0.75, [1.0, -1.0, 2.0]), (0.5, [1.0, 2.0]), (0.3, [1.0, 2.0]), (0.001, [2.0])):
        small, _ = compress(chain, [{**HALF, "keep": keep}], given)
        assert small[2].weight.tolist() == [left]
    same, (record,) = compress(chain, [{**HALF, "keep": 1.0}], given)
    assert reasons(record) == {
        "0": "all of its 4 neurons are kept",
        "2": "its neurons are what the module answers with",
    }
    assert torch.equal(same[0].weight, chain[0].weight)


def test_one_module_leaves_nothing_for_the_next(ranker) -> None:
    """torch-pruning keeps the lists and mappings that it is given, or that stand in its signatures."""
    first, records = compress(ranker, [HALF], [batch()])
    other = Residual(nn.Linear(2, 6), nn.Linear(6, 6), nn.Linear(6, 1))
    _, (between,) = compress(other, [HALF], [(torch.randn(9, 2),)])
    assert between["touched"] == ["first: 6 neurons to 3", "second: 6 neurons to 3"]
    again, others = compress(ranker, [HALF], [batch()])
    assert others == records
    assert all(torch.equal(one, two) for one, two in zip(first.parameters(), again.parameters(), strict=True))
    traces = [weakref.ref(each) for each in (*first.parameters(), *first.modules())]
    del first
    gc.collect()
    assert not any(each() is not None for each in traces)


class Residual(nn.Module):
    def __init__(self, first: nn.Module, second: nn.Module, last: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.last = first, second, last

    def forward(self, values: Tensor) -> Tensor:
        hidden = self.first(values).relu()
        return self.last(hidden + self.second(hidden))


class Held(nn.Module):
    """A hidden layer, and whatever somebody does with its neurons."""

    def __init__(self, use: Callable[[Held, Tensor], Tensor], **parts: Any) -> None:
        super().__init__()
        self.hidden = nn.Linear(4, 8)
        self.use = use
        self.last = nn.Linear(8, 2)
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, values: Tensor) -> Tensor:
        return self.use(self, self.hidden(values))


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.linspace(0.5, 1.5, torch.Size(shape).numel()).view(shape))


def tied() -> nn.ModuleDict:
    parts = nn.ModuleDict({"one": nn.Linear(8, 2), "two": nn.Linear(8, 2)})
    parts["two"].weight = parts["one"].weight
    return parts


def old_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = weight_norm(nn.Linear(8, 2))
    with torch.no_grad():
        made(torch.zeros(1, 8))  # until then the weight hangs on others, and no copy of the module can be made
    return made


SILENT = "its neurons act on more than the layers which are known to read them"
FAILS = "the module does not run without some of its neurons: the forward of the module failed on batch 0: "
REFUSED: dict[str, tuple[Callable[[], Held], str]] = {
    "a mean over neurons": (lambda: Held(lambda m, h: m.last(h - h.mean(dim=1, keepdim=True))), SILENT),
    "a softmax over neurons": (lambda: Held(lambda m, h: m.last(h.softmax(dim=1))), SILENT),
    "a mean beside a reader": (
        lambda: Held(lambda m, h: m.last(h) * m.one(h.mean(dim=1, keepdim=True)), one=nn.Linear(1, 2)),
        "its neurons are not told apart on their way to one",
    ),
    "a detached reader": (lambda: Held(lambda m, h: m.last(h) + h.detach()[:, :2]), SILENT),
    "a vector product": (
        lambda: Held(lambda m, h: m.last(h * (h @ m.vector)[:, None]), vector=parameter(8)),
        SILENT,
    ),
    "heads": (
        lambda: Held(lambda m, h: m.last(h.view(-1, 2, 4).softmax(dim=2).flatten(1))),
        "its neurons are not told apart on their way to last",
    ),
    "a width that is written down": (lambda: Held(lambda m, h: m.last(h[:, None].expand(-1, 1, 8)[:, 0])), FAILS),
    "a buffer": (lambda: Held(lambda m, h: m.last(h * torch.ones(8))), FAILS),
    "a gate": (
        lambda: Held(lambda m, h: m.gate(h[:, :4] * h[:, 4:]), gate=nn.Linear(4, 2)),
        "its neurons go only several together",
    ),
    "a norm over neurons": (
        lambda: Held(lambda m, h: m.last(m.norm(h)), norm=nn.LayerNorm(8)),
        "its neurons go with norm, a LayerNorm, which is not cut",
    ),
    "a matrix": (
        lambda: Held(lambda m, h: m.last(h) * m.two(h @ m.matrix), matrix=parameter(8, 2), two=nn.Linear(2, 2)),
        "its neurons go with",
    ),
    "a matrix of their width": (
        lambda: Held(lambda m, h: m.last(h @ m.matrix), matrix=parameter(8, 8)),
        "its neurons go with the parameter matrix [8, 8], which is not cut",
    ),
    "nobody": (
        lambda: Held(lambda m, h: h.sum(dim=1) + 0 * m.last.bias.sum()),
        "its neurons are what the module answers",
    ),
    "an answer as well": (lambda: Held(lambda m, h: (m.last(h), h)), "its neurons are what the module answers with"),
    "a recurrent layer": (
        lambda: Held(lambda m, h: m.last(m.gru(h[:, None])[0][:, 0]), gru=nn.GRU(8, 8)),
        "its neurons go with the parameter gru.weight_hh_l0 [24, 8], which is not cut",
    ),
    "an attention": (
        lambda: Held(
            lambda m, h: m.last(m.mix(h[:, None], h[:, None], h[:, None])[0][:, 0]), mix=nn.MultiheadAttention(8, 2)
        ),
        "a part of an attention, which is not cut",
    ),
    "a convolution in groups": (
        lambda: Held(lambda m, h: m.narrow(h[:, :, None]).flatten(1), narrow=nn.Conv1d(8, 2, 1, groups=2)),
        "its neurons",
    ),
    "a shared weight": (
        lambda: Held(lambda m, h: m.pair["one"](h) + m.pair["two"](h), pair=tied()),
        "which shares its weights: pair.one.weight, pair.two.weight",
    ),
    "a parametrised reader": (
        lambda: Held(lambda m, h: m.odd(h), odd=parametrizations.weight_norm(nn.Linear(8, 2))),
        "its neurons go with odd, which is parametrised (weight): `remove_parametrizations` comes first",
    ),
    "a reader of weight norm": (
        lambda: Held(lambda m, h: m.odd(h), odd=old_weight_norm()),
        "its neurons go with odd, which has a weight that WeightNorm computes before every call",
    ),
    "a convolution of two axes": (
        lambda: Held(lambda m, h: m.wide(h[:, :, None, None]).flatten(1), wide=nn.Conv2d(8, 2, 1)),
        "its neurons go with wide, a Conv2d, which is not cut",
    ),
}


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_go_stays_as_it_was_and_is_told(name: str) -> None:
    make, reason = REFUSED[name]
    torch.manual_seed(1)
    model, given = make().eval(), torch.randn(16, 4)
    small, (record,) = compress(model, [HALF], [(given,)])
    assert record["touched"] == []
    assert reason in reasons(record)["hidden"]
    assert record["bytes_before"] == record["bytes_after"]
    before, after = model.state_dict(), small.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert small.hidden.out_features == 8
    torch.testing.assert_close(small(given), model(given), atol=0, rtol=0)


def wide(before: int) -> nn.Linear:
    """Reads others, then the neurons of which every second is 0."""
    made = nn.Linear(before + 8, 2)
    made.weight.data[:, before::2] = 0.0
    return made


def ones(beside: Tensor, *shape: int) -> Tensor:
    return torch.ones(len(beside), *shape)


def flat(hidden: Tensor) -> Tensor:
    """Four times as many numbers as torch-pruning believes."""
    return torch.stack([hidden.sin()[:, :2]] * 4, dim=1).flatten(1)


TAKEN: dict[str, Callable[[], Held]] = {
    "neurons behind an input": lambda: Held(lambda m, h: m.wide(torch.cat([ones(h, 3), h], 1)), wide=wide(3)),
    "neurons behind what is flat": lambda: Held(
        lambda m, h: m.wide(torch.cat([flat(m.side(ones(h, 4))), h], dim=-1)), wide=wide(8), side=nn.Linear(4, 8)
    ),
    "neurons of a sequence": lambda: Held(
        lambda m, h: m.wide(torch.cat((ones(h, 5, 3), h[:, None].expand(-1, 5, -1)), axis=2)).mean(dim=1),
        wide=wide(3),
    ),
    "a vector of theirs": lambda: Held(lambda m, h: m.last(h * m.scale), scale=parameter(8)),
    "a slope of theirs": lambda: Held(lambda m, h: m.last(m.slope(h)), slope=nn.PReLU(8)),
    "a norm of each": lambda: Held(lambda m, h: m.last(m.norm(h)), norm=nn.BatchNorm1d(8, affine=False)),
    "a layer that is called twice": lambda: Held(lambda m, h: m.last(h) * m.last(h.relu())),
    "two readers": lambda: Held(lambda m, h: m.last(h) + m.other(h), other=nn.Linear(8, 2)),
    "places of a sequence": lambda: Held(lambda m, h: m.last(h[:, None].expand(-1, 3, -1)).mean(dim=1)),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_has_a_number_for_each_neuron_goes_with_them(name: str) -> None:
    torch.manual_seed(1)
    model, given = TAKEN[name]().eval(), torch.randn(16, 4)
    with torch.no_grad():
        for part in model.children():
            if isinstance(part, nn.Linear) and part.in_features == 8:
                part.weight[:, ::2] = 0.0
    small, (record,) = compress(model, [HALF], [(given,)])
    assert record["touched"][0] == "hidden: 8 neurons to 4"
    assert torch.equal(small.hidden.weight, model.hidden.weight[1::2])
    torch.testing.assert_close(small(given), model(given), atol=1e-6, rtol=0)


class Windows(nn.Module):
    """Convolutions over places, one of them straight into a layer that reads every place of it."""

    def __init__(self) -> None:
        super().__init__()
        self.item = nn.Embedding(ITEMS, DIM)
        self.first, self.second = nn.Conv1d(DIM, 10, 3, padding="same"), nn.Conv1d(10, 12, 3, stride=2, dilation=2)
        self.side = nn.Conv1d(DIM, 6, 3, padding=1, bias=False)
        self.deep, self.flat = nn.Linear(12, 8), nn.Linear(6 * 9, 1)
        self.out = nn.Linear(8, 1)

    def forward(self, items: Tensor) -> Tensor:
        seen = self.item(items).transpose(1, 2)
        wide = self.second(self.first(seen).relu()).relu().amax(dim=2)
        scores: Tensor = self.out(self.deep(wide).relu()) + self.flat(self.side(seen).relu().flatten(1))
        return scores.squeeze(1)


def test_channels_of_convolutions_go_as_neurons_do() -> None:
    torch.manual_seed(0)
    model, items = Windows(), torch.randint(0, ITEMS, (ROWS, 9))
    with torch.no_grad():
        for name in ("second", "deep", "out"):
            model.get_submodule(name).weight[:, ::2] = 0.0
        model.flat.weight.view(1, 6, 9)[:, ::2] = 0.0
    small, (record,) = compress(model, [HALF], [(items,)])
    assert record["touched"] == [f"{name}: {n} neurons to {n // 2}" for name, n in SIZES_OF_WINDOWS.items()]
    assert [type(each) for each in small.modules()] == [type(each) for each in model.modules()]
    assert (small.second.in_channels, small.second.out_channels, small.second.weight.shape) == (5, 6, (6, 5, 3))
    torch.testing.assert_close(small(items), model(items), atol=1e-6, rtol=0)
    both, (_, dense) = compress(model, [HALF, "quantize-dense"], [(items,)])
    assert dense["skipped"] == []
    with torch.no_grad():
        assert decibels(model(items), both(items)) > 25


SIZES_OF_WINDOWS = {"first": 10, "second": 12, "side": 6, "deep": 8}


def decibels(signal: Tensor, other: Tensor) -> float:
    return float(10 * torch.log10(signal.square().mean() / (signal - other).square().mean().clamp(min=1e-30)))


def test_neurons_of_a_transformer_go_and_its_heads_stay() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, activation="gelu")
    model = nn.Sequential(nn.Embedding(ITEMS, 8), layer, nn.Linear(8, 3)).eval()
    with torch.no_grad():
        layer.linear2.weight[:, ::2] = 0.0
    items = torch.randint(0, ITEMS, (ROWS, 5))
    small, (record,) = compress(model, [HALF], [(items,)])
    assert record["touched"] == ["1.linear1: 16 neurons to 8"]
    told = reasons(record)
    parts = {f"1.self_attn.{part}" for part in ("query", "key", "value", "out_proj")}
    assert {name for name, reason in told.items() if "a part of an attention" in reason} == parts
    assert "its neurons go with" in told["1.linear2"]
    with torch.no_grad():
        torch.testing.assert_close(small(items), model(items), atol=1e-6, rtol=0)


STEPS: dict[str, tuple[list[Any], float]] = {  # and the decibels that they have to reach together
    "layers after": ([HALF, "quantize-dense"], 20),
    "tables after": ([HALF, {"name": "quantize-tables", "bits": 4}, "quantize-dense"], 14),
    "tables before": ([{"name": "quantize-tables", "bits": 4}, HALF, "quantize-dense"], 14),
    "a budget after": ([HALF, {"name": "mix-bits", "budget": 4000}, "quantize-dense"], 14),
    "a budget before": ([{"name": "mix-bits", "budget": 4000}, HALF, "quantize-dense"], 14),
    "weights before": ([{"name": "prune-weights", "sparsity": 0.3}, HALF], 18),
    "weights after": ([HALF, {"name": "prune-weights", "sparsity": 0.3}], 9),
}


@pytest.mark.parametrize("name", STEPS)
def test_it_goes_with_other_steps(name: str, ranker) -> None:
    model = muted(ranker)
    steps, floor = STEPS[name]
    small, records = compress(model, steps, [batch(256, seed=seed) for seed in range(3)])
    told = next(each for each in records if each["name"] == "prune-neurons")
    assert [line.partition(":")[0] for line in told["touched"]] == list(SIZES)
    if "budget" in name:
        assert records[-1]["bytes_after"] <= 4000
    assert decibels(scores(model), scores(small.eval())) > floor


@pytest.mark.parametrize("name", ["layers after", "tables before"])
def test_the_artifact_is_smaller_and_answers_alike(name: str, ranker, tmp_path) -> None:
    given, asked = [batch(256, seed=seed) for seed in range(3)], batch(7, seed=3)
    steps, _ = STEPS[name]
    small, _ = compress(ranker, steps, given)
    plain, _ = compress(ranker, [step for step in steps if step != HALF], given)
    for which, each in (("small", small), ("plain", plain)):
        export(each, batch(), tmp_path / which)
    sizes = {which: (tmp_path / which / "model.onnx").stat().st_size for which in ("small", "plain")}
    assert sizes["small"] < sizes["plain"]
    found = load_graph(tmp_path / "small").run({key: value.numpy() for key, value in asked.items()})["output"]
    assert decibels(scores(small.eval(), asked), torch.from_numpy(found)) > 30


def test_layers_that_are_quantised_already_are_told(ranker) -> None:
    small, (_, record) = compress(ranker, ["quantize-dense", HALF], [batch()])
    assert record["touched"] == []
    layers = [name for name, each in ranker.named_modules() if isinstance(each, nn.Linear)]
    assert reasons(record) == dict.fromkeys(layers, "is quantised already: prune neurons before quantising")
    assert type(small.left) is QuantizedLinear


def test_it_trains_in_the_users_loop_and_its_state_loads(ranker, tmp_path) -> None:
    small, _ = compress(ranker, [HALF], [batch()])
    given, target = batch(), (torch.arange(ROWS) % 2).float()
    optimizer = torch.optim.Adam(small.train().parameters(), lr=0.01)
    losses = []
    for _ in range(8):
        loss = functional.binary_cross_entropy_with_logits(small(**given), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.05
    save_model(small, str(tmp_path / "small.safetensors"))
    torch.manual_seed(7)
    other, _ = compress(Ranker().eval(), [HALF], [batch()])  # of other weights, and so of other neurons
    load_model(other, str(tmp_path / "small.safetensors"))
    torch.testing.assert_close(scores(other.eval()), scores(small.eval()), atol=0, rtol=0)


def test_batches_of_any_form_and_a_forward_of_ones_own(ranker) -> None:
    expected, _ = compress(ranker, [HALF], [batch()])
    tuples, _ = compress(ranker, [HALF], [tuple(batch().values())])
    labelled = {"x": batch(), "y": torch.zeros(ROWS)}

    def loss(module: nn.Module, given: dict[str, Any]) -> dict[str, Any]:
        return {"losses": [functional.mse_loss(module(**given["x"]), given["y"])], "name": "mse"}

    other, (record,) = compress(ranker, [HALF], [labelled], forward=loss)
    assert record["touched"] != []
    for each in (tuples, other):
        torch.testing.assert_close(scores(each), scores(expected), atol=0, rtol=0)


def test_modes_hooks_and_what_is_frozen_stay(ranker) -> None:
    model, seen = copy.deepcopy(ranker).train(), []
    model.norm.eval()
    model.tower.requires_grad_(False)
    model.left.register_forward_hook(lambda module, given, out: seen.append(out.shape[1]))
    small, (record,) = compress(model, [HALF], [batch()])
    assert [line.partition(":")[0] for line in record["touched"]] == list(SIZES)
    assert [name for name, each in small.named_parameters() if not each.requires_grad] == ["tower.weight", "tower.bias"]
    assert small.training
    assert not small.norm.training
    seen.clear()
    small.eval()(**batch())
    assert seen == [10]
    frozen = copy.deepcopy(ranker).requires_grad_(False)
    same, (again,) = compress(frozen, [HALF], [batch()])
    assert again["touched"] == record["touched"]
    assert not any(each.requires_grad for each in same.parameters())


def test_answers_without_gradients_cannot_be_followed(ranker) -> None:
    def silent(module: nn.Module, given: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            return module(**given)

    same, (record,) = compress(ranker, [HALF], [batch()], forward=silent)
    assert set(reasons(record).values()) == {"no answer of the module has a gradient, by which its layers are followed"}
    assert torch.equal(same.left.weight, ranker.left.weight)
    with torch.no_grad():  # of the caller: the module's own gradients are there
        _, (record,) = compress(ranker, [HALF], [batch()])
    assert record["touched"] != []


def test_layers_that_are_not_fit_are_told() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), parametrizations.weight_norm(nn.Linear(8, 8)), nn.Linear(8, 2))
    _, (record,) = compress(model, [HALF], [(torch.randn(9, 4),)])
    assert record["touched"] == []
    told = reasons(record)
    assert told["2"].startswith("is parametrised (weight)")
    assert told["0"].startswith("its neurons go with 2, which is parametrised")
    half = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).to(torch.bfloat16)
    _, (record,) = compress(half, [HALF], [(torch.randn(9, 4, dtype=torch.bfloat16),)])
    assert set(reasons(record).values()) == {
        "holds torch.bfloat16, must hold float32: `module.float()` comes first",
        "the module has no layer whose neurons could go",
    }
    _, (record,) = compress(nn.Sequential(nn.Embedding(9, 4)), [HALF], [(torch.arange(9),)])
    assert reasons(record) == {"neurons": "the module has no layer whose neurons could go"}


def test_layers_that_the_batch_does_not_reach_are_told(ranker) -> None:
    model = copy.deepcopy(ranker)
    model.spare = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    _, (record,) = compress(model, [HALF], [batch()])
    told = reasons(record)
    assert told["spare.0"] == told["spare.1"] == "is not run on the first batch, or has no gradient there"


def test_a_forward_that_fails_is_told() -> None:
    with pytest.raises(InputError, match="failed on batch 0: RuntimeError: mat1 and mat2"):
        compress(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)), [HALF], [(torch.randn(3, 5),)])


def test_a_cut_that_fails_leaves_the_module_as_it_was(ranker, monkeypatch) -> None:
    model = copy.deepcopy(ranker)
    context = ModuleContext(NO_ROWS, NO_ROWS, batches=[batch()])
    followed = Followed(model, context)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(InputError, match="nothing would be left"):
        cut(followed, model.left, range(20))
    neurons = followed.neurons(model.left, [0, 1])
    monkeypatch.setattr(type(neurons.group), "prune", lambda *_, **__: 1 / 0)
    with pytest.raises(InputError, match="torch-pruning failed: ZeroDivisionError"):
        cut(followed, model.left, [0, 1])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_without_torch_pruning_it_says_what_to_install(ranker, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(InputError, match=r'needs torch-pruning: pip install "slimrank\[prune\]"'):
        compress(ranker, [HALF], [batch()])
    _, (record,) = compress(nn.Sequential(nn.Embedding(9, 4)), [HALF], [(torch.arange(9),)])
    assert record["touched"] == []
