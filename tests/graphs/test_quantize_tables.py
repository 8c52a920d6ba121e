"""Tables of graphs in integers: codes by hand, bytes by arithmetic, the lookup of bytes first."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from slimrank import InputError, compress_graph
from slimrank.exporting.optimized import gather_faults, optimized_graph
from slimrank.graphs.ranges import dequantized
from slimrank.tables.codes import Codes

FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64


def normal(rows: int, dim: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(rows, dim)) * 0.1).astype(np.float32)


def step(**settings: object) -> dict[str, object]:
    return {"name": "quantize-tables", **settings}


@pytest.mark.parametrize("opset", [13, 17, 21, 23])
@pytest.mark.parametrize(("bits", "dim"), [(8, 6), (4, 6), (4, 5), (2, 7), (1, 16), (1, 11)])
def test_rows_are_the_scale_times_the_codes(bits, dim, opset, lookup, run, constants, tmp_path) -> None:
    table = normal(40, dim)
    compress_graph(lookup(table, opset=opset), tmp_path / "out.onnx", [step(bits=bits, range="max")])
    assert {each.version for each in onnx.load(tmp_path / "out.onnx").opset_import} == {opset}
    held = constants(tmp_path / "out.onnx")
    assert held["table_codes"].nbytes == 40 * -(-dim * bits // 8)
    assert "table" not in held
    codes = Codes.unsigned(bits, midrise=bits == 1)
    largest = max(table.max() / codes.positive, -table.min() / codes.negative)
    found = run(tmp_path / "out.onnx", {"ids": np.arange(40).reshape(-1, 1)})[:, 0]
    np.testing.assert_allclose(found, dequantized(table, np.float32(largest), codes), rtol=1e-6, atol=1e-8)
    assert gather_faults(optimized_graph(tmp_path / "out.onnx")) == []


def test_four_bits_by_hand(lookup, run, constants, tmp_path) -> None:
    """Largest 3.5 over 7 steps: steps of 0.5; codes 8 + value / 0.5, dimensions 0 and 2 in a byte, 1 and 3 in one."""
    table = np.array([[3.5, -1.0, 0.5, 0.0], [-3.5, 2.0, 1.0, -0.5]], np.float32)
    compress_graph(lookup(table), tmp_path / "out.onnx", [step(bits=4, range="max")])
    held = constants(tmp_path / "out.onnx")
    assert held["table_codes"].tolist() == [[15 + 16 * 9, 6 + 16 * 8], [1 + 16 * 10, 12 + 16 * 7]]
    assert held["table_step"] == 0.5
    assert run(tmp_path / "out.onnx", {"ids": np.array([[1], [0], [-1]])})[:, 0].tolist() == table[[1, 0, 1]].tolist()


@pytest.mark.parametrize("levels", ["midtread", "midrise"])
def test_levels(levels, lookup, run, tmp_path) -> None:
    """Of two bits: with zero -2 to 1 steps, around it -1.5 to 1.5."""
    table = np.array([[1.0, -2.0, 0.0, 0.5]], np.float32) if levels == "midtread" else None
    table = np.array([[1.5, -1.5, 0.5, -0.5]], np.float32) if table is None else table
    compress_graph(lookup(table), tmp_path / "out.onnx", [step(bits=2, range="max", levels=levels)])
    expected = [1.0, -2.0, 0.0, 0.0] if levels == "midtread" else [1.5, -1.5, 0.5, -0.5]
    assert run(tmp_path / "out.onnx", {"ids": np.zeros((1, 1), np.int64)}).ravel().tolist() == expected


@pytest.mark.parametrize(("scale", "scales"), [("table", 4), ("field", 12), ("row", 2 * 90 + 4)])
def test_what_shares_a_scale(scale, scales, lookup, run, over_noise, tmp_path) -> None:
    """Three fields, each a hundred times as large as the one before, looked up with an offset a column."""
    table = normal(90, 8)
    table[30:60] *= 100
    table[60:] *= 10_000
    path = lookup(table, starts=(0, 30, 60))
    told = compress_graph(path, tmp_path / "out.onnx", [step(bits=8, scale=scale)])
    assert told["steps"][0]["touched"] == [f"table: {90 * 8 * 4:,} bytes to {90 * 8 + scales:,}"]
    ids = np.random.default_rng(1).integers(0, 30, (50, 3))
    found, true = run(tmp_path / "out.onnx", {"ids": ids}), run(path, {"ids": ids})
    by_field = [over_noise(true[:, place], found[:, place]) for place in range(3)]
    assert by_field[2] > 35
    assert (min(by_field) > 35) == (scale != "table")


def test_a_scale_a_row_is_that_row_s_own(lookup, run, tmp_path) -> None:
    """In four bits a row of one size and a row of a thousand times as much are equally right; half-precision ratios."""
    table = np.array([[0.007, -0.004, 0.001, 0.0], [7.0, -4.0, 1.0, 0.0], [0.0] * 4], np.float32)
    compress_graph(lookup(table), tmp_path / "out.onnx", [step(bits=4, scale="row", range="max")])
    found = run(tmp_path / "out.onnx", {"ids": np.array([[0], [1], [2]])})[:, 0]
    np.testing.assert_allclose(found, table, rtol=1e-3)


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_other_floats_come_back_in_their_own_type(kind, lookup, run, over_noise, tmp_path) -> None:
    table = normal(30, 8).astype(kind)
    path = lookup(table)
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    onnx.save(model, path)
    compress_graph(path, tmp_path / "out.onnx", [step()])
    ids = {"ids": np.arange(30).reshape(-1, 1)}
    found = run(tmp_path / "out.onnx", ids)
    assert found.dtype == kind
    assert over_noise(run(path, ids), found) > 40


def test_rows_that_are_met_more_often_err_less(lookup, run, tmp_path) -> None:
    """Two bits for values of two sizes: the scale suits those that the sample rows look up."""
    table = np.concatenate([normal(50, 8), 4 * normal(50, 8, seed=1)])
    path, errors = lookup(table), {}
    for first in (0, 50):
        ids = np.random.default_rng(0).integers(first, first + 50, (4000, 1))
        compress_graph(path, tmp_path / "out.onnx", [step(bits=2)], {"ids": ids})
        found = run(tmp_path / "out.onnx", {"ids": np.arange(100).reshape(-1, 1)})[:, 0]
        errors[first] = np.square(found - table).mean(axis=1)
    assert errors[0][:50].mean() < errors[50][:50].mean()
    assert errors[50][50:].mean() < errors[0][50:].mean()


def two_tables(graph_file, first: np.ndarray, second: np.ndarray):
    nodes = [helper.make_node("Gather", [name, name[0]], [f"{name}_rows"], axis=0) for name in ("first", "second")]
    nodes.append(helper.make_node("Add", ["first_rows", "second_rows"], ["y"]))
    inputs = {"f": (INT64, ["N"]), "s": (INT64, ["N"])}
    return graph_file(nodes, inputs, ["y"], {"first": first, "second": second})


def test_a_budget_goes_where_it_spares_the_most_error(graph_file, tmp_path, constants) -> None:
    """Two tables alike but for their size: under a budget of 8 + 2 bits the large values get the 8."""
    path = two_tables(graph_file, normal(64, 16), 20 * normal(64, 16, seed=1))
    allowed = 64 * 16 * (8 + 2) // 8 + 2 * 4
    told = compress_graph(path, tmp_path / "out.onnx", [step(budget=allowed)])
    facts = told["steps"][0]["facts"]
    assert (facts["bits of first"], facts["bits of second"]) == (2, 8)
    held = constants(tmp_path / "out.onnx")
    assert (held["first_codes"].shape, held["second_codes"].shape) == ((64, 4), (64, 16))
    with pytest.raises(InputError, match="below the least possible: 264"):  # one bit each and a scale each
        compress_graph(path, tmp_path / "out.onnx", [step(budget=100)])


def test_a_selection_names_tables(graph_file, tmp_path, constants) -> None:
    path = two_tables(graph_file, normal(64, 16), normal(64, 16))
    told = compress_graph(path, tmp_path / "out.onnx", [step(only=["f*"])])
    assert "second" in constants(tmp_path / "out.onnx")
    assert {"name": "second", "reason": "is not selected"} in told["steps"][0]["skipped"]
    assert told["percent_touched"] == pytest.approx(50)
    with pytest.raises(InputError, match=r"only: no table 'third'\. Allowed: first, second"):
        compress_graph(path, tmp_path / "out.onnx", [step(only=["third"])])


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (helper.make_node("GatherND", ["table", "ids"], ["y"]), "is read by GatherND y, and not by rows"),
        (helper.make_node("Gather", ["table", "ids"], ["y"], axis=1), "is read by Gather y, and not by rows"),
        (
            helper.make_node("Hashed", ["table", "ids"], ["y"], domain="their.own"),
            "is read by their.own::Hashed y, and",
        ),
    ],
)
def test_a_table_that_is_reached_by_another_path_is_left_alone_and_named(
    node, reason, graph_file, tmp_path, constants
) -> None:
    table = normal(20, 4)
    path = graph_file([node], {"ids": (INT64, ["N", 1])}, ["y"], {"table": table})
    if node.domain:
        model = onnx.load(path)
        model.opset_import.append(helper.make_opsetid(node.domain, 1))
        onnx.save(model, path)
    told = compress_graph(path, tmp_path / "out.onnx")
    skipped = told["steps"][0]["skipped"][0]
    assert skipped["name"] == "table"
    assert skipped["reason"].startswith(reason)
    np.testing.assert_array_equal(constants(tmp_path / "out.onnx")["table"], table)


@pytest.mark.parametrize("fault", ["tied", "nan", "fed", "padding"])
def test_what_no_kind_has_an_answer_for(fault, graph_file, tmp_path, constants) -> None:
    table = normal(20, 16)
    nodes = [helper.make_node("Gather", ["table", "ids"], ["rows"])]
    output, reason, settings = "rows", "", {}
    if fault == "tied":
        nodes += [
            helper.make_node("Transpose", ["table"], ["turned"]),
            helper.make_node("MatMul", ["rows", "turned"], ["y"]),
        ]
        output, reason = "y", "is tied to Transpose turned"
    elif fault == "nan":
        table[3, 1], reason = np.nan, "holds NaN or infinity"
    elif fault == "padding":
        table[0], reason, settings = 0.0, "has rows of zeros", {"bits": 1}
    else:
        reason = "is an input of the graph as well"
    path = graph_file(nodes, {"ids": (INT64, ["N"])}, [output], {"table": table})
    if fault == "fed":
        model = onnx.load(path)
        model.graph.input.append(helper.make_tensor_value_info("table", FLOAT, [20, 16]))
        onnx.save(model, path)
    told = compress_graph(path, tmp_path / "out.onnx", [step(**settings)])
    assert told["steps"][0]["touched"] == []
    assert told["steps"][0]["skipped"][0]["reason"].startswith(reason)
    np.testing.assert_array_equal(constants(tmp_path / "out.onnx")["table"], table)


def test_settings_that_graphs_do_not_hold_are_refused(lookup, tmp_path) -> None:
    for settings, said in (({"symmetric": False}, "symmetric"), ({"rows_per_scale": 4, "scale": "row"}, "every row")):
        with pytest.raises(InputError, match=said):
            compress_graph(lookup(normal(4, 4)), tmp_path / "out.onnx", [step(**settings)])
    with pytest.raises(InputError, match="tied"):
        compress_graph(lookup(normal(4, 4)), tmp_path / "out.onnx", [step(tied=True)])


def test_a_lookup_inside_of_a_loop(graph_file, tmp_path, run, over_noise) -> None:
    """What a body reads of the graph around it is a table too."""
    table, value = normal(30, 8), helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "i"], ["row"]),
            helper.make_node("Add", ["sum_in", "row"], ["sum_out"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [value("i", INT64, []), value("go", onnx.TensorProto.BOOL, []), value("sum_in", FLOAT, [8])],
        [value("on", onnx.TensorProto.BOOL, []), value("sum_out", FLOAT, [8])],
    )
    nodes = [helper.make_node("Loop", ["count", "", "start"], ["y"], body=body)]
    held = {"table": table, "start": np.zeros(8, np.float32)}
    path = graph_file(nodes, {"count": (INT64, [])}, ["y"], held)
    told = compress_graph(path, tmp_path / "out.onnx", [step(bits=4)])
    assert told["steps"][0]["touched"] == ["table: 960 bytes to 124"]
    count = {"count": np.array(30)}
    assert over_noise(run(path, count), run(tmp_path / "out.onnx", count)) > 15


def test_tables_inside_of_branches_get_smaller_and_are_told(graph_file, tmp_path, run, over_noise) -> None:
    """Each branch has a table of its own, which nobody outside sees."""
    value, tables = helper.make_tensor_value_info, {"yes": normal(500, 16), "no": normal(500, 16, seed=1)}

    def branch(name: str) -> onnx.GraphProto:
        node = helper.make_node("Gather", [f"table_{name}", "ids"], [f"rows_{name}"])
        held = [numpy_helper.from_array(tables[name], f"table_{name}")]
        return helper.make_graph([node], name, [], [value(f"rows_{name}", FLOAT, None)], held)

    nodes = [helper.make_node("If", ["asked"], ["y"], then_branch=branch("yes"), else_branch=branch("no"))]
    path = graph_file(nodes, {"asked": (onnx.TensorProto.BOOL, []), "ids": (INT64, ["N"])}, ["y"], {})
    told = compress_graph(path, tmp_path / "out.onnx", [step()])
    assert told["steps"][0]["touched_bytes"] == 2 * 500 * 16 * 4
    assert told["percent_touched"] == told["steps"][0]["facts"]["percent_touched"] == 100
    assert told["bytes_after"] < told["bytes_before"] / 3
    for asked in (True, False):
        feeds = {"asked": np.array(asked), "ids": np.arange(500)}
        assert over_noise(run(path, feeds), run(tmp_path / "out.onnx", feeds)) > 35


def test_offsets_of_places_are_no_fields(lookup, tmp_path, run, over_noise) -> None:
    """Eight rows from each one on: rows differ in size, and no scale is of a place."""
    sizes = np.random.default_rng(1).lognormal(0, 2, (200, 1)).astype(np.float32)
    path = lookup(normal(200, 16) * sizes, range(8))
    compress_graph(path, tmp_path / "out.onnx", [step()])
    ids = {"ids": np.random.default_rng(0).integers(0, 192, (50, 1)) + np.zeros((1, 8), np.int64)}
    assert over_noise(run(path, ids), run(tmp_path / "out.onnx", ids)) > 25


def test_columns_that_read_other_fields_have_one_scale(lookup, tmp_path, run, over_noise) -> None:
    """What the sample rows ask for tells that the offsets begin no fields."""
    table = normal(100, 16) * np.repeat([1.0, 100.0], 50)[:, None].astype(np.float32)
    path, draw = lookup(table, (0, 50)), np.random.default_rng(0)
    inside, across = ({"ids": draw.integers(0, most, (300, 2))} for most in (50, 100))
    across["ids"][:, 1] %= 50
    for feeds, fields in ((inside, 2), (across, 1)):
        told = compress_graph(path, tmp_path / "out.onnx", [step()], feeds)
        nbytes = 100 * 16 + 4 * fields
        assert told["steps"][0]["touched"] == [f"table: {table.nbytes:,} bytes to {nbytes:,}"]
        assert over_noise(run(path, feeds), run(tmp_path / "out.onnx", feeds)) > 35


def test_what_an_earlier_step_made_is_left_alone(lookup, tmp_path) -> None:
    steps = [{"name": "codebook-tables", "parts": 2, "bits": 8, "entry_bits": 32}, step()]
    rows = {"ids": np.zeros((4, 1), np.int64)}
    told = compress_graph(lookup(normal(5000, 16)), tmp_path / "out.onnx", steps, rows)
    assert told["steps"][1]["touched"] == []
    assert told["steps"][1]["skipped"][0] == {"name": "table_entries", "reason": "is what an earlier step made"}
