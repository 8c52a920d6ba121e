"""Artifacts that answer with items, measured on rows: against brute force, and what `measure` says of them."""

from __future__ import annotations

from operator import eq, gt
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from slimrank.config import InputError, as_config
from slimrank.evaluation import finding
from slimrank.evaluation.cost import bytes_of, disk_bytes
from slimrank.evaluation.finding import Asked, find_items, scorer
from slimrank.evaluation.measure import measure, split_quality
from slimrank.exporting.artifact import export
from slimrank.runtime import load_retriever
from slimrank.runtime.inspect import inspect


def ndcg_by_hand(model, frame: pl.DataFrame, *, leave_out_met: bool = True) -> list[float]:
    """1 / log2(1 + rank) of the item of each row, by the list that a caller gets; of equal scores the mean."""
    found = model.top_k(frame, model.count, leave_out_met=False)
    gains = []
    rows = zip(found.items, found.scores, frame["history"].to_list(), frame["item"], strict=True)
    for items, scores, history, item in rows:
        left = {
            each: score
            for each, score in zip(items, scores, strict=True)
            if each == item or not leave_out_met or each not in history
        }
        above, tied = (sum(compare(score, left.get(item, np.inf)) for score in left.values()) for compare in (gt, eq))
        ranks = np.arange(above + 1, above + tied + 1)
        gains.append(float(np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0).mean()) if tied else 0.0)
    return gains


@pytest.mark.parametrize("leave_out_met", [True, False])
@pytest.mark.parametrize("kind", ["vectors", "codes", "scores"])
def test_metrics_are_those_of_the_lists(kind: str, leave_out_met: bool, finder) -> None:
    made = finder(kind)
    model = load_retriever(made.path)
    again = pl.DataFrame(
        {
            "history": [["item 3", "item 4", "item 3", "item 5", "item 6", "item 7"], ["item 9"], []],
            "item": ["item 3", "item 999", "item 8"],  # met before, beyond what is read; unknown; after nothing
            "user": [1, 2, 3],
        }
    )
    frame = pl.concat([made.dataset.test.head(80).select(again.columns), again], how="vertical_relaxed")
    found = find_items(model, frame, made.dataset.schema, leave_out_met=leave_out_met)
    expected = ndcg_by_hand(model, frame, leave_out_met=leave_out_met)
    alike = np.isclose(found.metrics["ndcg@10"].value, expected, atol=1e-6)
    assert alike.mean() > 0.97  # items of one code tie, but for what float32 makes of the order of a sum
    assert found.unknown == 1


def test_what_is_said_of_several_artifacts(finder) -> None:
    made, other = finder("vectors"), finder("scores")
    measured = measure({"a": made.path, "b": other.path}, made.dataset)
    for name, path in (("a", made.path), ("b", other.path)):
        record = measured[name].record
        assert set(record["quality"]) == {"ndcg@10", "recall@10", "ndcg@20", "recall@20", "mrr"}
        assert record["quality"]["ndcg@10"] == pytest.approx(split_quality(path, made.dataset, "test"))
        assert measured[name].scores.shape == (len(made.dataset.test),)
        assert measured[name].scores.mean() == pytest.approx(record["quality"]["ndcg@10"])
        assert set(record["latency_ms"]) == {"1", "32"}
        assert record["bytes"]["disk"] == bytes_of(path)["disk"] > 0
        assert record["unknown_items"] == 0


def test_what_is_timed_is_a_whole_answer(finder) -> None:
    made = finder("vectors")
    model = load_retriever(made.path)
    inputs = made.encoded.test.inputs.take(slice(0, 3))
    asked = Asked(model)
    assert [each.name for each in asked.session.get_inputs()] == ["ids"]
    assert np.array_equal(asked.run(None, {"ids": inputs.ids}), model.search(inputs, 10)[0])
    assert scorer(model, inputs)(1, 3).shape == (2, model.count)


def test_a_stored_index_ships_is_measured_and_counts(finder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact, it finds what comparing every item does; of signs alone, it finds others, and those are measured."""
    monkeypatch.setattr(finding, "DEPTH", 2)
    made, at = finder("vectors"), (1, 2)
    frame, schema = made.dataset.test, made.dataset.schema
    found = {"made at load": find_items(load_retriever(made.path), frame, schema, at=at).metrics}
    for name, settings in (("exact", {}), ("binary", {"rerank": 1})):
        index = as_config("index", {"name": name, **settings})
        export(made.model, made.encoded.encoding, tmp_path / name, index=index)
        model = load_retriever(tmp_path / name)
        stored = sum(path.stat().st_size for path in (tmp_path / name).glob("index.*"))
        assert model.has_index
        assert stored == model.index.nbytes > 0
        assert disk_bytes(tmp_path / name) == disk_bytes(made.path) + stored
        found[name] = find_items(model, frame, schema, at=at).metrics
        first = [items[:1] == [item] for items, item in zip(model.top_k(frame, 2).items, frame["item"], strict=True)]
        again = [item in history for item, history in frame.select("item", "history").iter_rows()]
        assert np.array_equal(found[name]["recall@1"].value[~np.array(again)], np.array(first)[~np.array(again)])
        told = {each["name"]: each["bytes"] for each in inspect(tmp_path / name)["tensors"]}
        assert sum(size for each, size in told.items() if each.startswith("index.")) == stored
    for metric in ("ndcg@1", "recall@1", "ndcg@2", "recall@2"):
        np.testing.assert_allclose(found["exact"][metric].value, found["made at load"][metric].value, atol=1e-9)
    assert not np.array_equal(found["binary"]["recall@1"].value, found["exact"]["recall@1"].value)


def test_what_a_stored_index_does_not_reach_is_missed(finder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reciprocal rank beyond what the index is asked for is 0, and all within are those of the whole catalogue."""
    monkeypatch.setattr(finding, "DEPTH", 5)
    made = finder("vectors")
    export(made.model, made.encoded.encoding, tmp_path / "exact", index=as_config("index", "exact"))
    frame, schema = made.dataset.test, made.dataset.schema
    whole, cut = (
        find_items(load_retriever(path), frame, schema, at=(3,)).metrics["mrr"].value
        for path in (made.path, tmp_path / "exact")
    )
    assert (whole < 1 / 5.5).any()
    np.testing.assert_allclose(cut, np.where(whole > 1 / 5.5, whole, 0.0), atol=1e-9)


def test_an_unknown_item_is_no_empty_place_of_a_list(finder, tmp_path: Path) -> None:
    """A list of 100 of 60 items ends in empty places, and an item that train never met is none of them."""
    made = finder("vectors")
    export(made.model, made.encoded.encoding, tmp_path / "exact", index=as_config("index", "exact"))
    frame = made.dataset.test.head(9).with_columns(item=pl.lit("item 999"))
    found = find_items(load_retriever(tmp_path / "exact"), frame, made.dataset.schema)
    assert found.unknown == 9
    assert not any(metric.value.any() for metric in found.metrics.values())


def test_an_index_needs_vectors_of_items(finder, tmp_path: Path) -> None:
    made = finder("scores")
    with pytest.raises(InputError, match="index 'exact': the model has no vectors of items"):
        export(made.model, made.encoded.encoding, tmp_path / "none", index=as_config("index", "exact"))
    assert not (tmp_path / "none").exists()
