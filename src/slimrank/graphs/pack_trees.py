"""Step on graphs: ensembles of trees in fewer bytes, with the same answers.

They become `TreeEnsemble`, which ai.onnx.ml has from version 5 on and ONNX Runtime from 1.20 on. Operators differ in
what they make of ties, of two classes and of NaN, so that each is asked beside the one that it stands for, with rows at
and around its own thresholds. Where one cannot be packed, or answers otherwise, all stay, since version 5 has none of
the older ones, and only lists that change no answer go. Left out: rounded thresholds and weights, for which there is no
operator.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from slimrank.config import Config, InputError, register
from slimrank.graphs.attributes import ML, array, lists_of
from slimrank.graphs.calibration import opened, quiet, run
from slimrank.graphs.left import TREES
from slimrank.graphs.reading import LEAST_OPSET
from slimrank.graphs.steps import KIND, Context, named
from slimrank.graphs.trees import Trees, pack

VERSION = 5  # of ai.onnx.ml, the first with TreeEnsemble
CHANGED = ("LabelEncoder",)  # operators that version 5 reads in another way than the first does
ROWS = 512  # asked of both
CLOSE = 1e-5  # between their scores, which are sums of floats


class PackTrees(Config):
    """Say ensembles of trees by `TreeEnsemble` of ai.onnx.ml 5; nothing is rounded."""

    name: Literal["pack-trees"] = "pack-trees"


@register(KIND, PackTrees)
def pack_trees(model: ir.Model, config: PackTrees, context: Context) -> None:
    """Every ensemble of the graph, or the lists that change no answer where they cannot be packed."""
    nodes = [node for node in model.graph if node.domain == ML and node.op_type in TREES]
    if not nodes:
        context.skip("trees", "the graph has no ensemble of trees")
        return
    why = _fault(model)
    for node in nodes if not why else []:
        why = why or _fault_of(node, context.seed)
    for node in nodes:
        name, before = named(node), lists_of(node)
        if why:
            _drop(node)
            after = lists_of(node)
            context.skip(name, f"is not packed: {why}")
        else:
            after = lists_of(pack(node, Trees.of(node)))
        if after < before:
            context.change(name, f"{before:,} bytes to {after:,}", before)
    if not why:
        model.opset_imports[ML] = VERSION
        model.opset_imports[""] = max(LEAST_OPSET, int(model.opset_imports.get("", 0)))


def _fault(model: ir.Model) -> str:
    """Why the graph cannot have version 5 of the domain, or nothing."""
    parts = [node for graph in model.graphs() if graph is not model.graph for node in graph]
    if any(node.domain == ML and node.op_type in TREES for node in parts):
        return "there are others in subgraphs"
    version = int(model.opset_imports.get(ML, 1))
    found = [named(node) for node in model.graph if node.domain == ML and node.op_type in CHANGED]
    return f"{found[0]} is of version {version} of {ML}, {VERSION} is needed" if found and version < VERSION else ""


def _fault_of(node: ir.Node, seed: int) -> str:
    """Why an ensemble cannot be packed, or nothing."""
    try:
        trees = Trees.of(node)
        before, after = _alone(node), _alone(node)
        pack(after.graph[0], trees)
        after.opset_imports[ML] = VERSION
        rows = _rows(trees, seed)
        answers = [_answers(model, rows) for model in (before, after)]
    except InputError as error:
        return str(error)
    alike = all(
        np.allclose(a, b, rtol=CLOSE, atol=CLOSE) if a.dtype.kind == "f" else np.array_equal(a, b)
        for a, b in zip(*answers, strict=True)
    )
    return "" if alike else f"a packed one would answer otherwise ({named(node)})"


def _alone(node: ir.Node) -> ir.Model:
    """A graph of that node and nothing else."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["N", None]))
    outputs = [ir.Value(name=f"y{place}") for place in range(len(node.outputs))]
    kinds = [ir.DataType.FLOAT] * len(outputs)
    if len(outputs) == 2:
        kinds[0] = ir.DataType.STRING if "classlabels_strings" in node.attributes else ir.DataType.INT64
    for value, kind in zip(outputs, kinds, strict=True):
        value.type = ir.TensorType(kind)
    copy = ir.Node(ML, node.op_type, [x], node.attributes.values(), outputs=outputs, name=node.name)
    versions = {"": LEAST_OPSET, ML: 3}
    return ir.Model(ir.Graph([x], outputs, nodes=[copy], opset_imports=versions, name="alone"), ir_version=8)


def _answers(model: ir.Model, rows: NDArray[np.float32]) -> list[NDArray[Any]]:
    session = opened(ir.to_proto(model).SerializeToString(), quiet())
    return run(session, [each.name for each in session.get_outputs()], {"x": rows})


def _rows(trees: Trees, seed: int) -> NDArray[np.float32]:
    """Rows at thresholds of the ensemble, beside them and between them, NaN among them."""
    draw = np.random.default_rng(seed)
    rows = np.zeros((ROWS, int(trees.features.max(initial=0)) + 1), np.float32)
    for feature in np.unique(trees.features):
        known = trees.splits[trees.features == feature]
        beside = draw.choice(known, ROWS) + draw.integers(-1, 2, ROWS) * draw.random(ROWS) * (np.ptp(known) + 1)
        rows[:, feature] = np.where(draw.random(ROWS) < 0.5, draw.choice(known, ROWS), beside)
    rows[draw.random(rows.shape) < 0.02] = np.nan
    return rows


def _drop(node: ir.Node) -> None:
    """Lists go that no answer hangs on: how often nodes are met, and where no branch takes NaN, that none does."""
    for name in ("nodes_hitrates", "nodes_hitrates_as_tensor"):
        node.attributes.pop(name, None)
    if not array(node, "nodes_missing_value_tracks_true", np.int64).any():
        node.attributes.pop("nodes_missing_value_tracks_true", None)
