"""Converts a graph with the tool of this environment, or asks what was converted. Run by `deploying.converting`.

What to do is in a JSON file, and what was found goes to the file that it names, since tools print what they like.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimrank.deploying.phones.graph import module_of, stored_bytes
from slimrank.deploying.phones.values import MissingError

Arrays = Mapping[str, NDArray[Any]]
Call = Callable[[list[NDArray[Any]]], list[NDArray[Any]]]


def main() -> None:
    """Do the tasks of the file that the first word names, in order, each `convert` or `run` with its `tool` and paths.

    What each found goes to the file `found`: `missing` is what could not be converted, `absent` a module that the
    environment has not.
    """
    work = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    found: dict[str, Any] = {}
    try:
        for task in work["tasks"]:
            found |= {"convert": convert, "run": run}[task["do"]](task)
    except MissingError as error:
        found = {"missing": str(error)}
    except ModuleNotFoundError as error:
        found = {"absent": error.name}
    Path(work["found"]).write_text(json.dumps(found), encoding="utf-8")
    sys.stdout.flush()
    os._exit(0)  # threads of the tools do not always end


def convert(task: Mapping[str, Any]) -> dict[str, Any]:
    """The graph at `graph` to the file `model`; the bytes of its constants before.

    `inputs` is by name the type and the sizes of each, where a size that may vary is a name, and `most` what it may be.
    """
    import torch

    module, graph = module_of(task["graph"])
    given = [task["inputs"][each.name] for each in graph.input if each.name in task["inputs"]]
    names = [size for each in given for size in each["sizes"] if isinstance(size, str)]
    axes = {name: torch.export.Dim(name, min=1, max=task["most"]) for name in names}
    samples = tuple(
        torch.zeros([min(3, task["most"]) if isinstance(size, str) else size for size in each["sizes"]]).to(
            getattr(torch, each["dtype"])
        )
        for each in given
    )
    dynamic = tuple(
        {place: axes[size] for place, size in enumerate(each["sizes"]) if isinstance(size, str)} for each in given
    )
    try:
        TOOLS[task["tool"]][0](module, samples, dynamic, task["model"])
    except (MissingError, ModuleNotFoundError):
        raise
    except Exception as error:  # of the tools, which share no other base class
        raise MissingError(_told(error)) from error
    return {"constants": stored_bytes(module)}


def _told(error: Exception) -> str:
    """The line of a tool's error that says what it has not."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    words = ("not found", "not in Core ATen", "Missing out variants", "unsupported", "failed to legalize", "error:")
    named = [line for line in lines if any(word.lower() in line.lower() for word in words)]
    return (named or lines or [type(error).__name__])[0][:400]


def run(task: Mapping[str, Any]) -> dict[str, Any]:
    """What `model` answers to the arrays of `feeds`, written to `answers`, by calls of at most `sizes` of each name.

    `inputs` and `outputs` are in the model's order, with the names of their sizes. Where `padded`, each call has sizes
    of exactly that, zeros behind what there is.
    """
    feeds = dict(np.load(task["feeds"]))
    call = TOOLS[task["tool"]][1](task["model"])
    given = {each["name"]: each["shape"] for each in task["inputs"]}
    most = task["sizes"]
    counts = {shape[0]: len(feeds[name]) for name, shape in given.items() if shape and isinstance(shape[0], str)}
    calls = max([1, *(-(-count // most[name]) for name, count in counts.items())])
    parts: dict[str, list[NDArray[Any]]] = {each["name"]: [] for each in task["outputs"]}
    for place in range(calls):
        spans = {name: _span(place, most[name], count) for name, count in counts.items()}
        arrays = [_part(feeds[name], shape, spans, most if task["padded"] else {}) for name, shape in given.items()]
        for each, found in zip(task["outputs"], call(arrays), strict=True):
            first = each["shape"][0] if each["shape"] else ""
            start, end = spans.get(first, (0, len(found) if found.ndim else 0))
            if end > start or (place == 0 and first not in spans):
                parts[each["name"]].append(found[: end - start] if found.ndim else found)
    np.savez(
        task["answers"], **{name: np.concatenate(each) if each[0].ndim else each[0] for name, each in parts.items()}
    )
    return {"calls": calls}


def _span(place: int, most: int, count: int) -> tuple[int, int]:
    return min(place * most, count), min((place + 1) * most, count)


def _part(array: NDArray[Any], shape: list[Any], spans: Mapping[str, Any], padded: Mapping[str, int]) -> NDArray[Any]:
    """What of an input goes into a call."""
    start, end = spans[shape[0]] if shape and shape[0] in spans else (0, len(array) if array.ndim else 0)
    part = array[start:end] if array.ndim else array
    if start == end and array.ndim:  # another input has more rows: its own were asked, and some have to be given
        part = array[:1]
    wide = [(0, padded.get(name, size) - size) for name, size in zip(shape, part.shape, strict=True)]
    return np.ascontiguousarray(np.pad(part, wide))


# the tools


def _to_litert(module: Any, samples: tuple[Any, ...], dynamic: Any, model: str) -> None:
    import litert_torch

    litert_torch.convert(module, samples).export(model)


def _of_litert(model: str) -> Call:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model, num_threads=1)
    signature = interpreter.get_signature_runner()
    names = sorted(signature.get_input_details(), key=lambda name: int(name.rpartition("_")[2]))
    outputs = sorted(signature.get_output_details(), key=lambda name: int(name.rpartition("_")[2]))

    def call(arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
        found = signature(**dict(zip(names, arrays, strict=True)))
        return [found[name].copy() for name in outputs]

    return call


def _to_executorch(module: Any, samples: tuple[Any, ...], dynamic: Any, model: str) -> None:
    import torch
    from executorch.exir import to_edge

    program = to_edge(torch.export.export(module, samples, dynamic_shapes=(dynamic,))).to_executorch()
    Path(model).write_bytes(program.buffer)


def _of_executorch(model: str) -> Call:
    import torch
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(model).load_method("forward")

    def call(arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
        return [each.numpy().copy() for each in method.execute([torch.from_numpy(each) for each in arrays])]

    return call


TOOLS: dict[str, tuple[Callable[..., None], Callable[[str], Call]]] = {
    "litert": (_to_litert, _of_litert),
    "executorch": (_to_executorch, _of_executorch),
}
