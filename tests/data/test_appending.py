"""Ids that are kept: values of before have their numbers, new ones stand behind, and nothing else is known of them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
import pytest

from slimrank.config import InputError
from slimrank.data.appending import appended
from slimrank.data.encoding import Encoding
from slimrank.data.schema import Field, Schema
from slimrank.data.vocabulary import Vocabulary


def schema(**changes: object) -> Schema:
    fields = (
        Field(name="item", kind="categorical", **changes),  # type: ignore[arg-type]
        Field(name="tags", kind="sequence", max_length=3),
        Field(name="price", kind="numeric"),
        Field(name="place", kind="categorical", encoding="hash", num_ids=5),
    )
    return Schema(fields=fields)


def rows(item: list[object], price: float = 1.0) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "item": item,
            "tags": [["a", "b"] if place % 2 else ["b"] for place in range(len(item))],
            "price": [price * place for place in range(len(item))],
            "place": item,
        }
    )


def values_of(encoding: Encoding, name: str = "item") -> list[object]:
    codec = encoding.codecs[name]
    assert isinstance(codec, Vocabulary)
    return codec.values.to_list()


OLD = ["tea", "tea", "tea", "rye", "rye", "jam"]
NEW = ["jam", "jam", "jam", "jam", "oat", "fig", "fig", "rye"]


def test_ids_of_before_stay_and_new_ones_come_behind_by_frequency() -> None:
    base = Encoding.fit(schema(), rows(OLD))
    found = appended(base, schema(), rows(NEW, price=9.0))
    assert values_of(base) == ["tea", "rye", "jam"]
    assert values_of(found) == ["tea", "rye", "jam", "fig", "oat"]  # tea is not met any more, and keeps its number
    assert found.encode(rows(OLD)).ids[:, 0].tolist() == base.encode(rows(OLD)).ids[:, 0].tolist()
    assert found.encode(rows(["mud"])).ids[0, 0] == 0
    assert found.scales == base.scales
    assert found.counts["item"].tolist() == [0, 0, 1, 4, 2, 1]


def test_counts_are_those_of_the_new_rows() -> None:
    found = appended(Encoding.fit(schema(), rows(OLD)), schema(), rows(NEW))
    ids = found.encode(rows(NEW)).ids
    columns = np.asarray(found.schema.columns)
    for name, size in found.sizes.items():
        assert found.counts[name].tolist() == np.bincount(ids[:, columns == name].ravel(), minlength=size).tolist()


def test_rare_new_values_stay_unknown_and_rare_old_ones_stay_known() -> None:
    base = Encoding.fit(schema(min_count=2), rows([*OLD, None]))
    found = appended(base, schema(min_count=2), rows([*NEW, None]))
    assert values_of(base) == ["tea", "rye"]
    assert values_of(found) == ["tea", "rye", "jam", "fig"]  # rye is met once, and oat is
    assert found.counts["item"].tolist() == [2, 0, 1, 4, 2]  # oat and the missing one are unknown


def test_day_after_day_nothing_moves() -> None:
    draw = np.random.default_rng(0)
    days = [draw.zipf(1.4, 300).clip(max=200).tolist() for _ in range(4)]
    encoding = Encoding.fit(schema(), rows(days[0]))
    for day in days[1:]:
        later = appended(encoding, schema(), rows(day))
        before, after = values_of(encoding), values_of(later)
        assert after[: len(before)] == before
        new, often = after[len(before) :], Counter(day)
        assert set(new) == set(day) - set(before)
        assert new == sorted(new, key=lambda value: (-often[value], value))
        encoding = later


def test_integers_join_a_vocabulary_of_text_and_text_is_refused_by_one_of_integers() -> None:
    text = appended(Encoding.fit(schema(), rows(["a", "1"])), schema(), rows([1, 2, 2]))
    assert values_of(text) == ["1", "a", "2"]
    with pytest.raises(InputError, match="field 'item' held integers alone in the base, and now holds text"):
        appended(Encoding.fit(schema(), rows([1, 2])), schema(), rows(["a", "b"]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoding": "hash", "num_ids": 7}, "field 'item' was "),
        ({"name": "article"}, "the base has the fields item, tags, price, place, these rows article, tags"),
    ],
)
def test_other_fields_are_refused(changes: dict[str, object], words: str) -> None:
    base = Encoding.fit(schema(), rows(OLD))
    other = Schema(fields=(Field.parse({"name": "item", "kind": "categorical", **changes}), *schema().fields[1:]))
    with pytest.raises(InputError, match=words):
        appended(base, other, rows(NEW).rename({"item": str(changes.get("name", "item"))}))
