"""What ONNX Runtime makes of a graph at load, and what must hold of it, without torch.

A graph can compute the right scores and still be slow: a table dequantised whole on every run, a layer turned back to
float, its weights dequantised on every run. All that is visible in the graph as optimised by the runtime.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from math import prod
from pathlib import Path

import onnx
import onnxruntime

DENSE = frozenset({"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"})
INTEGER = frozenset({"QGemm", "QLinearConv", "QLinearMatMul", "MatMulIntegerToFloat", "MatMulInteger"})
LOAD_LIMIT = 1 << 29  # bytes of constants that a graph may compute when it is loaded: unpacked, joined, folded tables
BESIDE = "session.model_external_initializers_file_folder_path"
UNPACKING = frozenset({"BitShift", "BitwiseAnd", "BitwiseOr", "Concat", "Slice", "Split", "Reshape", "Gather", "Where"})


def optimized_graph(model: Path | bytes, beside: Path | None = None) -> onnx.ModelProto:
    """The graph as ONNX Runtime rewrites it at load on this processor, without the content of large tensors.

    `model` is a file, or its content, whose data then lies in the folder `beside`.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "optimized.onnx"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        options.optimized_model_filepath = str(target)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
        if beside is not None:
            options.add_session_config_entry(BESIDE, str(beside))
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return onnx.load(target, load_external_data=False)


def gather_faults(graph: onnx.ModelProto) -> list[str]:
    """Arithmetic on a whole table before the rows of the batch are gathered, in a graph as the runtime optimised it.

    What works on constants alone is gone from that graph, since it was done at load. Unpacking codes is allowed,
    and so is whatever ends in bytes.
    """
    producers = {output: node for node in graph.graph.node for output in node.output}
    dynamic = _dependent(graph)
    faults = []
    for node in graph.graph.node:
        if node.op_type != "Gather" or node.input[1] not in dynamic or node.input[0] in dynamic:
            continue
        queue = [node.input[0]]
        while queue:
            before = producers.get(queue.pop())
            if before is None or (before.op_type == "Cast" and before.attribute[0].i == onnx.TensorProto.UINT8):
                continue
            if before.op_type not in UNPACKING:
                faults.append(f"{before.op_type} works on a whole table before Gather")
            elif before.op_type != "Gather":
                queue += before.input
    return faults


def integer_faults(graph: onnx.ModelProto, optimized: onnx.ModelProto) -> list[str]:
    """Layers with quantised weights that the runtime multiplies in float."""
    wanted = _dequantized_products(graph)
    found = sum(node.op_type in INTEGER for node in optimized.graph.node)
    left = _dequantized_products(optimized)
    if left or found < wanted:
        return [f"{wanted} layers have quantised weights, {found} run on integers and {left} dequantise in each run"]
    return []


def left_in_floats(optimized: onnx.ModelProto) -> set[str]:
    """Names of the matrices that are dequantised in each run to be multiplied in float."""
    sources = {node.output[0]: node.input[0] for node in optimized.graph.node if node.op_type == "DequantizeLinear"}
    products = [node for node in optimized.graph.node if node.op_type in DENSE]
    return {sources[name] for node in products for name in node.input[1:2] if name in sources}


def constant_faults(optimized: onnx.ModelProto) -> list[str]:
    """Nodes that no input reaches: work on constants that the runtime did not fold and repeats in every run."""
    dynamic = _dependent(optimized)
    nodes = Counter(n.op_type for n in optimized.graph.node if not dynamic.intersection(n.output))
    return [f"{count} x {operator} works on constants in each run" for operator, count in sorted(nodes.items())]


def memory_faults(graph: onnx.ModelProto, optimized: onnx.ModelProto, limit: int = LOAD_LIMIT) -> list[str]:
    """More than `limit` bytes of constants that the runtime computes at load, beyond those of the file."""
    added = _constant_bytes(optimized) - _constant_bytes(graph)
    return [f"loading adds {added:,} bytes to those of the file, at most {limit:,} may be"] if added > limit else []


def _constant_bytes(graph: onnx.ModelProto) -> int:
    return sum(
        prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        for tensor in graph.graph.initializer
    )


def _dequantized_products(graph: onnx.ModelProto) -> int:
    """Matrix products whose weight, the second input, is dequantised."""
    dequantized = {node.output[0] for node in graph.graph.node if node.op_type == "DequantizeLinear"}
    return sum(node.op_type in DENSE and node.input[1] in dequantized for node in graph.graph.node)


def _dependent(graph: onnx.ModelProto) -> set[str]:
    """Names of all values that depend on an input of the graph. Nodes are in topological order, as ONNX demands."""
    initializers = {tensor.name for tensor in graph.graph.initializer}
    reached = {value.name for value in graph.graph.input} - initializers
    for node in graph.graph.node:
        if reached.intersection(node.input):
            reached.update(node.output)
    return reached
