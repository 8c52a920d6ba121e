"""Alignment with a teacher: batches of like length from arithmetic, and a student that comes close to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slimrank.config import InputError
from slimrank.models.architecture import build_model
from slimrank.models.text_encoder import TextEncoder, TextEncoderModel, outputs_of
from slimrank.tables.embedding import Layout
from slimrank.training.alignment import Alignment, align, batches
from slimrank.training.examples import Examples, score

LAYOUT = Layout(("text",), (30,), (8,), 0, ("text",))


def model(layers: int, seed: int) -> TextEncoderModel:
    small = {"embedding_dim": 16, "layers": layers, "heads": 2, "hidden": 16, "embedding_std": 0.5}
    made = build_model(TextEncoder.parse(small), LAYOUT, seed=seed)
    assert isinstance(made, TextEncoderModel)
    return made


def some_ids(rows: int, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    ids = draw.integers(1, 30, (rows, 8)).astype(np.int32)
    return np.where(np.arange(8) < draw.integers(1, 9, (rows, 1)), ids, 0).astype(np.int32)


def test_batches_hold_every_row_once_within_the_tokens() -> None:
    lengths = np.random.default_rng(0).integers(1, 60, 5000)
    made = batches(lengths, 200, np.random.default_rng(1))
    assert sorted(np.concatenate(made).tolist()) == list(range(5000))
    assert max(len(each) * lengths[each].max() for each in made) <= 200
    padded = sum(len(each) * lengths[each].max() for each in made)
    assert padded < 1.2 * lengths.sum()
    again = batches(lengths, 200, np.random.default_rng(1))
    assert all(np.array_equal(one, other) for one, other in zip(made, again, strict=True))


def test_a_text_longer_than_a_batch_is_a_batch() -> None:
    made = batches(np.array([300, 2, 300]), 100, np.random.default_rng(0))
    assert sorted(each.tolist() for each in made) == [[0], [1], [2]]


def test_a_student_comes_close_to_its_teacher_and_does_so_twice() -> None:
    ids = some_ids(400)
    vectors = outputs_of(model(2, seed=1), torch.from_numpy(ids))
    settings = Alignment(epochs=12, tokens=512, learning_rate=5e-3)
    students = [model(1, seed=2) for _ in range(2)]
    histories = [align(student, ids, vectors, settings, seed=3) for student in students]
    assert [each["epoch"] for each in histories[0]] == list(range(1, 13))
    assert [one["loss"] for one in histories[0]] == [other["loss"] for other in histories[1]]
    assert histories[0][-1]["loss"] < 0.5 * histories[0][0]["loss"]
    new = torch.from_numpy(some_ids(100, seed=9))
    cosine = (outputs_of(students[0], new) * outputs_of(model(2, seed=1), new)).sum(dim=1).mean()
    before = (outputs_of(model(1, seed=2), new) * outputs_of(model(2, seed=1), new)).sum(dim=1).mean()
    assert cosine > before + 0.1
    assert not students[0].training


def test_the_loss_is_the_squared_distance() -> None:
    ids = some_ids(20)
    student = model(1, seed=2)
    vectors = outputs_of(model(2, seed=1), torch.from_numpy(ids))
    expected = (outputs_of(student, torch.from_numpy(ids)) - vectors).square().sum(dim=1).mean()
    (epoch,) = align(student, ids, vectors, Alignment(epochs=1, tokens=10_000, learning_rate=1e-9), seed=0)
    assert epoch["loss"] == pytest.approx(float(expected), rel=1e-4)


def test_minutes_are_a_bound() -> None:
    ids = some_ids(200)
    vectors = outputs_of(model(2, seed=1), torch.from_numpy(ids))
    history = align(model(1, seed=2), ids, vectors, Alignment(epochs=100_000, minutes=1e-4), seed=0)
    assert len(history) < 1000


def test_rows_without_vectors_and_nan_are_refused() -> None:
    ids = some_ids(5)
    with pytest.raises(InputError, match="5 texts have 4 vectors"):
        align(model(1, seed=1), ids, torch.zeros(4, 16), Alignment())
    with pytest.raises(InputError, match="alignment diverged in epoch 1"):
        align(model(1, seed=1), ids, torch.full((5, 16), float("nan")), Alignment(epochs=1))


def test_texts_are_scored_a_few_at_a_time_and_as_the_model_gives_them() -> None:
    ids = torch.from_numpy(some_ids(150))
    one = model(1, seed=1).eval()
    rows = Examples(ids, torch.zeros(150, 0), torch.zeros(150))
    np.testing.assert_allclose(score(one, rows), one(ids).detach().numpy(), atol=1e-6)
