"""Files written whole or not at all, data beside the graph where it was beside it, and never whole in memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from slimrank import InputError, compress_graph
from slimrank.graphs import chunks
from slimrank.graphs.chunks import Rows, StreamedTensor
from slimrank.graphs.reading import graph_of, read_proto
from slimrank.graphs.writing import write_graph

TABLE = np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32)
IDS = {"ids": np.arange(300).reshape(-1, 1)}


def test_data_beside_the_graph_stays_beside_it_and_is_mapped(lookup, run, tmp_path) -> None:
    path = lookup(TABLE, external=True)
    out = tmp_path / "new" / "out.onnx"
    told = compress_graph(path, out, ["quantize-tables"])
    assert set(told["files"]) == {"out.onnx", "out.onnx.data"}
    assert told["bytes_before"] == path.stat().st_size + TABLE.nbytes
    assert told["files"]["out.onnx.data"] == 300 * 16
    held = {each.name: each for each in onnx.load(out, load_external_data=False).graph.initializer}
    assert held["table_codes"].data_location == onnx.TensorProto.EXTERNAL
    inside = tmp_path / "inside.onnx"
    compress_graph(lookup(TABLE), inside, ["quantize-tables"])
    assert not inside.with_name("inside.onnx.data").exists()
    np.testing.assert_array_equal(run(out, IDS), run(inside, IDS))


@pytest.mark.parametrize("settings", [{"bits": 4}, {"bits": 4, "scale": "row"}, {"bits": 2, "range": "max"}])
def test_a_chunk_at_a_time_gives_the_same_bytes(settings, lookup, run, monkeypatch, tmp_path) -> None:
    path = lookup(TABLE, external=True)
    steps = [{"name": "quantize-tables", **settings}]
    compress_graph(path, tmp_path / "whole.onnx", steps)
    monkeypatch.setattr(chunks, "CHUNK", 7 * 16)
    compress_graph(path, tmp_path / "parts.onnx", steps)
    data = [(tmp_path / f"{name}.onnx.data").read_bytes() for name in ("whole", "parts")]
    assert data[0] == data[1]


def test_no_more_rows_than_a_chunk_are_asked_for(lookup, monkeypatch, tmp_path) -> None:
    """Of 300 rows, 7 at a time: the 43 chunks of a look at the content and of the codes; the sample apart."""
    asked, read = list[int](), Rows.read

    def counting(self: Rows, start: int, stop: int) -> np.ndarray:
        asked.append(stop - start)
        return read(self, start, stop)

    monkeypatch.setattr(Rows, "read", counting)
    monkeypatch.setattr(chunks, "CHUNK", 7 * 16)
    compress_graph(lookup(TABLE, external=True), tmp_path / "out.onnx", ["quantize-tables"])
    assert max(asked) == 7
    assert sum(asked) == 2 * 300


def test_a_streamed_tensor_is_written_part_by_part(tmp_path) -> None:
    array = np.arange(12, dtype=np.uint8).reshape(6, 2)
    tensor = StreamedTensor("t", ir.DataType.UINT8, (6, 2), lambda: iter(np.split(array, 3)))
    with (tmp_path / "t").open("wb") as file:
        tensor.tofile(file)
    assert (tmp_path / "t").read_bytes() == tensor.tobytes() == array.tobytes()
    np.testing.assert_array_equal(tensor.numpy(), array)
    assert tensor.nbytes == 12


def test_names_axes_and_metadata_stay(graph_file, tmp_path) -> None:
    node = onnx.helper.make_node("Gather", ["table", "ids"], ["rows"], name="look")
    path = graph_file([node], {"ids": (onnx.TensorProto.INT64, ["batch", "K"])}, ["rows"], {"table": TABLE})
    compress_graph(path, tmp_path / "out.onnx")
    before, after = onnx.load(path), onnx.load(tmp_path / "out.onnx")
    assert list(after.graph.input) == list(before.graph.input)
    assert list(after.graph.output) == list(before.graph.output)
    assert list(after.metadata_props) == list(before.metadata_props)
    assert (after.ir_version, after.graph.name, after.producer_name) == (8, "made", before.producer_name)


@pytest.mark.parametrize("name", ["lookup.onnx", "lookup.onnx.data", "./lookup.onnx"])
def test_what_is_read_is_not_written_over(name, lookup, tmp_path) -> None:
    path = lookup(TABLE, external=True)
    before = path.read_bytes()
    with pytest.raises(InputError, match="is what the graph is read from: choose another"):
        compress_graph(path, tmp_path / name)
    assert path.read_bytes() == before


def test_an_old_model_is_replaced_with_its_data(lookup, run, tmp_path) -> None:
    path, out = lookup(TABLE, external=True), tmp_path / "out.onnx"
    for bits in (8, 2):
        compress_graph(path, out, [{"name": "quantize-tables", "bits": bits}])
        assert out.with_name("out.onnx.data").stat().st_size == 300 * 16 * bits // 8
        assert run(out, IDS).shape == (300, 1, 16)


def test_what_does_not_pass_is_not_published(lookup, tmp_path) -> None:
    path, out = lookup(TABLE, external=True), tmp_path / "out.onnx"
    compress_graph(path, out, ["quantize-tables"])
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}

    def refuse(made: Path) -> None:
        assert made.exists()
        raise InputError("no")

    with pytest.raises(InputError, match="no"):
        write_graph(graph_of(read_proto(path), path), out, refuse, beside=True)
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == before


def test_a_full_disk_is_one_clear_error(lookup, monkeypatch, tmp_path) -> None:
    def full(self: StreamedTensor, file: object) -> None:
        raise OSError(28, "No space left on device")

    path = lookup(TABLE, external=True)
    monkeypatch.setattr(StreamedTensor, "tofile", full)
    with pytest.raises(InputError, match=r"out\.onnx: could not be written: No space left on device"):
        compress_graph(path, tmp_path / "out.onnx", ["quantize-tables"])
    assert sorted(each.name for each in tmp_path.iterdir()) == ["lookup.onnx", "lookup.onnx.data"]


def test_killed_in_the_middle_of_writing_it_leaves_the_old_model(lookup, run, tmp_path) -> None:
    """SIGKILL while the codes are written; the next run tidies up."""
    path, out = lookup(TABLE, external=True), tmp_path / "out.onnx"
    compress_graph(path, out, ["quantize-tables"])
    before = out.read_bytes(), out.with_name("out.onnx.data").read_bytes()
    program = (
        "import sys, time\nfrom slimrank.graphs.chunks import StreamedTensor\nfrom slimrank import compress_graph\n"
        "def stuck(self, file):\n    file.write(b'half')\n    file.flush()\n    print('writing', flush=True)\n"
        "    time.sleep(600)\n"
        "StreamedTensor.tofile = stuck\n"
        f"compress_graph({str(path)!r}, {str(out)!r}, [{{'name': 'quantize-tables', 'bits': 2}}])\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "writing\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert (out.read_bytes(), out.with_name("out.onnx.data").read_bytes()) == before
    assert len(list(tmp_path.glob("out.onnx.partial-*"))) == 1
    compress_graph(path, out, [{"name": "quantize-tables", "bits": 4}])
    assert list(tmp_path.glob("out.onnx.partial-*")) == []
    assert run(out, IDS).shape == (300, 1, 16)
