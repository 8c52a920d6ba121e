"""Modules of the user's own: what is found in them, what becomes of it, and what is left alone and told."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, weight_norm

from slimrank.api import compress
from slimrank.config import InputError
from slimrank.models.attention import SplitAttention
from slimrank.models.convolution import WindowedConv1d
from slimrank.models.quantized import QuantizedLinear
from slimrank.tables.modules import Embedding, EmbeddingBag, TiedLinear
from slimrank.tables.scaled import ScaledTable

pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
USERS, ITEMS, TAGS, LENGTH, DIM, ROWS = 50, 40, 12, 6, 8, 64


class OwnForward(nn.Embedding):
    """Doubles what it looks up."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class NamedEmbedding(nn.Embedding):
    """Another name, and nothing else."""


class Zoo(nn.Module):
    """Layers wherever people put them."""

    def __init__(self) -> None:
        super().__init__()
        self.fields = nn.ModuleDict(
            {"user": nn.Embedding(USERS, DIM), "item": NamedEmbedding(ITEMS, DIM, padding_idx=0)}
        )
        self.again = self.fields["user"]  # a module that is shared
        self.other = nn.Embedding(ITEMS, DIM)
        self.other.weight = self.fields["item"].weight  # and a parameter that is
        self.tags = nn.EmbeddingBag(TAGS, DIM, mode="mean")
        self.odd = OwnForward(TAGS, DIM)
        self.held = [nn.Linear(DIM, DIM)]  # in no container of torch
        self.first = self.held[0]
        self.deep = {"again": ([self.first],)}
        layer = nn.TransformerEncoderLayer(DIM, 2, 16, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.window = nn.Conv1d(DIM, DIM, 3, padding=1)
        self.out = nn.Linear(DIM, ITEMS)
        self.out.weight = self.fields["item"].weight

    def forward(self, user: Tensor, items: Tensor, tags: Tensor) -> Tensor:
        row = self.fields["user"](user) + self.again(user) + self.tags(tags) + self.odd(tags[:, 0])
        seen = self.fields["item"](items) + self.other(items)
        states = self.encoder(seen, src_key_padding_mask=items == 0)
        # Torch's shortcut of evaluation gives zeros where items are padding, its layers do not.
        states = self.window((states * (items != 0).unsqueeze(2)).transpose(1, 2)).mean(dim=2)
        hidden = torch.relu(self.held[0](row + states)) + 0.1 * self.deep["again"][0][0](row)
        scores: Tensor = self.out(hidden)
        return scores


def batches(count: int = 4) -> list[dict[str, Tensor]]:
    draw = torch.Generator().manual_seed(3)
    made = []
    for _ in range(count):
        items = torch.randint(1, ITEMS, (ROWS, LENGTH), generator=draw)
        items[torch.arange(LENGTH) >= torch.randint(1, LENGTH + 1, (ROWS, 1), generator=draw)] = 0
        user = torch.randint(0, USERS, (ROWS,), generator=draw)
        made.append({"user": user, "items": items, "tags": torch.randint(0, TAGS, (ROWS, 3), generator=draw)})
    return made


@pytest.fixture(scope="module")
def zoo() -> Zoo:
    torch.manual_seed(0)
    return Zoo().eval()


def decibels(signal: Tensor, other: Tensor) -> float:
    return float(10 * torch.log10(signal.square().mean() / (signal - other).square().mean().clamp(min=1e-30)))


@torch.no_grad()
def scores(model: nn.Module) -> Tensor:
    return torch.cat([model(**batch) for batch in batches()])


def test_without_steps_nothing_changes(zoo) -> None:
    same, records = compress(zoo, [], batches())
    assert records == []
    assert [type(each) for each in same.modules()] == [type(each) for each in zoo.modules()]
    assert same.state_dict().keys() == zoo.state_dict().keys()
    assert same.out.weight is same.fields["item"].weight is same.other.weight
    assert same.held[0] is same.first
    torch.testing.assert_close(scores(same), scores(zoo), atol=0, rtol=0)


def test_every_table_is_found_and_told(zoo) -> None:
    before = {name: value.clone() for name, value in zoo.state_dict().items()}
    small, (record,) = compress(zoo, ["quantize-tables"], batches())
    assert all(torch.equal(value, before[name]) for name, value in zoo.state_dict().items())
    sizes = {"fields.user": USERS, "fields.item": ITEMS, "tags": TAGS}
    told = [f"{name}.table: {4 * rows * DIM:,} bytes to {rows * DIM + 4:,}" for name, rows in sizes.items()]
    assert record["touched"] == told
    assert record["skipped"] == [{"name": "odd", "reason": "is a OwnForward, whose forward is its own"}]
    assert record["touched_bytes"] == sum(4 * rows * DIM for rows in sizes.values())
    assert record["bytes_before"] - record["bytes_after"] == sum(3 * rows * DIM - 4 for rows in sizes.values())
    assert type(small.fields["user"]) is Embedding
    assert type(small.tags) is EmbeddingBag
    assert small.again is small.fields["user"]
    assert small.other.table is small.fields["item"].table
    assert isinstance(small.other.table, ScaledTable)
    assert type(small.out) is TiedLinear
    assert small.out.embedding.table is small.other.table
    assert type(small.window) is nn.Conv1d
    assert type(small.encoder.layers[0].self_attn) is nn.MultiheadAttention
    assert 35 < decibels(scores(zoo), scores(small)) < 80


def test_a_selection_names_where_tables_sit(zoo) -> None:
    small, (record,) = compress(zoo, [{"name": "quantize-tables", "only": ["fields.*"], "skip": ["*.item"]}], batches())
    assert type(small.fields["user"]) is Embedding
    assert type(small.fields["item"]) is NamedEmbedding
    assert type(small.out) is nn.Linear
    assert record["skipped"] == [
        {"name": "odd", "reason": "is a OwnForward, whose forward is its own"},
        {"name": "fields.item", "reason": "is not selected"},
        {"name": "tags", "reason": "is not selected"},
    ]
    with pytest.raises(InputError, match="no table 'field'"):
        compress(zoo, [{"name": "quantize-tables", "only": ["field"]}], batches())


def test_layers_become_integers_and_no_shortcut_goes_around_them(zoo) -> None:
    small, (record,) = compress(zoo, ["quantize-dense"], batches())
    layers = [f"encoder.layers.{n}.{part}" for n in range(2) for part in ("linear1", "linear2")]
    parts = [f"encoder.layers.{n}.self_attn.{part}" for n in range(2) for part in ("query", "key", "value", "out_proj")]
    assert {*layers, *parts, "window.linear", "first"} == set(record["touched"])
    assert type(small.held[0]) is QuantizedLinear
    assert small.held[0] is small.first is small.deep["again"][0][0]
    assert type(small.window) is WindowedConv1d
    assert type(small.encoder.layers[0].self_attn) is SplitAttention
    assert type(small.fields["user"]) is nn.Embedding
    assert 25 < decibels(scores(zoo), scores(small)) < 60
    with torch.no_grad():  # torch's own shortcut is for evaluation without gradients: nothing is different in training
        expected = torch.cat([small.train()(**batch) for batch in batches()])
    torch.testing.assert_close(scores(small.eval()), expected, atol=1e-4, rtol=1e-4)


def test_pruned_weights_go_back_to_the_layers_of_torch(zoo) -> None:
    small, (record,) = compress(zoo, [{"name": "prune-weights", "sparsity": 0.5}], batches())
    assert [type(each) for each in small.modules()] == [type(each) for each in zoo.modules()]
    weights = [small.window.weight, small.first.weight, small.encoder.layers[1].linear2.weight]
    weights += [small.encoder.layers[0].self_attn.in_proj_weight]
    zeros = [int((weight == 0).sum()) for weight in weights]
    assert min(zeros) > 0
    assert record["facts"]["sparsity"] == pytest.approx(0.5, abs=0.01)
    assert (small.out.weight[1:] != 0).all()  # tied: it is a table, and no layer
    assert small.encoder.use_nested_tensor == zoo.encoder.use_nested_tensor
    expected = copy.deepcopy(zoo)
    for name, value in expected.named_parameters():
        value.data.copy_(small.state_dict()[name])
    torch.testing.assert_close(scores(small), scores(expected), atol=0, rtol=0)


STEPS: list[Any] = [{"name": "quantize-tables", "bits": 4}, "quantize-dense"]


def test_it_trains_in_the_users_loop_and_its_state_is_saved(zoo, tmp_path) -> None:
    small, _ = compress(zoo, STEPS, batches())
    target = torch.cat([batch["items"][:, 0] for batch in batches()])
    optimizer = torch.optim.Adam(small.parameters(), lr=0.01)
    losses = []
    for _ in range(5):
        loss = functional.cross_entropy(torch.cat([small(**batch) for batch in batches()]), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.3
    save_model(small, str(tmp_path / "small.safetensors"))
    again, _ = compress(zoo, STEPS, batches())
    assert not torch.equal(scores(again), scores(small))
    load_model(again, str(tmp_path / "small.safetensors"))
    torch.testing.assert_close(scores(again), scores(small), atol=0, rtol=0)


def test_a_second_time_finds_what_the_first_left(zoo) -> None:
    once, _ = compress(zoo, [{"name": "quantize-tables", "only": ["tags"]}], batches())
    twice, (record,) = compress(once, ["quantize-tables"], batches())
    assert type(twice.fields["user"]) is Embedding
    assert {"name": "tags.table", "reason": "is no dense table: ScaledTable"} in record["skipped"]


def test_how_often_ids_are_met_is_counted(zoo) -> None:
    rare = {"name": "threshold-rows", "min_count": 8}
    small, (record,) = compress(zoo, [rare], batches())
    met = 2 * torch.bincount(torch.cat([batch["user"] for batch in batches()]), minlength=USERS)  # it asks twice
    table, old = small.fields["user"].table, zoo.fields["user"].weight.detach()
    kept = met >= 8
    assert 0 < int(kept.sum()) < USERS - 1
    assert table.inner.num_rows == int(kept.sum()) + 1
    found = table(torch.arange(USERS)).detach()
    torch.testing.assert_close(found[kept], old[kept], atol=0, rtol=0)  # id 0 as well: it is one of the user's
    mean = (met[~kept].float() @ old[~kept]) / met[~kept].sum()
    torch.testing.assert_close(found[~kept], mean.expand(int((~kept).sum()), -1), atol=1e-6, rtol=1e-5)
    assert any(line.startswith("fields.user") for line in record["touched"])


def test_bits_by_frequency(zoo) -> None:
    exact, whole = compress(zoo, [{"name": "mix-bits", "budget": "1 MB"}], batches())
    budget = whole[0]["bytes_before"] - 2500
    small, (record,) = compress(zoo, [{"name": "mix-bits", "budget": budget}], batches())
    assert record["bytes_after"] <= budget
    assert decibels(scores(zoo), scores(exact)) > decibels(scores(zoo), scores(small)) > 10


def test_ids_are_not_taken_to_be_sorted_by_frequency(zoo) -> None:
    shorter = {"name": "reduce-dimensions", "energy": 0.8}
    plain, (record,) = compress(zoo, [shorter], batches())
    banded, (other,) = compress(zoo, [{**shorter, "by_frequency": True}], batches())
    assert record["touched"] == other["touched"] != []
    torch.testing.assert_close(scores(banded), scores(plain), atol=0, rtol=0)


def test_a_layer_that_is_part_of_nothing() -> None:
    table = nn.Embedding(USERS, DIM)
    small, (record,) = compress(table, ["quantize-tables"], [torch.arange(USERS)])
    assert type(small) is Embedding
    assert record["touched"]
    linear, _ = compress(nn.Linear(DIM, 3), ["quantize-dense"], [torch.randn(9, DIM)])
    assert type(linear) is QuantizedLinear


def test_batches_may_differ_in_shape() -> None:
    layer = nn.Linear(DIM, 3)
    given = [torch.randn(4, 5, DIM), torch.randn(2, 7, DIM), torch.randn(9, DIM), torch.randn(DIM)]
    small, (record,) = compress(nn.Sequential(layer, nn.ReLU()), ["quantize-dense"], [(each,) for each in given])
    assert record["touched"] == ["0"]
    for each in given:
        with torch.no_grad():
            assert decibels(torch.relu(layer(each)), small(each)) > 30


def test_a_quality_to_choose_by_has_to_be_given(zoo) -> None:
    step = {"name": "prune-weights", "max_auc_drop": 0.02}
    with pytest.raises(InputError, match="give `metric`"):
        compress(zoo, [step], batches())
    expected = scores(zoo)

    def metric(module: nn.Module) -> float:
        return -float((scores(module) - expected).square().mean())

    small, (record,) = compress(zoo, [step], batches(), metric=metric)
    assert -0.02 <= metric(small) < 0
    assert record["facts"]["sparsity"] > 0.02


def test_batches_of_any_form_and_a_forward_of_ones_own(zoo) -> None:
    tuples = [tuple(batch.values()) for batch in batches()]
    expected, _ = compress(zoo, STEPS, batches())
    found, _ = compress(zoo, STEPS, tuples)
    labelled = [{"x": batch, "y": torch.zeros(ROWS)} for batch in batches()]
    other, _ = compress(zoo, STEPS, labelled, forward=lambda module, batch: module(**batch["x"]))
    for each in (found, other):
        torch.testing.assert_close(scores(each), scores(expected), atol=0, rtol=0)


def test_hooks_stay(zoo) -> None:
    model, seen = copy.deepcopy(zoo), []
    model.first.register_forward_hook(lambda module, given, out: seen.append(type(module)))
    model.fields["user"].register_forward_pre_hook(lambda module, given: seen.append(type(module)))
    small, _ = compress(model, STEPS, batches())
    seen.clear()
    scores(small)
    assert set(seen) == {QuantizedLinear, Embedding}


def test_modules_and_their_modes_are_as_they_were(zoo) -> None:
    model = copy.deepcopy(zoo).train()
    model.first.eval()
    small, _ = compress(model, STEPS, batches())
    assert small.training
    assert type(small.first) is QuantizedLinear
    assert not small.first.training
    assert small.fields["user"].training


class Faulty(nn.Module):
    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, values: Tensor) -> Tensor:
        return self.layer(values)


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(nn.Linear(DIM, DIM))


def old_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = weight_norm(nn.Linear(DIM, DIM))
    with torch.no_grad():
        made(torch.zeros(1, DIM))  # until then the weight hangs on others, and no copy of the module can be made
    return made


def quantised() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(DIM, DIM)))[0]


UNFIT = {
    "quantised": (quantised, "is quantised already: it is a torch.ao.nn.quantized.dynamic.modules.linear.Linear"),
    "parametrised": (lambda: parametrizations.weight_norm(nn.Linear(DIM, DIM)), "is parametrised (weight)"),
    "weight norm of old": (old_weight_norm, "a weight that WeightNorm computes"),
    "scripted": (scripted, "is scripted"),
    "half": (lambda: nn.Linear(DIM, DIM).to(torch.bfloat16), "holds torch.bfloat16, must hold float32"),
    "grouped": (lambda: nn.Conv1d(DIM, DIM, 1, groups=2), "groups and padding_mode"),
}


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("name", UNFIT)
def test_what_cannot_be_taken_is_left_alone_and_told(name: str) -> None:
    make, reason = UNFIT[name]
    model = Faulty(make())
    shape = (4, DIM, 3) if name == "grouped" else (4, DIM)
    batch = torch.randn(shape, dtype=torch.bfloat16 if name == "half" else torch.float32)
    small, (record,) = compress(model, ["quantize-dense"], [(batch,)])
    told = [each for each in record["skipped"] if each["name"] == "layer"]
    assert len(told) == 1
    assert reason in told[0]["reason"]
    torch.testing.assert_close(small(batch), model(batch), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: nn.Embedding(9, DIM, max_norm=1.0), "max_norm is not supported"),
        (lambda: nn.Embedding(9, DIM, scale_grad_by_freq=True), "scale_grad_by_freq is not supported"),
        (lambda: nn.Embedding(9, DIM).half(), "holds torch.float16"),
    ],
)
def test_tables_that_cannot_be_taken_are_told(make, reason) -> None:
    _, (record,) = compress(Faulty(make()), ["quantize-tables"], [(torch.arange(9),)])
    assert [each["name"] for each in record["skipped"]] == ["layer"]
    assert reason in record["skipped"][0]["reason"]


@pytest.mark.filterwarnings("ignore")
def test_modules_that_no_step_could_change_are_refused_and_those_without_tables_told() -> None:
    ids = torch.arange(9)
    with pytest.raises(InputError, match=r"is compiled: give it as it was before torch.compile"):
        compress(torch.compile(Faulty(nn.Embedding(9, DIM))), ["quantize-tables"], [(ids,)])
    with pytest.raises(InputError, match=r"^layer is compiled"):
        compress(Faulty(torch.compile(nn.Embedding(9, DIM))), ["quantize-tables"], [(ids,)])
    with pytest.raises(InputError, match=r"layer\.weight is on the device meta, without numbers"):
        compress(Faulty(nn.Embedding(9, DIM, device="meta")), ["quantize-tables"], [(ids,)])
    traced = torch.export.export(Faulty(nn.Embedding(9, DIM)), (ids,)).module()
    _, (record,) = compress(traced, ["quantize-tables"], [(ids,)])
    assert {"name": "tables", "reason": "the model has no embedding that a step could take"} in record["skipped"]


def test_a_forward_that_fails_is_told_with_its_own_error_and_where(zoo) -> None:
    with pytest.raises(InputError, match=r"failed on batch 1: KeyError: 'user' \(.*test_modules.py:\d+\)"):
        compress(
            zoo,
            ["quantize-tables"],
            [batches()[0], {}],
            forward=lambda module, batch: module(
                batch["user"], **{key: value for key, value in batch.items() if key != "user"}
            ),
        )
    with pytest.raises(InputError, match="failed on batch 0: TypeError: "):
        compress(zoo, [], [torch.zeros(3)])
    wrong = [{**batches()[0], "user": torch.tensor([USERS])}]
    with pytest.raises(InputError, match=f"id {USERS} is not in the table"):
        compress(zoo, [], wrong)


def test_data_that_ends_or_is_empty_is_refused(zoo) -> None:
    with pytest.raises(InputError, match="can be read only once"):
        compress(zoo, [], iter(batches()))
    with pytest.raises(InputError, match="data has no batch"):
        compress(zoo, [], [])


class Holder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.ones(2, requires_grad=True) * 2

    def forward(self, values: Tensor) -> Tensor:
        return values * self.scale


def test_a_module_that_cannot_be_copied_is_told() -> None:
    with pytest.raises(InputError, match="cannot be copied: RuntimeError"):
        compress(Holder(), [], [torch.ones(2)])


class Two(nn.Module):
    """Two answers, one of them of a frozen part, and rows that it holds by a parameter of its own as well."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(300, DIM, mode="sum")
        self.rows = self.bag.weight
        self.frozen = nn.Sequential(nn.Embedding(40, DIM), nn.Linear(DIM, 4)).requires_grad_(False)
        self.last = nn.Sequential(nn.Dropout(0.5), nn.Linear(DIM, 4))

    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        return {"one": self.last(self.bag(ids)), "other": self.frozen(ids[:, 0] % 40)}


IDS = torch.arange(600).view(150, 4) % 300


def test_several_answers_tell_which_rows_matter() -> None:
    model = Two()
    model.rows = None
    _, (record,) = compress(model, [{"name": "mix-bits", "budget": 4000}], [(IDS,)])
    assert record["bytes_after"] <= 4000
    assert {line.partition(":")[0] for line in record["touched"]} >= {"bag", "frozen.0"}


def test_rows_that_a_parameter_holds_as_well_count_once_and_are_told() -> None:
    _, (record,) = compress(Two(), ["quantize-tables"], [(IDS,)])
    numbers = 300 * DIM + 40 * DIM + 2 * (4 * DIM + 4)
    assert record["bytes_before"] == 4 * numbers
    told = {each["name"]: each["reason"] for each in record["skipped"]}
    assert told == {"bag.table": "is tied to rows: `tied = true` converts the table alone"}


def test_what_was_frozen_stays_frozen() -> None:
    small, _ = compress(Two(), STEPS, [(IDS,)])
    assert type(small.frozen[0]) is Embedding
    assert type(small.frozen[1]) is QuantizedLinear
    assert not any(each.requires_grad for each in small.frozen.parameters())
    assert all(each.requires_grad for each in small.last.parameters())


def test_quality_is_asked_of_the_module_in_evaluation_and_without_gradients() -> None:
    asked = []

    def metric(module: nn.Module) -> float:
        asked.append((module.training, torch.is_grad_enabled()))
        return 1.0

    small, _ = compress(Two().train(), [{"name": "prune-weights", "max_auc_drop": 0.1}], [(IDS,)], metric=metric)
    assert set(asked) == {(False, False)}
    assert small.training


def test_only_steps_on_tables_read_all_batches() -> None:
    read = []

    class Batches:
        def __iter__(self):
            for place in range(3):
                read.append(place)
                yield (IDS[:, place:],)

    compress(Two(), [], Batches())
    assert read == [0]
    compress(Two(), ["quantize-tables"], Batches())
    assert read == [0, 0, 1, 2]
