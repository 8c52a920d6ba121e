"""Converts a graph with the tool of this environment, or asks what was converted. Run by `deploying.converting`.

What to do is in a JSON file, and what was found goes to the file that it names, since tools print what they like.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimrank.deploying.phones.graph import module_of, stored_bytes
from slimrank.deploying.phones.values import MissingError

Arrays = Mapping[str, NDArray[Any]]
NEEDED = {"litert": ("torch", "onnx", "litert_torch", "ai_edge_litert"), "executorch": ("torch", "onnx", "executorch")}
SAMPLE = 3  # rows of what a graph is traced with; one or two would be taken for fixed
Call = Callable[[list[NDArray[Any]]], list[NDArray[Any]]]


def main() -> None:
    """Do the tasks of the file that the first word names, in order, each `convert` or `run` with its `tool` and paths.

    What each found goes to the file `found`: `missing` is what could not be converted, `absent` a module that the
    environment has not.
    """
    work = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    found: dict[str, Any] = {}
    absent = {name for task in work["tasks"] for name in NEEDED[task["tool"]] if find_spec(name) is None}
    try:
        for task in [] if absent else work["tasks"]:
            found |= {"convert": convert, "run": run}[task["do"]](task)
    except MissingError as error:
        found = {"missing": str(error)}
    if absent:
        found = {"absent": ", ".join(sorted(absent))}
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
    axes: dict[str, Any] = {}
    samples = tuple(
        torch.zeros([_sample(size, task["most"]) for size in each["sizes"]]).to(getattr(torch, each["dtype"]))
        for each in given
    )
    dynamic = tuple(
        {place: _axis(size, axes, task["most"]) for place, size in enumerate(each["sizes"]) if isinstance(size, str)}
        for each in given
    )
    try:
        TOOLS[task["tool"]][0](module, samples, dynamic, task["model"])
    except MissingError:
        raise
    except Exception as error:  # of the tools, which share no other base class
        raise MissingError(_told(error)) from error
    return {"constants": stored_bytes(module)}


def _parted(size: str) -> tuple[str, int]:
    """The name in "rows + 1", and what is added to it."""
    name, _, more = (part.strip() for part in size.partition("+"))
    return (name, int(more)) if more.isdecimal() else (size, 0)


def _sample(size: int | str, most: int) -> int:
    return min(SAMPLE, most) + _parted(size)[1] if isinstance(size, str) else size


def _axis(size: str, axes: dict[str, Any], most: int) -> Any:
    """A size that may vary; `axes` are those that there are, by name. None where it is always the same."""
    import torch

    if most == 1:
        return None
    name, more = _parted(size)
    axis = axes.setdefault(name, torch.export.Dim(re.sub(r"\W", "_", name), min=1, max=most))
    return axis + more if more else axis


def _told(error: Exception) -> str:
    """The line of a tool's error that says what it has not."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    words = ("not found", "not in Core ATen", "Missing out variants", "unsupported", "failed to legalize", "error:")
    named = [line for line in lines if any(word.lower() in line.lower() for word in words)]
    return (named or lines or [type(error).__name__])[0][:400]


def run(task: Mapping[str, Any]) -> dict[str, Any]:
    """What `model` answers to the arrays of `feeds`, written to `answers`, by calls of at most `sizes` of each name.

    `inputs` and `outputs` are in the model's order, with the names of their sizes; rows of a name that has no size go
    into one call. Sizes of the names in `padded` are exactly that in a call, with zeros behind what there is.
    """
    feeds = dict(np.load(task["feeds"]))
    call = TOOLS[task["tool"]][1](task["model"])
    given = {each["name"]: each["shape"] for each in task["inputs"]}
    most = task["sizes"]
    padded = {name: most[name] for name in task["padded"]}
    counts = {shape[0]: len(feeds[name]) for name, shape in given.items() if shape and isinstance(shape[0], str)}
    calls = max([1, *(-(-count // most.get(name, count or 1)) for name, count in counts.items())])
    parts: dict[str, list[NDArray[Any]]] = {each["name"]: [] for each in task["outputs"]}
    for place in range(calls):
        spans = {name: _span(place, most.get(name, count), count) for name, count in counts.items()}
        arrays = [_part(feeds[name], shape, spans, padded) for name, shape in given.items()]
        for each, found in zip(task["outputs"], call(arrays), strict=True):
            first = each["shape"][0] if each["shape"] else ""
            if first in spans:
                start, end = spans[first]
                parts[each["name"]].append(found[: end - start])
            elif place == 0:
                parts[each["name"]].append(found)
    answers: dict[str, Any] = {name: np.concatenate(each) if len(each) > 1 else each[0] for name, each in parts.items()}
    np.savez(task["answers"], **answers)
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
    details = signature.get_input_details()
    names = sorted(details, key=lambda name: int(name.rpartition("_")[2]))
    outputs = sorted(signature.get_output_details(), key=lambda name: int(name.rpartition("_")[2]))

    def call(arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
        pairs = zip(names, arrays, strict=True)  # ids of 64 bits, which were checked, are of 32 there
        found = signature(**{name: array.astype(details[name]["dtype"], copy=False) for name, array in pairs})
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
