"""Rewrites of the exported graph. Each changes the graph in place, keeps what it computes, and counts what it rewrote.

ONNX Runtime makes a layer integer only where quantised codes reach it directly, and folds work on constants at load.
The passes bring the graph into that shape. Left out: anything that ONNX Runtime does by itself.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from slimrank.exporting.constants import Array, array_of, constant, node_before, producer, scalar_of

FUSED = frozenset(  # activations that ONNX Runtime joins with the product before them
    ["Elu", "HardSigmoid", "LeakyRelu", "Relu", "Selu", "Softplus", "Softsign", "Tanh", "ThresholdedRelu"]
)
LOAD_UNPACK_LIMIT = 128 << 20  # bytes of all unpacked tables together up to which memory buys speed


def split_quantizers(graph: ir.Graph) -> int:
    """QuantizeLinear(Concat(a, b)) becomes Concat(QuantizeLinear(a), QuantizeLinear(b)), along the last axis.

    So that the part that comes from a table can lose its quantiser, and a dense part can be fused with its layer.
    """
    count = 0
    for quantize in _all(graph, "QuantizeLinear"):
        concat = producer(quantize.inputs[0], "Concat")
        widths = [] if concat is None else [_width(part) for part in concat.inputs]
        if concat is None or None in widths or concat.attributes.get_int("axis") not in (-1, _rank(quantize) - 1):
            continue
        bounds = np.cumsum([0, *(w or 0 for w in widths)])
        parts = []
        for part, start, stop in zip(concat.inputs, bounds, bounds[1:], strict=False):
            assert part is not None
            scale, zero = _columns(graph, quantize, start, stop)
            axis = {"axis": _rank(quantize) - 1} if len(scale.shape or ()) else {}
            parts += node_before(quantize, "QuantizeLinear", [part, scale, zero], **axis)
            parts[-1].shape, parts[-1].type = part.shape, quantize.outputs[0].type
        _replace(quantize, node_before(quantize, "Concat", parts, axis=-1)[0])
        count += 1
    return count


def split_flattened(graph: ir.Graph) -> int:
    """QuantizeLinear(Reshape(Concat(a, b))), fields put together and flattened, becomes one flattened after the other.

    The parts a [N, K, D] are looked up in tables of their own, and lie side by side once each is flattened to
    [N, K * D]: then `split_quantizers` takes each by itself.
    """
    count = 0
    for quantize in _all(graph, "QuantizeLinear"):
        reshape = producer(quantize.inputs[0], "Reshape")
        concat = None if reshape is None else producer(reshape.inputs[0], "Concat")
        if reshape is None or concat is None or _rank(reshape) != 3 or concat.attributes.get_int("axis") not in (-2, 1):
            continue
        widths = [_flat_width(part) for part in concat.inputs]
        if None in widths or sum(w or 0 for w in widths) != _width(quantize.inputs[0]):
            continue
        flat = []
        for part, width in zip(concat.inputs, widths, strict=True):
            assert part is not None
            assert part.shape is not None
            target = constant(graph, np.array([-1, width], np.int64), "flat_part")
            flat += node_before(reshape, "Reshape", [part, target])
            flat[-1].shape, flat[-1].type = ir.Shape([part.shape[0], width or 0]), part.type
        _replace(reshape, node_before(reshape, "Concat", flat, axis=-1)[0])
        count += 1
    return count


def feed_codes(graph: ir.Graph) -> int:
    """Codes that are dequantised and quantised again with the same steps and zero points go on as they were.

    The pattern is QuantizeLinear(Reshape?(Mul(DequantizeLinear(codes, 1, z), steps))), the Mul being absent where one
    step holds for all. The float path stays where something else reads it.
    """
    count = 0
    for quantize in _all(graph, "QuantizeLinear"):
        reshape = producer(quantize.inputs[0], "Reshape")
        values = quantize.inputs[0] if reshape is None else reshape.inputs[0]
        codes = _same_codes(values, quantize)
        if codes is None:
            continue
        if reshape is not None:
            target = reshape.inputs[1]
            assert target is not None
            codes = node_before(quantize, "Reshape", [codes, target])[0]
        _replace(quantize, codes)
        count += 1
    return count


def divide_first(graph: ir.Graph) -> int:
    """QuantizeLinear by a step a column becomes QuantizeLinear(Div(values, steps)) by 1, which is the same arithmetic.

    ONNX Runtime quantises by one step in vectors, and by one a column a number at a time: on 100 rows of 40 numbers
    that is 20 times as long as all the rest of a small model.
    """
    count = 0
    for quantize in _all(graph, "QuantizeLinear"):
        values, steps = quantize.inputs[:2]
        zero = scalar_of(quantize.inputs[2]) if len(quantize.inputs) > 2 else None
        array = array_of(steps)
        if values is None or steps is None or zero is None or array is None or array.ndim != 1 or array.size == 1:
            continue
        if quantize.attributes.get_int("axis", 1) not in (-1, _rank(quantize) - 1):
            continue
        divided = node_before(quantize, "Div", [values, steps])[0]
        divided.shape, divided.type = values.shape, values.type
        one = constant(graph, np.ones((), np.float32), "one_step")
        codes = np.asarray(int(zero), np.uint8)
        _replace(quantize, node_before(quantize, "QuantizeLinear", [divided, one, constant(graph, codes, "zero")])[0])
        count += 1
    return count


def _same_codes(values: ir.Value | None, quantize: ir.Node) -> ir.Value | None:
    """The codes behind `values`, if `quantize` gives exactly them back."""
    multiply = producer(values, "Mul")
    steps: Array = np.ones((), np.float32)
    if multiply is not None:
        found = [(array_of(multiply.inputs[1 - i]), multiply.inputs[i]) for i in (0, 1)]
        known = [(array, other) for array, other in found if array is not None]
        if not known:
            return None
        steps, values = known[0]
    dequantize = producer(values, "DequantizeLinear")
    if dequantize is None or len(dequantize.inputs) < 3 or dequantize.inputs[0] is None:
        return None
    one, zero = scalar_of(dequantize.inputs[1]), scalar_of(dequantize.inputs[2])
    codes, wanted = dequantize.inputs[0], array_of(quantize.inputs[1])
    if one is None or zero is None or wanted is None or zero != scalar_of(quantize.inputs[2]):
        return None
    if codes.dtype != ir.DataType.UINT8 or not _steps_match(
        np.asarray(steps, np.float32) * np.float32(one), codes.shape, wanted
    ):
        return None
    return codes


def _steps_match(steps: npt.NDArray[np.float32], shape: ir.Shape | None, wanted: Array) -> bool:
    """Whether `steps`, broadcast over what follows the batch axis of `shape` and flattened, are the `wanted` ones."""
    if shape is None or not all(isinstance(size, int) for size in shape[1:]):
        return False
    row = tuple(int(size) for size in shape[1:])
    if steps.ndim > len(row) + 1 or (steps.ndim == len(row) + 1 and steps.shape[0] != 1):
        return False
    steps = np.broadcast_to(steps.reshape(steps.shape[-len(row) :]) if steps.ndim else steps, row).reshape(-1)
    return bool(wanted.size in (1, steps.size) and np.array_equal(np.broadcast_to(wanted, steps.shape), steps))


def unpack_at_load(graph: ir.Graph, limit: int = LOAD_UNPACK_LIMIT) -> int:
    """Gather(packed table) then unpacking becomes unpacking then Gather, for tables of `limit` bytes unpacked in all.

    The unpacking then works on a constant, which ONNX Runtime does once, at load: the file stays packed, memory holds
    a byte a dimension, and a lookup is a lookup. Tables beyond, in the order of their lookups, stay packed in memory
    and are unpacked by the row.
    """
    count, left = 0, limit
    unpacked: set[ir.Value] = set()
    for gather in _all(graph, "Gather"):
        source, table = gather.inputs[0], array_of(gather.inputs[0])
        if source is None or table is None or table.dtype != np.uint8 or table.ndim != 2:
            continue
        chain, concat = _unpacking(gather)
        if concat is None:
            continue
        needed = 0 if source in unpacked else table.nbytes * len(concat.inputs)
        if needed > left:
            continue
        left -= needed
        unpacked.add(source)
        moved: dict[ir.Value, ir.Value] = {gather.outputs[0]: source}
        for node in chain:
            inputs = [moved.get(value, value) for value in node.inputs if value is not None]
            attributes = {name: attribute.value for name, attribute in node.attributes.items()}
            moved[node.outputs[0]] = node_before(gather, node.op_type, inputs, **attributes)[0]
        parts = [moved[value] for value in concat.inputs if value is not None]
        whole = node_before(gather, "Concat", parts, axis=-1)[0]
        finishing = _finishing(concat)
        for node in finishing:
            whole = _on_rows(gather, node, whole)
        indices = gather.inputs[1]
        assert indices is not None
        _replace([concat, *finishing][-1], node_before(concat, "Gather", [whole, indices], axis=0)[0])
        count += 1
    return count


def _unpacking(gather: ir.Node) -> tuple[list[ir.Node], ir.Node | None]:
    """The shifts and masks by constants between `gather` and the Concat that joins them, and that Concat."""
    chain: list[ir.Node] = []
    known, concats = {gather.outputs[0]}, set()
    queue = [gather.outputs[0]]
    while queue:
        for user, _ in queue.pop().uses():
            if user.op_type in ("BitShift", "BitwiseAnd") and scalar_of(user.inputs[1]) is not None:
                chain.append(user)
                known.add(user.outputs[0])
                queue.append(user.outputs[0])
            else:
                concats.add(user)
    concat = concats.pop() if len(concats) == 1 else None
    if concat is None or concat.op_type != "Concat" or any(value not in known for value in concat.inputs):
        return chain, None
    last = concat.attributes.get_int("axis") in (-1, _rank(concat, output=True) - 1)
    return chain, concat if last else None


def _finishing(concat: ir.Node) -> list[ir.Node]:
    """What alone reads the output of `concat`, one after another: a cut of the last byte, a shift amid the bytes."""
    found, last = list[ir.Node](), concat
    while True:
        users = [user for user, _ in last.outputs[0].uses()]
        if len(users) != 1 or not (_is_or(users[0]) or _cut(users[0]) is not None):
            return found
        last = users[0]
        found.append(last)


def _is_or(node: ir.Node) -> bool:
    return node.op_type == "BitwiseOr" and scalar_of(node.inputs[1]) is not None


def _cut(node: ir.Node) -> int | None:
    """How many numbers of its last axis a Slice keeps from the first on; None for any other node."""
    given = [array_of(each) for each in node.inputs[1:]] if node.op_type == "Slice" else []
    if len(given) != 4 or any(each is None or each.size != 1 for each in given):
        return None
    start, end, axis, step = (int(each.item()) for each in given if each is not None)
    last = axis in (-1, _rank(node) - 1)
    return end if last and start == 0 and step == 1 else None


def _on_rows(anchor: ir.Node, node: ir.Node, rows: ir.Value) -> ir.Value:
    """A `_finishing` node on all `rows` [n, width] of a table."""
    end = _cut(node)
    if end is None:
        assert node.inputs[1] is not None
        return node_before(anchor, "BitwiseOr", [rows, node.inputs[1]])[0]
    assert anchor.graph is not None
    bounds = [constant(anchor.graph, np.array([each], np.int64), "width") for each in (0, end, 1, 1)]
    return node_before(anchor, "Slice", [rows, *bounds])[0]


def part_outputs(graph: ir.Graph) -> int:
    """What a layer of integers gives goes through a Reshape of the same shape, where ONNX Runtime would make it floats.

    It does so where a QuantizeLinear and others read the output, and where an activation does that is not rounded
    itself: it joins the two before it looks for layers of integers. A Reshape moves no number.
    """
    count = 0
    for gemm in _all(graph, "Gemm"):
        output, width = gemm.outputs[0], _width(gemm.outputs[0])
        if width is None or producer(gemm.inputs[1], "DequantizeLinear") is None or not _is_lost(output):
            continue
        same = constant(graph, np.array([-1, width], np.int64), "same_shape")
        node = ir.node("Reshape", [output, same])
        graph.insert_after(gemm, node)
        value = node.outputs[0]
        value.shape, value.type = output.shape, output.type
        for reader, place in list(output.uses()):
            if reader is not node:
                reader.replace_input_with(place, value)
        count += 1
    return count


def _is_lost(output: ir.Value) -> bool:
    """Whether a layer of integers with this output would become one of floats."""
    readers = [node for node, _ in output.uses()]
    if len(readers) == 1 and readers[0].domain == "" and readers[0].op_type in FUSED:
        return not _rounded_alone(readers[0].outputs[0])
    return not _rounded_alone(output) and any(node.op_type == "QuantizeLinear" for node in readers)


def _rounded_alone(value: ir.Value) -> bool:
    """Whether one QuantizeLinear, and nothing else, reads `value`."""
    readers = [node for node, _ in value.uses()]
    return len(readers) == 1 and readers[0].op_type == "QuantizeLinear" and not value.is_graph_output()


def _all(graph: ir.Graph, operator: str) -> list[ir.Node]:
    return [node for node in graph if node.domain == "" and node.op_type == operator]


def _replace(node: ir.Node, value: ir.Value) -> None:
    """Everything that read the output of `node` reads `value`, which takes over its type and shape; `node` goes."""
    old = node.outputs[0]
    value.shape, value.type = old.shape, old.type
    old.replace_all_uses_with(value, replace_graph_outputs=True)
    assert node.graph is not None
    node.graph.remove(node, safe=True)


def _rank(node: ir.Node, *, output: bool = False) -> int:
    value = node.outputs[0] if output else node.inputs[0]
    return len(value.shape) if value is not None and value.shape is not None else 0


def _width(value: ir.Value | None) -> int | None:
    size = value.shape[-1] if value is not None and value.shape is not None and len(value.shape) else None
    return size if isinstance(size, int) else None


def _flat_width(value: ir.Value | None) -> int | None:
    """Numbers in a row of `value` [N, K, D]."""
    shape = value.shape if value is not None else None
    if shape is None or len(shape) != 3 or not all(isinstance(size, int) for size in shape[1:]):
        return None
    return int(shape[1]) * int(shape[2])


def _columns(graph: ir.Graph, quantize: ir.Node, start: int, stop: int) -> list[ir.Value]:
    """Scale and zero point of some columns; scalars where all are alike, which is what ONNX Runtime fuses."""
    values = [value for value in quantize.inputs[1:3] if value is not None]
    arrays = [array[start:stop] if array.ndim else array for value in values if (array := array_of(value)) is not None]
    if all((array == array.flat[0]).all() for array in arrays):
        arrays = [array.reshape(-1)[0].reshape(()) for array in arrays]
    return [constant(graph, array, f"{value.name}_columns") for value, array in zip(values, arrays, strict=True)]
