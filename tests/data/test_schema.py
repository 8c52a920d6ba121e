from __future__ import annotations

import datetime

import polars as pl
import pytest

from slimrank.config import InputError
from slimrank.data.schema import Field, Schema, infer_schema

FIELDS = (
    Field(name="price", kind="numeric"),
    Field(name="history", kind="sequence", max_length=2),
    Field(name="user", kind="categorical"),
    Field(name="tags", kind="sequence", max_length=1),
    Field(name="item", kind="categorical"),
)


def test_columns_are_categorical_fields_in_order_then_the_slots_of_sequences() -> None:
    schema = Schema(fields=FIELDS, group="user", time="when")
    assert schema.columns == ("user", "item", "history", "history", "tags")
    assert [field.name for field in schema.numeric] == ["price"]
    assert schema.used == ("price", "history", "user", "tags", "item", "label", "when")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"kind": "numeric", "encoding": "hash", "num_ids": 4}, "no ids to encode by 'hash'"),
        ({"kind": "categorical", "encoding": "hash"}, "encoding 'hash' needs num_ids"),
        ({"kind": "categorical", "encoding": "identity"}, "encoding 'identity' needs num_ids"),
        ({"kind": "categorical", "num_ids": 4}, "num_ids is for the encodings 'hash' and 'identity' only"),
        ({"kind": "categorical", "log": True}, "log is for numeric fields only"),
        ({"kind": "categorical", "separator": " "}, "separator is for sequence fields only"),
        ({"kind": "sequence", "separator": ""}, "separator is for sequence fields only, and not empty"),
        ({"kind": "categorical", "encoding": "hash", "num_ids": 4, "min_count": 2}, "min_count is for the encoding"),
        ({"kind": "categorical", "mincount": 2}, "unknown key 'mincount'. Did you mean 'min_count'?"),
        ({"kind": "number"}, "kind: Input should be 'categorical', 'numeric', 'sequence' or 'text', got 'number'"),
    ],
)
def test_a_field_that_contradicts_itself_is_refused(keys: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as error:
        Field.parse({"name": "x", **keys})
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"fields": ()}, "at least one field"),
        ({"fields": FIELDS[:1] * 2}, "fields named twice: price"),
        ({"fields": FIELDS, "label": "user"}, "the label 'user' is also a field"),
    ],
)
def test_a_schema_that_contradicts_itself_is_refused(keys: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Schema.parse(keys)


def table() -> pl.DataFrame:
    rows = 300
    return pl.DataFrame(
        {
            "label": [0, 1] * 150,
            "flag": [True, False] * 150,
            "city": ["a", "b", "c"] * 100,
            "price": [0.5, 1.5] * 150,
            "user_id": range(rows),
            "amount": range(rows),
            "query": [str(row) for row in range(rows)],
            "history": [[1, 2], [3]] * 150,
            "when": [datetime.datetime(2026, 1, 1)] * rows,
        }
    )


def test_inferred_from_types_and_distinct_values() -> None:
    schema = infer_schema(table(), label="label", group="user_id", time="when")
    fields = {field.name: field for field in schema.fields}
    assert {name: field.kind for name, field in fields.items()} == {
        "flag": "categorical",
        "city": "categorical",
        "price": "numeric",
        "user_id": "categorical",
        "amount": "numeric",
        "query": "categorical",
        "history": "sequence",
    }
    assert fields["amount"].log
    assert not fields["price"].log
    assert fields["query"].min_count == 2
    assert fields["city"].min_count == 1
    assert (schema.label, schema.group, schema.time) == ("label", "user_id", "when")


def test_overrides_replace_what_was_inferred() -> None:
    overrides = {"amount": {"kind": "categorical"}, "city": {"encoding": "hash", "num_ids": 7}, "price": {"log": True}}
    fields = {f.name: f for f in infer_schema(table(), label="label", time="when", overrides=overrides).fields}
    assert fields["amount"] == Field(name="amount", kind="categorical")
    assert fields["city"] == Field(name="city", kind="categorical", encoding="hash", num_ids=7)
    assert fields["price"].log


def test_all_faults_at_once_with_the_nearest_names() -> None:
    with pytest.raises(InputError) as error:
        infer_schema(table(), label="labl", group="usr_id", overrides={"citi": {"log": True}, "flag": {"mincount": 1}})
    message = str(error.value)
    assert "no column 'labl' for the label. Did you mean 'label'?" in message
    assert "no column 'usr_id' for the group. Did you mean 'user_id'?" in message
    assert "no column 'citi' for the field. Did you mean 'city'?" in message
    assert "field 'flag': unknown key 'mincount'. Did you mean 'min_count'?" in message
    assert "column 'when' is of type Datetime(time_unit='us', time_zone=None): name it as the time, drop it" in message


def test_a_time_is_a_field_only_where_it_is_named() -> None:
    frame = pl.DataFrame({"label": [0, 1], "hour": [1, 2]})
    assert [f.name for f in infer_schema(frame, label="label", overrides={"hour": {}}, time="hour").fields] == ["hour"]
    with pytest.raises(InputError, match="at least one field"):
        infer_schema(frame, label="label", time="hour")
