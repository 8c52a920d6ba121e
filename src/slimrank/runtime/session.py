"""From verified files to an ONNX Runtime session: operators allow-listed, weights mapped, signature checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnxruntime

from slimrank.artifact import OPERATORS, Artifact
from slimrank.config import InputError, nearest
from slimrank.data.schema import Schema


def check_operators(artifact: Artifact) -> None:
    """Refuse a graph with an operator that is not on the list, by what the manifest says of it.

    `manifest["graph"]["operators"]` counts operators by name: bare names for the standard domain,
    `domain.Name` for any other, of which none is allowed.

    Raises:
        InputError: the manifest has no such list, or names operators that are not allowed.
    """
    graph = artifact.manifest.get("graph")
    operators = graph.get("operators") if isinstance(graph, Mapping) else None
    if not isinstance(operators, Mapping) or not operators:
        raise InputError(f"{artifact.path}: the manifest does not list the graph's operators (graph.operators)")
    foreign = sorted(set(operators) - OPERATORS)
    if foreign:
        names = ", ".join(map(repr, foreign))
        raise InputError(f"{artifact.path}: operators not allowed: {names}. Standard ones that only compute are")


BESIDE = "session.model_external_initializers_file_folder_path"


def open_session(artifact: Artifact, threads: int, *, optimise: bool = True, graph: bytes | None = None) -> Any:
    """A CPU session over the verified graph, or over `graph`, another one of the same weights.

    External weights are mapped, not copied: the session is made from the path, or told where they lie.

    Raises:
        InputError: ONNX Runtime cannot load the graph.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    options.log_severity_level = 3  # errors; what is worth a warning is checked here
    path = artifact.files["model.onnx"]
    if graph is not None:
        options.add_session_config_entry(BESIDE, str(path.parent.resolve()))
    try:
        return onnxruntime.InferenceSession(graph or str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no other base class
        raise InputError(f"{path}: onnxruntime {onnxruntime.__version__} cannot load it: {error}") from error


LOGIT = (("logit",),)
ANSWERS = (
    ("vector",),
    ("scores",),
    ("vector", "item_vector"),
    ("vector", "item_vector", "item_codes", "entries"),
)


def check_signature(session: Any, schema: Schema, where: object, answers: tuple[tuple[str, ...], ...] = LOGIT) -> None:
    """Hold the session to the contract: ids int32 [N, K] (of a text or a history, any K) and numbers float32 [N, M].

    `ids` may be left out where K = 0, `numbers` where M = 0. What comes out is one of `answers`; a graph that gives
    vectors of items takes `items` int32 [C].

    Raises:
        InputError: an input or output is missing, unknown, or of another type or shape.
    """
    widths = {"ids": len(schema.columns), "numbers": len(schema.numeric)}
    types = {"ids": "tensor(int32)", "numbers": "tensor(float)"}
    inputs = {each.name: each for each in session.get_inputs()}
    outputs = {each.name: each for each in session.get_outputs()}
    if "item_vector" in outputs and "items" in inputs and inputs["items"].type == "tensor(int32)":
        del inputs["items"]
    free = {"ids"} if schema.texts or schema.catalogue else set()  # of any width
    faults = [f"unknown input {name!r}. {nearest(name, widths)}" for name in inputs if name not in widths]
    faults += [
        f"no input {name!r}, the schema has {n} columns for it"
        for name, n in widths.items()
        if n > 0 and name not in inputs
    ]
    faults += [
        f"input {name!r} is {each.type} {each.shape}, must be {types[name]} [N, {widths[name]}]"
        for name, each in inputs.items()
        if name in widths and not _fits(each, types[name], widths[name], any_width=name in free)
    ]
    if tuple(outputs) not in answers or ("logit" in outputs and not _fits(outputs["logit"], "tensor(float)")):
        found = ", ".join(f"{name} {each.type} {each.shape}" for name, each in outputs.items())
        allowed = " or ".join(", ".join(names) for names in answers)
        faults.append(f"outputs are {found}; must be {allowed}, tensor(float) with a row for each of N")
    if faults:
        raise InputError("\n".join(f"{where}: {fault}" for fault in faults))


def _fits(node: Any, kind: str, *width: int, any_width: bool = False) -> bool:
    """Whether a node has that type and the shape [any number of rows, *width], or with `any_width` [any, any]."""
    free = any_width and len(node.shape) == 2 and not isinstance(node.shape[1], int)
    fits = free or list(node.shape[1:]) == list(width)
    return bool(node.type == kind and not isinstance(node.shape[0], int) and fits)


def any_length(session: Any) -> bool:
    """Whether the session takes ids of any width, so that rows need no more padding than the longest of them."""
    return any(each.name == "ids" and not isinstance(each.shape[1], int) for each in session.get_inputs())
