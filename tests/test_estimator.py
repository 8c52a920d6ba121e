"""SlimClassifier: scikit-learn's own checks, real rows in its pipelines, and the artifact behind every answer."""

from __future__ import annotations

import pickle
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import slimrank
import slimrank.estimator
from slimrank import SlimClassifier
from slimrank.artifact import open_artifact
from slimrank.config import InputError
from slimrank.estimator import parted, two_classes

SMALL = {"student": {"name": "dnn", "hidden": (8,), "embedding_dim": 4}, "random_state": 0}
THOROUGH = {"epochs": 10, "learning_rate": 0.02}
QUICK = {**SMALL, "training": {"epochs": 2}}


def clicks(rows: int = 600) -> tuple[pd.DataFrame, NDArray[Any]]:
    """Half of the cities click more, and dear things are clicked less."""
    draw = np.random.default_rng(3)
    city, price = draw.integers(0, 20, rows), draw.normal(size=rows)
    probability = 1 / (1 + np.exp(-np.where(city % 2, 2.0, -2.0) + price))
    frame = pd.DataFrame(
        {"city": [f"city-{each}" for each in city], "hour": draw.integers(0, 24, rows), "price": price}
    )
    return frame, np.where(draw.random(rows) < probability, "yes", "no")


@pytest.fixture(scope="module")
def fitted() -> SlimClassifier:
    return SlimClassifier(**SMALL, training=THOROUGH).fit(*clicks())


@pytest.mark.long
@parametrize_with_checks([SlimClassifier(random_state=0)])
def test_scikit_learn_finds_nothing_wrong(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.long
def test_a_pipeline_distils_an_estimator_on_real_rows() -> None:
    """The student of a logistic regression on MovieLens is compressed, and ranks as well as its teacher to .005."""
    rows = slimrank.load_dataset("movielens-100k").train.sample(30_000, seed=1).drop("timestamp").to_pandas()
    label, ids = rows.pop("label"), ["user_id", "item_id"]
    fit, test = slice(0, 20_000), slice(20_000, None)
    names = [name for name in rows.columns if name not in (*ids, "age")]
    prepared = ColumnTransformer(
        [("age", StandardScaler(), ["age"]), ("same", "passthrough", [*ids, *names])], verbose_feature_names_out=False
    ).set_output(transform="pandas")
    teacher = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression(C=0.3, max_iter=300))
    slim = SlimClassifier(teacher, categorical_features=[*ids, *names], random_state=0)
    whole = Pipeline([("prepared", prepared), ("slim", slim)]).fit(rows[fit], label[fit])
    alone = Pipeline([("prepared", prepared), ("teacher", teacher)]).fit(rows[fit], label[fit])
    found, taught = (roc_auc_score(label[test], each.predict_proba(rows[test])[:, 1]) for each in (whole, alone))
    assert found > taught - 0.005
    records = whole["slim"].steps_
    assert [record["name"] for record in records] == ["quantize-tables", "quantize-dense"]
    assert 5 * records[-1]["bytes_after"] < records[0]["bytes_before"]
    assert len(whole["slim"].artifact_["model.onnx"]) < records[0]["bytes_before"] / 3


def test_the_artifact_is_what_answers(fitted: SlimClassifier, tmp_path: Path) -> None:
    frame, label = clicks()
    fitted.export(tmp_path / "artifact")
    assert {path.name: path.read_bytes() for path in (tmp_path / "artifact").iterdir()} == fitted.artifact_
    found = slimrank.load(tmp_path / "artifact").predict(pl.from_pandas(frame)).probability
    probability = fitted.predict_proba(frame)
    assert np.array_equal(found, probability[:, 1].astype(np.float32))
    assert probability.sum(axis=1) == pytest.approx(np.ones(len(frame)), abs=1e-15)
    assert roc_auc_score(label == "yes", probability[:, 1]) > 0.85
    assert fitted.classes_.tolist() == ["no", "yes"]
    assert np.array_equal(fitted.predict(frame), np.where(probability[:, 1] > 0.5, "yes", "no"))


def test_the_manifest_says_how_it_was_made(fitted: SlimClassifier, tmp_path: Path) -> None:
    fitted.export(tmp_path / "artifact")
    manifest = open_artifact(tmp_path / "artifact").manifest
    assert manifest["recipe"]["student"]["hidden"] == [8]
    assert manifest["recipe"]["training"]["epochs"] == 10
    assert manifest["recipe"]["training"]["batch_size"] == 16  # 540 rows to fit to, at least 16 a batch
    assert [step["name"] for step in manifest["recipe"]["steps"]] == ["quantize-tables", "quantize-dense"]
    assert manifest["recipe"]["steps"][0]["bits"] == 4
    assert len(manifest["data_fingerprint"]) == 64


def test_a_pickle_answers_alike_and_holds_no_session(fitted: SlimClassifier) -> None:
    frame, _ = clicks()
    content = pickle.dumps(fitted)
    assert len(content) < 1.2 * sum(map(len, fitted.artifact_.values())) + 10_000
    assert np.array_equal(pickle.loads(content).predict_proba(frame), fitted.predict_proba(frame))


def test_a_clone_has_the_settings_and_nothing_that_was_learned(fitted: SlimClassifier, tmp_path: Path) -> None:
    again = clone(fitted)
    assert again.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        again.predict(clicks()[0])
    with pytest.raises(NotFittedError):
        again.export(tmp_path / "artifact")


def test_containers_and_what_is_missing_or_new(fitted: SlimClassifier) -> None:
    frame, _ = clicks()
    assert fitted.is_categorical_.tolist() == [True, False, False]
    known = fitted.decision_function(frame)
    assert np.array_equal(fitted.decision_function(pl.from_pandas(frame)), known)
    assert np.array_equal(fitted.decision_function(frame.astype({"city": "category"})), known)
    new, unknown = (fitted.decision_function(frame.assign(city=city)) for city in ("nowhere", None))
    assert np.array_equal(new, unknown)
    assert not np.array_equal(new, known)
    scale = fitted._model.encoding.scales["price"]
    mean, missing = (fitted.decision_function(frame.assign(price=price)) for price in (scale.mean, np.nan))
    assert mean == pytest.approx(missing, abs=1e-6)


def test_a_given_teacher_is_cloned_and_a_frozen_one_stays_as_it_is() -> None:
    """Labels tell of the first column alone. Who was frozen knows of the second one, who learns from labels cannot."""
    rows = np.random.default_rng(1).normal(size=(600, 2))
    label, both = rows[:, 0] > 0, rows[:, 0] + 2 * rows[:, 1] > 0
    settings = {**SMALL, "training": THOROUGH, "steps": (), "distillation": {"soft_weight": 1.0}}
    given, wise = LogisticRegression(), LogisticRegression().fit(rows, both)
    plain, student = (SlimClassifier(each, **settings).fit(rows, label) for each in (given, FrozenEstimator(wise)))
    assert np.corrcoef(student.decision_function(rows), rows[:, 1])[0, 1] > 0.5
    assert abs(np.corrcoef(plain.decision_function(rows), rows[:, 1])[0, 1]) < 0.2
    assert not hasattr(given, "coef_")


def test_a_model_of_slimrank_is_a_teacher() -> None:
    frame, label = clicks()
    student = SlimClassifier({"name": "dcnv2", "hidden": (16,)}, **SMALL, training=THOROUGH).fit(frame, label)
    assert roc_auc_score(label == "yes", student.decision_function(frame)) > 0.8


@pytest.mark.long
def test_a_search_and_cross_validation() -> None:
    frame, label = clicks(300)
    numbers = frame[["hour", "price"]]
    search = GridSearchCV(
        SlimClassifier(LogisticRegression(), **QUICK),
        {"teacher__C": [0.1, 1.0], "student": [{"name": "dnn", "hidden": (4,)}]},
        cv=2,
        scoring="roc_auc",
    ).fit(numbers, label)
    assert search.best_params_["teacher__C"] == search.best_estimator_.teacher.C
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    scores = cross_val_score(SlimClassifier(**QUICK), frame, label, cv=2)
    assert scores.shape == (2,)


def test_parts_hold_both_classes() -> None:
    target = np.array([0] * 40 + [1] * 3)
    train, valid = parted(target, 0.1, np.random.RandomState(0))
    assert sorted([*train, *valid]) == list(range(43))
    assert np.bincount(target[valid]).tolist() == [4, 1]
    assert np.bincount(target[parted(target, 0.99, np.random.RandomState(0))[0]]).tolist() == [1, 1]


@pytest.mark.parametrize("fraction", [0, 1, 0.0, 1.0, "0.1", None])
def test_fractions_that_are_none(fraction: Any) -> None:
    with pytest.raises(InputError, match=r"validation_fraction is .*Allowed: a float between 0 and 1"):
        parted(np.array([0, 0, 1, 1]), fraction, np.random.RandomState(0))


def test_classes_are_two() -> None:
    classes, target = two_classes(np.array(["b", "a", "b"]))
    assert (classes.tolist(), target.tolist()) == (["a", "b"], [1, 0, 1])
    with pytest.raises(InputError, match="one class, 'a', in all 2 rows"):
        two_classes(np.array(["a", "a"]))
    with pytest.raises(InputError, match="one sample of a class"):
        parted(np.array([0, 0, 1]), 0.1, np.random.RandomState(0))


THREE = FrozenEstimator(LogisticRegression().fit(np.eye(3), [0, 1, 2]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teacher": 3}, "teacher is of type int. Allowed: None, an estimator"),
        ({"teacher": "dcn"}, "unknown model 'dcn'. Did you mean 'dcnv2'?"),
        ({"teacher": THREE}, "teacher was fitted to the classes [0, 1, 2]. Allowed: ['no', 'yes'], or 0 and 1"),
        (
            {"teacher": StandardScaler()},
            "teacher is of type StandardScaler. Allowed: None, an estimator with one of predict_proba",
        ),
        ({"student": "sasrec"}, "student 'sasrec' finds items"),
        ({"student": {"name": "dnn", "hiden": (8,)}}, "Did you mean 'hidden'?"),
        ({"steps": ["quantise-tables"]}, "Did you mean 'quantize-tables'?"),
        ({"training": {"epoch": 3}}, "training: unknown key 'epoch'. Did you mean 'epochs'?"),
        ({"training": 3}, "training is 3. Allowed: None, a Training, or a mapping"),
        ({"distillation": {"soft_weight": 2}}, "distillation: soft_weight"),
        ({"categorical_features": ["citty"]}, "no column 'citty'. Did you mean 'city'?"),
        ({"categorical_features": None}, "column 'city': 540 of 540 values are no numbers"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], message: str) -> None:
    frame, label = clicks()
    if settings.get("teacher") is THREE:
        frame = frame.assign(city=0.0)
    with pytest.raises(InputError) as error:
        SlimClassifier(**settings).fit(frame, label)
    assert message in str(error.value)


def test_rows_that_are_refused() -> None:
    frame, label = clicks()
    with pytest.raises(InputError, match="column 'price': 540 infinite of 540"):
        SlimClassifier().fit(frame.assign(price=np.where(frame.index % 2, np.inf, -np.inf)), label)
    with pytest.raises(InputError, match="each of its 1 columns has one value in all rows"):
        SlimClassifier().fit(np.ones((600, 1)), label)
    with pytest.raises(TypeError, match=r"[Ss]parse"):
        SlimClassifier().fit(OneHotEncoder().fit_transform(frame), label)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        SlimClassifier().fit(frame, label[:-1])


def test_without_scikit_learn_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    with pytest.raises(InputError, match=r"needs scikit-learn: pip install 'slimrank\[sklearn\]'"):
        runpy.run_path(slimrank.estimator.__file__)
