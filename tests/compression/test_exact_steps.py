"""Fields joined and the first layer folded: the same scores from fewer lookups, in the graph that ships."""

from __future__ import annotations

from itertools import combinations
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from slimrank.compression.fold_first_layer import LONGEST
from slimrank.compression.join_fields import best_runs
from slimrank.compression.steps import Context, compress
from slimrank.config import InputError, as_config
from slimrank.exporting.checks import check_graph
from slimrank.exporting.graph import build_graph, write_graph
from slimrank.exporting.pack import pack
from slimrank.models.dnn import DNN
from slimrank.models.layers import Ranker
from slimrank.tables.embedding import Layout
from slimrank.tables.joined import EXACT
from slimrank.training.examples import Examples
from slimrank.training.loop import Training, fit

FIVE = Layout(
    ("user", "daytime", "weekday", "weekend", "home", "cost", "city"), (500, 7, 7, 2, 3, 2, 9000), (1, 1, 1, 1, 1, 1, 1)
)
STEPS: dict[str, list[Any]] = {
    "join": [{"name": "join-fields", "budget": 300_000}],
    "fold": ["fold-first-layer"],
    "join, fold": [{"name": "join-fields", "budget": 300_000}, "fold-first-layer"],
}
TABLES: dict[str, list[Any]] = {
    "dense": [],
    "4 bits": [{"name": "quantize-tables", "bits": 4}],
    "8 bits, one scale": [{"name": "quantize-tables", "bits": 8, "scale": "table"}],
}


def graph_of(model: Ranker, path: Path, *, unpack_limit: int = 1 << 20) -> dict[str, int]:
    """Writes the graph of `model`; the operators that the runtime makes of it."""
    layout = model.embedding.layout
    write_graph(build_graph(pack(model), sum(layout.widths), layout.numbers, unpack_limit=unpack_limit), path)
    return check_graph(path)


def run(path: Path, ids: torch.Tensor, numbers: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feed = {"ids": ids.numpy()} | ({"numbers": numbers.numpy()} if numbers.shape[1] else {})
    found: np.ndarray = session.run(["logit"], feed)[0]
    return found


@pytest.fixture
def case(make_model, make_rows):
    """A model over seven fields, and the context of its rows; trained a little, so that no weight is what it began."""

    def make(hidden: tuple[int, ...] = (16, 8), layout: Layout = FIVE, name: str = "dnn") -> tuple[Ranker, Context]:
        context = Context(make_rows(layout, 400), make_rows(layout, 300, seed=1))
        more = {"second_hidden": (8,)} if name == "finalmlp" else {}
        config = as_config("model", {"name": name, "embedding_dim": 8, "hidden": hidden, "embedding_std": 0.5, **more})
        model = make_model(config, layout)
        fit(model, context.train, context.valid, Training(epochs=1, batch_size=100, learning_rate=0.01), seed=1)
        return model.eval(), context

    return make


@pytest.mark.parametrize("tables", TABLES)
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("order", ["before", "after"])
def test_scores_of_the_artifact_are_equal_to_1e_5(steps, tables, order, case, tmp_path) -> None:
    model, context = case()
    plain, _ = compress(model, TABLES[tables], context)
    both = [*STEPS[steps], *TABLES[tables]] if order == "before" else [*TABLES[tables], *STEPS[steps]]
    small, records = compress(model, both, context)
    assert all(record["touched"] for record in records)
    graph_of(plain, tmp_path / "plain.onnx")
    graph_of(small, tmp_path / "small.onnx")
    given = (context.valid.ids, context.valid.numbers)
    expected = run(tmp_path / "plain.onnx", *given)
    assert expected.std() > 0.05
    np.testing.assert_allclose(run(tmp_path / "small.onnx", *given), expected, rtol=0, atol=1e-5)
    with torch.no_grad():
        np.testing.assert_allclose(pack(small)(*given).numpy(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("steps", STEPS)
def test_a_quantised_model_that_was_retrained_ships_what_it_scores(steps, case, tmp_path) -> None:
    model, context = case()
    quantised = [{"name": "quantize-tables", "bits": 4}, "quantize-dense"]
    small, _ = compress(model, [*STEPS[steps], *quantised], context)
    fit(small, context.train, context.valid, Training(epochs=1, batch_size=100, learning_rate=0.01), seed=1)
    operators = graph_of(small.eval(), tmp_path / "model.onnx")
    given = (context.valid.ids, context.valid.numbers)
    with torch.no_grad():
        expected = small(*given).numpy()
    assert np.abs(run(tmp_path / "model.onnx", *given) - expected).max() < 0.02 * expected.std()
    assert operators.get("Gemm", 0) == ("join" in steps)  # the row numbers; no layer works on floats
    assert operators["QLinearConv"] == (1 if "fold" in steps else 2)


def test_joined_integer_models_give_the_same_bits(case, tmp_path) -> None:
    model, context = case()
    quantised, _ = compress(model, [{"name": "quantize-tables", "bits": 4}, "quantize-dense"], context)
    joined, _ = compress(quantised, STEPS["join"], context)
    for limit in (1 << 20, 0):  # unpacked at load, and by the row
        graph_of(quantised, tmp_path / "one.onnx", unpack_limit=limit)
        graph_of(joined, tmp_path / "other.onnx", unpack_limit=limit)
        found = [run(tmp_path / f"{name}.onnx", context.valid.ids, context.valid.numbers) for name in ("one", "other")]
        np.testing.assert_array_equal(*found)


def test_five_fields_become_one_of_588_rows(case, tmp_path) -> None:
    model, context = case()
    small, (record,) = compress(model, STEPS["join"], context)
    assert small.embedding.joined == ((1, 6),)
    assert record["facts"] == {"lookups_saved": 4}
    taken = 588 * 5 * 8 * 4
    assert record["touched"] == [
        "embedding: daytime x weekday x weekend x home x cost, 588 rows, "
        f"{taken:,} bytes of memory and none of the file"
    ]
    assert [each["name"] for each in record["skipped"]] == ["embedding.user", "embedding.city"]
    before, after = (graph_of(one, tmp_path / f"{n}.onnx") for n, one in enumerate((model, small)))
    assert (before["Gather"], after["Gather"]) == (1, 3)
    stored = [onnx.load(tmp_path / f"{n}.onnx").ByteSize() for n in (0, 1)]
    assert stored[1] - stored[0] < 2500


def test_every_combination_of_joined_ids_is_its_own_row(case, tmp_path) -> None:
    layout = Layout(("a", "b", "c"), (3, 4, 2), (1, 1, 1))
    model, context = case(layout=layout)
    ids = torch.cartesian_prod(*(torch.arange(size, dtype=torch.int32) for size in layout.sizes))
    for name, steps in STEPS.items():
        small, _ = compress(model, steps, context)
        assert small.embedding.joined == (((0, 3),) if "join" in name else ())
        graph_of(small, tmp_path / "model.onnx")
        with torch.no_grad():
            expected = model(ids, torch.zeros(len(ids), 0)).numpy()
        found = run(tmp_path / "model.onnx", ids, torch.zeros(len(ids), 0))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        assert len(np.unique(expected.round(6))) == 24


def test_a_folded_layer_multiplies_nothing(case, tmp_path) -> None:
    model, context = case(hidden=(16,))
    plain, folded = tmp_path / "plain.onnx", tmp_path / "folded.onnx"
    before = graph_of(model, plain)
    small, (record,) = compress(model, ["fold-first-layer"], context)
    after = graph_of(small, folded)
    assert (before["FusedGemm"], before["Gemm"]) == (1, 1)
    assert "FusedGemm" not in after
    assert after["Gemm"] == 1  # the last layer
    assert after["MatMul"] == 1  # ones: the sum
    assert record["touched"] == [f"mlp.linears.0.lookups: {9521 * 16 * 4:,} bytes of memory and none of the file"]
    assert folded.stat().st_size - plain.stat().st_size < 3500


def test_sequences_and_numbers_stay_beside_what_is_joined_and_folded(make_model, context, tmp_path) -> None:
    model = make_model(DNN(embedding_dim=4, hidden=(6, 5), embedding_std=0.5))
    small, records = compress(model, STEPS["join, fold"], context)
    assert small.embedding.joined == ((0, 2),)
    assert {"name": "embedding.tags", "reason": "is a sequence: a row has several of its ids"} in records[0]["skipped"]
    given = (context.valid.ids, context.valid.numbers)
    for name, one in (("plain", model), ("small", small)):
        graph_of(one, tmp_path / f"{name}.onnx")
    np.testing.assert_allclose(
        run(tmp_path / "small.onnx", *given), run(tmp_path / "plain.onnx", *given), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("name", ["dcnv2", "deepfm", "dlrm", "finalmlp"])
def test_joins_serve_every_architecture_and_folds_only_those_that_read_rows_once(name, case, tmp_path) -> None:
    model, context = case(name=name)
    given = (context.valid.ids, context.valid.numbers)
    joined, _ = compress(model, STEPS["join"], context)
    for label, one in (("plain", model), ("joined", joined)):
        graph_of(one, tmp_path / f"{label}.onnx")
    np.testing.assert_allclose(
        run(tmp_path / "joined.onnx", *given), run(tmp_path / "plain.onnx", *given), rtol=0, atol=1e-5
    )
    folded, (record,) = compress(model, ["fold-first-layer"], context)
    assert record["touched"] == []
    reasons = {each["reason"] for each in record["skipped"]}
    assert reasons <= {
        "is not all that reads the vectors of a row: they would be looked up beside its sums",
        "none reads the row alone: there is no first layer to fold",
    }
    with torch.no_grad():
        assert torch.equal(folded(*given), model(*given))


@pytest.mark.parametrize(
    ("hidden", "before", "settings", "why"),
    [
        ((8 * LONGEST + 8, 8), [], {}, f"has {8 * LONGEST + 8} outputs, rows have 8 numbers"),
        ((16, 8), [], {"budget": 1000}, "would take 609,344 bytes of memory, and the budget is 1,000"),
        ((16, 8), [{"name": "quantize-tables", "bits": 4}, "quantize-dense"], {}, "works on integers"),
    ],
)
def test_a_layer_stays_where_folding_does_not_pay(hidden, before, settings, why, case) -> None:
    model, context = case(hidden=hidden)
    small, records = compress(model, [*before, {"name": "fold-first-layer", **settings}], context)
    assert records[-1]["touched"] == []
    assert why in records[-1]["skipped"][0]["reason"]
    assert not any(getattr(module, "folded", False) for module in small.modules())


def test_a_folded_layer_is_not_made_integer_and_the_next_ones_are(case) -> None:
    model, context = case()
    _, records = compress(model, ["fold-first-layer", "quantize-dense"], context)
    assert records[1]["touched"] == ["mlp.linears.1", "out"]
    assert records[1]["skipped"] == [
        {
            "name": "mlp.linears.0.lookups",
            "reason": "is folded into the tables: their rows are added, and nothing is multiplied",
        }
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"only": ["daytim"]}, "only: no table 'daytim'.*'daytime'"),
        ({"skip": ["weekdays"]}, "skip: no table 'weekdays'.*'weekday'"),
    ],
)
def test_unknown_fields_are_refused(settings: dict[str, Any], message: str, case) -> None:
    model, context = case()
    with pytest.raises(InputError, match=message):
        compress(model, [{"name": "join-fields", **settings}], context)


def test_fields_that_are_not_selected_stay(case) -> None:
    model, context = case()
    small, (record,) = compress(model, [{"name": "join-fields", "skip": ["weekend"]}], context)
    assert small.embedding.joined == ((1, 3), (4, 6))
    assert {"name": "embedding.weekend", "reason": "is not selected"} in record["skipped"]


@pytest.mark.parametrize(
    ("layout", "why"),
    [
        (Layout(("user",), (9,), (1,)), "has 1 field of one id a row"),
        (Layout(("tags",), (9,), (3,), sequences=("tags",)), "has 0 field of one id a row"),
    ],
)
def test_a_field_alone_has_nothing_to_be_joined_with(layout: Layout, why: str, case) -> None:
    model, context = case(layout=layout)
    small, (record,) = compress(model, ["join-fields"], context)
    assert record["touched"] == []
    assert why in record["skipped"][0]["reason"]
    assert small.embedding.joined == ()


@pytest.mark.parametrize("sizes", [(6000, 6000), (4000, 4000, 9_000_000), (5, 7, 4000, 4000, 900_000)])
def test_row_numbers_of_joined_fields_stay_exact_whatever_the_budget(sizes: tuple[int, ...], make_model) -> None:
    layout = Layout(tuple(f"c{n}" for n in range(len(sizes))), sizes, (1,) * len(sizes))
    model = make_model(DNN(embedding_dim=1, hidden=(4,)), layout)
    small, (record,) = compress(model, [{"name": "join-fields", "budget": "40 GB"}], no_rows(layout))
    joined = sum(prod(sizes[first:last]) for first, last in small.embedding.joined)
    assert joined + sum(sizes) < EXACT
    assert all("joined row numbers are exact below" in each["reason"] for each in record["skipped"])
    assert bool(small.embedding.joined) == (5 in sizes)


def no_rows(layout: Layout) -> Context:
    nothing = Examples(torch.zeros(0, sum(layout.widths), dtype=torch.int32), torch.zeros(0, 0), torch.zeros(0))
    return Context(nothing, nothing)


@pytest.mark.parametrize(("name", "folds"), [("dnn", True), ("dcnv2", False)])
def test_what_reads_the_vectors_is_found_without_any_rows(name: str, folds: bool, case) -> None:
    model, _ = case(name=name)
    _, (record,) = compress(model, ["fold-first-layer"], no_rows(FIVE))
    assert bool(record["touched"]) == folds
    assert any("is not all that reads" in each["reason"] for each in record["skipped"]) != folds


def test_a_layer_that_was_folded_before_fields_are_joined_is_told_of(case) -> None:
    model, context = case()
    _, records = compress(model, ["fold-first-layer", *STEPS["join"]], context)
    taken = 4 * 16 * (500 + 588 + 9000)
    assert records[1]["touched"][-1] == (
        f"mlp.linears.0.lookups: folded before, now in {taken:,} bytes of memory, whatever its budget was"
    )


def test_tables_that_share_a_budget_tell_of_their_own_share(case) -> None:
    model, context = case(name="deepfm")
    _, (record,) = compress(model, [{"name": "join-fields", "budget": 2000}], context)
    reasons = {each["reason"] for each in record["skipped"]}
    assert reasons == {"has no neighbour with which 1,000 bytes would do"}


def by_hand(sizes: list[int | None], width: int, budget: int) -> tuple[int, int]:
    """Most lookups saved, and the fewest bytes for them, over all ways to cut columns into runs."""
    columns, best = len(sizes), (0, 0)
    for count in range(columns):
        for cuts in combinations(range(1, columns), count):
            runs = list(zip((0, *cuts), (*cuts, columns), strict=True))
            joined = [sizes[first:last] for first, last in runs if last - first > 1]
            if any(None in run for run in joined):
                continue
            taken = sum(prod(run) * len(run) * width for run in joined)
            if taken <= budget:
                best = max(best, (columns - len(runs), -taken))
    return best[0], -best[1]


@pytest.mark.parametrize("seed", range(30))
def test_the_runs_are_the_best_of_all(seed: int) -> None:
    draw = np.random.default_rng(seed)
    sizes = [None if draw.random() < 0.1 else int(draw.integers(1, 30)) for _ in range(draw.integers(0, 9))]
    width, budget = int(draw.integers(1, 9)), int(draw.choice([0, 50, 500, 5000, 50_000]))
    runs = best_runs(sizes, width, budget)
    saved = sum(last - first - 1 for first, last in runs)
    taken = sum(prod(sizes[first:last]) * (last - first) * width for first, last in runs)
    assert (saved, taken) == by_hand(sizes, width, budget)
