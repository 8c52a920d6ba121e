"""The operators that an artifact's graph has, as functions of a node and its inputs, in what both converters lower.

Bits are taken apart in floats, and 1x1 convolutions are products, since neither converter lowers shifts, and not every
runtime has the integers. Integers of 8 and 16 bits are floats that hold them exactly; ids are integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from slimrank.deploying.phones import layers
from slimrank.deploying.phones.values import INTEGERS, MissingError, Node, Rows, Scaled, Value, tensor, whole

Run = Callable[[Node, list[Value]], Value]
CASTS = {1: "float32", 2: "u8", 3: "i8", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64"}


def operators() -> dict[str, Run]:
    """All of them, by name."""
    import torch
    from torch.nn import functional

    one: dict[str, Callable[..., Any]] = {
        **{name: getattr(torch, name.lower()) for name in ("Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "Log", "Neg")},
        **{
            name: getattr(torch, name.lower())
            for name in ("Reciprocal", "Round", "Sigmoid", "Sign", "Sin", "Sqrt", "Tanh")
        },
        "Not": torch.logical_not,
        "Softplus": functional.softplus,
    }
    two: dict[str, Callable[..., Any]] = {
        "Add": lambda a, b: a + b,
        "Sub": lambda a, b: a - b,
        "Mul": lambda a, b: a * b,
        "Pow": lambda a, b: a**b,
        "And": torch.logical_and,
        "Or": torch.logical_or,
        "Equal": lambda a, b: a == b,
        "Greater": lambda a, b: a > b,
        "GreaterOrEqual": lambda a, b: a >= b,
        "Less": lambda a, b: a < b,
        "LessOrEqual": lambda a, b: a <= b,
        "Max": lambda *given: reduce(torch.maximum, _tensors(*given)),
        "Min": lambda *given: reduce(torch.minimum, _tensors(*given)),
    }
    return {
        **{name: _elementwise(run, tensor) for name, run in one.items()},
        **{name: _elementwise(run, whole) for name, run in two.items()},
        **dict.fromkeys(("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity"), _structural),
        **{f"Reduce{name}": _reduce for name in ("Sum", "Mean", "Max", "Min")},
        **dict.fromkeys(("BitShift", "BitwiseAnd", "BitwiseOr"), _bits),
        **{name: globals()[f"_{name.lower()}"] for name in OWN},
        **{name: getattr(layers, name.lower()) for name in LAYERS},
    }


OWN = (
    *("Cast", "Clip", "Concat", "ConstantOfShape", "CumSum", "Div", "Expand", "Gather", "GatherND", "Gelu"),
    *("LayerNormalization", "Mod", "Range", "Relu"),
    *("ScatterElements", "Shape", "Slice", "Softmax", "Split", "Where"),
)
LAYERS = ("Conv", "DequantizeLinear", "Gemm", "MatMul", "QuantizeLinear")


def _elementwise(run: Callable[..., Any], take: Callable[[Value], Any]) -> Run:
    return lambda node, given: run(*map(take, given))


def _tensors(*given: Any) -> list[Any]:
    """Numbers as tensors of the type of the one that is a tensor, or of their own."""
    import torch

    kind = next((each.dtype for each in given if isinstance(each, torch.Tensor)), None)
    return [each if isinstance(each, torch.Tensor) else torch.tensor(each, dtype=kind) for each in given]


def _ints(value: Value) -> list[int]:
    """Axes, sizes or a shape, which are known."""
    if isinstance(value, list):
        return value
    return [value] if isinstance(value, int) else [int(each) for each in np.asarray(value).reshape(-1)]


def _structural(node: Node, given: list[Value]) -> Value:
    """What moves numbers and does not compute with them."""
    first = given[0]
    if isinstance(first, list):  # a shape
        return first if node.kind != "Squeeze" else first[0]
    if isinstance(first, int) and node.kind == "Unsqueeze":
        return [first]
    if isinstance(first, Scaled) and first.is_even:
        return Scaled(_moved(node, first.integers, given[1:]), first.scale)
    return _moved(node, tensor(first), given[1:])


def _moved(node: Node, x: Any, given: list[Value]) -> Any:
    axes = _ints(given[0] if given else node.attributes.get("axes", [])) if given or node.kind != "Transpose" else []
    if node.kind == "Reshape":
        return x.reshape([x.shape[place] if size == 0 else size for place, size in enumerate(axes)])
    if node.kind == "Transpose":
        return x.permute(*node.attributes.get("perm", reversed(range(x.ndim))))
    if node.kind == "Flatten":
        axis = node.attributes.get("axis", 1)
        return x.reshape(math.prod(x.shape[:axis]), -1)
    if node.kind == "Squeeze":
        if not axes:
            raise MissingError("operator Squeeze without axes")
        for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
            x = x.squeeze(axis)
    if node.kind == "Unsqueeze":
        for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
            x = x.unsqueeze(axis)
    return x


def _reduce(node: Node, given: list[Value]) -> Any:
    x = tensor(given[0])
    axes = _ints(given[1]) if len(given) > 1 and given[1] is not None else list(node.attributes.get("axes", []))
    run = {"ReduceSum": "sum", "ReduceMean": "mean", "ReduceMax": "amax", "ReduceMin": "amin"}[node.kind]
    return getattr(x, run)(dim=axes or list(range(x.ndim)), keepdim=bool(node.attributes.get("keepdims", 1)))


def _bits(node: Node, given: list[Value]) -> Any:
    """Bits of integers that are floats; by a number that is known, as tables are packed."""
    import torch

    x, by = tensor(given[0]), given[1]
    if isinstance(by, torch.Tensor) and not (x.is_floating_point() or by.is_floating_point()):
        return _bits_of_constants(node, x, by)
    if isinstance(by, float):
        by = int(by)
    if not isinstance(by, int) or node.integers not in INTEGERS:
        raise MissingError(f"operator {node.kind} of something else than bytes and a constant")
    x = x.to(torch.float32)
    if node.kind == "BitShift" and node.attributes["direction"] == b"RIGHT":
        return torch.floor(x * 0.5**by)
    if node.kind == "BitShift":
        return _low(x * 2.0**by, INTEGERS[node.integers][1] + 1)
    kept = [_low(torch.floor(x * 0.5**bit), 2) * 2.0**bit for bit in range(by.bit_length()) if by >> bit & 1]
    if node.kind == "BitwiseOr":  # what is there, and what of `by` is not
        return x + by - sum(kept) if kept else x
    return _low(x, by + 1) if by & (by + 1) == 0 else sum(kept[1:], kept[0])


def _bits_of_constants(node: Node, x: Any, by: Any) -> Any:
    """The same of integers that no input hangs on, so that neither is lowered."""
    import torch

    if node.kind != "BitShift":
        return torch.bitwise_and(x, by) if node.kind == "BitwiseAnd" else torch.bitwise_or(x, by)
    right = node.attributes["direction"] == b"RIGHT"
    return torch.bitwise_right_shift(x, by) if right else torch.bitwise_left_shift(x, by)


def _low(x: Any, modulus: int) -> Any:
    """`x` modulo a power of two, of floats that hold integers."""
    import torch

    return x - torch.floor(x * (1.0 / modulus)) * float(modulus)


def _cast(node: Node, given: list[Value]) -> Value:
    import torch

    kind = CASTS.get(node.attributes["to"])
    if kind is None:
        raise MissingError(f"operator Cast to type {node.attributes['to']}")
    if isinstance(given[0], list | int):
        return given[0]
    x = tensor(given[0])
    if kind in ("u8", "i8"):
        return x.to(torch.float32).trunc() if x.is_floating_point() else x.to(torch.float32)
    return x.to(getattr(torch, kind))


def _clip(node: Node, given: list[Value]) -> Any:
    import torch

    x = tensor(given[0])
    for bound, run in zip(given[1:], (torch.maximum, torch.minimum), strict=False):
        if bound is not None:
            x = run(*_tensors(x, whole(bound)))
    return x


def _relu(node: Node, given: list[Value]) -> Value:
    import torch

    if isinstance(given[0], Scaled):
        return Scaled(torch.relu(given[0].integers), given[0].scale)
    return torch.relu(tensor(given[0]))


def _concat(node: Node, given: list[Value]) -> Value:
    import torch

    if any(isinstance(each, list) for each in given):
        return [one for each in given for one in _ints(each)]
    return torch.cat([tensor(each) for each in given], node.attributes["axis"])


def _div(node: Node, given: list[Value]) -> Any:
    import torch

    a, b = map(whole, given)
    kinds = {each.dtype for each in (a, b) if isinstance(each, torch.Tensor)}
    if not kinds:  # of sizes, which are not negative, or of constants
        return a / b if isinstance(a, float) else a // b
    return a / b if next(iter(kinds)).is_floating_point else torch.div(*_tensors(a, b), rounding_mode="trunc")


def _mod(node: Node, given: list[Value]) -> Any:
    import torch

    run = torch.fmod if node.attributes.get("fmod", 0) else torch.remainder
    return run(*_tensors(*map(whole, given)))


def _where(node: Node, given: list[Value]) -> Any:
    import torch

    return torch.where(tensor(given[0]), *_tensors(*map(whole, given[1:])))


def _softmax(node: Node, given: list[Value]) -> Any:
    return tensor(given[0]).softmax(node.attributes.get("axis", -1))


def _gelu(node: Node, given: list[Value]) -> Any:
    from torch.nn import functional

    return functional.gelu(tensor(given[0]), approximate=node.attributes.get("approximate", b"none").decode())


def _layernormalization(node: Node, given: list[Value]) -> Any:
    from torch.nn import functional

    x = tensor(given[0])
    shape = x.shape[node.attributes.get("axis", -1) :]
    bias = tensor(given[2]) if len(given) > 2 else None
    return functional.layer_norm(x, shape, tensor(given[1]), bias, node.attributes.get("epsilon", 1e-5))


# lookups and shapes


def _looked_up(table: Any, places: Any) -> Any:
    """Rows of a table, in the shape of `places`, as the operator that is there for it."""
    import torch

    if table.ndim == 1 or table.dtype in (torch.int32, torch.int64):  # litert's lookups know no such tables
        return torch.index_select(table, 0, places.reshape(-1)).reshape(*places.shape, *table.shape[1:])
    flat = table if table.ndim == 2 else table.reshape(table.shape[0], -1)
    return torch.embedding(flat, places).reshape(*places.shape, *table.shape[1:])


def _gather(node: Node, given: list[Value]) -> Value:
    import torch

    table, places = given[0], given[1]
    axis = node.attributes.get("axis", 0)
    if isinstance(table, list):
        found = [table[each] for each in _ints(places)]
        return found if not isinstance(places, int) else found[0]
    if isinstance(places, int):
        return tensor(table).select(axis, places)
    rows = tensor(places)
    if axis == 0 and isinstance(table, Rows):
        return table.make([_looked_up(each, rows) for each in table.tables])
    x = tensor(table)
    if axis == 0:
        return _looked_up(x, rows)
    axis %= x.ndim
    chosen = torch.index_select(x, axis, rows.reshape(-1))
    return chosen.reshape(*x.shape[:axis], *rows.shape, *x.shape[axis + 1 :])


def _gathernd(node: Node, given: list[Value]) -> Any:
    x, places = tensor(given[0]), tensor(given[1])
    if node.attributes.get("batch_dims", 0) or places.shape[-1] != 1:
        raise MissingError("operator GatherND of more than one axis")
    return _looked_up(x, places[..., 0])


def _shape(node: Node, given: list[Value]) -> list[Any]:
    shape = list(tensor(given[0]).shape)
    return shape[node.attributes.get("start", 0) : node.attributes.get("end", len(shape))]


def _slice(node: Node, given: list[Value]) -> Value:
    first = given[0]
    starts, ends = _ints(given[1]), _ints(given[2])
    if isinstance(first, list):
        return first[starts[0] : ends[0]]
    x = tensor(first)
    axes = _ints(given[3]) if len(given) > 3 and given[3] is not None else list(range(len(starts)))
    steps = _ints(given[4]) if len(given) > 4 and given[4] is not None else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 1:
            raise MissingError(f"operator Slice with a step of {step}")
        parts = [slice(None)] * x.ndim
        parts[axis] = slice(start, None if end >= 1 << 30 else end, step)
        x = x[tuple(parts)]
    return x


def _split(node: Node, given: list[Value]) -> tuple[Any, ...]:
    x = tensor(given[0])
    axis = node.attributes.get("axis", 0)
    size = math.ceil(x.shape[axis] / len(node.outputs))
    sizes = _ints(given[1]) if len(given) > 1 and given[1] is not None else None
    ends = (
        np.cumsum(sizes).tolist() if sizes else [min(size * (i + 1), x.shape[axis]) for i in range(len(node.outputs))]
    )
    return tuple(x.narrow(axis, start, end - start) for start, end in zip([0, *ends], ends, strict=False))


def _expand(node: Node, given: list[Value]) -> Any:
    x = tensor(given[0])
    sizes = _ints(given[1])
    own = [1] * (len(sizes) - x.ndim) + list(x.shape)
    sizes = [1] * (len(own) - len(sizes)) + sizes
    return x.expand([size if mine == 1 else mine for mine, size in zip(own, sizes, strict=True)])


def _constantofshape(node: Node, given: list[Value]) -> Any:
    import torch
    from onnx import numpy_helper

    value = numpy_helper.to_array(node.attributes["value"]) if "value" in node.attributes else np.zeros(1, np.float32)
    return torch.from_numpy(value.copy()).expand(_ints(given[0])).clone()


def _range(node: Node, given: list[Value]) -> Any:
    import torch

    return torch.arange(*(whole(each) for each in given))


def _cumsum(node: Node, given: list[Value]) -> Any:
    if node.attributes.get("exclusive") or node.attributes.get("reverse"):
        raise MissingError("operator CumSum, exclusive or in reverse")
    x = tensor(given[0])
    return x.cumsum(_ints(given[1])[0]).to(x.dtype)


def _scatterelements(node: Node, given: list[Value]) -> Any:
    x, places, values = map(tensor, given)
    reduction = node.attributes.get("reduction", b"none")
    axis = node.attributes.get("axis", 0)
    if reduction == b"add":
        return x.scatter_add(axis, places.long(), values)
    if reduction != b"none":
        raise MissingError(f"operator ScatterElements with reduction {reduction.decode()}")
    return x.scatter(axis, places.long(), values)
