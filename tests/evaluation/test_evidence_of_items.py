"""Two artifacts that answer with items, on the same queries: figures, verdict, slices, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from slimrank.config import InputError
from slimrank.evaluation.evidence import evidence
from slimrank.evaluation.finding import find_items
from slimrank.evaluation.paired import compare
from slimrank.evaluation.question import Question
from slimrank.runtime import load_retriever


def test_a_model_is_as_good_as_itself(finder) -> None:
    made = finder("vectors")
    found = evidence(made.path, made.path, made.dataset.test)
    assert [one["metric"] for one in found["metrics"]] == ["ndcg@10", "recall@10", "ndcg@20", "recall@20", "mrr"]
    assert all(one["difference"] == 0 for one in found["metrics"])
    assert found["verdict"] == {"metric": "ndcg@10", "margin": 0.001, "outcome": "non-inferior", "rows_needed": None}
    assert found["behaviour"] == {"overlap@10": {"mean": 1.0, "groups": 400}}
    assert (found["rows"], found["positives"], found["groups"]) == (400, 400, 400)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_worse_one_is_judged_query_by_query(finder, tmp_path: Path) -> None:
    good, poor = finder("vectors"), finder("worse")
    good.dataset.test.write_parquet(tmp_path / "rows.parquet")
    found = evidence(good.path, poor.path, tmp_path / "rows.parquet", Question(metrics=("mrr", "recall@5")))
    assert [one["metric"] for one in found["metrics"]] == ["mrr", "recall@5"]
    assert found["verdict"]["outcome"] == "inferior"
    a, b = (
        find_items(load_retriever(each.path), good.dataset.test, good.dataset.schema).metrics["mrr"].value
        for each in (good, poor)
    )
    expected = compare(np.ones(400), a, b, "value", group=good.dataset.test["user"])
    one = found["metrics"][0]
    assert (one["a"], one["b"]) == (pytest.approx(a.mean()), pytest.approx(b.mean()))
    assert (one["low"], one["high"]) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert 0 < found["behaviour"]["overlap@10"]["mean"] < 1
    back = evidence(poor.path, good.path, good.dataset.test, Question(metrics=("mrr",)))
    assert back["verdict"]["outcome"] == "non-inferior"


def test_losses_are_told_by_frequency_of_the_item_and_by_columns(finder) -> None:
    good, poor = finder("vectors"), finder("worse")
    rows = good.dataset.test.with_columns(
        item=pl.when(pl.int_range(pl.len()) < 7).then(pl.lit("item 999")).otherwise("item"),
        country=pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit("fr")).otherwise(pl.lit("de")),
    )
    found = evidence(good.path, poor.path, rows, Question(slices=("country",)))
    assert found["positives"] == 393
    assert set(found["slices"]) == {"country", "item by frequency"}
    parts = {one["name"]: one for one in found["slices"]["item by frequency"]}
    assert parts["new"]["rows"] == 7
    assert parts["new"]["positives"] == 0
    assert sum(one["rows"] for one in parts.values()) == 400
    assert sum(one["ids"] for one in parts.values()) == 61
    assert parts["head"]["comparison"]["metric"] == "ndcg@10"
    assert any(one["lost"] for one in found["slices"]["country"])


def test_models_of_two_kinds_are_compared(finder) -> None:
    one, other = finder("vectors"), finder("scores")
    found = evidence(one.path, other.path, one.dataset.test, Question(margin=0.9))
    assert found["verdict"]["outcome"] == "non-inferior"


def test_queries_of_one_group_hang_together(finder) -> None:
    made, poor = finder("vectors"), finder("worse")
    rows = made.dataset.test.with_columns(team=pl.col("user") // 4)
    alone = evidence(made.path, poor.path, rows.drop("user"))
    together = evidence(made.path, poor.path, rows, Question(group="team"))
    assert (alone["groups"], together["groups"]) == (0, 100)
    assert alone["metrics"][0]["difference"] == pytest.approx(together["metrics"][0]["difference"])


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (
            Question(metrics=("auc",)),
            r"metric 'auc' is of scores of rows, and these models answer with items\. Allowed",
        ),
        (Question(metrics=("map",)), "metric 'map' is of scores of rows"),
        (Question(metrics=("ndcg",)), "needs its ranks, such as ndcg@10"),
        (Question(label="itm"), r"label: the rows have no column 'itm'\. Did you mean 'item'"),
        (Question(group="usr"), r"group: the rows have no column 'usr'\. Did you mean 'user'"),
        (Question(slices=("country",)), "slices: the rows have no column 'country'"),
        (Question(margin=0), "margin: got 0"),
    ],
)
def test_what_cannot_be_asked(question: Question, message: str, finder) -> None:
    made = finder("vectors")
    with pytest.raises(InputError, match=message):
        evidence(made.path, made.path, made.dataset.test, question)


def test_what_cannot_be_compared(finder, linear, tmp_path: Path) -> None:
    made = finder("vectors")
    rows = made.dataset.test
    with pytest.raises(InputError, match="label 'item': 1 of 400 values are missing"):
        evidence(made.path, made.path, rows.with_columns(item=pl.when(pl.int_range(400) > 0).then("item")))
    with pytest.raises(InputError, match="no rows to compare on"):
        evidence(made.path, made.path, rows.head(0))
    with pytest.raises(InputError, match="answers with a score for each row, not with items"):
        evidence(made.path, linear.path, rows)
    pl.DataFrame({"score": [1.0] * 400}).write_parquet(tmp_path / "scores.parquet")
    for pair in ((made.path, tmp_path / "scores.parquet"), (tmp_path / "scores.parquet", made.path)):
        with pytest.raises(InputError, match=r"scores\.parquet: .* is compared with another artifact, not a file"):
            evidence(*pair, rows)
