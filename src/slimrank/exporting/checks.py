"""What must hold of an exported graph, and of what ONNX Runtime makes of it. Every fault is found, not the first."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx

from slimrank.exporting.graph import IR_VERSION
from slimrank.exporting.optimized import (
    constant_faults,
    gather_faults,
    integer_faults,
    memory_faults,
    optimized_graph,
)
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
