"""Files that are not what they say are refused before anything is written."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from slimrank import InputError, compress_graph
from slimrank.graphs.reading import at_least_opset, graph_of, read_proto, tensors_of

TABLE = np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32)


def refused(path: Path, out: Path, said: str) -> None:
    with pytest.raises(InputError) as raised:
        compress_graph(path, out)
    assert said in str(raised.value), raised.value
    assert not out.exists()
    assert not list(out.parent.glob("*.partial*"))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file(share, lookup, tmp_path) -> None:
    path = lookup(TABLE)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused(path, tmp_path / "out.onnx", "truncated, or no ONNX file" if share else "no ONNX file with a graph")


def test_no_file_and_no_model(lookup, tmp_path) -> None:
    lookup(TABLE)
    refused(tmp_path / "lookups.onnx", tmp_path / "out.onnx", "no such file. Did you mean 'lookup.onnx'?")
    (tmp_path / "text.onnx").write_text("this is no model, and a long text")
    refused(tmp_path / "text.onnx", tmp_path / "out.onnx", "no ONNX file")


def test_fewer_bytes_inside_than_the_shape_says(lookup, tmp_path) -> None:
    model = onnx.load(lookup(TABLE))
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]
    onnx.save(model, tmp_path / "short.onnx")
    refused(tmp_path / "short.onnx", tmp_path / "out.onnx", "table: 3,196 bytes, its shape needs 3,200")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("missing", "'lookup.onnx.data' is not there"),
        ("short", "its data ends at byte 3,200 of a file of 1,600"),
        ("linked", "has several hard links"),
        ("above", "is outside of the model's folder"),
        ("symlink", "is outside of the model's folder"),
    ],
)
def test_data_beside_the_file(fault, said, lookup, tmp_path) -> None:
    path = lookup(TABLE, external=True)
    data = tmp_path / "lookup.onnx.data"
    other = tmp_path.parent / f"{tmp_path.name}.elsewhere"
    other.write_bytes(data.read_bytes())
    if fault == "missing":
        data.unlink()
    elif fault == "short":
        data.write_bytes(data.read_bytes()[:1600])
    elif fault == "linked":
        os.link(data, tmp_path / "other")
    elif fault == "symlink":
        data.unlink()
        data.symlink_to(other)
    else:
        model = onnx.load(path, load_external_data=False)
        model.graph.initializer[0].external_data[0].value = f"../{other.name}"
        onnx.save(model, path)
    refused(path, tmp_path / "out.onnx", said)


def test_operators_and_domains_that_are_not_known_are_left_alone(graph_file, tmp_path) -> None:
    """The runtime cannot run the graph, so no layer is calibrated; its table is compressed all the same."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Fancy", ["rows"], ["fancy"], domain="their.own", strength=3),
        helper.make_node("NotYetInvented", ["fancy"], ["new"]),
        helper.make_node("MatMul", ["new", "w"], ["y"]),
    ]
    held = {"table": TABLE, "w": np.ones((16, 64), np.float32)}
    path = graph_file(nodes, {"ids": (onnx.TensorProto.INT64, ["N"])}, ["y"], held)
    model = onnx.load(path)
    model.opset_import.append(helper.make_opsetid("their.own", 2))
    onnx.save(model, path)
    told = compress_graph(path, tmp_path / "out.onnx", data={"ids": np.arange(50)})
    assert told["steps"][0]["touched"] == ["table: 3,200 bytes to 804"]
    assert "ONNX Runtime cannot run the graph" in told["steps"][1]["skipped"][0]["reason"]
    assert told["agreement"] is None
    assert told["left"] == {"their.own::Fancy": "no step knows the operator, which stands here 1 times"}
    made = onnx.load(tmp_path / "out.onnx")
    kept = [(each.op_type, each.domain, list(each.input), list(each.output)) for each in made.graph.node[-3:]]
    assert kept == [(each.op_type, each.domain, list(each.input), list(each.output)) for each in nodes[-3:]]
    assert {each.domain: each.version for each in made.opset_import} == {"": 17, "their.own": 2}


def test_rows_that_the_graph_does_not_run_on_are_told(lookup, tmp_path) -> None:
    """An id that the table has no row for."""
    told = compress_graph(lookup(TABLE), tmp_path / "out.onnx", data={"ids": np.array([[3], [50]])})
    assert told["steps"][0]["touched"] == ["table: 3,200 bytes to 804"]
    assert told["agreement"] is None


def test_an_opset_that_lacks_an_operator_is_raised_and_no_other(lookup, run, over_noise, tmp_path) -> None:
    path = lookup(TABLE, opset=11)
    told = compress_graph(path, tmp_path / "out.onnx", ["quantize-tables"])
    assert told["opset"] == 13
    assert told["converted"].startswith("opset 11 to 13: DequantizeLinear")
    ids = {"ids": np.arange(50).reshape(-1, 1)}
    assert over_noise(run(path, ids), run(tmp_path / "out.onnx", ids)) > 40
    for opset in (13, 16, 23):
        proto = read_proto(lookup(TABLE, opset=opset))
        assert at_least_opset(proto, path) == (proto, "")


def test_constants_in_nodes_are_tables_too(graph_file, tmp_path) -> None:
    table = onnx.numpy_helper.from_array(TABLE)
    nodes = [
        helper.make_node("Constant", [], ["table"], value=table),
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
    ]
    path = graph_file(nodes, {"ids": (onnx.TensorProto.INT64, ["N"])}, ["rows"], {})
    model = graph_of(read_proto(path), path)
    assert [tensor.nbytes for tensor in tensors_of(model)] == [3200]
    told = compress_graph(path, tmp_path / "out.onnx", ["quantize-tables"])
    assert told["steps"][0]["touched"] == ["table: 3,200 bytes to 804"]
