"""What must hold of an exported graph, and of what ONNX Runtime makes of it. Every fault is found, not the first.

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

from slimrank.exporting.graph import IR_VERSION
from slimrank.tables.integer import OPSET

STANDARD = (
    "Abs Add BatchNormalization BitShift BitwiseAnd BitwiseOr Cast Clip Concat Constant ConstantOfShape Conv CumSum "
    "DequantizeLinear Div Einsum Equal Erf Exp Expand Flatten GRU Gather GatherElements GatherND Gelu Gemm Greater "
    "GreaterOrEqual Identity LayerNormalization LeakyRelu Less LessOrEqual Log MatMul Max Min Mod Mul Neg NonZero Not "
    "Or And Pow QuantizeLinear Range Reciprocal ReduceL2 ReduceMax ReduceMean ReduceMin ReduceSum Relu Reshape "
    "ScatterElements ScatterND Shape Sigmoid Slice Softmax Split Sqrt Squeeze Sub Sum Tanh Tile Transpose Unsqueeze "
    "Where"
)
OPERATORS = frozenset(STANDARD.split())
DENSE = frozenset({"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"})
INTEGER = frozenset({"QGemm", "QLinearConv", "QLinearMatMul", "MatMulIntegerToFloat", "MatMulInteger"})
LOAD_LIMIT = 1 << 29  # bytes of constants that a graph may compute when it is loaded: unpacked, joined, folded tables
UNPACKING = frozenset({"BitShift", "BitwiseAnd", "BitwiseOr", "Concat", "Slice", "Split", "Reshape", "Gather", "Where"})


class GraphError(RuntimeError):
    """The exported graph is not what it must be; the message lists every fault."""


def check_graph(path: Path, operators: frozenset[str] = OPERATORS) -> dict[str, int]:
    """How often each operator stands in the graph at `path` as ONNX Runtime has optimised it.

    Raises:
        GraphError: the graph has other operators than `operators`, another opset or IR version, a table that is not
            gathered first, a quantised layer that runs in float, or work on constants that each run repeats.
    """
    graph = onnx.load(path, load_external_data=False)
    optimized = optimized_graph(path)
    faults = [
        *standard_faults(graph, operators),
        *gather_faults(optimized),
        *integer_faults(graph, optimized),
        *constant_faults(optimized),
        *memory_faults(graph, optimized),
    ]
    if faults:
        raise GraphError(f"{path}: " + "; ".join(faults))
    return dict(Counter(node.op_type for node in optimized.graph.node))


def optimized_graph(path: Path) -> onnx.ModelProto:
    """The graph as ONNX Runtime rewrites it at load on this processor, without the content of large tensors."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "optimized.onnx"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        options.optimized_model_filepath = str(target)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return onnx.load(target, load_external_data=False)


def standard_faults(graph: onnx.ModelProto, operators: frozenset[str] = OPERATORS) -> list[str]:
    """Operators that not every runtime knows, and versions other than the pinned ones."""
    names = {f"{n.domain}::{n.op_type}" if n.domain else n.op_type for n in graph.graph.node}
    faults = [f"operator {name} is not allowed" for name in names - operators]
    opsets = {opset.domain: opset.version for opset in graph.opset_import}
    if opsets != {"": OPSET}:
        faults.append(f"opset is {opsets}, must be {OPSET} of the standard domain alone")
    if graph.ir_version != IR_VERSION:
        faults.append(f"IR version is {graph.ir_version}, must be {IR_VERSION}")
    return sorted(faults)


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
