"""Teachers of any kind: a function of columns, scores in a file, models; and what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import slimrank
from slimrank.config import InputError, as_config, entries
from slimrank.data.encoding import Inputs
from slimrank.models.architecture import build_model
from slimrank.models.dnn import DNN
from slimrank.tables.embedding import Layout
from slimrank.training.examples import Examples
from slimrank.training.losses.loss import Distillation
from slimrank.training.teachers import (
    Scores,
    check_taught,
    columns,
    estimator_scores,
    read_scores,
    scores_of,
    with_teachers,
)

ROWS = pl.DataFrame({"query": [1, 1, 2], "doc": ["a", "b", "a"], "label": [0, 1, 0]})


def examples() -> Examples:
    ids = torch.tensor([[0, 1], [2, 0], [1, 1]], dtype=torch.int32)
    return Examples(ids, torch.tensor([[0.5], [1.5], [-1.0]]), torch.zeros(3))


def test_columns_are_ids_then_numbers() -> None:
    inputs = Inputs(np.array([[0, 1]], np.int32), np.array([[0.5]], np.float32))
    assert columns(inputs).tolist() == [[0.0, 1.0, 0.5]]


def test_a_function_of_columns() -> None:
    found = scores_of(lambda table: table[:, 0] + 10 * table[:, 2], examples())
    assert found.score.tolist() == [0 + 5.0, 2 + 15.0, 1 - 10.0]
    assert found.weight is None


def test_a_model_of_scikit_learn() -> None:
    from sklearn.tree import DecisionTreeRegressor

    table = columns(Inputs(examples().ids.numpy(), examples().numbers.numpy()))
    tree = DecisionTreeRegressor().fit(table, [1.0, 2.0, 3.0])
    assert scores_of(tree.predict, examples()).score.tolist() == [1.0, 2.0, 3.0]


X = np.array([[0.0], [1.0], [2.0], [3.0], [1.5], [4.0]])
Y = np.array(["no", "no", "yes", "yes", "yes", "yes"])


def test_probabilities_of_an_estimator_become_logits() -> None:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit(X, Y)
    assert estimator_scores(model, X).score == pytest.approx(model.decision_function(X), abs=1e-5)


def test_probabilities_of_boosted_trees() -> None:
    from lightgbm import LGBMClassifier

    model = LGBMClassifier(n_estimators=5, min_child_samples=1, min_data_in_bin=1, verbose=-1).fit(X, Y)
    margin = model.predict(X, raw_score=True)
    assert margin.std() > 0.1
    assert estimator_scores(model, X).score == pytest.approx(margin, abs=1e-5)


def test_probabilities_of_xgboost() -> None:
    xgboost = pytest.importorskip("xgboost")
    model = xgboost.XGBClassifier(n_estimators=5, min_child_weight=0).fit(X, Y == "yes")
    margin = model.predict(X, output_margin=True)
    assert margin.std() > 0.1
    assert estimator_scores(model, X).score == pytest.approx(margin, abs=1e-5)


def test_an_estimator_that_is_sure_has_finite_logits() -> None:
    from sklearn.tree import DecisionTreeClassifier

    found = estimator_scores(DecisionTreeClassifier().fit(X, Y), X).score
    assert found == pytest.approx(np.where(Y == "yes", 1, -1) * np.log(1e6 - 1), rel=1e-4)


def test_margins_are_taken_as_logits() -> None:
    from sklearn.svm import LinearSVC

    model = LinearSVC().fit(X, Y)
    assert estimator_scores(model, X).score == pytest.approx(model.decision_function(X))


def test_an_estimator_that_only_predicts() -> None:
    """A vote says the class; a regression of 0 and 1 the probability, which it may miss by leaving 0 to 1."""
    from sklearn.ensemble import VotingClassifier
    from sklearn.linear_model import LinearRegression
    from sklearn.tree import DecisionTreeClassifier

    vote = VotingClassifier([("tree", DecisionTreeClassifier())]).fit(X, Y)
    assert estimator_scores(vote, X).score == pytest.approx(np.where(Y == "yes", 1, -1) * np.log(1e6 - 1), rel=1e-4)
    line = LinearRegression().fit([[0.0], [1.0]], [0, 1])
    found = estimator_scores(line, np.array([[-1.0], [0.25], [2.0]])).score
    assert found == pytest.approx([-np.log(1e6 - 1), np.log(1 / 3), np.log(1e6 - 1)], rel=1e-4)


def test_estimators_that_are_no_teachers() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    with pytest.raises(InputError, match="StandardScaler is no teacher: it has none of predict_proba, "):
        estimator_scores(StandardScaler().fit(X), X)
    with pytest.raises(InputError, match="2 classes is needed, LogisticRegression knows 3"):
        estimator_scores(LogisticRegression().fit(X, [0, 1, 2, 0, 1, 2]), X)


def test_the_mean_of_teachers_and_of_their_confidence() -> None:
    sure = Scores(np.array([1, 2, 3], np.float32), np.array([0.5, 1.0, 0.0], np.float32))
    found = with_teachers(examples(), [sure, lambda table: table[:, 0]])
    assert found.teacher is not None
    assert found.teacher.tolist() == [(1 + 0) / 2, (2 + 2) / 2, (3 + 1) / 2]
    assert found.confidence is not None
    assert found.confidence.tolist() == [0.75, 1.0, 0.5]
    assert with_teachers(examples(), [lambda table: table[:, 0]]).confidence is None


def test_a_network_is_a_teacher() -> None:
    model = build_model(DNN(embedding_dim=2, hidden=(3,)), Layout(("a", "b"), (3, 2), (1, 1), numbers=1), seed=1)
    found = scores_of(model, examples())
    assert found.score.shape == (3,)


@pytest.mark.parametrize(
    ("score", "weight", "message"),
    [
        ([1.0, 2.0], None, r"scores \[2\] for 3 rows"),
        ([[1.0, 2.0, 3.0]], None, r"scores \[1, 3\] for 3 rows"),
        ([1.0, np.nan, np.inf], None, "2 of 3 are NaN or infinite"),
        ([1.0, 2.0, 3.0], [1.0, -1.0, 1.0], "confidence must be 3 finite numbers of 0 or more"),
        ([1.0, 2.0, 3.0], [1.0, 1.0], "confidence must be 3"),
    ],
)
def test_scores_that_do_not_fit(score: Any, weight: Any, message: str) -> None:
    found = Scores(np.array(score, np.float32), None if weight is None else np.array(weight, np.float32))
    with pytest.raises(InputError, match=message):
        scores_of(found, examples())


def write(path: Path, table: dict[str, list[Any]]) -> Path:
    frame = pl.DataFrame(table)
    frame.write_parquet(path) if path.suffix == ".parquet" else frame.write_csv(path)
    return path


@pytest.mark.parametrize("name", ["scores.parquet", "scores.csv"])
def test_a_file_in_the_order_of_rows(tmp_path: Path, name: str) -> None:
    found = read_scores(write(tmp_path / name, {"score": [1, 2, 3], "weight": [0.5, 0.25, 1.0]}), ROWS)
    assert found.score.tolist() == [1.0, 2.0, 3.0]
    assert found.weight is not None
    assert found.weight.tolist() == [0.5, 0.25, 1.0]


@pytest.mark.parametrize("name", ["scores.parquet", "scores.csv"])
def test_a_file_is_joined_by_its_keys(tmp_path: Path, name: str) -> None:
    """In another order, and with a row that is not trained on."""
    table = {"doc": ["a", "z", "a", "b"], "score": [3.0, 9.0, 1.0, 2.0], "query": [2, 2, 1, 1]}
    found = read_scores(write(tmp_path / name, table), ROWS)
    assert found.score.tolist() == [1.0, 2.0, 3.0]
    assert found.weight is None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"score": [1.0, 2.0]}, "2 scores for 3 rows, and no key column to join them by"),
        ({"scores": [1.0, 2.0, 3.0]}, "no column 'score'. Did you mean 'scores'"),
        ({"score": [1.0], "qury": [1]}, "no key 'qury' in the rows. Did you mean 'query'"),
        ({"score": [1.0, 2.0], "query": [1, 1]}, "2 rows are not the only ones of their query: query = 1"),
        ({"score": [1.0], "query": [1]}, "1 of 3 rows have no score, such as query = 2"),
        ({"score": [1.0, 2.0], "query": ["1", "2"]}, "the keys query are of other types than in the rows"),
        ({"score": ["high", "low", "low"]}, "column 'score' is of type String, a number is needed"),
        ({"score": [1.0, None, 2.0]}, "1 of 3 are NaN or infinite"),
        ({"score": [1.0, 1.0, 2.0], "weight": [1.0, -1.0, 1.0]}, "confidence must be 3 finite numbers of 0 or more"),
    ],
)
def test_files_that_do_not_fit(tmp_path: Path, table: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(InputError) as error:
        read_scores(write(tmp_path / "scores.parquet", table), ROWS)
    assert message in str(error.value)
    assert "scores.parquet" in str(error.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_scores(tmp_path / "scores.csv", ROWS)
    with pytest.raises(InputError, match=r"scores are read from \.parquet"):
        read_scores(tmp_path / "scores.json", ROWS)


def test_a_student_learns_the_order_of_a_teacher_that_is_a_function() -> None:
    """Grades say nothing; the teacher knows the order."""
    draw = np.random.default_rng(1)
    table = {f"x{i}": draw.normal(size=600) for i in range(3)}
    frame = pl.DataFrame({**table, "grade": draw.integers(0, 3, 600), "query": np.arange(600) // 6})
    data = encoded(frame)
    teacher = lambda rows: rows[:, 0] - 2 * rows[:, 1]  # noqa: E731
    model = slimrank.train(
        {"name": "dnn", "hidden": (8,)},
        data,
        slimrank.Training(epochs=30, batch_size=60, learning_rate=0.02, patience=0),
        seed=1,
        teachers=[teacher],
        distillation=slimrank.Distillation(soft_weight=1.0),
    )
    rows = Examples.of(data.test, answer="relevance")
    learned = scores_of(model, rows).score
    assert np.corrcoef(learned, teacher(data.test.inputs.numbers))[0, 1] > 0.95


def encoded(frame: pl.DataFrame) -> Any:
    from slimrank.data.rows import encode_dataset, make_dataset
    from slimrank.data.schema import Field, Schema

    fields = tuple(Field(name=name, kind="numeric") for name in frame.columns[:3])
    schema = Schema(fields=fields, label="grade", group="query", answer="relevance")
    return encode_dataset(make_dataset("made", schema, (frame[:360], frame[360:480], frame[480:])))


@pytest.mark.parametrize(
    ("kind", "mix", "loss", "message"),
    [
        ("ease", {}, None, "closed form"),
        ("sasrec", {"loss": "soft-list"}, None, "distillation.loss 'soft-list'"),
        ("two-tower", {}, "in-batch-softmax", "training.loss 'in-batch-softmax' does not go with distillation"),
    ],
)
def test_what_cannot_be_taught_is_refused(kind: str, mix: dict[str, str], loss: str | None, message: str) -> None:
    chosen = None if loss is None else as_config("loss", loss)
    with pytest.raises(InputError, match=message):
        check_taught(entries("model")[kind].run, Distillation.parse(mix), chosen)


def test_what_can_be_taught_is_not() -> None:
    check_taught(entries("model")["dnn"].run, Distillation.parse({"loss": "soft-labels"}), None)
    check_taught(entries("model")["sasrec"].run, Distillation(), as_config("loss", "catalogue-softmax"))
