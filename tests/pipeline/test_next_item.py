"""A run whose answer is the next item, end to end on small rows, and a search, which is of clicks alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slimrank.config import InputError
from slimrank.files import read_json
from slimrank.pipeline.run import run
from slimrank.pipeline.search import search
from slimrank.recipe import Recipe
from slimrank.report import write_markdown
from slimrank.runtime import load_retriever
from slimrank.searching.search import Search

QUALITY = {"ndcg@10", "recall@10", "ndcg@20", "recall@20", "mrr"}


@pytest.fixture(scope="module")
def done(next_item: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("next") / "run"
    run(Recipe.parse(next_item()), folder)
    return folder


def test_the_result_is_of_items(done: Path) -> None:
    result = read_json(done / "result.json")
    assert result["metric"] == "ndcg@10"
    assert result["data"] == "interactions"
    assert result["calibration"] == {}
    for name in ("teacher", "slim"):
        assert set(result[name]["quality"]) == QUALITY
        assert 0.1 < result[name]["quality"]["ndcg@10"] <= 1  # by chance: .08
        assert set(result[name]["latency_ms"]) == {"1", "32"}
    assert result["slim"]["bytes"]["disk"] < result["teacher"]["bytes"]["disk"]
    (found,) = result["comparison"]
    assert found["metric"] == "ndcg@10"
    assert found["difference"] == pytest.approx(
        result["slim"]["quality"]["ndcg@10"] - result["teacher"]["quality"]["ndcg@10"]
    )
    assert found["low"] <= found["difference"] <= found["high"]
    assert found["groups"] == found["rows"] == result["rows"]["test"]
    assert found["verdict"]["outcome"] in ("non-inferior", "inferior", "undecided")


@pytest.mark.parametrize("model", ["ease", "sasrec"])
def test_an_index_without_vectors_of_items_is_refused_before_anything_is_trained(
    model: str, next_item: Any, tiny: Any, tmp_path: Path
) -> None:
    recipe = Recipe.parse(tiny() if model == "sasrec" else next_item())
    changes = {"index": {"name": "exact"}} | ({} if model == "sasrec" else {"teacher": {"model": {"name": "ease"}}})
    changes |= {"distillation": None, "student": None, "steps": [], "retraining": None}
    with pytest.raises(InputError, match=r"index 'exact': '\w+' on \S+ has no vectors of items; leave it out"):
        run(Recipe.parse({**recipe.model_dump(mode="json"), **changes}), tmp_path / "run")
    assert not list((tmp_path / "run").glob("teacher-*"))


def test_slices_are_of_the_item_that_was_to_be_found(done: Path) -> None:
    result = read_json(done / "result.json")
    assert set(result["slices"]) == {"item"}
    parts = {part["name"]: part for part in result["slices"]["item"]}
    assert set(parts) == {"head", "torso", "tail", "new"}
    assert sum(part["rows"] for part in parts.values()) == result["rows"]["test"]
    assert sum(part["ids"] or 0 for part in parts.values()) == 61  # 60 items and the unknown


def test_every_step_says_what_it_did(done: Path) -> None:
    tables, dense = read_json(done / "result.json")["slim"]["steps"]
    assert {"embedding", "positions"} <= {each.partition(":")[0].partition(".")[0] for each in tables["touched"]}
    assert "blocks.0.attention.query" in dense["touched"]
    assert dense["bytes_before"] == tables["bytes_after"]


def test_the_page_and_the_pull_request_name_the_metric(done: Path, tmp_path: Path) -> None:
    write_markdown(done / "result.json", tmp_path / "report.md")
    for text in ((done / "report.html").read_text(), (tmp_path / "report.md").read_text()):
        assert "NDCG@10" in text
        assert "AUC" not in text


def test_the_artifact_finds_what_comes_next(done: Path) -> None:
    model = load_retriever(done / "seed-1" / "artifacts" / "slim")
    found = model.top_k([{"history": ["item 20", "item 21", "item 22"]}], 5)
    assert {"item 23", "item 24"} <= set(found.items[0])


def test_nothing_is_done_twice(done: Path, next_item: Any) -> None:
    before = {file: file.stat().st_mtime_ns for file in done.glob("seed-1/**/model.*")}
    assert before
    run(Recipe.parse(next_item()), done)
    assert {file: file.stat().st_mtime_ns for file in done.glob("seed-1/**/model.*")} == before


def test_a_search_says_that_it_is_of_clicks(next_item: Any, tmp_path: Path) -> None:
    asked = Search.parse({"goal": "bytes <= 10 KB", "minutes": 1})
    with pytest.raises(InputError, match=r"clicks, .* of auc_drop, gauc_drop, logloss_rise; interactions .* 'item'"):
        search(Recipe.parse(next_item()), asked, tmp_path / "search")
    assert not list(tmp_path.rglob("*.onnx"))


def test_a_checkpoint_is_of_numbered_items(next_item: Any, tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from torch import ones

    save_file({"item_emb.weight": ones(3, 16)}, tmp_path / "weights.safetensors")
    teacher = {**next_item()["teacher"], "checkpoint": str(tmp_path / "weights.safetensors")}
    with pytest.raises(InputError, match="a checkpoint has a row for each item's number"):
        run(Recipe.parse(next_item(teacher=teacher)), tmp_path / "run")


def test_a_narrower_student_learns_from_its_teacher(next_item: Any, tmp_path: Path) -> None:
    """It reads all fields: which are needed is told by AUC, and there is none."""
    training = {"epochs": 3, "batch_size": 32, "learning_rate": 0.02, "patience": 0}
    model = {"name": "sasrec", "embedding_dim": 8, "blocks": 1, "dropout": 0.0}
    recipe = next_item(student={"model": model, "training": training}, distillation={"soft_weight": 0.9})
    result = run(Recipe.parse(recipe), tmp_path / "run")
    assert result["slim"]["steps"][0]["touched"] == ["history"]
    assert result["slim"]["steps"][0]["skipped"] == []
    assert 0.1 < result["slim"]["quality"]["ndcg@10"] <= 1  # by chance: .08
    assert 1.5 * result["slim"]["bytes"]["disk"] < result["teacher"]["bytes"]["disk"]
