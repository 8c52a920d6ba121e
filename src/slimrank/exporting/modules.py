"""A module of the user's own to an artifact that is asked by tensors: no schema and no vocabulary, its own inputs.

What goes in are the tensors of a batch, by name, and what comes out those of the module's answer. Layers of torch that
export badly (bags become loops) are first made what steps work on. Ids that go straight into a table are checked by the
runtime: how many rows the table has is written beside the input.
"""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.utils._pytree import KeyPath, SequenceKey, TreeSpec, tree_flatten_with_path, tree_leaves, tree_unflatten

from slimrank.artifact import BY_TENSORS, OPERATORS, write_artifact
from slimrank.compression.adopting import adopt, check_module, is_quantised
from slimrank.compression.modules import Forward, call, rows_of, told
from slimrank.config import InputError, nearest
from slimrank.data.tensors import DTYPES
from slimrank.exporting.artifact import describe_graph
from slimrank.exporting.bounds import id_bounds
from slimrank.exporting.card import module_card
from slimrank.exporting.checks import check_graph
from slimrank.exporting.golden import golden_of_tensors
from slimrank.exporting.graph import rewritten, trace, write_graph
from slimrank.exporting.interface import Interface
from slimrank.exporting.pack import pack

Axes = Mapping[str, Mapping[int, str]]


class Called(nn.Module):
    """A module that is called with the tensors of a batch one by one, and answers with those of its answer."""

    def __init__(self, module: nn.Module, forward: Forward, batch: Any):
        super().__init__()
        self.module = module
        self.call = forward
        leaves, spec = tree_flatten_with_path(batch)
        self.spec: TreeSpec = spec
        self.fixed = [None if isinstance(leaf, Tensor) else leaf for _, leaf in leaves]
        self.given = [place for place, (_, leaf) in enumerate(leaves) if isinstance(leaf, Tensor)]

    def answer(self, tensors: Sequence[Tensor]) -> Any:
        """What the module answers, in its own form."""
        leaves = list(self.fixed)
        for place, tensor in zip(self.given, tensors, strict=True):
            leaves[place] = tensor
        return self.call(self.module, tree_unflatten(leaves, self.spec))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The tensors of the answer, in order."""
        return tuple(leaf for leaf in tree_leaves(self.answer(tensors)) if isinstance(leaf, Tensor))


def export_module(
    module: nn.Module,
    batch: Any,
    path: Path,
    *,
    forward: Forward = call,
    axes: Axes | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write the artifact of any module, which is changed, to the directory `path`.

    Args:
        module: as it is, or as `compress` gave it.
        batch: an example of at least two rows. The first dimension of its tensors is of any size, if it is the rows'.
        path: the artifact's directory; an artifact that is there is replaced in one step.
        forward: how the module is called with a batch.
        axes: further dimensions of any size, by input, such as {"items": {1: "length"}}; one name, one size.
            Where one is a row more, as of offsets, rows are named too: {"user": {0: "rows"}, "ends": {0: "rows + 1"}}.
        provenance: what the manifest says beside the graph.

    Raises:
        InputError: the batch has no tensor or one row, an axis is unknown, torch cannot trace the module, or its graph
            has an operator that no artifact may have.
        GraphError: a layer would not run on integers, or a lookup would touch a whole table.
    """
    if rows_of(batch) < 2:
        raise InputError("the example batch has fewer than 2 rows: a graph of one row would be a graph of one row only")
    check_module(module)
    _check_traceable(module)
    called = Called(module.to("cpu"), forward, batch)  # which holds the module, that may be a layer itself
    adopt(called)
    interface = interface_of_module(pack(called, in_place=True), batch, axes or {})
    traced = _traced(interface)
    _check_types(traced)
    bounds = id_bounds(traced.graph)
    graph = rewritten(traced)
    with tempfile.TemporaryDirectory() as folder:
        files = write_graph(graph, Path(folder) / "model.onnx")
        check_graph(files[0], OPERATORS)
        manifest = {**(provenance or {}), **BY_TENSORS, **describe_graph(files[0])}
        manifest["bounds"] = {name: [list(each) for each in found] for name, found in bounds.items()}
        manifest["golden"] = golden_of_tensors(files[0], bounds)
        content: dict[str, Path | bytes] = {file.name: file for file in files}
        content["README.md"] = module_card(manifest).encode()
        write_artifact(path, content, manifest)


def _check_types(graph: ir.Model) -> None:
    """Raises `InputError` where what goes in or comes out is of a type that numpy has not."""
    for value in (*graph.graph.inputs, *graph.graph.outputs):
        if value.dtype is not None and value.dtype.numpy().name not in DTYPES:
            raise InputError(f"{value.name} is of type {value.dtype.numpy().name}; allowed: {', '.join(DTYPES)}")


def _check_traceable(module: nn.Module) -> None:
    """Raises `InputError` where torch could not follow a part of the module, which is named."""
    for name, each in module.named_modules():
        if isinstance(each, torch.jit.ScriptModule):
            raise InputError(f"{name or 'the module'} is scripted, and cannot be traced: give it as before torch.jit")
        if is_quantised(each):
            raise InputError(f"{name or 'the module'} is quantised by torch, and has no ONNX: give it in floats")


def interface_of_module(called: Called, batch: Any, axes: Axes) -> Interface:
    """The interface of a packed module, as it is called: names of inputs and outputs are the batch's and its own.

    Raises:
        InputError: as `export_module`.
    """
    leaves = [(where, leaf) for where, leaf in tree_flatten_with_path(batch)[0] if isinstance(leaf, Tensor)]
    if not leaves:
        raise InputError("the example batch holds no tensor")
    names = _unique(_names([where for where, _ in leaves], _parameters(called.module), "input"))
    inputs = dict(zip(names, (leaf.cpu() for _, leaf in leaves), strict=True))
    try:
        with torch.no_grad():
            answer = called.answer(list(inputs.values()))
    except Exception as error:
        raise InputError(f"the forward of the module failed on the example batch: {told(error)}") from error
    out = [where for where, leaf in _places(answer) if isinstance(leaf, Tensor)]
    if not out:
        raise InputError(f"the module answers with a {type(answer).__name__}, which holds no tensor")
    outputs = [f"{name}_out" if name in inputs else name for name in _unique(_names(out, [], "output"))]
    return Interface(called, inputs, _axes(inputs, rows_of(batch), axes), tuple(outputs))


def _places(answer: Any) -> list[tuple[KeyPath, Any]]:
    """What a module answers, leaf by leaf, and where it stands; by number where a class of its own does not say."""
    try:
        return tree_flatten_with_path(answer)[0]
    except ValueError:
        return [((SequenceKey(place),), leaf) for place, leaf in enumerate(tree_leaves(answer))]


def _traced(interface: Interface) -> ir.Model:
    try:
        return trace(interface)
    except Exception as error:  # of the tracer, which has many kinds
        raise InputError(f"torch cannot trace the module: {type(error).__name__}: {error}") from error


def _axes(inputs: Mapping[str, Tensor], rows: int, more: Axes) -> dict[str, dict[int, Dim]]:
    """The dimensions of any size of every input."""
    for name in more:
        if name not in inputs:
            raise InputError(f"axes: unknown input {name!r}. {nearest(name, list(inputs))}")
    dims = {"N": Dim("N")}
    found: dict[str, dict[int, Dim]] = {}
    for name, tensor in inputs.items():
        found[name] = {0: dims["N"]} if tensor.dim() and len(tensor) == rows else {}
        for place, label in more.get(name, {}).items():
            if not 0 <= place < tensor.dim():
                raise InputError(f"axes: {name!r} has {tensor.dim()} dimensions, and no dimension {place}")
            found[name][place] = _dim(label, dims)
    return found


def _dim(label: str, dims: dict[str, Dim]) -> Any:
    """The dimension of that name, or one that is larger by a number: "rows + 1" of offsets that end with the last."""
    found = re.fullmatch(r"(\w+)( *\+ *(\d+))?", label)
    # N alone is a function to torch's arithmetic of dimensions.
    if found is None or not found[1].isidentifier() or (found[2] and found[1] == "N"):
        raise InputError(f"axes: {label!r} is no name, nor a name other than N + a number")
    dim = dims.setdefault(found[1], Dim(found[1]))
    return dim + int(found[3]) if found[2] else dim


def _parameters(module: nn.Module) -> list[str]:
    """Names of what the module's forward takes by place."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        return [name for name, each in inspect.signature(module.forward).parameters.items() if each.kind in kinds]
    except (TypeError, ValueError):
        return []


def _names(paths: Sequence[tuple[Any, ...]], parameters: Sequence[str], stem: str) -> list[str]:
    """A name for every path through a batch or an answer: keys by name, places by the parameter that they fill."""
    names = []
    for where in paths:
        parts = [_part(key, parameters if depth == 0 else []) for depth, key in enumerate(where)]
        name = re.sub(r"\W+", "_", "_".join(parts)) or (parameters[0] if parameters else "")
        names.append(f"{stem}_{name}" if name[:1].isdigit() else name or stem)
    return names


def _part(key: Any, parameters: Sequence[str]) -> str:
    place = getattr(key, "idx", None)
    if isinstance(place, int):
        return parameters[place] if place < len(parameters) else str(place)
    return str(getattr(key, "key", getattr(key, "name", key)))


def _unique(names: Sequence[str]) -> list[str]:
    """The names, a number behind those that were there before."""
    made: list[str] = []
    for name in names:
        count = sum(each == name or each.startswith(f"{name}__") for each in made)
        made.append(f"{name}__{count + 1}" if count else name)
    return made
