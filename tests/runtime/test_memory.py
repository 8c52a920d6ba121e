"""What loading takes at its peak: no more than 1.2 times what stays, in a process of its own and by arithmetic."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import polars
import pytest
from onnx import TensorProto, helper, numpy_helper

from slimrank.artifact import write_artifact
from slimrank.data.encoding import Encoding
from slimrank.data.schema import Field, Schema
from slimrank.data.vocabulary import Vocabulary
from slimrank.shipping.packing import pack

MOST = 1.2  # of what is resident
TABLE = 64 << 20
PROGRAM = """
import json, re, sys
from pathlib import Path
from slimrank import runtime
from slimrank.evaluation.resident import resident_now, spread_rows, use_libraries
from slimrank.shipping.packing import unpack

artifact, packed = sys.argv[1], sys.argv[2:]
use_libraries()
before = resident_now()


def peak():  # since it was asked last
    found = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    Path("/proc/self/clear_refs").write_text("5")
    return found - before


peak()
for file in packed:
    unpack(Path(file), Path(artifact))
unpacking = peak()
model = runtime.load(artifact, threads=1)
loading = peak()
model.score(spread_rows(model.encoding, 1 << 17))
print(json.dumps({"unpacking": unpacking, "loading": loading, "resident": resident_now() - before}))
"""


def told(*words: object) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, words)], capture_output=True, text=True, check=False
    )
    if "clear_refs" in done.stderr:
        pytest.skip("this system does not tell the peak of a process")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def artifact_of_one_table(path: Path, table: np.ndarray) -> Path:
    """A logit for each row of uint8: their sum."""
    field = Field(name="user", kind="categorical", encoding="hash", num_ids=len(table) - 1)
    encoding = Encoding.fit(Schema(fields=(field,)), polars.DataFrame({"user": [1]}))
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Cast", ["rows"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["floats", "axes"], ["logit"], keepdims=0),
    ]
    ends = [helper.make_tensor_value_info("ids", TensorProto.INT32, ["N", 1])]
    out = [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["N"])]
    constants = {"table": table, "axes": np.array([1, 2], np.int64)}
    graph = helper.make_graph(nodes, "g", ends, out, [numpy_helper.from_array(v, k) for k, v in constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    manifest = {"graph": {"tensors": [], "operators": {node.op_type: 1 for node in nodes}}}
    with TemporaryDirectory() as work:
        encoding.save(Path(work))
        onnx.save(model, Path(work) / "model.onnx", save_as_external_data=True, location="model.onnx.data")
        write_artifact(path, {**{each.name: each for each in Path(work).iterdir()}, "README.md": b"#"}, manifest)
    return path


def test_a_table_beside_its_graph_is_mapped_and_not_copied(tmp_path: Path) -> None:
    """Whether it was there, or is unpacked by the process that loads it, piece by piece."""
    rows = TABLE // 16
    path = artifact_of_one_table(tmp_path / "a", np.random.default_rng(0).integers(0, 256, (rows, 16), np.uint8))
    found = told(path)
    assert TABLE < found["resident"] < MOST * (TABLE + (1 << 20) * 16)  # every page of it was touched
    assert found["loading"] <= MOST * found["resident"]
    assert found["loading"] < TABLE / 4  # and none of it is read before
    pack(path, tmp_path / "a.slim")
    found = told(tmp_path / "b", tmp_path / "a.slim")
    assert found["unpacking"] < TABLE / 2
    assert found["loading"] < TABLE / 2


@pytest.mark.parametrize("apart", [1, 1 << 40])
def test_a_vocabulary_of_integers_takes_little_more_than_it_keeps(apart: int) -> None:
    """Values of 8 bytes; beside them a table of 4 where they lie close together, else values and codes in order."""
    count = 1_000_000
    values = polars.Series("value", np.random.default_rng(0).permutation(count) * apart // (apart // 1024 or 1))
    kept = 8 * count + (4 * count if apart == 1 else 12 * count)
    tracemalloc.start()
    try:
        vocabulary = Vocabulary(values)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert vocabulary.size == count + 1
    assert 8 * count + peak <= MOST * kept
