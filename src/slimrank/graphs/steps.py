"""What a step on a graph is given and what it must tell, and the list of them applied to one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir
from onnx_ir.passes import common

from slimrank.compression.record import Told
from slimrank.config import Config, as_config, runner
from slimrank.exporting.sparse import sparse_bytes
from slimrank.graphs.attributes import holders
from slimrank.graphs.calibration import Calibration
from slimrank.graphs.chunks import FLOATS

KIND = "graph step"


@dataclass
class Context(Told):
    """What steps may look at, and the record of what they did.

    `rows` are for calibration, None where none were given. `floats` are layers that have to stay as they are, with the
    reason. `sparse` are the constants that are stored sparse where that is smaller, `nibbles` those that are stored two
    a byte, and `layers` the integers that steps put in, each with the name of the layer that they are of. `given` are
    the constants that the graph came with.
    """

    rows: Calibration | None = None
    floats: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    sparse: set[str] = field(default_factory=set)
    nibbles: set[str] = field(default_factory=set, kw_only=True)
    layers: dict[str, str] = field(default_factory=dict)
    given: frozenset[str] = frozenset()
    reached: dict[str, int] = field(default_factory=dict, kw_only=True)
    ever: set[str] = field(default_factory=set, kw_only=True)

    def change(self, name: str, what: str, nbytes: int) -> None:
        """Note what was done to the constant of that name, of `nbytes` bytes as it was."""
        self.touch(f"{name}: {what}")
        self.reached[name] = nbytes
        self.ever.add(name)


def apply(
    model: ir.Model, steps: Sequence[Config | Mapping[str, Any] | str], context: Context
) -> Iterator[dict[str, Any]]:
    """Apply `steps` in order to `model`, in place; for each its record, as `compression.steps.compress` gives it.

    Among its facts is `percent_touched`: of the bytes of all constants before the step, zeros counting as others.
    """
    for step in [as_config(KIND, step) for step in steps]:
        context.forget()
        context.reached = {}
        before, whole = bytes_of(model, context), bytes_of(model, Context())
        runner(KIND, step)(model, step, context)
        common.RemoveUnusedNodesPass()(model)
        _drop_unread(model)
        context.touched_bytes = sum(context.reached.values())
        context.note(percent_touched=100 * context.touched_bytes / max(1, whole))
        yield context.record(step, before, bytes_of(model, context))


def _drop_unread(model: ir.Model) -> None:
    """Constants of subgraphs that nothing reads any more go: the pass looks at those of the main graph."""
    for graph in model.graphs():
        for name, value in list(graph.initializers.items()):
            if not value.uses() and not fed_or_answered(value):
                del graph.initializers[name]


def bytes_of(model: ir.Model, context: Context) -> int:
    """Bytes of the constants of a graph, as they will be stored, and of lists in attributes of foreign operators."""
    total = sum(nbytes for _, nbytes in holders(model))
    for graph in model.graphs():
        for name, value in graph.initializers.items():
            if value.const_value is not None:
                total += _stored(name, value.const_value, context)
    return total


def _stored(name: str, tensor: ir.TensorProtocol, context: Context) -> int:
    """Bytes of a constant: two numbers a byte or sparse, where that was asked for and is smaller."""
    whole = int(tensor.nbytes) if name not in context.nibbles else -(-int(tensor.nbytes) // 2)
    return min(whole, sparse_bytes(tensor.numpy())) if name in context.sparse else whole


def matrices(model: ir.Model) -> Iterator[ir.Value]:
    """Every constant of floats with two axes or more."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.dtype in FLOATS and len(tensor.shape) >= 2:
                yield value


def readers(value: ir.Value) -> list[tuple[ir.Node, int]]:
    """The nodes that read `value`, and at which input, those behind an Identity instead of it."""
    found = list[tuple[ir.Node, int]]()
    for node, place in value.uses():
        plain = node.op_type == "Identity" and node.domain == "" and not node.outputs[0].is_graph_output()
        found += readers(node.outputs[0]) if plain else [(node, place)]
    return found


def named(node: ir.Node) -> str:
    """A node as it is called in messages: operator, and name or first output."""
    operator = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    return f"{operator} {node.name or node.outputs[0].name}"


def fed_or_answered(value: ir.Value) -> str:
    """Why a constant cannot be exchanged: it is an input or an output of the graph as well; or nothing."""
    if value.is_graph_input():
        return "is an input of the graph as well, which a caller may feed"
    return "is an output of the graph" if value.is_graph_output() else ""
