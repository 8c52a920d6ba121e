"""Parity: what agrees, what differs and by how much, what refuses; over rankers, finders and graphs of tensors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from slimrank import runtime
from slimrank.cli import app
from slimrank.config import InputError
from slimrank.deploying.asking import Deployed, difference
from slimrank.deploying.deploy import deploy
from slimrank.deploying.ort import MODEL
from slimrank.deploying.parity import FEWEST, MOST, Parity, _is_same, _made, parity


def test_a_deployment_of_the_artifact_agrees(linear: Any) -> None:
    (found,) = parity(linear.path, ["ort"], requests=20)
    assert (found.target, found.refused, found.agrees) == ("ort", "", True)
    assert FEWEST * 20 <= found.rows <= MOST * 20
    assert found.largest < 1e-6
    assert (found.rows_within, found.requests_within, found.same_top) == (1.0, 1.0, 1.0)


def other_weights(write_linear_at: Any, folder: Path, linear: Any, seed: int) -> Path:
    """A deployment of the artifact `linear` that holds the model of another one."""
    ours = deploy(linear.path, folder / "ours", "ort")
    theirs = deploy(write_linear_at(folder / "other", seed=seed).path, folder / "theirs", "ort")
    shutil.copyfile(theirs / MODEL, ours / MODEL)
    return ours


def test_another_model_differs(linear: Any, write_linear_at: Any, tmp_path: Path) -> None:
    folder = other_weights(write_linear_at, tmp_path, linear, seed=1)
    (found,) = parity(linear.path, [], folders=[folder], requests=20)
    assert not found.agrees
    assert 0.3 < found.largest <= 1
    assert found.rows_within < 0.05
    assert found.same_top is not None
    assert found.same_top < 0.5


def test_made_requests_hold_the_first_and_the_last_id_of_every_field(linear: Any) -> None:
    opened = runtime.load(linear.path)
    asked = _made(opened, 30, seed=0)
    ids = asked.feeds["ids"]
    assert len(asked) == 30
    assert np.array_equal(np.diff(asked.starts).clip(FEWEST, MOST), np.diff(asked.starts))
    limits = opened.checks.limits.astype(np.int64)
    assert (ids.min(axis=0) == 0).all()
    assert (ids.max(axis=0) == limits - 1).all()
    again = _made(opened, 30, seed=0)
    assert np.array_equal(again.feeds["ids"], ids)
    assert not np.array_equal(_made(opened, 30, seed=1).feeds["ids"][:100], ids[:100])
    histories = ids[:, 2:]
    assert not ((histories[:, :-1] == 0) & (histories[:, 1:] != 0)).any()  # padding is behind


def test_rows_of_a_file_are_asked_instead(linear: Any, linear_rows: Any, tmp_path: Path) -> None:
    linear_rows.write_parquet(tmp_path / "rows.parquet")
    (found,) = parity(linear.path, ["ort"], rows=tmp_path / "rows.parquet")
    assert (found.rows, found.agrees) == (6, True)


@pytest.mark.parametrize("kind", ["vectors", "codes", "scores"])
def test_finders_are_held_by_what_they_find(kind: str, finder: Any) -> None:
    (found,) = parity(finder(kind).path, ["ort"], requests=16)
    assert (found.refused, found.agrees, found.same_top) == ("", True, 1.0)


def test_graphs_of_tensors_are_held_number_by_number(asked_by_tensors: Path) -> None:
    (found,) = parity(asked_by_tensors, ["ort"])
    assert (found.refused, found.agrees, found.same_top) == ("", True, None)
    assert found.rows == 4


def test_the_first_ten_are_a_set_whose_ties_have_no_order() -> None:
    scores = np.array([12.0, 11, 10, 9, 8, 7, 6, 5, 4, 3, 3, 2])
    assert _is_same(scores, scores)
    assert _is_same(scores, scores[[1, 0, 2, 3, 4, 5, 6, 7, 8, 10, 9, 11]])  # order among them, and which 3
    swapped = scores.copy()
    swapped[[8, 11]] = scores[[11, 8]]
    assert not _is_same(scores, swapped)
    assert _is_same(scores[:4], scores[:4][::-1])  # fewer than ten are all of them
    never = np.append(scores[:4], [-np.inf] * 16)  # fewer than ten have a score
    assert _is_same(never, never)
    assert not _is_same(never, np.append([-np.inf] * 10, np.arange(10)))
    broken = scores.copy()
    broken[0] = np.nan
    assert not _is_same(scores, broken)


def test_differences_are_of_probabilities_and_else_of_the_size_of_numbers() -> None:
    one, other = np.array([0.0, 2.0, np.nan]), np.array([1.0, 2.0, 0.0])
    logit = difference("logit", one, other)
    assert logit[0] == pytest.approx(1 / (1 + np.exp(-1)) - 0.5)
    assert (logit[1], logit[2]) == (0, np.inf)
    assert difference("vector", np.array([10.0, 0.1]), np.array([11.0, 0.2])) == pytest.approx([0.1, 0.1])
    never = np.array([-np.inf, -np.inf, 1.0])
    assert difference("scores", never, np.array([-np.inf, 1.0, np.nan])).tolist() == [0, np.inf, np.inf]


def test_answers_of_another_shape_are_told(linear: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = deploy(linear.path, tmp_path / "out", "ort")
    monkeypatch.setattr(Deployed, "run", lambda self, names, feeds: [np.zeros((len(feeds["ids"]), 2), np.float32)])
    (found,) = parity(linear.path, [], folders=[folder], requests=3)
    assert (found.agrees, found.rows) == (False, 0)
    assert found.refused.startswith("logit is [")
    assert "where the artifact gives [" in found.refused


def test_what_was_never_deployed_or_of_another_artifact_is_refused(
    linear: Any, write_linear_at: Any, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="was not deployed by slimrank"):
        parity(linear.path, [], folders=[tmp_path])
    folder = deploy(linear.path, tmp_path / "out", "ort")
    other = write_linear_at(tmp_path / "other", seed=1)
    with pytest.raises(
        InputError, match=f"was deployed from artifact {runtime.load(linear.path).artifact.digest[:12]}"
    ):
        parity(other.path, [], folders=[folder])


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("orr", "unknown deployment target 'orr'. Did you mean 'ort'?"),
        ("triton", "target 'triton' has no runtime that could be asked here"),
        ({"name": "ort", "levle": "basic"}, "'level'"),
    ],
)
def test_targets_that_cannot_be_asked(target: Any, words: str, linear: Any) -> None:
    with pytest.raises(InputError) as refused:
        parity(linear.path, [target])
    assert words in str(refused.value)


@pytest.mark.parametrize(("change", "words"), [({"requests": 0}, "requests: got 0"), ({"rows": {"user": []}}, "item")])
def test_requests_that_cannot_be_asked(change: dict[str, Any], words: str, linear: Any) -> None:
    with pytest.raises(InputError, match=words):
        parity(linear.path, ["ort"], **change)


def slimrank(*words: Any) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_verb_prints_a_table_and_writes_what_was_found(linear: Any, tmp_path: Path) -> None:
    ended = slimrank(
        "parity", linear.path, "--target", "ort:level=basic", "--requests", 5, "--out", tmp_path / "p.json"
    )
    assert ended.exit_code == 0, ended.output
    assert "same first 10" in ended.output
    assert "agrees" in ended.output
    (found,) = json.loads((tmp_path / "p.json").read_text())
    assert set(found) == set(Parity("ort").plain())
    assert (found["target"], found["agrees"], found["same_top"]) == ("ort", True, 1.0)


def test_the_verb_ends_with_3_where_a_target_differs(linear: Any, write_linear_at: Any, tmp_path: Path) -> None:
    folder = other_weights(write_linear_at, tmp_path, linear, seed=1)
    ended = slimrank("parity", linear.path, "--deployment", folder, "--requests", 5)
    assert (ended.exit_code, "differs" in ended.output) == (3, True)


def test_a_target_that_refuses_is_told_with_its_reason(linear: Any) -> None:
    ended = slimrank("parity", linear.path, "--target", "litert:python=/nowhere/python", "--requests", 5)
    assert ended.exit_code == 3
    assert "does not answer" in ended.output
    assert "python=/nowhere/python cannot be run: No such file or directory" in ended.output


def test_the_verb_needs_to_be_told_what_is_asked(linear: Any) -> None:
    ended = slimrank("parity", linear.path)
    assert isinstance(ended.exception, InputError)
    assert "--target ort" in str(ended.exception)
