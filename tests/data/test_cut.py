"""A vocabulary that was cut: the frequent values keep their ids, the others are unknown."""

import polars as pl
import pytest

from slimrank.config import InputError
from slimrank.data.encoding import Encoding
from slimrank.data.schema import Field, Schema

SCHEMA = Schema(
    fields=(
        Field(name="item", kind="categorical"),
        Field(name="kind", kind="categorical", encoding="hash", num_ids=4),
        Field(name="words", kind="sequence", max_length=3),
    )
)
FRAME = pl.DataFrame(
    {"item": [7, 7, 7, 9, 9, 3], "kind": ["a", "b", "a", "b", "a", "b"], "words": [["x", "x", "y"]] * 5 + [["z"]]}
)


def test_frequent_values_keep_their_ids_and_others_become_unknown() -> None:
    encoding = Encoding.fit(SCHEMA, FRAME)
    cut = encoding.cut({"item": 2, "kind": 5, "words": 3})
    before, (after, unknown) = encoding.encode(FRAME), cut.encode_counting(FRAME)
    assert before.ids[:, 0].tolist() == [1, 1, 1, 2, 2, 3]
    assert after.ids[:, 0].tolist() == [1, 1, 1, 0, 0, 0]
    assert after.ids[0, 2:].tolist() == [2, 2, 1]
    assert unknown == {"item": 3, "kind": 0, "words": 6}
    assert cut.sizes == {"item": 2, "kind": 5, "words": 3}
    assert cut.counts["item"].tolist() == [0, 3]


def test_fields_without_a_size_are_left_out() -> None:
    cut = Encoding.fit(SCHEMA, FRAME).cut({"item": 4})
    assert cut.schema.columns == ("item",)
    assert cut.encode(FRAME.drop("words")).ids.tolist() == [[1], [1], [1], [2], [2], [3]]
    assert list(cut.files()) == ["schema.json", "vocabulary.parquet"]


def test_an_unknown_field_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown field 'itme'\. Did you mean 'item'"):
        Encoding.fit(SCHEMA, FRAME).cut({"itme": 4})


@pytest.mark.parametrize("sizes", [{"item": 9}, {"item": 0}, {"kind": 2}, {"words": 1}])
def test_sizes_that_cannot_be_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(InputError, match="cannot be cut"):
        Encoding.fit(SCHEMA, FRAME).cut(sizes)
