"""An ONNX graph as a module of torch, for converters of phones, which begin with what `torch.export` makes of one.

- What hangs on constants alone is worked out once, but for bits of a packed table: these are unpacked of the rows that
  were looked up, or the table would be stored unpacked. Weights of integer layers stay the bytes that they are.
- An integer layer multiplies the same integers as the artifact does, in floats, which hold them exactly up to 2^24;
  scales come after. So a number is rounded to the same side as in ONNX Runtime.
- Unsigned bytes are stored as signed ones less 128, since litert knows no others.

Left out: operators that no artifact of ours has. They are refused by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from slimrank.deploying.phones.operators import operators
from slimrank.deploying.phones.values import INTEGERS, MissingError, Node, Rows, Value, tensor

BY_ROW = frozenset({"BitShift", "BitwiseAnd", "BitwiseOr", "Concat", "Cast"})
BROADCASTING = frozenset({"Add", "Sub", "Mul", "Div", "Less", "Equal", "Where"})
ROUNDING = frozenset({"DequantizeLinear", "QuantizeLinear"})
SHAPING = frozenset({"CumSum", "Expand", "Reshape", "Slice", "Split", "Squeeze", "Unsqueeze"})
KNOWN = ROUNDING | SHAPING  # whose inputs but for the first are numbers that a module has to know, and no tensors
NARROW = ("INT4", "UINT4", "INT2", "UINT2", "BFLOAT16", "FLOAT4E2M1")


def read_graph(path: str) -> tuple[list[Node], dict[str, Any], Any]:
    """Nodes, constants as arrays by name, and the graph itself, of the ONNX file at `path`.

    Raises:
        MissingError: a constant is of a type that torch does not compute with, such as INT4.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    types = _types_of(onnx.shape_inference.infer_shapes(model).graph)
    constants = {}
    for each in model.graph.initializer:
        kind = onnx.TensorProto.DataType.Name(each.data_type)
        if kind in NARROW or kind.startswith("FLOAT8"):
            raise MissingError(f"constant {each.name!r} of type {kind}, of which torch has no operators")
        constants[each.name] = numpy_helper.to_array(each)
    nodes = []
    for node in model.graph.node:
        attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        if node.op_type == "Constant" and "value" in attributes:
            constants[node.output[0]] = numpy_helper.to_array(attributes["value"])
            continue
        kind = f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
        nodes.append(Node(kind, tuple(node.input), tuple(node.output), attributes, types.get(node.output[0], "")))
    return nodes, constants, model.graph


def _types_of(graph: Any) -> dict[str, str]:
    import onnx

    ends = [*graph.value_info, *graph.output]
    found = {each.name: onnx.TensorProto.DataType.Name(each.type.tensor_type.elem_type).lower() for each in ends}
    return {name: kind for name, kind in found.items() if kind in INTEGERS}


def module_of(path: str) -> tuple[Any, Any]:
    """The module of the graph at `path`, which takes its inputs in order and gives a tuple; and the graph itself.

    Raises:
        MissingError: an operator is not known here.
    """
    import torch

    nodes, arrays, graph = read_graph(path)
    known = operators()
    unknown = sorted({node.kind for node in nodes} - set(known))
    if unknown:
        raise MissingError(f"operator {', '.join(unknown)}")
    constants: dict[str, Value] = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    rest = list(_folded(_without_expansions(nodes, constants), constants))
    numbers = {name: value.numpy() for name, value in constants.items() if isinstance(value, torch.Tensor)}
    inputs = [each.name for each in graph.input if each.name not in arrays]
    outputs = [each.name for each in graph.output]

    class Whole(torch.nn.Module):
        """The graph."""

        def __init__(self) -> None:
            super().__init__()
            self.known: dict[str, Value] = {}
            self.kept: list[tuple[str, Value]] = []
            self.stored: dict[str, tuple[list[str], Rows]] = {}
            for name in dict.fromkeys(name for node in rest for name in _tensors_of(node) if name in constants):
                value = constants[name]
                if isinstance(value, torch.Tensor) and value.ndim == 0:
                    self.known[name] = value.item()
                else:
                    table = value if isinstance(value, Rows) else Rows((value,), lambda parts: parts[0])
                    self.stored[name] = ([self.keep(each) for each in table.tables], table)

        def keep(self, value: Any) -> str:
            """Store a constant, once; the name of its buffer."""
            for buffer, other in self.kept:
                if other is value:
                    return buffer
            name = f"c{len(self.kept)}"
            self.kept.append((name, value))
            self.register_buffer(name, (value.to(torch.int16) - 128).to(torch.int8) if _is_unsigned(value) else value)
            return name

        def forward(self, *given: Any) -> tuple[Any, ...]:
            values: dict[str, Value] = {**dict(zip(inputs, given, strict=True)), **self.known}
            for name, (buffers, table) in self.stored.items():
                values[name] = _as_stored([getattr(self, each) for each in buffers], table)
            for node in rest:
                found = _run(node, values, numbers)
                values.update(zip(node.outputs, found if isinstance(found, tuple) else (found,), strict=False))
            return tuple(tensor(values[name]) for name in outputs)

    Whole.__module__, Whole.__qualname__ = "", "m"  # litert writes it into the name of every tensor
    return Whole().eval(), graph


def _tensors_of(node: Node) -> tuple[str, ...]:
    return node.inputs[:1] if _knows(node) else node.inputs


def _knows(node: Node) -> bool:
    return node.kind in KNOWN or node.kind.startswith("Reduce")


def _run(node: Node, values: Mapping[str, Value], numbers: Mapping[str, Any]) -> Value:
    """What a node gives. `numbers` are the constants as arrays."""
    import torch

    first = len(_tensors_of(node))
    given = [values[name] if name else None for name in node.inputs[:first]]
    for name in node.inputs[first:]:
        if name and name not in numbers and node.kind in ROUNDING:
            raise MissingError(f"operator {node.kind} with a scale or zero point that is computed")
        given.append(numbers.get(name, values.get(name)) if name else None)
    if node.kind in SHAPING and isinstance(given[0], bool | int | float) and node.inputs[0] in numbers:
        given[0] = torch.tensor(given[0], dtype=getattr(torch, numbers[node.inputs[0]].dtype.name))
    if node.kind == "Concat" and any(isinstance(each, list) for each in given):  # of a shape
        given = [numbers.get(name, each) for name, each in zip(node.inputs, given, strict=True)]
    return operators()[node.kind](node, given)


def _is_unsigned(value: Any) -> bool:
    import torch

    return bool(value.dtype == torch.uint8)


def _as_stored(buffers: Sequence[Any], table: Rows) -> Any:
    """A constant of its buffers, bytes as floats and in the range that they had; a tensor where it is no table."""
    import torch

    unsigned = [_is_unsigned(each) for each in table.tables]

    def restored(parts: Sequence[Any]) -> list[Any]:
        whole = [part.to(torch.float32) if part.dtype in (torch.int8, torch.int16) else part for part in parts]
        return [part + 128.0 if more else part for part, more in zip(whole, unsigned, strict=True)]

    found = Rows(tuple(buffers), lambda parts: table.make(restored(parts)))
    return found if any(each.ndim > 1 for each in table.tables) else found.whole()


def _without_expansions(nodes: list[Node], constants: Mapping[str, Any]) -> list[Node]:
    """The nodes without those that stretch a constant to the shape of what it is then added to, as adding does."""
    shapes = {node.outputs[0]: node.inputs[0] for node in nodes if node.kind == "Shape" and not node.attributes}
    users: dict[str, list[Node]] = {}
    for node in nodes:
        for name in node.inputs:
            users.setdefault(name, []).append(node)
    other: dict[str, str] = {}
    for node in nodes:
        if node.kind == "Expand" and node.inputs[0] in constants and node.inputs[1] in shapes:
            of = shapes[node.inputs[1]]
            used = users.get(node.outputs[0], [])  # by none where it is what the graph gives
            if used and all(one.kind in BROADCASTING and of in one.inputs for one in used):
                other[node.outputs[0]] = node.inputs[0]
    kept = [node for node in nodes if node.outputs[0] not in other]
    return _needed(
        [
            Node(node.kind, tuple(other.get(n, n) for n in node.inputs), node.outputs, node.attributes, node.integers)
            for node in kept
        ],
        {name for node in nodes for name in node.outputs} - {name for node in nodes for name in node.inputs},
    )


def _needed(nodes: list[Node], outputs: Iterable[str]) -> list[Node]:
    """The nodes that `outputs` hang on, in their order."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted & set(node.outputs):
            wanted |= set(node.inputs)
            kept.append(node)
    return kept[::-1]


def _folded(nodes: Iterable[Node], constants: dict[str, Value]) -> Iterator[Node]:
    """The nodes that hang on inputs; what others give is put into `constants`, tables that they unpack as `Rows`."""
    for node in nodes:
        if not all(name in constants for name in node.inputs if name) or node.kind == "DequantizeLinear":
            yield node
            continue
        given = [constants[name] if name else None for name in node.inputs]
        rows = _as_rows(node, given)
        if rows is not None:
            constants[node.outputs[0]] = rows
            continue
        values = {name: _number_or_tensor(each) for name, each in zip(node.inputs, given, strict=True) if name}
        numbers = {name: tensor(each).numpy() for name, each in values.items()}
        found = _run(node, values, numbers)
        for name, each in zip(node.outputs, found if isinstance(found, tuple) else (found,), strict=False):
            constants[name] = _narrowed(tensor(each), node.integers)


def _number_or_tensor(value: Value) -> Value:
    found = tensor(value)
    return found.item() if found.ndim == 0 else found


def _narrowed(value: Any, integers: str) -> Any:
    """Bytes as bytes again, so that a constant that was worked out takes no more than it has to."""
    import torch

    return value.to(getattr(torch, integers)) if integers in ("uint8", "int8") else value


def _as_rows(node: Node, given: list[Value]) -> Rows | None:
    """What a node makes of tables that it changes row by row, where it is one that does."""
    if node.kind not in BY_ROW:
        return None
    tables = [each for each in given if isinstance(each, Rows) or each.ndim > 1]
    others = [each for each in given if not isinstance(each, Rows) and each.ndim <= 1]
    if not tables or any(each.numel() > 1 for each in others):
        return None
    ndim = tables[0].tables[0].ndim if isinstance(tables[0], Rows) else tables[0].ndim
    if node.kind == "Concat":
        axis = node.attributes["axis"]
        if axis % ndim == 0 or len(tables) < len(given):
            return None
        node = Node(node.kind, node.inputs, node.outputs, {"axis": axis % ndim - ndim}, node.integers)
    stored: list[Any] = []
    for table in tables:
        for one in table.tables if isinstance(table, Rows) else (table,):
            if not any(one is each for each in stored):
                stored.append(one)

    def place(one: Any) -> int:
        return next(place for place, each in enumerate(stored) if each is one)

    def make(parts: Sequence[Any]) -> Any:
        def part(value: Value) -> Any:
            if isinstance(value, Rows):
                return value.make([parts[place(one)] for one in value.tables])
            return parts[place(value)] if value.ndim > 1 else value.item()

        return operators()[node.kind](node, [part(value) for value in given])

    return Rows(tuple(stored), make)


def stored_bytes(module: Any) -> int:
    """Bytes of what a module stores."""
    return sum(each.numel() * each.element_size() for each in module.buffers())
