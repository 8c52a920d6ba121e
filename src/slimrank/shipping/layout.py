"""Which bytes of an artifact's files are numbers, by file: of the graph, of what lies beside it, and of an index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from slimrank.config import InputError
from slimrank.indexing.index import file_of
from slimrank.shipping.tensors import Range, ranges_of

GRAPH = "model.onnx"
OF_NUMBERS = (GRAPH, "index.")  # what names of files begin with that a delta comes to when it knows the graph


class Layout:
    """The constants of one artifact.

    Args:
        manifest: what says how long files are, and what an index holds.
        graph: the content of `model.onnx`, which says what lies beside it; where it is not known yet, `learn` takes it.
    """

    def __init__(self, manifest: Mapping[str, Any], graph: bytes = b"") -> None:
        self._manifest = manifest
        self._found: list[Range] = []
        self.learn(graph)

    def learn(self, graph: bytes, *, cut: bool = False) -> None:
        """Take the constants from a graph, or where `cut` from its skeleton; one that cannot be read has none."""
        try:
            self._found = ranges_of(graph, cut=cut)
        except InputError:
            self._found = []

    def ranges(self, name: str) -> list[Range]:
        """The constants in a file, in the order of their places; in a file of others none."""
        if not name.startswith(OF_NUMBERS):
            return []
        own = "" if name == GRAPH else name
        found = [each for each in self._found if each.file == own]
        size = self._manifest["files"][name]["bytes"]
        if found:
            return found if found[-1].start + found[-1].length <= size else []
        return self._array(name, size)

    def _array(self, name: str, size: int) -> list[Range]:
        """The one constant of a file of an index."""
        arrays = (self._manifest.get("index") or {}).get("arrays", {})
        for array, said in arrays.items():
            if file_of(array) == name and size:
                kind = np.dtype(said["dtype"])
                return [Range(array, kind.itemsize, tuple(said["shape"]), name, 0, size)]
        return []
