"""What every loaded artifact holds, and how it is opened: verified, its operators allowed, its ends known.

What it answers is `Model`'s (a score for each row) and `Retriever`'s (vectors, or items).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from slimrank.artifact import BY_TENSORS, Artifact, open_artifact
from slimrank.config import InputError
from slimrank.data.encoding import Encoding, without_padding
from slimrank.runtime.checks import Checks
from slimrank.runtime.encoder import RowEncoder
from slimrank.runtime.session import ANSWERS, LOGIT, any_length, check_operators, check_signature, open_session


@dataclass(frozen=True, eq=False)
class Opened:
    """One verified artifact with its session.

    Attributes:
        feeds: names of the graph's inputs.
        outputs: names of what comes out.
        any_length: whether ids need no more padding than the longest row of a call.
    """

    artifact: Artifact
    encoding: Encoding
    session: Any
    checks: Checks
    feeds: tuple[str, ...]
    outputs: tuple[str, ...]
    any_length: bool

    @cached_property
    def encoder(self) -> RowEncoder:
        """What makes inputs of raw rows."""
        return RowEncoder(self.encoding)

    def padded(self, ids: NDArray[np.int32]) -> NDArray[np.int32]:
        """`ids` [N, K] with no more padding than the graph needs."""
        return without_padding(ids) if self.any_length else ids


Loaded = TypeVar("Loaded", bound=Opened)
Found = TypeVar("Found")


def opened(kind: type[Loaded], path: str | Path, threads: int, *, with_items: bool) -> Loaded:
    """The verified artifact in `path` as a `kind`; one that is replaced meanwhile is opened again.

    Raises:
        InputError: it is damaged (`open_artifact`), uses an operator that is not allowed, does not load, does not take
            what its schema says, or answers with something else: items where not `with_items`, or the contrary.
    """
    return when_still(path, threads, partial(open_as, kind, with_items=with_items))


def when_still(path: str | Path, threads: int, opener: Callable[[Artifact, int], Found]) -> Found:
    """What `opener` makes of the verified artifact in `path`; one that is replaced meanwhile is opened again.

    Raises:
        InputError: as `opener`, the artifact is damaged, or threads are not a number of at least 1.
    """
    if type(threads) is not int or threads < 1:
        raise InputError(f"threads is {threads!r}, must be an integer of at least 1")
    for _ in range(8):
        artifact = open_artifact(path)
        try:
            found = opener(artifact, threads)
        except (InputError, OSError):
            if artifact.unchanged():
                raise
            continue
        if artifact.unchanged():
            return found
    raise InputError(f"{path}: the artifact is being replaced over and over; try again")


def open_as(kind: type[Loaded], artifact: Artifact, threads: int, *, with_items: bool) -> Loaded:
    """A verified artifact as a `kind`; whoever opens it looks whether it is still in its place (`when_still`).

    Raises:
        InputError: as `opened`, but for damage.
    """
    check_operators(artifact)
    if asked_by_tensors(artifact):
        raise InputError(f"{artifact.path}: is asked by the tensors of its graph, not by rows: `load_graph` opens it")
    if answers_with_items(artifact) and not with_items:
        raise InputError(f"{artifact.path}: answers with items or vectors, not with a score for each row")
    if with_items and not answers_with_items(artifact):
        raise InputError(f"{artifact.path}: answers with a score for each row, not with items")
    encoding = Encoding.load(artifact.path)
    session = open_session(artifact, threads)
    check_signature(session, encoding.schema, artifact.files["model.onnx"], ANSWERS if with_items else LOGIT)
    feeds, outputs = (tuple(each.name for each in ends) for ends in (session.get_inputs(), session.get_outputs()))
    checks = Checks.of(encoding.schema, encoding.sizes)
    return kind(artifact, encoding, session, checks, feeds, outputs, any_length(session))


def answers_with_items(artifact: Artifact) -> bool:
    """Whether an artifact is a `Retriever`'s: its graph gives vectors or scores of items."""
    outputs = artifact.manifest.get("outputs", [])
    names = [each.get("name") for each in outputs if isinstance(each, Mapping)]
    return not asked_by_tensors(artifact) and ("vector" in names or "scores" in names)


def asked_by_tensors(artifact: Artifact) -> bool:
    """Whether an artifact is a `Graph`'s: a module of the user's own, which knows no rows."""
    return bool(artifact.manifest.get("asked_by") == BY_TENSORS["asked_by"])
