"""The verb: order, records, copies, and names that do not exist."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from slimrank.compression.quantize_tables import QuantizeTables
from slimrank.compression.steps import Context, compress, replace_module
from slimrank.config import InputError
from slimrank.models.architecture import build_model
from slimrank.models.finalmlp import FinalMLP
from slimrank.models.size import packed_bytes
from slimrank.tables.embedding import Layout
from slimrank.training.examples import Examples

CHAIN = [
    {"name": "threshold-rows", "min_count": 3},
    {"name": "prune-neurons", "keep": 0.5},
    {"name": "prune-weights", "sparsity": 0.9},
    {"name": "quantize-tables", "bits": 4},
    "quantize-dense",
]


def test_records_come_in_order_with_bytes_that_join_up(make_model, context) -> None:
    model = make_model()
    small, records = compress(model, CHAIN, context)
    assert [record["name"] for record in records] == [
        "threshold-rows",
        "prune-neurons",
        "prune-weights",
        "quantize-tables",
        "quantize-dense",
    ]
    for record in records:
        assert list(record) == [
            "name",
            "settings",
            "touched",
            "skipped",
            "touched_bytes",
            "bytes_before",
            "bytes_after",
            "facts",
            "note",
        ]
        assert record["touched"]
    assert records[0]["bytes_before"] == packed_bytes(model)
    assert records[-1]["bytes_after"] == packed_bytes(small)
    for one, following in pairwise(records):
        assert one["bytes_after"] == following["bytes_before"]
    assert records[2]["facts"].keys() == {"tau", "sparsity"}
    assert records[2]["note"].startswith("tau 0.")
    assert records[3]["facts"] == {}  # what one step found is not told of the next


def test_the_input_is_left_alone_unless_it_may_be_used_up(make_model, context) -> None:
    model = make_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    given = (context.train.ids, context.train.numbers)
    scores = model(*given)
    small, _ = compress(model, CHAIN, context)
    assert small is not model
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(scores, model(*given))
    same, _ = compress(model, CHAIN, context, in_place=True)
    assert same is model


def test_no_steps_change_nothing(make_model, context) -> None:
    model = make_model()
    small, records = compress(model, [], context)
    assert records == []
    given = (context.train.ids, context.train.numbers)
    assert torch.equal(small(*given), model(*given))


def test_a_step_is_a_config_a_mapping_or_a_name(make_model, context) -> None:
    model = make_model()
    given = (context.train.ids, context.train.numbers)
    found = [
        compress(model, [step], context)[0](*given)
        for step in (QuantizeTables(), {"name": "quantize-tables"}, "quantize-tables")
    ]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[1], found[2])


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (
            ["quantise-tables"],
            r"unknown step 'quantise-tables'\. Did you mean 'quantize-tables'\? Allowed: codebook-tables",
        ),
        ([{"name": "prune-weight", "tau": 1}], r"unknown step 'prune-weight'\. Did you mean 'prune-weights'\?"),
        ([{"tau": 1}], "a step needs a name. Allowed: codebook-tables, "),
        ([{"name": "threshold-rows", "mincount": 1}], r"unknown key 'mincount'\. Did you mean 'min_count'\? Allowed: "),
        ([{"name": "threshold-rows", "min_count": 0}], "min_count: Input should be greater than or equal to 1, got 0"),
    ],
)
def test_a_fault_in_any_step_is_found_before_the_first_is_applied(steps, message, make_model, context) -> None:
    model = make_model()
    before = model.mlp.linears[1].weight.clone()
    with pytest.raises(InputError, match=message):
        compress(model, [{"name": "prune-weights", "sparsity": 0.9}, *steps], context, in_place=True)
    assert torch.equal(model.mlp.linears[1].weight, before)


def test_modules_are_replaced_at_any_depth() -> None:
    model = torch.nn.ModuleDict({"a": torch.nn.ModuleList([torch.nn.Identity(), torch.nn.Identity()])})
    new = torch.nn.Linear(1, 1)
    replace_module(model, "a.1", new)
    assert model["a"][1] is new
    replace_module(model, "a", new)
    assert model["a"] is new


def test_matrices_that_are_no_linear_layer_are_named() -> None:
    layout = Layout(("user", "item"), (11, 23), (1, 1))
    model = build_model(FinalMLP(embedding_dim=4, hidden=(8,), second_hidden=(8,)), layout, seed=1)
    context = Context(*(Examples(torch.zeros(8, 2, dtype=torch.int32), torch.zeros(8, 0), torch.zeros(8)),) * 2)
    _, records = compress(model, [{"name": "prune-weights", "sparsity": 0.5}, "quantize-dense"], context)
    for record in records:
        assert {"name": "fusion.weight", "reason": "is the weight of no linear layer"} in record["skipped"]
