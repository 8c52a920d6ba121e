"""Two models on the same rows: artifacts and files of scores, what is found, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from slimrank import runtime
from slimrank.config import InputError
from slimrank.evaluation.evidence import evidence
from slimrank.evaluation.question import Question
from slimrank.metrics import auc


@pytest.fixture
def rows(linear_rows):
    """Rows of the linear artifact, with a label that hangs on it and a user's country."""
    draw = np.random.default_rng(0)
    frame = linear_rows.sample(3000, with_replacement=True, seed=1)
    return frame.with_columns(
        label=pl.Series(draw.integers(0, 2, 3000)),
        request=pl.Series(np.repeat(np.arange(300), 10)),
        country=pl.Series(draw.choice(["fr", "de", None], 3000)),
    )


@pytest.fixture
def files(rows, linear, tmp_path):
    """The artifact, and its scores with noise where the country is France."""
    model = runtime.load(linear.path)
    logit = model.score(model.encoding.encode(rows)).astype(np.float64)
    label = (np.random.default_rng(1).random(3000) < 1 / (1 + np.exp(-logit))).astype(int)
    rows = rows.with_columns(label=pl.Series(label))
    worse = np.where(rows["country"].fill_null("") == "fr", np.random.default_rng(2).normal(size=3000), logit)
    pl.DataFrame({"logit": worse}).write_parquet(tmp_path / "worse.parquet")
    pl.DataFrame({"probability": 1 / (1 + np.exp(-logit))}).write_csv(tmp_path / "same.csv")
    rows.write_parquet(tmp_path / "rows.parquet")
    return linear.path, tmp_path, rows, logit


def test_an_artifact_and_its_own_scores_are_alike(files):
    path, folder, rows, logit = files
    found = evidence(path, folder / "same.csv", folder / "rows.parquet", Question(group="request"))
    by_name = {one["metric"]: one for one in found["metrics"]}
    assert set(by_name) == {"auc", "logloss", "normalized_entropy", "pcoc", "ece", "gauc"}
    assert by_name["auc"]["a"] == pytest.approx(auc(rows["label"], logit))
    assert all(abs(one["difference"]) < 1e-6 for one in by_name.values())
    assert found["verdict"] == {"metric": "auc", "margin": 0.001, "outcome": "non-inferior", "rows_needed": None}
    assert found["behaviour"]["rank_correlation"] == pytest.approx(1)
    assert found["behaviour"]["invariance of a"]["by_neighbours"] < 1e-6
    assert "invariance of b" not in found["behaviour"]
    assert (found["rows"], found["groups"], found["positives"]) == (3000, 300, rows["label"].sum())
    assert sum(found["calibration"]["a"]["rows"]) == 3000
    assert list(found["bytes"]) == ["a"]
    assert found["bytes"]["a"]["wire"] > found["bytes"]["a"]["wire_vocabulary"] > 0


def test_a_loss_in_one_country_is_told(files):
    path, folder, rows, _ = files
    found = evidence(path, folder / "worse.parquet", rows, Question(margin=0.4, slices=("country", "price")))
    assert found["verdict"]["outcome"] == "non-inferior"  # the whole passes at a margin so wide
    lost = {one["name"] for one in found["slices"]["country"] if one["lost"]}
    assert lost == {"fr"}
    assert {one["name"] for one in found["slices"]["country"]} == {"fr", "de", "missing"}
    assert len(found["slices"]["price"]) == 6
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_an_artifact_of_ones_own_module_is_compared_by_its_output_of_one_number(asked_by_tensors, tmp_path):
    draw = np.random.default_rng(0)
    columns = {"user": draw.integers(0, 20, 2000), "numbers": draw.normal(size=(2000, 2)).astype(np.float32)}
    score = runtime.load_graph(asked_by_tensors).run(columns)["score"].ravel()
    label = (score + draw.normal(size=2000) > 0).astype(int)
    rows = pl.DataFrame({**columns, "label": label})
    pl.DataFrame({"score": score}).write_parquet(tmp_path / "same.parquet")
    question = Question(group="user", metrics=("auc", "gauc"))
    found = evidence(asked_by_tensors, tmp_path / "same.parquet", rows, question)
    assert found["metrics"][0]["a"] == pytest.approx(auc(label, score))
    assert [one["difference"] for one in found["metrics"]] == [0, 0]
    assert found["calibration"] == {}
    with pytest.raises(InputError, match="metric 'logloss' needs logits or probabilities"):
        evidence(asked_by_tensors, tmp_path / "same.parquet", rows, Question(metrics=("logloss",)))
    with pytest.raises(InputError, match="no column for input 'numbers'"):
        evidence(asked_by_tensors, tmp_path / "same.parquet", rows.drop("numbers"))


def test_two_files_of_scores_need_no_artifact(files):
    _, folder, *_ = files
    question = Question(metrics=("logloss", "field_ece@country"))
    found = evidence(folder / "same.csv", folder / "worse.parquet", folder / "rows.parquet", question)
    assert [one["metric"] for one in found["metrics"]] == ["logloss", "field_ece@country"]
    assert found["verdict"]["outcome"] == "inferior"


def test_relevances_are_judged_by_ranked_lists(files, tmp_path):
    _, folder, rows, logit = files
    graded = rows.with_columns(label=pl.Series(np.digitize(logit, [-1, 0, 1])))
    question = Question(metrics=("ndcg@5",), group="request")
    found = evidence(folder / "same.csv", folder / "worse.parquet", graded, question)
    assert found["metrics"][0]["a"] == pytest.approx(1)
    assert found["calibration"] == {}
    found = evidence(folder / "same.csv", folder / "worse.parquet", graded, replace(question, slices=("country",)))
    assert {one["comparison"]["metric"] for one in found["slices"]["country"]} == {"ndcg@5"}


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (Question(label="labl"), "label: the rows have no column 'labl'. Did you mean 'label'"),
        (Question(group="usr"), "group: the rows have no column 'usr'. Did you mean 'user'"),
        (Question(slices=("pric",)), "slices: the rows have no column 'pric'. Did you mean 'price'"),
        (Question(metrics=("ndcg@10",)), "needs a group"),
        (Question(label="labl", group="usr"), "(?s)labl.*usr"),
        (Question(metrics=("field_ece",)), "needs a field for every row, and none is given, as in field_ece@city"),
        (Question(metrics=("field_ece@pric",)), "the rows have no column 'pric'. Did you mean 'price'"),
        (Question(margin=-1.0), "margin: got -1"),
    ],
)
def test_what_cannot_be_asked_is_refused(files, question, message):
    path, folder, rows, _ = files
    with pytest.raises(InputError, match=message):
        evidence(path, folder / "same.csv", rows, question)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"logit": [1.0]}, "1 scores for 3000 rows"),
        ({"value": [1.0] * 3000}, "one column of logit, probability, score, got value"),
        (
            {"score": [1.0] * 3000, "probability": [0.5] * 3000},
            "one column of logit, probability, score, got score, prob",
        ),
        ({"probability": [0.5, 1.5, *[0.5] * 2998]}, r"1 probabilities are not from 0 to 1 \(row 1: 1.5\)"),
        ({"logit": [float("nan")] * 3000}, "3000 of 3000 values are NaN"),
        ({"logit": [None, *[1.0] * 2999]}, "1 of 3000 values are missing"),
        ({"logit": ["1"] * 3000}, "logit is of type String; allowed: numbers"),
        ({"score": [[1.0]] * 3000}, r"score is of type List\(Float64\); allowed: numbers"),
    ],
)
def test_scores_that_do_not_fit_are_refused(files, scores, message):
    path, folder, rows, _ = files
    pl.DataFrame(scores).write_parquet(folder / "scores.parquet")
    with pytest.raises(InputError, match=message):
        evidence(path, folder / "scores.parquet", rows)


def test_scores_that_are_no_logits_are_judged_by_their_order(files):
    path, folder, rows, logit = files
    pl.DataFrame({"score": (logit > 0).astype(bool)}).write_parquet(folder / "order.parquet")
    found = evidence(path, folder / "order.parquet", rows, Question(group="request"))
    assert [one["metric"] for one in found["metrics"]] == ["auc", "gauc"]
    assert set(found["calibration"]) == {"a"}
    with pytest.raises(InputError, match="metric 'logloss' needs logits or probabilities"):
        evidence(path, folder / "order.parquet", rows, Question(metrics=("logloss",)))


def test_certain_probabilities_leave_out_what_is_infinite_and_nothing_else(files):
    path, folder, rows, logit = files
    chance = 1 / (1 + np.exp(-logit))
    chance[np.flatnonzero(rows["label"].to_numpy() == 0)[0]] = 1.0
    pl.DataFrame({"probability": chance}).write_parquet(folder / "certain.parquet")
    found = evidence(path, folder / "certain.parquet", rows)
    assert set(found["left_out"]) == {"gauc", "logloss", "normalized_entropy"}
    assert {one["metric"] for one in found["metrics"]} == {"auc", "pcoc", "ece"}


def test_what_the_rows_do_not_allow_is_left_out_and_said(files):
    path, folder, rows, _ = files
    few = rows[:200].with_columns(request=pl.Series(np.arange(200)))
    pl.DataFrame({"score": np.arange(200.0)}).write_parquet(folder / "few.parquet")
    found = evidence(path, folder / "few.parquet", few, Question(group="request"))
    assert "none of the 200 groups has both" in found["left_out"]["gauc"]


@pytest.mark.parametrize(
    ("change", "question", "message"),
    [
        ({"label": pl.lit(1)}, Question(), "auc: an interval needs 10 rows of each class, got 3000 positive"),
        ({"label": pl.lit("yes")}, Question(), "label 'label' is of type String; allowed: numbers"),
        ({"label": pl.lit(None)}, Question(), "label 'label'"),
        ({"request": pl.lit(None)}, Question(group="request"), "group 'request': 3000 of 3000 values are missing"),
        ({"request": pl.lit(7)}, Question(group="request"), "auc: an interval needs 20 groups, got 1"),
        ({}, Question(group="history"), "group 'history' is of type List"),
        ({}, Question(slices=("history",)), "slices 'history' is of type List"),
        ({}, Question(metrics=("auc", "field_ece@history")), "'history' is of type List"),
        ({}, Question(metrics=("auc", "aux", "ndcg")), "(?s)unknown metric 'aux'.*needs its ranks"),
    ],
)
def test_rows_of_no_use_are_refused(files, change, question, message):
    path, folder, rows, _ = files
    with pytest.raises(InputError, match=message):
        evidence(path, folder / "same.csv", rows.with_columns(**change), question)


def test_no_rows_and_no_model_are_refused(files):
    path, folder, rows, _ = files
    with pytest.raises(InputError, match="no rows to compare on"):
        evidence(path, path, rows[:0])
    with pytest.raises(InputError, match="nothing"):
        evidence(path, folder / "nothing", rows)
