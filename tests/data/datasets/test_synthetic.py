from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from slimrank.config import InputError
from slimrank.data import load_dataset
from slimrank.data.datasets.synthetic import (
    Synthetic,
    chunks,
    entropy,
    hashed_effects,
    power_law,
    splitmix64,
    uniform,
    weighted_auc,
)
from slimrank.data.rows import encode_dataset


def rows(**keys: object) -> pl.DataFrame:
    return pl.concat(list(chunks(Synthetic.parse(keys))))


def test_weighted_auc_from_arithmetic() -> None:
    score = np.array([0.1, 0.4, 0.4, 0.8])
    label = np.array([0.0, 1.0, 0.0, 1.0])
    # pairs: .4 over .1, .4 with .4 (a half), .8 over both: 3.5 of 4
    assert weighted_auc(score, label, 1 - label) == pytest.approx(3.5 / 4)
    p = np.array([0.25, 0.75])
    # two rows: P(first positive, second negative) = 1/16, the other way round 9/16
    assert weighted_auc(p, p, 1 - p) == pytest.approx((9 / 16) / (10 / 16))
    assert weighted_auc(np.full(9, 0.3), np.full(9, 0.3), np.full(9, 0.7)) == pytest.approx(0.5)
    assert math.isnan(weighted_auc(score, np.ones(4), np.zeros(4)))


@pytest.mark.parametrize("seed", range(3))
def test_weighted_auc_against_a_loop_over_pairs(seed: int) -> None:
    generator = np.random.default_rng(seed)
    p = generator.integers(1, 12, 40) / 12
    wins = pairs = 0.0
    for i in range(40):
        for j in range(40):
            if i != j:
                weight = p[i] * (1 - p[j])
                pairs += weight
                wins += weight * (1.0 if p[i] > p[j] else 0.5 if p[i] == p[j] else 0.0)
    assert weighted_auc(p, p, 1 - p) == pytest.approx(wins / pairs, abs=1e-12)


def test_weighted_auc_with_labels_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    score, label = generator.integers(0, 50, 2000) / 50, generator.integers(0, 2, 2000).astype(float)
    assert weighted_auc(score, label, 1 - label) == pytest.approx(roc_auc_score(label, score), abs=1e-12)


def test_entropy_from_arithmetic() -> None:
    assert entropy(np.array([0.5, 0.0, 1.0, 0.25])) == pytest.approx(
        [math.log(2), 0.0, 0.0, -0.25 * math.log(0.25) - 0.75 * math.log(0.75)]
    )


def test_a_million_labels_reach_the_bayes_optimum_that_is_reported() -> None:
    frame = rows(rows=1_000_000, fields=4, ids=1000, exponent=1.05, interaction=1.0)
    p, label = frame["probability"].to_numpy(), frame["label"].to_numpy()
    assert weighted_auc(p, p, 1 - p) == pytest.approx(roc_auc_score(label, p), abs=2e-3)
    assert float(entropy(p).mean()) == pytest.approx(log_loss(label, p), abs=2e-3)
    assert label.mean() == pytest.approx(p.mean(), abs=2e-3)


@pytest.mark.parametrize("chunk", [1, 7, 64, 999, 1000, 5000])
def test_rows_are_the_same_for_any_chunk(chunk: int) -> None:
    keys = {"rows": 1000, "fields": 3, "ids": (5, 1000, 5_000_000), "numbers": 2, "rank": 5}
    assert rows(**keys, chunk=chunk).equals(rows(**keys))
    assert all(len(part) <= chunk for part in chunks(Synthetic.parse({**keys, "chunk": chunk})))


def test_more_rows_go_on_where_fewer_ended_and_seeds_differ() -> None:
    assert rows(rows=1000)[:600].equals(rows(rows=600))
    assert not rows(rows=600).equals(rows(rows=600, seed=1))


@pytest.mark.parametrize("start", [0, 1, 2, 3, 4, 1001])
def test_a_stream_can_be_entered_anywhere(start: int) -> None:
    assert uniform(7, 3, start, 10).tolist() == uniform(7, 3, 0, start + 10)[start:].tolist()


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 1.1, 2.5])
def test_ids_follow_the_power_law(exponent: float) -> None:
    size, u = 50, (np.arange(200_000) + 0.5) / 200_000
    edges = np.arange(1.0, size + 2)
    mass = np.log(edges) if exponent == 1.0 else edges ** (1 - exponent) / (1 - exponent)
    expected = np.diff(mass) / (mass[-1] - mass[0])
    found = np.bincount(power_law(u, size, exponent), minlength=size) / len(u)
    assert found == pytest.approx(expected, abs=1e-5)


def test_ids_stay_in_range_at_the_ends() -> None:
    ends = np.array([0.0, np.nextafter(1.0, 0.0)])
    for exponent in (0.0, 0.999999999, 1.0, 1.1, 10.0):
        ids = power_law(ends, 5_000_000, exponent)
        assert ids.min() == 0
        assert ids.max() < 5_000_000


def test_effects_are_a_function_of_id_field_and_seed_alone() -> None:
    ids = np.arange(100_000)
    effects = hashed_effects(ids, 2, 5, 6)
    assert effects.mean(0) == pytest.approx(np.zeros(6), abs=0.02)
    assert np.corrcoef(effects.T) == pytest.approx(np.eye(6), abs=0.02)
    assert effects.std(0) == pytest.approx(np.ones(6), abs=0.02)
    assert (hashed_effects(ids[77:79], 2, 5, 6) == effects[77:79]).all()
    for other in (hashed_effects(ids, 3, 5, 6), hashed_effects(ids, 2, 6, 6)):
        assert abs(np.corrcoef(other[:, 0], effects[:, 0])[0, 1]) < 0.02


def test_splitmix64_gives_the_published_stream() -> None:
    # first outputs of splitmix64 from state 1234567, as in the reference implementation's test vectors
    gamma = np.uint64(0x9E3779B97F4A7C15)
    states = np.array([1234567], np.uint64) + gamma * np.arange(3, dtype=np.uint64)
    assert splitmix64(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_the_dataset_is_encoded_to_tables_of_its_size_and_reports_the_optimum() -> None:
    config = {"name": "synthetic", "rows": 5000, "fields": 3, "ids": [10, 100, 1_000_000], "numbers": 2}
    dataset = load_dataset(config)
    assert [len(frame) for frame in dataset.splits.values()] == [4000, 500, 500]
    encoded = encode_dataset(dataset)
    assert encoded.encoding.sizes == {"c0": 11, "c1": 101, "c2": 1_000_001}
    assert encoded.train.inputs.numbers.shape == (4000, 2)
    truth = rows(**{key: value for key, value in config.items() if key != "name"})[4500:]
    p = truth["probability"].to_numpy()
    assert dataset.facts["bayes_auc"] == pytest.approx(weighted_auc(p, p, 1 - p))
    assert dataset.facts["bayes_logloss"] == pytest.approx(float(entropy(p).mean()))
    assert dataset.facts["true_auc"] == pytest.approx(roc_auc_score(truth["label"].to_numpy(), p))
    assert load_dataset({**config, "encoding": "vocabulary"}).schema.fields[0].encoding == "vocabulary"
    drawn = load_dataset({**config, "split": {"kind": "rows", "seed": 3}})
    assert drawn.fingerprint != dataset.fingerprint


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"ids": [5, 5], "fields": 3}, "ids names 2 sizes, there are 3 fields"),
        ({"ids": 1}, "ids"),
        ({"rows": 0}, "rows: Input should be greater than 0, got 0"),
        ({"exponent": -1}, "exponent: Input should be greater than or equal to 0, got -1"),
    ],
)
def test_faulty_configs_are_refused(keys: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as error:
        Synthetic.parse(keys)
    assert message in str(error.value)
