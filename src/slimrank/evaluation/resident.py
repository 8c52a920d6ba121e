"""A child process that measures what one artifact adds to memory: `python -m slimrank.evaluation.resident ARTIFACT`.

A process of its own, because a parent that trained a model holds memory that it would give back for this one, and
the difference would come out too small. The libraries are put to use before the first look: onnxruntime and polars
take some 30 MB when they first open a session and read a file, whatever is in it, which would drown a small model.
Prints one line of JSON. Left out: memory of the vocabulary's raw values while a frame is encoded.
"""

from __future__ import annotations

import gc
import json
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from slimrank import runtime
from slimrank.artifact import open_artifact
from slimrank.data.encoding import Encoding, Inputs
from slimrank.data.schema import Field, Schema
from slimrank.runtime.opened import answers_with_items

ROWS = 256
QUERIES = 10  # and the first items of each, as a request asks for


def resident_now() -> int:
    """Bytes of this process in memory, private and shared: Rss of smaps_rollup on Linux, else what psutil says."""
    gc.collect()
    rollup = Path("/proc/self/smaps_rollup")
    if rollup.is_file():
        found = re.search(r"^Rss:\s+(\d+) kB", rollup.read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    import psutil

    return int(psutil.Process().memory_info().rss)


def spread_rows(encoding: Encoding, rows: int = ROWS) -> Inputs:
    """Valid rows that touch every table from its first row to its last, as evenly as `rows` rows can."""
    sizes = np.array([encoding.sizes[name] for name in encoding.schema.columns], dtype=np.int64)
    ids = (np.arange(rows)[:, None] * sizes[None, :] // rows).astype(np.int32)
    return Inputs(ids, np.zeros((rows, len(encoding.schema.numeric)), dtype=np.float32))


def use_libraries() -> None:
    """Score a row with a model of one number in onnxruntime, and read an encoding of one value with polars."""
    import onnxruntime
    import polars
    from onnx import TensorProto, helper

    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1]) for name in ("x", "y")]
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1, 1], [1.0])
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "one", ports[:1], ports[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    session.run(None, {"x": np.ones((1, 1), np.float32)})
    fields = (Field(name="id", kind="categorical"), Field(name="number", kind="numeric"))
    frame = polars.DataFrame({"id": ["a"], "number": [1.0]})
    with TemporaryDirectory() as folder:
        Encoding.fit(Schema(fields=fields), frame).save(Path(folder))
        Encoding.load(Path(folder))


def answer(path: Path) -> None:
    """Load the artifact and ask it: for scores of rows, for the first items of queries, or for vectors."""
    if not answers_with_items(open_artifact(path)):
        model = runtime.load(path, threads=1)
        model.score(spread_rows(model.encoding))
        return
    finder = runtime.load_retriever(path, threads=1)
    queries = spread_rows(finder.encoding, QUERIES)
    if finder.encoding.schema.catalogue is None:
        finder.vectors(queries)
    else:
        finder.search(queries, QUERIES)


def main(path: Path) -> None:
    """Prints the memory before, after, and the difference, in bytes."""
    use_libraries()
    before = resident_now()
    answer(path)
    after = resident_now()
    print(json.dumps({"resident": max(0, after - before), "before": before, "after": after}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
