"""An artifact of whichever kind: verified once, and opened as what its manifest says it is."""

from __future__ import annotations

from pathlib import Path

from slimrank.artifact import Artifact
from slimrank.runtime.graph import Graph, open_graph
from slimrank.runtime.model import Model
from slimrank.runtime.opened import answers_with_items, asked_by_tensors, open_as, when_still
from slimrank.runtime.retriever import Retriever


def load_any(path: str | Path, *, threads: int = 1) -> Model | Retriever | Graph:
    """Verify the artifact in `path` and open it: one of rows, of queries, or asked by tensors.

    Raises:
        InputError: as `load`, `load_retriever` and `load_graph`.
    """
    return when_still(path, threads, open_any)


def open_any(artifact: Artifact, threads: int) -> Model | Retriever | Graph:
    """The same of an artifact that is verified; whoever opens it looks whether it is still in its place.

    Raises:
        InputError: as `load_any`.
    """
    if asked_by_tensors(artifact):
        return open_graph(artifact, threads)
    if answers_with_items(artifact):
        return open_as(Retriever, artifact, threads, with_items=True)
    return open_as(Model, artifact, threads, with_items=False)
