"""A student's table from its teachers': principal components, against numpy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from slimrank.models.architecture import build_model
from slimrank.models.dnn import DNN
from slimrank.tables.embedding import Layout
from slimrank.training.warm_start import SIZE, components, start_table

LAYOUT = Layout(("user", "item", "tags"), (40, 30, 6), (1, 1, 2), sequences=("tags",))


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def up_to_sign(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """`found` with every column's sign as that of `expected`."""
    return found * np.sign((found * expected).sum(axis=0))


def test_points_on_a_line_from_arithmetic() -> None:
    """(0, 0), (3, 4), (6, 8): one component, at -5, 0 and 5 from the mean."""
    found = components(torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]]), torch.ones(3), dim=1)
    assert found.abs().flatten().tolist() == pytest.approx([5, 0, 5], abs=1e-5)
    assert found[0] * found[2] < 0


def test_equal_weights_are_the_components_of_scikit_learn() -> None:
    wide = random(50, 6) * torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0, 0.5])
    expected = PCA(3).fit_transform(wide.numpy())
    found = components(wide, torch.ones(50), dim=3).numpy()
    np.testing.assert_allclose(up_to_sign(found, expected), expected, rtol=1e-3, atol=1e-4)


def test_weights_count_as_often_as_the_row_would() -> None:
    """A row of weight 3 is a row that stands there three times."""
    wide = random(8, 4) * torch.tensor([4.0, 3.0, 2.0, 1.0])
    weight = torch.tensor([1, 3, 2, 5, 1, 1, 4, 2])
    often = wide.repeat_interleave(weight, dim=0)
    expected = PCA(2).fit(often.numpy()).transform(wide.numpy())
    found = components(wide, weight.float(), dim=2).numpy()
    np.testing.assert_allclose(up_to_sign(found, expected), expected, rtol=1e-3, atol=1e-4)


def test_rows_that_were_never_met_are_zero_and_count_for_nothing() -> None:
    wide = random(8, 4)
    weight = torch.tensor([1.0, 1, 0, 1, 1, 1, 0, 1])
    found = components(wide, weight, dim=2)
    assert (found[[2, 6]] == 0).all()
    seen = weight > 0
    alone = components(wide[seen], weight[seen], dim=2)
    np.testing.assert_allclose(up_to_sign(found[seen].numpy(), alone.numpy()), alone.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("rows", "width", "dim"), [(10, 3, 5), (2, 6, 4), (1, 6, 4), (10, 6, 6)])
def test_fewer_components_than_dimensions_leave_zeros(rows, width, dim) -> None:
    found = components(random(rows, width), torch.ones(rows), dim)
    assert found.shape == (rows, dim)
    assert found.isfinite().all()
    assert (found[:, min(rows, width) :] == 0).all()


def test_no_row_was_ever_met() -> None:
    assert (components(random(4, 3), torch.zeros(4), 2) == 0).all()


@pytest.fixture
def counts() -> dict[str, np.ndarray]:
    return {name: np.arange(size, 0, -1) % 7 for name, size in zip(LAYOUT.names, LAYOUT.sizes, strict=True)}


def models(dim: int, layout: Layout = LAYOUT):
    student = build_model(DNN(embedding_dim=dim, hidden=(3,)), layout, seed=1)
    return student, [build_model(DNN(embedding_dim=8, hidden=(3,), embedding_std=s), LAYOUT, seed=s) for s in (2, 3)]


@pytest.mark.parametrize("size", [SIZE, 0.5])
def test_the_root_mean_square_weighted_by_frequency(size, counts) -> None:
    student, teachers = models(4)
    start_table(student, teachers, counts, size)
    table = student.embedding.table.weight.detach().double()
    weight = torch.cat([torch.as_tensor(counts[name]).double() for name in LAYOUT.names])
    weight[40 + 30] = 0  # padding is no id
    mean_square = (table.square().mean(dim=1) * weight).sum() / weight.sum()
    assert float(mean_square.sqrt()) == pytest.approx(size, rel=1e-5)
    assert (table[weight == 0] == 0).all()


def test_fields_are_rotated_each_on_its_own_over_all_teachers(counts) -> None:
    student, teachers = models(4)
    start_table(student, teachers, counts)
    wide = torch.cat([teacher.embedding.table.weight.detach()[40:70] for teacher in teachers], dim=1)
    expected = components(wide, torch.as_tensor(counts["item"], dtype=torch.float32), 4)
    found = student.embedding.table.weight.detach()[40:70]
    ratio = float(found.norm() / expected.norm())
    torch.testing.assert_close(found, expected * ratio, rtol=1e-4, atol=1e-6)


def test_a_student_with_fewer_fields_and_ids(counts) -> None:
    layout = LAYOUT.only({"item", "tags"}).with_sizes({"item": 20})
    student, teachers = models(4, layout)
    start_table(student, teachers, counts)
    table = student.embedding.table.weight.detach()
    assert table.shape == (26, 4)
    assert table[:20].abs().sum() > 0
    assert (table[20] == 0).all()


def test_teachers_of_all_zeros_give_zeros(counts) -> None:
    student, teachers = models(4)
    for teacher in teachers:
        teacher.embedding.table.weight.data.zero_()
    start_table(student, teachers, counts)
    assert (student.embedding.table.weight == 0).all()


def test_rows_of_numbers_alone_have_no_table_to_start() -> None:
    layout = Layout((), (), (), numbers=3)
    student, teacher = (build_model(DNN(embedding_dim=4, hidden=(8,)), layout, seed=s) for s in (1, 2))
    start_table(student, [teacher], {})
    assert student.embedding.table.num_rows == 0
