"""A graph as steps see it: what ai.onnx.ml holds in attributes in constants of standard operators where it can be.

Done before all steps and with the same answers, so that sample rows are run through what the steps change.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from slimrank.graphs.attributes import ML
from slimrank.graphs.linear import products_of_linear
from slimrank.graphs.one_hot import lookups_of_one_hot
from slimrank.graphs.reading import LEAST_OPSET, graph_of, opset_of


def in_standard_operators(proto: onnx.ModelProto, path: Path) -> tuple[onnx.ModelProto, list[str]]:
    """`proto`, read from `path`, with linear models as products and one-hot encodings as lookups; what was changed."""
    if all(each.domain != ML for each in proto.opset_import):
        return proto, []
    model = graph_of(proto, path)
    done = products_of_linear(model.graph)
    done += lookups_of_one_hot(model.graph)
    if not done:
        return proto, []
    model.opset_imports[""] = max(LEAST_OPSET, opset_of(model))
    common.RemoveUnusedNodesPass()(model)
    common.TopologicalSortPass()(model)
    common.NameFixPass()(model)
    return ir.to_proto(model), done
