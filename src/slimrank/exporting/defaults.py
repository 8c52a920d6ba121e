"""Attributes that say what an operator does without them are not stored.

Exporters write them all: in a graph of some hundred nodes that is a kilobyte. Runtimes fill them in from the operators'
definitions, as the ONNX specification has it.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from slimrank.exporting.constants import array_of


def drop_defaults(graph: ir.Graph) -> int:
    """Takes every attribute off its node whose value is the default of its operator, in place; how many there were."""
    version = graph.opset_imports[""]
    count = 0
    for node in graph:
        if node.domain == "" and onnx.defs.has(node.op_type, version):
            known = onnx.defs.get_schema(node.op_type, version).attributes
            said = [name for name, attribute in node.attributes.items() if _said(node, attribute, known)]
            for name in said:
                node.attributes.pop(name)
            count += len(said)
    return count


def _said(node: ir.Node, attribute: ir.Attr, known: dict[str, onnx.defs.OpSchema.Attribute]) -> bool:
    """Whether the operator does the same without an attribute."""
    default = known[attribute.name].default_value if attribute.name in known else onnx.AttributeProto()
    proto = ir.to_proto(attribute)
    if default.type and default.type == proto.type:
        value, usual = map(onnx.helper.get_attribute_value, (proto, default))
        if value == usual:
            return True
    if node.op_type == "Reshape" and attribute.name == "allowzero":  # says what a 0 means
        shape = array_of(node.inputs[1])
        return shape is not None and bool((shape != 0).all())
    return False
