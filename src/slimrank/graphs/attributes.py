"""What operators of other domains hold in their attributes, where steps look for no constants; counted as bytes.

ai.onnx.ml keeps coefficients, categories and trees in lists: five bytes a float and two or more a whole number, since
a list in a file repeats its tag before each element.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

ML = "ai.onnx.ml"
LISTS = (ir.AttributeType.FLOATS, ir.AttributeType.INTS, ir.AttributeType.STRINGS, ir.AttributeType.TENSOR)


def lists_of(node: ir.Node) -> int:
    """Bytes in the file of the lists and tensors among the attributes of a node; 0 for standard operators."""
    if not node.domain:
        return 0
    return sum(ir.to_proto(each).ByteSize() for each in node.attributes.values() if each.type in LISTS)


def holders(model: ir.Model) -> Iterator[tuple[ir.Node, int]]:
    """The nodes that hold lists or tensors in attributes, and how many bytes of them."""
    for graph in model.graphs():
        for node in graph:
            if nbytes := lists_of(node):
                yield node, nbytes


def array(node: ir.Node, name: str, dtype: Any) -> NDArray[Any]:
    """The elements of a list of numbers [n], none where the node has no such attribute."""
    return np.array(node.attributes[name].value if name in node.attributes else [], dtype)


def text(node: ir.Node, name: str, default: str) -> str:
    """A string among the attributes."""
    return str(node.attributes.get_string(name, default))
