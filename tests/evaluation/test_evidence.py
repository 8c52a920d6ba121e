"""Two models on the same rows: artifacts and files of scores, what is found, and what is refused."""

import numpy as np
import polars as pl
import pytest

from slimrank import runtime
from slimrank.config import InputError
from slimrank.evaluation.evidence import Question, evidence
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
    assert set(by_name) == {"auc", "logloss", "normalized_entropy", "pcoc_error", "ece", "gauc"}
    assert by_name["auc"]["a"] == pytest.approx(auc(rows["label"], logit))
    assert all(abs(one["difference"]) < 1e-6 for one in by_name.values())
    assert found["verdict"] == {"metric": "auc", "margin": 0.001, "outcome": "non-inferior", "rows_needed": 0} | {
        "rows_needed": found["verdict"]["rows_needed"]
    }
    assert found["behaviour"]["rank_correlation"] == pytest.approx(1)
    assert found["behaviour"]["invariance of a"]["largest"] < 1e-6
    assert "invariance of b" not in found["behaviour"]
    assert (found["rows"], found["groups"], found["positives"]) == (3000, 300, rows["label"].sum())
    assert sum(found["calibration"]["a"]["rows"]) == 3000


def test_a_loss_in_one_country_is_told(files):
    path, folder, rows, _ = files
    found = evidence(path, folder / "worse.parquet", rows, Question(margin=0.4, slices=("country", "price")))
    assert found["verdict"]["outcome"] == "non-inferior"  # the whole passes at a margin so wide
    lost = {one["name"] for one in found["slices"]["country"] if one["lost"]}
    assert lost == {"fr"}
    assert {one["name"] for one in found["slices"]["country"]} == {"fr", "de", "missing"}
    assert len(found["slices"]["price"]) == 6


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
    assert found["slices"] == found["calibration"] == {}


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (Question(label="labl"), "label: the rows have no column 'labl'. Did you mean 'label'"),
        (Question(group="usr"), "group: the rows have no column 'usr'. Did you mean 'user'"),
        (Question(slices=("pric",)), "slices: the rows have no column 'pric'. Did you mean 'price'"),
        (Question(metrics=("ndcg@10",)), "needs a group"),
        (Question(metrics=("field_ece",)), "needs a field for every row, and none is given, as in field_ece@city"),
        (Question(metrics=("field_ece@pric",)), "the rows have no column 'pric'. Did you mean 'price'"),
        (Question(margin=-1.0), "margin: got -1"),
    ],
)
def test_what_cannot_be_asked_is_refused(files, question, message):
    path, folder, rows, _ = files
    with pytest.raises(InputError, match=message):
        evidence(path, folder / "same.csv", rows, question)


def test_scores_that_do_not_fit_are_refused(files):
    path, folder, rows, _ = files
    for name, scores, message in (
        ("short", {"logit": [1.0]}, "1 scores for 3000 rows"),
        ("named", {"value": [1.0] * 3000}, "a column logit or score or probability, got value"),
        ("beyond", {"probability": [1.5] * 3000}, "between 0 and 1"),
        ("nan", {"logit": [float("nan")] * 3000}, "3000 of 3000 values are NaN"),
    ):
        pl.DataFrame(scores).write_parquet(folder / f"{name}.parquet")
        with pytest.raises(InputError, match=message):
            evidence(path, folder / f"{name}.parquet", rows)
    with pytest.raises(InputError, match="nothing"):
        evidence(path, folder / "nothing", rows)
    one = rows.with_columns(label=pl.lit(1))
    with pytest.raises(InputError, match="0 negative"):
        evidence(path, folder / "same.csv", one)
