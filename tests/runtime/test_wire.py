"""What an artifact takes on the wire: held to the compressors' own libraries, file by file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import brotli
import numpy as np
import pytest
import zstandard

from slimrank.artifact import open_artifact, write_artifact
from slimrank.runtime.inspect import inspect
from slimrank.runtime.wire import SMALL, compressed_bytes, sent


@pytest.mark.parametrize("external", [False, True])
def test_all_files_and_parts_of_them(make_linear: Callable[..., Any], external: bool) -> None:
    path = make_linear(external=external).path
    found = sent(open_artifact(path))
    assert list(found) == ["wire", "wire_graph", "wire_vocabulary", "wire_brotli"]
    contents = {file.name: file.read_bytes() for file in path.iterdir()}
    by_zstd = {name: len(zstandard.ZstdCompressor(level=19).compress(each)) for name, each in contents.items()}
    graph = sum(count for name, count in by_zstd.items() if name.startswith("model.onnx"))
    assert found["wire"] == pytest.approx(sum(by_zstd.values()), abs=4 * len(contents))  # headers know sizes or not
    assert found["wire_graph"] == pytest.approx(graph, abs=8)
    assert found["wire_vocabulary"] == pytest.approx(by_zstd["vocabulary.parquet"], abs=4)
    by_brotli = sum(len(brotli.compress(each, quality=11)) for each in contents.values())
    assert found["wire_brotli"] == pytest.approx(by_brotli, abs=4 * len(contents))


def test_a_tokenizer_and_an_index_are_parts(tmp_path: Path, asked_by_tensors: Path) -> None:
    artifact = open_artifact(asked_by_tensors)
    noise = np.random.default_rng(0).bytes(3000)
    more = {"tokenizer.json": noise[:1000], "index.vectors.bin": noise[1000:], "other.bin": noise}
    write_artifact(tmp_path / "a", {**artifact.files, **more}, {"asked_by": "tensors"})
    before, found = sent(artifact), sent(open_artifact(tmp_path / "a"))
    assert before["wire_vocabulary"] == 0
    assert 1000 < found["wire_vocabulary"] < 1030
    assert 2000 < found["wire_graph"] - before["wire_graph"] < 2030
    assert found["wire"] > found["wire_graph"] + found["wire_vocabulary"] + 3000


@pytest.mark.parametrize("codec", ["zstd", "brotli"])
def test_edges(tmp_path: Path, codec: str) -> None:
    noise = np.random.default_rng(0).bytes(2 * SMALL)
    for name, content in (("empty", b""), ("noise", noise), ("zeros", bytes(1 << 20))):
        (tmp_path / name).write_bytes(content)
    assert compressed_bytes(tmp_path / "empty", codec) == 0
    assert len(noise) <= compressed_bytes(tmp_path / "noise", codec) < len(noise) + 200
    assert 0 < compressed_bytes(tmp_path / "zeros", codec) < 200


def test_large_files_are_as_small_at_the_lower_level(tmp_path: Path) -> None:
    """Codes of a table, at the level that they get and at the highest."""
    codes = np.clip(np.rint(np.random.default_rng(0).normal(size=2 * SMALL) * 3 + 8), 0, 15).astype(np.uint8)
    packed = (codes[::2] | codes[1::2] << 4).tobytes()
    (tmp_path / "codes").write_bytes(packed)
    highest = len(zstandard.ZstdCompressor(level=19).compress(packed))
    assert compressed_bytes(tmp_path / "codes", "zstd") < 1.002 * highest


def test_inspect_tells_it(make_linear: Callable[..., Any]) -> None:
    path = make_linear().path
    assert inspect(path)["sent"] == sent(open_artifact(path))


def test_an_installation_without_pyarrow_says_so(make_linear: Callable[..., Any]) -> None:
    program = (
        "import importlib.util as util; found = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'pyarrow' else found(name, *rest)\n"
        "from slimrank.runtime.inspect import inspect\n"
        f"print(inspect({str(make_linear().path)!r})['sent'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'slimrank[train]'" in done.stdout
