from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from slimrank.config import InputError
from slimrank.data.rows import encode_dataset, faults, fingerprint, make_dataset, without_constants
from slimrank.data.schema import Field, Schema

SCHEMA = Schema(
    fields=(
        Field(name="user", kind="categorical"),
        Field(name="price", kind="numeric"),
        Field(name="tags", kind="sequence", max_length=2),
    ),
    group="query",
)


def table(**changes: object) -> pl.DataFrame:
    columns = {
        "user": [1, 2, 3, 4],
        "price": [0.5, 1.5, None, 2.5],
        "tags": [["a"], ["a", "b"], [], None],
        "query": ["p", "q", "p", None],
        "label": [0, 1, 1, 0],
    }
    return pl.DataFrame({**columns, **changes})


def test_rows_are_arrays_read_by_index() -> None:
    encoded = encode_dataset(make_dataset("t", SCHEMA, (table(), table(), table())))
    rows = encoded.train
    assert len(rows) == 4
    assert rows.label.dtype == np.float32
    assert rows.label.tolist() == [0, 1, 1, 0]
    assert rows.group is not None
    assert rows.group.dtype == np.int64
    taken = rows.take(np.array([2, 0, 2]))
    assert taken.label.tolist() == [1, 0, 1]
    assert taken.inputs.ids[:, 0].tolist() == rows.inputs.ids[[2, 0, 2], 0].tolist()
    assert taken.group is not None
    assert taken.group.tolist() == [rows.group[2], rows.group[0], rows.group[2]]
    assert [len(rows.head(n)) for n in (0, 3, 9, -1)] == [0, 3, 4, 0]
    assert len(rows.take(rows.label == 1).inputs) == 2


def test_groups_are_numbered_alike_in_all_splits_and_missing_is_minus_one() -> None:
    other = table(query=["q", "z", "a", "q"])
    encoded = encode_dataset(make_dataset("t", SCHEMA, (table(), other, table())))
    assert encoded.train.group is not None
    assert encoded.valid.group is not None
    assert encoded.train.group.tolist() == [1, 2, 1, -1]
    assert encoded.valid.group.tolist() == [2, 3, 0, 2]
    whole = make_dataset("t", SCHEMA, (table(query=[7, 9, 7, -3]),) * 3)
    assert encode_dataset(whole).train.group is not None
    assert encode_dataset(whole).train.group.tolist() == [7, 9, 7, -3]  # type: ignore[union-attr]
    assert (
        encode_dataset(make_dataset("t", SCHEMA.model_copy(update={"group": None}), (table(),) * 3)).test.group is None
    )


def test_only_train_is_fitted() -> None:
    later = table(user=[1, 8, 9, None], tags=[["a", "c"], ["d"], [], []])
    encoded = encode_dataset(make_dataset("t", SCHEMA, (table(), later, table())))
    assert encoded.encoding.sizes == {"user": 5, "tags": 4}
    assert encoded.unknown == {
        "train": {"user": 0, "tags": 0},
        "valid": {"user": 2, "tags": 2},
        "test": {"user": 0, "tags": 0},
    }


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"label": [0, 1, 2, 2]}, "label 'label' is not 0 or 1 in 2 of 4 rows: found 2 (2 rows), 0 (1 rows), "
         "1 (1 rows). Allowed: 0 and 1."),
        ({"label": [0, 1, None, 1]}, "label 'label' is not 0 or 1 in 1 of 4 rows: found 1 (2 rows), None (1 rows), "
         "0 (1 rows). Allowed: 0 and 1."),
        ({"label": [0.5, 1.0, 0.0, math.nan]}, "is not 0 or 1 in 2 of 4 rows"),
        ({"label": [1, 2, 3, 4, 5, 6, 7][:4]}, "found 1 (1 rows), 2 (1 rows), 3 (1 rows), 4 (1 rows)"),
        ({"label": ["yes", "no", "no", "no"]}, "label 'label' is of type String: found 'no' (3 rows), 'yes' (1 rows). "
         "Allowed: 0 and 1."),
        ({"label": [[1]] * 4}, "label 'label' is of type List(Int64). Allowed: 0 and 1."),
        ({"label": [1] * 4}, "label 'label' is 1 in all 4 rows: both classes are needed"),
        ({"price": [math.nan, math.nan, math.inf, 1.0]}, "column 'price': 2 NaN and 1 infinite of 4 values"),
        ({"user": [7] * 4}, "column 'user' has one value, 7, in all 4 rows: drop it"),
        ({"price": [None] * 4}, "column 'price' has one value, None, in all 4 rows: drop it"),
        ({"tags": [["a"]] * 4}, "column 'tags' has one value, ['a'], in all 4 rows: drop it"),
    ],
)  # fmt: skip
def test_unfit_tables_say_what_was_found(changes: dict[str, list[object]], expected: str) -> None:
    assert any(expected in fault for fault in faults(table(**changes), SCHEMA))


@pytest.mark.parametrize("label", [[True, False, True, False], [0.0, 1.0, 1.0, 0.0], [0, 1, 1, 1]])
def test_labels_of_any_numeric_type_are_fine(label: list[object]) -> None:
    assert faults(table(label=label), SCHEMA) == []


def test_all_faults_of_all_splits_at_once() -> None:
    wrong = table(label=[0, 1, 5, 1], user=[1, 1, 1, 1]).rename({"price": "prise"})
    with pytest.raises(InputError) as error:
        make_dataset("shop", SCHEMA, (wrong, table(label=[0] * 4, user=[1] * 4), table().clear()))
    lines = str(error.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["shop, train"] * 3 + ["shop, valid", "shop, test"]
    assert "missing column 'price'. Did you mean 'prise'?" in lines[0]
    assert "label 'label' is not 0 or 1 in 1 of 4 rows" in lines[1]
    assert "column 'user' has one value" in lines[2]
    assert "label 'label' is 0 in all 4 rows" in lines[3]
    assert lines[4] == "shop, test: no rows"


def test_what_cannot_be_encoded_names_split_and_column() -> None:
    schema = Schema(fields=(Field(name="user", kind="categorical", encoding="identity", num_ids=5),))
    dataset = make_dataset("shop", schema, (table(), table(user=[1, 2, 3, 5]), table()))
    with pytest.raises(InputError, match=r"^shop, valid: column 'user': 1 of 4 raw ids out of range, such as 5"):
        encode_dataset(dataset)


def test_without_constants_names_what_it_leaves_out() -> None:
    schema, left_out = without_constants(SCHEMA, table(user=[7] * 4))
    assert left_out == ["user"]
    assert [field.name for field in schema.fields] == ["price", "tags"]
    assert schema.group == "query"


def test_the_fingerprint_is_of_content_not_of_memory() -> None:
    base = fingerprint(SCHEMA, (table(),))
    chunked = pl.concat([table()[:1], table()[1:]], rechunk=False)
    narrow = table().with_columns(pl.col("user", "label").cast(pl.Int32))
    assert fingerprint(SCHEMA, (chunked,)) == base
    assert fingerprint(SCHEMA, (narrow,)) == base
    changed = [
        table(user=[1, 2, 3, 5]),
        table(price=[0.5, 1.5, 0.0, 2.5]),
        table(tags=[["a"], ["a"], ["b"], None]),
        table(tags=[["a"], ["a", "b"], [], []]),
        table(tags=[["a"], ["ab"], [], None]),
        table(query=["pq", "", "p", None]),
        table(query=["p", "q", "p", ""]),
        table()[[1, 0, 2, 3]],
        table()[:3],
    ]
    prints = [fingerprint(SCHEMA, (frame,)) for frame in changed]
    prints.append(fingerprint(SCHEMA, (table()[:2], table()[2:])))
    prints.append(fingerprint(SCHEMA.model_copy(update={"group": None}), (table(),)))
    assert len({base, *prints}) == len(prints) + 1


RELEVANCE = SCHEMA.model_copy(update={"answer": "relevance"})


def graded(*queries: object, label: list[object] | None = None) -> pl.DataFrame:
    return table(query=list(queries), label=label or [2, 0, 1, 0])


def test_grades_are_labels_and_a_query_may_have_none_that_is_relevant_or_one_document() -> None:
    parts = (graded(1, 1, 1, 2), graded(3, 3, 3, 3, label=[0, 0, 0, 0]), graded(4, 5, 6, 7))
    encoded = encode_dataset(make_dataset("t", RELEVANCE, parts))
    assert encoded.train.label.tolist() == [2.0, 0.0, 1.0, 0.0]
    assert encoded.encoding.schema.answer == "relevance"


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ([2, -1, 0, 0], "label 'label' is no grade in 1 of 4 rows: found -1 (1 rows). Allowed: numbers of at least 0."),
        ([2.0, math.nan, math.inf, 0.0], "label 'label' is no grade in 2 of 4 rows"),
        ([2, None, 0, 0], "label 'label' is no grade in 1 of 4 rows"),
        (["2", "1", "0", "0"], "label 'label' is of type String. Allowed: numbers of at least 0."),
    ],
)
def test_other_labels_are_no_grades(label: list[object], message: str) -> None:
    found = faults(graded(1, 1, 1, 1, label=label), RELEVANCE)
    assert [fault for fault in found if message in fault] == found


def test_a_grade_without_its_query_is_refused() -> None:
    assert faults(graded(1, 1, None, None), RELEVANCE) == [
        "group 'query' is missing in 2 of 4 rows: a grade is of a query"
    ]
    assert faults(graded(1, 1, 1, 1).drop("query"), RELEVANCE)[0].startswith("missing column 'query'")
    with pytest.raises(InputError, match="answer 'relevance' needs a group"):
        Schema.parse({**dict(RELEVANCE), "group": None})


def test_the_documents_of_a_query_stay_together() -> None:
    with pytest.raises(InputError) as error:
        make_dataset("t", RELEVANCE, (graded(1, 1, 2, 2), graded(2, 3, 1, 1), graded(3, 4, 4, 4)))
    assert str(error.value).splitlines() == [
        "t: 2 of 'query' are in train and in valid, such as 1",
        "t: 1 of 'query' are in valid and in test, such as 3",
    ]
