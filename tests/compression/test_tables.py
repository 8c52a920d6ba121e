"""Selections of fields, the parts of tables that they are, and what takes their place."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slimrank.compression.steps import Context, compress
from slimrank.compression.tables import Selection, find_parts, left_for, replace_parts
from slimrank.config import InputError, as_config, runner
from slimrank.models.dnn import DNN
from slimrank.models.size import packed_bytes
from slimrank.tables.embedding import Layout
from slimrank.tables.scaled import Scaled, ScaledTable, scaled
from slimrank.tables.stacked import StackedTable


def names(model, context, per_field: bool = False, **settings) -> list[tuple[str, ...]]:
    return [part.fields for part in find_parts(model, Selection(**settings), context, per_field=per_field)]


def test_neighbours_are_one_part_unless_asked_field_by_field(make_model, context) -> None:
    model = make_model()
    assert names(model, context) == [("user", "item", "tags")]
    assert names(model, context, per_field=True) == [("user",), ("item",), ("tags",)]
    assert names(model, context, skip=("item",)) == [("user",), ("tags",)]
    assert names(model, context, only=("embedding.*",), skip=("u*",)) == [("item", "tags")]


def test_a_part_knows_its_rows_counts_and_reserved_ids(make_model, context) -> None:
    model = make_model()
    (part,) = find_parts(model, Selection(only=("item", "tags")), context)
    assert torch.equal(part.table.weight, model.embedding.table.weight[9:])
    assert part.table.starts.tolist() == [0, 12]
    assert context.counts["tags"][0] == 5
    assert part.counts.tolist() == [*context.counts["item"], 0, *context.counts["tags"][1:]]  # padding is never read
    assert part.reserved == (1, 2)


def test_fields_that_are_left_out_are_noted(make_model, context) -> None:
    _, (record,) = compress(make_model(), [{"name": "quantize-tables", "only": ["item"]}], context)
    assert [each.split(":")[0] for each in record["touched"]] == ["embedding.item"]
    assert [each["name"] for each in record["skipped"]] == ["embedding.user", "embedding.tags"]


def test_what_was_made_takes_its_place_and_the_rest_stays(make_model, context) -> None:
    model = make_model()
    before = model.embedding.table.rows(0, 27)
    small, _ = compress(model, [{"name": "quantize-tables", "only": ["item"], "bits": 8}], context)
    table = small.embedding.table
    assert isinstance(table, StackedTable)
    assert torch.equal(table.rows(0, 9), before[:9])
    assert torch.equal(table.rows(21, 27), before[21:])
    assert (table.rows(9, 21) - before[9:21]).abs().max() <= table.tables[1].scale[0] / 2 + 1e-6
    ids, numbers = context.train.ids, context.train.numbers
    torch.testing.assert_close(small(ids, numbers), model(ids, numbers), atol=0.05, rtol=0.05)


def test_one_field_after_the_other_ends_without_dense_rows(make_model, context) -> None:
    steps = [{"name": "quantize-tables", "only": [field]} for field in ("item", "user", "tags")]
    small, records = compress(make_model(), steps, context)
    assert [type(part) for part in small.embedding.table.tables] == [ScaledTable] * 3
    assert all(len(record["touched"]) == 1 for record in records)


def test_an_unknown_name_is_refused_with_the_nearest(make_model, context) -> None:
    with pytest.raises(InputError, match=r"only: no table 'itm'\. Did you mean 'item'"):
        find_parts(make_model(), Selection(only=("itm",)), context)


def test_a_table_that_would_grow_is_kept_with_the_bytes(make_model, context) -> None:
    model = make_model()
    (part,) = find_parts(model, Selection(only=("user",)), context)
    replace_parts(model, {part: part.table}, context)
    assert context.skipped[-1] == {"name": "embedding.user", "reason": "would take 144 bytes, and takes 144 as it is"}
    assert context.touched == []


def test_a_tied_table_is_left_alone_unless_asked(make_model, context) -> None:
    model = make_model()
    model.decoder = nn.Linear(4, 27, bias=False)
    model.decoder.weight = model.embedding.table.weight
    assert find_parts(model, Selection(), context) == []
    assert "tied to decoder.weight" in context.skipped[-1]["reason"]
    (part,) = find_parts(model, Selection(tied=True), context)
    replace_parts(model, {part: scaled(Scaled(), part.table.weight.detach(), part.table.starts)}, context)
    assert isinstance(model.embedding.table, ScaledTable)
    assert model.decoder.weight.shape == (27, 4)


HASH_ITEM = {"name": "hash-tables", "only": ["item"], "ratio": 2, "least_rows": 4, "method": "plain"}


@pytest.mark.parametrize(
    ("selection", "scaled_parts"),
    [({"skip": ["item"]}, (0, 2)), ({"only": ["item"]}, (1,)), ({}, (0, 1, 2)), ({"skip": ["*"]}, ())],
)
@pytest.mark.parametrize("method", ["plain", "clustered"])
def test_rows_that_ids_share_are_selected_by_the_name_of_their_field(
    method, selection, scaled_parts, make_model, context
) -> None:
    model = make_model(DNN(embedding_dim=4, hidden=(6, 5)), Layout(("user", "item", "tags"), (90, 120, 60), (1, 1, 1)))
    steps = [{**HASH_ITEM, "method": method, "ratio": 8}, {"name": "quantize-tables", **selection}]
    small, records = compress(model, steps, Context(context.train, context.valid))
    tables = small.embedding.table.tables
    found = [isinstance(each.inner if place == 1 else each, ScaledTable) for place, each in enumerate(tables)]
    assert tuple(place for place, is_scaled in enumerate(found) if is_scaled) == scaled_parts
    left = [each["name"] for each in records[1]["skipped"] if each["reason"] == "is not selected"]
    assert left == [f"embedding.{name}" for n, name in enumerate(("user", "item", "tags")) if n not in scaled_parts]


def test_rows_that_fields_share_are_converted_when_all_of_them_are_selected(make_model, context) -> None:
    model = make_model()
    table = model.embedding.table
    config = as_config("table", {"name": "hashed", "method": "clustered", "buckets": 2})
    model.embedding.table = runner("table", config)(config, table.weight.detach(), table.starts)
    assert len(find_parts(model, Selection(only=("user", "item", "tags")), context)) == 1
    assert find_parts(model, Selection(skip=("item",)), context) == []
    assert context.skipped == [
        {"name": "embedding.table.inner", "reason": "its rows serve item as well, which the step leaves alone"}
    ]


def test_a_field_that_is_not_finite_is_left_out_by_name(make_model, context) -> None:
    model = make_model()
    model.embedding.table.weight.data[10, 2] = float("-inf")
    assert names(model, context) == [("user",), ("tags",)]
    assert context.skipped == [{"name": "embedding.item", "reason": "holds NaN or infinite values"}]


def test_a_budget_that_the_rest_exceeds_is_refused_where_there_are_no_parts(make_model, context) -> None:
    model = make_model()
    assert left_for(model, [], packed_bytes(model) + 3, context) == 3
    with pytest.raises(InputError, match=f"of 99 bytes is below the least possible: {packed_bytes(model)}"):
        left_for(model, [], 99, context)


def test_a_budget_of_the_model_leaves_what_other_parts_do_not_take(make_model, context) -> None:
    model = make_model()
    parts = find_parts(model, Selection(only=("item",)), context)
    assert left_for(model, parts, packed_bytes(model), context) == 12 * 4 * 4
    assert left_for(model, parts, 100, context) < 0


def test_what_later_steps_make_smaller_is_left_for_the_tables(make_model, context) -> None:
    model = make_model()
    parts = find_parts(model, Selection(only=("item",)), context)
    small, _ = compress(model, ["quantize-dense"], context)
    context.touched.clear()
    context.later = (as_config("step", "quantize-dense"), as_config("step", "quantize-tables"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    spared = packed_bytes(model) - packed_bytes(small)
    assert left_for(model, parts, 1000, context) == 1000 - (packed_bytes(model) - 12 * 4 * 4) + spared
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert context.touched == []
