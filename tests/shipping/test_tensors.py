"""Where a graph keeps its numbers: held to onnx, and whatever is no graph is refused."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from slimrank.config import InputError
from slimrank.shipping.tensors import SMALLEST, ranges_of, skeleton_of, whole_of

TABLES = {
    "bytes": np.arange(48, dtype=np.uint8).reshape(6, 8),
    "floats": np.linspace(-1, 1, 40, dtype=np.float32).reshape(10, 4),
    "halves": np.linspace(-1, 1, 9, dtype=np.float16),
    "scalar": np.array(3, np.int64),
    "long": np.arange(5, dtype=np.int64),
}


@pytest.mark.parametrize("external", [False, True])
def test_ranges_are_those_of_onnx(made: Callable[..., Path], external: bool) -> None:
    folder = made("a", TABLES, external=external)
    graph = (folder / "model.onnx").read_bytes()
    found = ranges_of(graph)
    expected = {name: table for name, table in TABLES.items() if table.nbytes >= SMALLEST}
    stored = onnx.load(folder / "model.onnx", load_external_data=False).graph.initializer
    beside = {each.name for each in stored if each.data_location == onnx.TensorProto.EXTERNAL}
    assert bool(beside) == external
    assert {each.name for each in found} == set(expected)
    for each in found:
        table = expected[each.name]
        assert each.file == ("model.onnx.data" if each.name in beside else "")
        assert (each.shape, each.item_bytes, each.length) == (table.shape, table.itemsize, table.nbytes)
        content = (folder / (each.file or "model.onnx")).read_bytes()
        assert content[each.start : each.start + each.length] == table.tobytes()


def test_a_skeleton_says_where_its_numbers_were(made: Callable[..., Path]) -> None:
    graph = (made("a", TABLES) / "model.onnx").read_bytes()
    ranges = ranges_of(graph)
    skeleton = skeleton_of(graph, ranges)
    assert len(skeleton) == len(graph) - sum(each.length for each in ranges)
    assert ranges_of(skeleton, cut=True) == ranges
    numbers = [graph[each.start : each.start + each.length] for each in ranges]
    assert whole_of(skeleton, ranges, numbers) == graph


def test_numbers_that_are_no_raw_bytes_stay_in_the_skeleton() -> None:
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []))
    model.graph.initializer.append(onnx.helper.make_tensor("typed", onnx.TensorProto.FLOAT, [20], [1.5] * 20))
    model.graph.initializer.append(numpy_helper.from_array(np.arange(20.0), "raw"))
    assert [each.name for each in ranges_of(model.SerializeToString())] == ["raw"]


def test_every_cut_and_what_is_no_graph_is_refused_or_has_no_numbers(made: Callable[..., Path]) -> None:
    graph = (made("a", TABLES) / "model.onnx").read_bytes()
    whole = ranges_of(graph)
    for end in range(len(graph)):
        with suppress(InputError):
            assert ranges_of(graph[:end]) in ([], whole)  # cut between two fields, before the graph or behind it
    for content in (b"\xff" * 40, b"\x3a\xff\xff\xff\xff\x0f", b"\x0b", b"PAR1" * 9):
        with pytest.raises(InputError, match="not a graph"):
            ranges_of(content)


def test_constants_that_share_their_bytes_are_refused() -> None:
    def beside(name: str, offset: int) -> onnx.TensorProto:
        tensor = onnx.TensorProto(name=name, data_type=1, dims=[16], data_location=1)
        for key, value in (("location", "model.onnx.data"), ("offset", offset), ("length", 64)):
            tensor.external_data.add(key=key, value=str(value))
        return tensor

    model = onnx.ModelProto()
    model.graph.initializer.extend([beside("a", 0), beside("b", 64)])
    assert [each.start for each in ranges_of(model.SerializeToString())] == [0, 64]
    for offset in (32, -64):
        wrong = onnx.ModelProto()
        wrong.CopyFrom(model)
        wrong.graph.initializer.append(beside("c", offset))
        with pytest.raises(InputError, match="share their bytes, or one begins before its file"):
            ranges_of(wrong.SerializeToString())


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_no_bytes_end_in_anything_else(content: bytes) -> None:
    for cut in (False, True):
        with suppress(InputError):
            ranges_of(content, cut=cut)
