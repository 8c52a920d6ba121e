"""Artifacts of known content: tables of any type over a vocabulary that grows, their numbers in the graph or beside."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import polars
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from slimrank.artifact import write_artifact
from slimrank.data.encoding import Encoding
from slimrank.data.schema import Field, Schema

FIELDS = (Field(name="user", kind="categorical"), Field(name="seen", kind="sequence", max_length=3))


def encoding_of(users: list[Any], seen: list[Any]) -> Encoding:
    """An encoding whose vocabularies are these values, in this order."""
    frame = polars.DataFrame({"user": [users[0]], "seen": [[seen[0]]]})
    fitted = Encoding.fit(Schema(fields=FIELDS), frame)
    kinds = {name: type(codec) for name, codec in fitted.codecs.items()}
    codecs = {"user": kinds["user"](polars.Series("value", users)), "seen": kinds["seen"](polars.Series("value", seen))}
    return Encoding(fitted.schema, codecs, fitted.scales, {})


@pytest.fixture(scope="session")
def encodings() -> Callable[..., Encoding]:
    """Gives an encoding of these values of `user` (integers) and `seen` (text)."""
    return encoding_of


def graph_of(tables: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
    """A graph that holds these constants, and looks one up."""
    nodes = [helper.make_node("Gather", [next(iter(tables)), "ids"], ["rows"])]
    ends = [helper.make_tensor_value_info("ids", TensorProto.INT32, ["N"])]
    out = [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["N", None])]
    graph = helper.make_graph(
        nodes, "g", ends, out, [numpy_helper.from_array(each, name) for name, each in tables.items()]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Path]:
    """Writes an artifact: tables by name, and an encoding; `external` puts numbers of 64 bytes and more beside it."""

    def make(
        name: str,
        tables: Mapping[str, NDArray[Any]],
        encoding: Encoding | None = None,
        *,
        external: bool = False,
        location: str = "model.onnx.data",
        index: Mapping[str, NDArray[Any]] | None = None,
        **manifest: Any,
    ) -> Path:
        work = tmp_path / f"work-{name}"
        work.mkdir()
        where = {"save_as_external_data": True, "location": location, "size_threshold": 64} if external else {}
        onnx.save(graph_of(tables), work / "model.onnx", **where)
        files: dict[str, Path | bytes] = {path.name: path for path in work.iterdir()}
        arrays = index or {}
        files |= {f"index.{key}.bin": array.tobytes() for key, array in arrays.items()}
        files |= (encoding or encoding_of([1, 2], ["a"])).files()
        said = {key: {"dtype": array.dtype.name, "shape": list(array.shape)} for key, array in arrays.items()}
        content = {"index": {"arrays": said}, **manifest} if arrays else manifest
        write_artifact(tmp_path / name, {**files, "README.md": f"# {name}\n".encode()}, content)
        shutil.rmtree(work)
        return tmp_path / name

    return make


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real filesystem of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    done = mount and subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True)
    if not done or done.returncode:
        pytest.skip("no right to mount a small filesystem")
    yield disk
    subprocess.run(["umount", disk], check=True)


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file in a directory."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="session")
def content() -> Callable[[Path], dict[str, bytes]]:
    """Gives the bytes of every file in a directory."""
    return contents
