"""ONNX in, ONNX out on a file that is larger than what a process should need: memory at the peak, bytes, seconds.

A graph of two tables and a tower is written a part at a time, its data beside it, and compressed in a child process
where torch cannot be imported. Memory is the child's high-water mark of resident pages, those of mapped files included.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

DIM, HIDDEN, AT_ONCE = 16, 64, 1_000_000
TABLES = {"item": 40_000_000, "user": 7_000_000}
SAMPLE = 4096  # rows for calibration
GOAL = {"memory_over_file": 1.5}


def onnx_stream(folder: Path) -> dict[str, Any]:
    """The graph made, compressed to int4 tables and int8 layers, and its answers compared."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return _measured(folder)
    finally:
        shutil.rmtree(folder)


def _measured(folder: Path) -> dict[str, Any]:
    model = folder / "model.onnx"
    _write(model)
    draw = np.random.default_rng(0)
    np.savez(folder / "rows.npz", **{name: draw.integers(0, rows, SAMPLE) for name, rows in TABLES.items()})
    size = sum(path.stat().st_size for path in folder.glob("model.onnx*"))
    done = subprocess.run(
        [sys.executable, "-m", "bench.onnx_stream", str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    found = json.loads(done.stdout)
    return {
        "what": f"an ONNX file with tables of {TABLES} rows x {DIM} float32 to int4, without torch",
        "goal": GOAL,
        "bytes_before": size,
        "memory_over_file": found["memory"] / size,
        "times_smaller": size / found["result"]["bytes_after"],
        **found,
    }


def _write(path: Path) -> None:
    """The graph, and its data a million rows at a time."""
    draw = np.random.default_rng(1)
    shapes = {name: (rows, DIM) for name, rows in TABLES.items()}
    tensors, at = [], 0
    with path.with_name(f"{path.name}.data").open("wb") as data:
        for name, (rows, dim) in shapes.items():
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[rows, dim])
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", f"{path.name}.data"), ("offset", at), ("length", 4 * rows * dim)):
                tensor.external_data.add(key=key, value=str(value))
            tensors.append(tensor)
            at += 4 * rows * dim
            for start in range(0, rows, AT_ONCE):
                part = draw.standard_normal((min(AT_ONCE, rows - start), dim), dtype=np.float32)
                data.write((part * np.float32(0.05)).data)
    layers = {
        "w1": (draw.normal(size=(DIM * len(TABLES), HIDDEN)) * 0.2).astype(np.float32),
        "b1": np.zeros(HIDDEN, np.float32),
        "w2": (draw.normal(size=(HIDDEN, 1)) * 0.2).astype(np.float32),
    }
    tensors += [numpy_helper.from_array(array, name) for name, array in layers.items()]
    nodes = [helper.make_node("Gather", [name, f"{name}_id"], [f"{name}_row"]) for name in TABLES]
    nodes += [
        helper.make_node("Concat", [f"{name}_row" for name in TABLES], ["row"], axis=1),
        helper.make_node("Gemm", ["row", "w1", "b1"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("MatMul", ["active", "w2"], ["score"]),
    ]
    inputs = [helper.make_tensor_value_info(f"{name}_id", TensorProto.INT64, ["N"]) for name in TABLES]
    outputs = [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N", 1])]
    graph = helper.make_graph(nodes, "large", inputs, outputs, tensors)
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )


def _child(folder: Path) -> dict[str, Any]:
    """The compression, in this process, and its high-water mark of memory in bytes."""
    sys.modules["torch"] = None  # type: ignore[assignment]
    from slimrank.graphs.compress import compress_graph

    with np.load(folder / "rows.npz") as held:
        rows = {f"{name}_id": held[name] for name in TABLES}
    start, used = time.perf_counter(), time.process_time()
    steps = [{"name": "quantize-tables", "bits": 4}, {"name": "quantize-dense"}]
    result = compress_graph(folder / "model.onnx", folder / "small.onnx", steps, rows)
    seconds, processor = time.perf_counter() - start, time.process_time() - used
    lines = Path("/proc/self/status").read_text().splitlines()
    memory = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    return {"seconds": seconds, "processor_seconds": processor, "memory": memory, "result": result}


if __name__ == "__main__":
    print(json.dumps(_child(Path(sys.argv[1]))))
