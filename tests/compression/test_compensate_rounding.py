"""Roundings that make up for each other: the arithmetic of two columns, and the scores of a sequence model."""

from __future__ import annotations

import torch

from slimrank.compression.compensate_rounding import CompensateRounding, compensated, expected_error
from slimrank.compression.steps import Context, compress
from slimrank.models.architecture import build_model
from slimrank.models.dnn import DNN
from slimrank.models.sasrec import SASRec
from slimrank.tables.embedding import Layout
from slimrank.tables.scaled import Grid, ScaledTable, scaled
from slimrank.training.examples import Examples, score

LAYOUT = Layout(("history",), (42,), (6,), 0, ("history",))


def histories(count: int) -> Examples:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(2, 42, (count, 6), generator=generator, dtype=torch.int32)
    label = torch.randint(2, 42, (count,), generator=generator)
    return Examples(ids, torch.zeros(count, 0), label, answer="item")


def of_four_bits(rows: torch.Tensor) -> ScaledTable:
    return scaled(Grid(bits=4, learned=False, range="max"), rows)


def test_the_error_of_one_column_is_taken_up_by_the_next() -> None:
    """Queries are (1, 1): only the sum of the errors counts. The largest value, 7 steps of 1, fixes the scale.

    The first row, (.4, .3), becomes (0, 1) or (1, 0): off by .3. To the nearest it is (0, 0), off by .7.
    """
    rows = torch.tensor([[0.4, 0.3], [7.0, -7.0]])
    table = of_four_bits(rows)
    assert table.rows(0, 2)[0].tolist() == [0.0, 0.0]
    products = torch.ones(2, 2, dtype=torch.float64)
    found = compensated(rows, table, products, damping=1e-6)
    step = float(table.scale.max())
    assert sorted((found[0] / step).tolist()) == [0.0, 1.0]
    assert expected_error(rows - found, products) < expected_error(rows - table.rows(0, 2), products)


def test_without_queries_that_lean_anywhere_it_rounds_to_the_nearest() -> None:
    rows = torch.randn(20, 4, generator=torch.Generator().manual_seed(1))
    table = of_four_bits(rows)
    found = compensated(rows, table, torch.eye(4, dtype=torch.float64), damping=0.1)
    torch.testing.assert_close(found, table.rows(0, 20), atol=1e-6, rtol=0)


def test_the_expected_error_is_the_mean_square_over_queries() -> None:
    generator = torch.Generator().manual_seed(2)
    errors, queries = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (5, 7))
    expected = float((errors @ queries.T).square().mean())
    assert abs(expected_error(errors, queries.T @ queries / 7) - expected) < 1e-12


def test_scores_of_a_sequence_model_come_nearer_to_those_of_floats() -> None:
    model = build_model(SASRec(embedding_dim=8, embedding_std=1.0), LAYOUT, seed=1)
    rows = histories(200)
    context = Context(rows, rows)
    nearest, _ = compress(model, [{"name": "quantize-tables", "bits": 4, "only": ["history"]}], context)
    steps = [{"name": "quantize-tables", "bits": 4, "only": ["history"]}, "compensate-rounding"]
    better, records = compress(model, steps, context)
    assert records[1]["touched"] == ["embedding.table: 42 rows"]
    assert records[1]["bytes_after"] == records[1]["bytes_before"]
    queries = torch.from_numpy(score(model, rows))
    wanted = queries @ model.all_items().detach().T
    errors = [float((queries @ each.all_items().detach().T - wanted).square().mean()) for each in (nearest, better)]
    assert errors[1] < 0.7 * errors[0]
    table = better.embedding.table
    assert torch.equal(table.rows(0, 42), table.weight.detach())  # on the codes already


def test_what_it_does_not_fit_is_left_alone_with_the_reason() -> None:
    rows = histories(50)
    floats = build_model(SASRec(embedding_dim=8), LAYOUT, seed=1)
    _, records = compress(floats, [CompensateRounding()], Context(rows, rows))
    assert "`quantize-tables` comes before" in records[0]["skipped"][0]["reason"]
    clicks = build_model(DNN(embedding_dim=8, hidden=(4,)), LAYOUT, seed=1)
    labelled = Examples(rows.ids, rows.numbers, (rows.label % 2).float())
    _, records = compress(clicks, [CompensateRounding()], Context(labelled, labelled))
    assert "not the items of a sequence model" in records[0]["skipped"][0]["reason"]
