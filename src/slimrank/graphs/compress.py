"""The verb: an ONNX file, steps and rows to a smaller ONNX file, and what was done to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import polars as pl
from onnx_ir.passes import common

from slimrank.config import Config, InputError, as_config
from slimrank.data.feeds import read_feeds
from slimrank.exporting.nibbles import store_nibbles
from slimrank.exporting.optimized import left_in_floats, optimized_graph
from slimrank.exporting.sparse import store_sparse
from slimrank.graphs.attributes import holders
from slimrank.graphs.calibration import Array, Calibration, opened, quiet
from slimrank.graphs.left import left_alone
from slimrank.graphs.reading import (
    at_least_opset,
    graph_of,
    inputs_of,
    keep_maps,
    lies_beside,
    opset_of,
    read_proto,
    tensors_of,
)
from slimrank.graphs.standard import in_standard_operators
from slimrank.graphs.steps import KIND, Context, apply, named, readers
from slimrank.graphs.writing import write_graph

COMPARED = 256  # rows on which the answers of both graphs are compared
MOST_DECIBELS = 200.0
LARGE = 1 << 16  # bytes of a table from which a look at what the runtime makes of the graph goes without its rows
Steps = Sequence[Config | Mapping[str, Any] | str]


def compress_graph(
    model: Path | str,
    out: Path | str,
    steps: Steps = ("quantize-tables", "quantize-dense"),
    data: Path | str | pl.DataFrame | Mapping[str, Array] | None = None,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Compress the ONNX file `model` by `steps`, in order, into the file `out`.

    Args:
        model: any ONNX file, its data inside or beside it. What is beside it is mapped and never whole in memory.
        out: the new file; data lies beside it, in OUT.data, where it lay beside `model`.
        steps: registered as "graph step"; without others, tables of 8 bits and dense layers of int8.
        data: rows for calibration: a .parquet, .csv or .npz file, a table, or an array for each input.
        seed: of the rows that are drawn, and of codebooks.

    Returns:
        `steps`: for every step a record, as `slimrank.compress` gives it, with the percent of bytes touched among its
        facts. `percent_touched`: of the bytes of all constants of `model`, by any step. `files`: bytes of each file
        written; `bytes_before` and `bytes_after` on disk. `opset`, and `converted` where it had to be raised.
        `rewritten`: operators of ai.onnx.ml that became constants and standard operators before the steps; `left`:
        operators of other domains that are as they were, and why.
        `agreement`: for each output `decibels` of the first graph's answers over their difference from the second's, on
        sample rows; of whole numbers the share that is `equal`. None without rows, or where ONNX Runtime cannot run
        the graph.

    Raises:
        InputError: the file is truncated or its data is not what it says, a step or setting is unknown, `data` does not
            fit the inputs, or `out` is `model`.
    """
    model, out = Path(model), Path(out)
    chosen = [as_config(KIND, step) for step in steps]
    proto = read_proto(model)
    given = graph_of(proto, model)
    _check_out(given, model, out)
    feeds = None if data is None else read_feeds(data, inputs_of(proto.graph))
    asked = None if feeds is None else Calibration(proto, model, feeds, seed)
    base, converted = at_least_opset(proto, model)
    base, rewritten = in_standard_operators(base, model)
    rows = None if feeds is None else Calibration(base, model, feeds, seed)
    graph, records, touched = compressed(base, model, chosen, rows, seed)
    sizes, agreement = _written(graph, out, proto, asked, beside=lies_beside(given))
    return {
        "steps": records,
        "files": sizes,
        "bytes_before": _bytes_on_disk(given, model),
        "bytes_after": sum(sizes.values()),
        "percent_touched": touched,
        "opset": opset_of(graph),
        "converted": converted,
        "rewritten": rewritten,
        "left": left_alone(graph),
        "agreement": agreement,
    }


def _written(
    graph: ir.Model, out: Path, proto: onnx.ModelProto, asked: Calibration | None, *, beside: bool
) -> tuple[dict[str, int], dict[str, dict[str, float]] | None]:
    """Write a graph to `out`: bytes of each file, and how far it answers as `proto`, asked with the rows of `asked`."""
    agreement: dict[str, dict[str, float]] | None = None

    def check(path: Path) -> None:
        nonlocal agreement
        keep_maps(proto, path)
        agreement = None if asked is None else agreement_of(asked, path)

    files = write_graph(graph, out, check, beside=beside)
    return {path.name: path.stat().st_size for path in files}, agreement


def compressed(
    proto: onnx.ModelProto, path: Path, steps: Sequence[Config], rows: Calibration | None, seed: int
) -> tuple[ir.Model, list[dict[str, Any]], float]:
    """The graph after all steps, ready to be written, their records, and the percent of its bytes that they touched.

    Layers that ONNX Runtime would turn back to floats, which costs more than it saves, are left as they are: what it
    makes of the graph is looked at, and the steps are done again without them.
    """
    floats: dict[str, str] = {}
    while True:
        graph = graph_of(proto, path)
        values = [each for part in graph.graphs() for each in part.initializers.values()]
        given = {str(each.name): each.const_value.nbytes for each in values if each.const_value is not None}
        given |= {named(node): nbytes for node, nbytes in holders(graph)}
        context = Context(rows=rows, floats=floats, seed=seed, given=frozenset(given))
        records = list(apply(graph, steps, context))
        again = _turned_back(graph, context, path)
        if not again:
            break
        floats |= dict.fromkeys(again, "ONNX Runtime would multiply it in floats, and dequantise it in each run")
    store_nibbles(graph.graph, context.nibbles)
    store_sparse(graph.graph, context.sparse)
    common.NameFixPass()(graph)
    touched = sum(nbytes for name, nbytes in given.items() if name in context.ever)
    return graph, records, 100 * touched / max(1, sum(given.values()))


def agreement_of(rows: Calibration, path: Path) -> dict[str, dict[str, float]] | None:
    """How far the answers of the graph at `path` are those of the graph that `rows` are run through, by output.

    Answers that are no tensors, as a map a row is, are left out.
    """
    kinds = {output.name: output.type.WhichOneof("value") for output in rows.proto.graph.output}
    names = [name for name, kind in kinds.items() if kind in (None, "tensor_type")]
    try:
        before = rows.observe(names, COMPARED)
    except InputError:
        return None
    after = rows.observe(names, COMPARED, opened(path, quiet()))
    return {name: _agreement(before[name].values, after[name].values) for name in names}


def _turned_back(graph: ir.Model, context: Context, path: Path) -> set[str]:
    """Names of the layers that the runtime would compute in floats again."""
    if not context.layers:
        return set()
    try:
        optimized = optimized_graph(_without_rows(graph), path.resolve().parent)
    except Exception as error:  # the runtime's errors have no base class but this
        raise InputError(f"{path}: ONNX Runtime does not take the compressed graph: {error}") from None
    return {context.layers[name] for name in left_in_floats(optimized) if name in context.layers}


def _without_rows(model: ir.Model) -> bytes:
    """The graph with one row for every table, large ones having more than a look at it needs."""
    kept = []
    for value in model.graph.initializers.values():
        tensor, uses = value.const_value, readers(value)
        if tensor is None or tensor.nbytes < LARGE or not all(n.op_type == "Gather" and at == 0 for n, at in uses):
            continue
        kept.append((value, tensor, value.shape))
        row = np.zeros((1, *tensor.shape.numpy()[1:]), tensor.dtype.numpy())
        value.const_value = ir.tensor(row, dtype=tensor.dtype, name=value.name)
        value.shape = value.const_value.shape
    try:
        content: bytes = ir.to_proto(model).SerializeToString()
        return content
    finally:
        for value, tensor, shape in kept:
            value.const_value, value.shape = tensor, shape


def _agreement(before: Array, after: Array) -> dict[str, float]:
    """`decibels` of `before` over its difference from `after`, at most 200; of whole numbers the share that is `equal`.

    Where one is finite and the other is not, the decibels are as low as they get: -200.
    """
    if before.dtype.kind != "f":
        return {"equal": float((before == after).mean())}
    if np.array_equal(before, after, equal_nan=True):
        return {"decibels": MOST_DECIBELS}
    finite = np.isfinite(before)
    if (finite != np.isfinite(after)).any() or not np.array_equal(before[~finite], after[~finite], equal_nan=True):
        return {"decibels": -MOST_DECIBELS}
    wide = before[finite].astype(np.float64)
    noise, signal = np.square(wide - after[finite]).mean(), np.square(wide).mean()
    return {"decibels": float(np.clip(10 * np.log10(max(signal, 1e-30) / noise), -MOST_DECIBELS, MOST_DECIBELS))}


def _check_out(graph: ir.Model, model: Path, out: Path) -> None:
    """Raises `InputError` where a file would be written over one that is read."""
    read = {model.resolve()} | {Path(t.path).resolve() for t in tensors_of(graph) if isinstance(t, ir.ExternalTensor)}
    for path in (out, out.with_name(f"{out.name}.data")):
        if path.resolve() in read:
            raise InputError(f"{path} is what the graph is read from: choose another --out")


def _bytes_on_disk(graph: ir.Model, path: Path) -> int:
    """Bytes of the model's file and of its tensors beside it."""
    beside = [tensor.nbytes for tensor in tensors_of(graph) if isinstance(tensor, ir.ExternalTensor)]
    return int(path.stat().st_size + sum(beside))
