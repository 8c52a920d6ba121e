"""Torch module to ONNX graph, with the inputs and outputs that its interface names (`interface.py`).

Opset 21 and IR version 10 are pinned, since exporter and runtimes disagree on their defaults.

Names, metadata and types that no runtime needs are dropped: in a model of some tens of kilobytes they are a tenth.
Left out: vocabulary, manifest and everything else of the artifact around the graph.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes import common
from torch import nn

from slimrank.exporting.defaults import drop_defaults
from slimrank.exporting.folding import fold_constants
from slimrank.exporting.halves import store_halves
from slimrank.exporting.hoisting import hoist
from slimrank.exporting.interface import Interface, of_rows
from slimrank.exporting.joining import join_lookups
from slimrank.exporting.nibbles import store_nibbles
from slimrank.exporting.norms import fold_norms
from slimrank.exporting.offsets import expand_offsets
from slimrank.exporting.passes import (
    LOAD_UNPACK_LIMIT,
    divide_first,
    feed_codes,
    part_outputs,
    split_flattened,
    split_quantizers,
    unpack_at_load,
)
from slimrank.exporting.pointwise import convolve
from slimrank.exporting.recurrent import dequantize_at_load
from slimrank.exporting.sparse import store_sparse
from slimrank.tables.by_row import marking
from slimrank.tables.integer import OPSET

IR_VERSION = 10
READER = "from_torchlib"
EXTERNAL_FROM = 1 << 20  # bytes of a tensor from which it is stored beside the graph, to be mapped and not copied


def build_graph(
    model: nn.Module, columns: int, numbers: int = 0, *, sparse: bool = True, unpack_limit: int = LOAD_UNPACK_LIMIT
) -> ir.Model:
    """The graph of a packed `model` called with ids [N, columns] and numbers [N, numbers], as `graph_of`."""
    return graph_of(of_rows(model, columns, numbers), sparse=sparse, unpack_limit=unpack_limit)


def graph_of(interface: Interface, *, sparse: bool = True, unpack_limit: int = LOAD_UNPACK_LIMIT) -> ir.Model:
    """The graph of the packed module of an interface, as `rewritten`."""
    return rewritten(trace(interface), sparse=sparse, unpack_limit=unpack_limit)


def rewritten(graph: ir.Model, *, sparse: bool = True, unpack_limit: int = LOAD_UNPACK_LIMIT) -> ir.Model:
    """A traced graph in the form that ships: small, and as fast as ONNX Runtime can have it.

    `sparse` lets pruned weights be stored sparse where that is smaller. Packed tables are unpacked when the graph is
    loaded, as long as that takes at most `unpack_limit` bytes for all of them; the others by the row.
    """
    fold_constants(graph.graph)
    dequantize_at_load(graph.graph)
    fold_norms(graph.graph)
    split_flattened(graph.graph)
    split_quantizers(graph.graph)
    feed_codes(graph.graph)
    divide_first(graph.graph)
    part_outputs(graph.graph)
    unpack_at_load(graph.graph, unpack_limit)
    hoist(graph.graph, unpack_limit)
    join_lookups(graph.graph)
    expand_offsets(graph.graph)
    convolve(graph.graph)
    shrink(graph)
    store_halves(graph.graph)
    store_nibbles(graph.graph)
    if sparse:
        store_sparse(graph.graph)
    strip(graph)
    return graph


def trace(interface: Interface) -> ir.Model:
    """The graph as torch exports it, with any number of rows and with the marks that are still to be taken out.

    Raises:
        ValueError: the model works for one number of rows only.
    """
    model, training = interface.module, interface.module.training
    names = list(interface.inputs)
    try:
        with _silent(), _one_registry(), marking(), torch.no_grad():
            program = torch.onnx.export(
                model.eval(),
                tuple(interface.inputs.values()),
                dynamo=True,
                opset_version=OPSET,
                input_names=names,
                output_names=list(interface.outputs),
                dynamic_shapes=shapes_of(interface),
                verbose=False,
            )
    finally:
        model.train(training)
    assert program is not None
    graph: ir.Model = program.model
    graph.ir_version = IR_VERSION
    for value in graph.graph.inputs:
        axes = interface.axes[str(value.name)]
        if value.shape is None or any(isinstance(value.shape[axis], int) for axis in axes):
            raise ValueError(
                f"the model fixes the number of rows of {value.name!r}: len() of a batch does, shape[0] does not"
            )
    return graph


def shapes_of(interface: Interface) -> tuple[Any, ...]:
    """The axes of any size as the exporter takes them: what a forward takes as `*others` is one argument."""
    axes = [interface.axes[name] for name in interface.inputs]
    takes = list(inspect.signature(interface.module.forward).parameters.values())
    if takes[-1].kind is inspect.Parameter.VAR_POSITIONAL:
        return (*axes[: len(takes) - 1], tuple(axes[len(takes) - 1 :]))
    return tuple(axes)


@contextmanager
def _silent() -> Iterator[None]:
    """Without the exporter's notes on packages that are not there and on its own deprecated calls."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


@contextmanager
def _one_registry() -> Iterator[None]:
    """With one table of operators for all graphs.

    torch reads the source of its 500 translations anew for every graph, which is half of the time of a small one.
    """
    owner, read_once = _reader()
    if owner is None:
        yield
        return
    read = vars(owner)[READER]
    setattr(owner, READER, read_once)
    try:
        yield
    finally:
        setattr(owner, READER, read)


@cache
def _reader() -> tuple[type | None, Any]:
    """The class that reads torch's table of operators, and a method of it that does so once for each version.

    It has no public name; where another torch has it elsewhere there is None, and every graph reads it again.
    """
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:
        return None, None
    read = vars(ONNXRegistry).get(READER)
    if not isinstance(read, classmethod):
        return None, None
    return ONNXRegistry, classmethod(cache(read.__func__))  # type: ignore[arg-type]


def shrink(model: ir.Model) -> None:
    """Drops nodes and initialisers that nothing reads, and keeps one of each that are alike."""
    for change in (
        common.IdentityEliminationPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True),
        common.CommonSubexpressionEliminationPass(),
        common.DeduplicateInitializersPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),
        common.RemoveUnusedOpsetsPass(),
    ):
        change(model)


def strip(model: ir.Model) -> None:
    """Drops metadata, attributes at their defaults, and the types of all but inputs and outputs.

    Names become short, except those of weights.
    """
    shrink(model)
    drop_defaults(model.graph)
    common.ClearMetadataAndDocStringPass()(model)
    model.producer_name, model.producer_version, model.graph.name = "slimrank", None, "slimrank"
    model.metadata_props.clear()
    interface = [*model.graph.inputs, *model.graph.outputs]
    computed = [output for node in model.graph for output in node.outputs]
    for value in (*interface, *model.graph.initializers.values(), *computed):
        value.metadata_props.clear()
        if value not in interface:
            value.type, value.shape = None, None
    for node in model.graph:
        node.name = None
    initializers = model.graph.initializers
    inner = [(name, value) for name, value in initializers.items() if value not in interface]  # codebooks are put out
    unnamed = [v for name, v in inner if "." not in name or (v.const_value and v.const_value.size == 1)]
    for letter, values in (("c", unnamed), ("v", [value for value in computed if value not in interface])):
        for count, value in enumerate(values):
            value.name = f"{letter}{count}"


def write_graph(model: ir.Model, path: Path, external_from: int = EXTERNAL_FROM) -> list[Path]:
    """Writes the graph to `path`, tensors of `external_from` bytes or more to `path` + ".data"; the files written."""
    data = path.with_name(path.name + ".data")
    tensors = [value.const_value for value in model.graph.initializers.values()]
    if any(tensor is not None and tensor.nbytes >= external_from for tensor in tensors):
        ir.save(model, path, external_data=data.name, size_threshold_bytes=external_from)
        return [path, data]
    ir.save(model, path)
    return [path]
