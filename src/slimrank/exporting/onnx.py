"""The target `onnx`: a graph of standard operators for ONNX Runtime on servers, phones and in browsers."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from slimrank.config import Config, register
from slimrank.exporting.checks import check_graph
from slimrank.exporting.graph import graph_of, write_graph
from slimrank.exporting.interface import interface_of
from slimrank.exporting.passes import LOAD_UNPACK_LIMIT
from slimrank.models.layers import Network


class Onnx(Config):
    """An ONNX graph, opset 21; tables are unpacked once, at load, within `unpack_limit` bytes for all of them."""

    name: Literal["onnx"] = "onnx"
    unpack_limit: int = Field(default=LOAD_UNPACK_LIMIT, ge=0)


@register("target", Onnx)
def write_onnx(config: Onnx, packed: Network, folder: Path) -> list[Path]:
    """Write the graph of a packed model to `folder` and check what ONNX Runtime makes of it; the files written.

    Raises:
        GraphError: a layer would not run on integers, or a lookup would touch a whole table.
    """
    graph = graph_of(interface_of(packed), unpack_limit=config.unpack_limit)
    files = write_graph(graph, folder / "model.onnx")
    check_graph(files[0])
    return files
