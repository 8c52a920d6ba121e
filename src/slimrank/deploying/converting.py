"""What the targets of phones share that begin with torch: a converter in an environment of its own, and what it wrote.

litert-torch and ExecuTorch ask for packages that do not go with ours, so `phones.program` runs with the interpreter of
an environment that has them. It is given paths, and gives back what it found in a file.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import PlainSerializer, PositiveInt

import slimrank
from slimrank.config import Config, InputError, name_of
from slimrank.deploying.asking import CHECKS, check_answers, golden_feeds, tensor_graph, write_checks
from slimrank.files import read_json
from slimrank.runtime import Graph
from slimrank.runtime.opened import Opened

# The package's modules without what is installed beside it, which is not for another environment.
START = (
    "import sys, types; package = types.ModuleType('slimrank'); package.__path__ = [sys.argv.pop(1)]; "
    "sys.modules['slimrank'] = package; from slimrank.deploying.phones.program import main; main()"
)
Interpreter = Annotated[Path | None, PlainSerializer(lambda value: None)]  # a record holds no machine's paths


class Phone(Config):
    """What a converter with an environment of its own is told.

    Attributes:
        rows: the most rows of a call.
        python: the interpreter of an environment with the tool; None: ours has it.
    """

    name: str
    rows: PositiveInt = 128
    python: Interpreter = None


def write_phone(config: Phone, opened: Opened | Graph, folder: Path, model: str, *, fixed: bool) -> None:
    """Convert an artifact's graph to the file `model` of `folder`, and ask it the golden rows.

    With `fixed`, sizes that vary are `rows`, and a call of fewer has zeros behind them; of a model that is asked by
    tensors they are those of its golden rows, since nothing proves that its rows do not see each other.

    Raises:
        InputError: an operator is missing there, the tool is not installed, or an answer is not the artifact's.
    """
    graph, feeds = tensor_graph(opened), golden_feeds(opened)
    known = _known_sizes(opened, graph, feeds, fixed)
    most = {size: known.get(size, config.rows) for size in _names(graph)}
    given = most if fixed else known
    sizes = {name: [given.get(str(size), size) for size in spec.shape] for name, spec in graph.inputs.items()}
    ends = {
        side: [{"name": each.name, "shape": list(each.shape)} for each in specs.values()]
        for side, specs in (("inputs", graph.inputs), ("outputs", graph.outputs))
    }
    whole = isinstance(opened, Graph)  # nothing proves that its rows do not see each other
    asked = {"padded": [] if whole else sorted(given), "sizes": {} if whole else most}
    task = {
        "do": "convert",
        "tool": name_of(config),
        "graph": str(opened.artifact.files["model.onnx"]),
        "model": str(folder / model),
        "inputs": {name: {"dtype": spec.dtype.name, "sizes": sizes[name]} for name, spec in graph.inputs.items()},
        "most": config.rows,
    }
    found, answers = _work(config, task, {**ends, **asked}, feeds)
    size = sum(path.stat().st_size for file, path in opened.artifact.files.items() if file.startswith("model.onnx"))
    more = {"model": (folder / model).stat().st_size, "constants": found["constants"], "artifact": size}
    limits = {"most": most, "exactly": fixed and whole}
    write_checks(opened, folder, {"calls": {**asked, **limits}, "bytes": more})
    if feeds is not None:
        check_answers(opened, feeds, answers, name_of(config))


def run_phone(config: Phone, folder: Path, feeds: Mapping[str, NDArray[Any]], model: str) -> dict[str, NDArray[Any]]:
    """The outputs of what `write_phone` wrote, in the tool's own runtime, by calls of at most `rows`.

    Raises:
        InputError: the runtime is not installed, or does not answer; sizes are fixed and others were given.
    """
    checks = read_json(folder / CHECKS)
    calls = checks["calls"]
    for each in checks["inputs"]:
        shape = feeds[each["name"]].shape
        for name, size in zip(each["shape"], shape, strict=True):
            limit = size if name in calls["sizes"] and name == each["shape"][0] else calls["most"].get(name, size)
            if size > limit or (calls["exactly"] and size != limit):
                raise InputError(f"input {each['name']!r}: {name} is {size}, the deployment takes {limit}")
    task = {"tool": name_of(config), "model": str(folder / model)}
    return _work(config, task, {**calls, "inputs": checks["inputs"], "outputs": checks["outputs"]}, feeds)[1]


def _known_sizes(opened: Opened | Graph, graph: Graph, feeds: Any, fixed: bool) -> dict[str, int]:
    """Sizes that vary in the artifact and not on a phone: the columns of ids, and what is asked by tensors alone."""
    if not isinstance(opened, Graph):
        spec = graph.inputs.get("ids")
        width = spec.shape[1] if spec is not None else None
        return {width: len(opened.checks.columns)} if isinstance(width, str) else {}
    known: dict[str, int] = {}
    if fixed and feeds is not None:
        for name, spec in graph.inputs.items():
            spec.check_sizes(feeds[name], known)
            known |= {str(size): have for size, have in zip(spec.shape, feeds[name].shape, strict=True)}
    return known


def _names(graph: Graph) -> list[str]:
    """The names of sizes that vary."""
    return [size for spec in graph.inputs.values() for size in spec.shape if isinstance(size, str)]


def _work(
    config: Phone, task: Mapping[str, Any], ends: Mapping[str, Any], feeds: Mapping[str, NDArray[Any]] | None
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """What the program found, and what the model answers to `feeds`."""
    with TemporaryDirectory() as work:
        place = Path(work)
        asked = {**ends, "feeds": str(place / "feeds.npz"), "answers": str(place / "answers.npz")}
        tasks = [task] if "do" in task else []
        if feeds is not None:
            np.savez(place / "feeds.npz", allow_pickle=False, **feeds)
            tasks.append({**task, **asked, "do": "run"})
        (place / "tasks.json").write_text(json.dumps({"tasks": tasks, "found": str(place / "found.json")}))
        done = _run_program(config, place)
        found = read_json(place / "found.json") if (place / "found.json").exists() else _failed(config, done)
        if "absent" in found:
            raise InputError(
                f"{name_of(config)}: {config.python or 'this environment'} has no {found['absent']}; "
                f"`sh bench/peers/edge.sh` makes one that has, and {name_of(config)}:python=PATH names its interpreter"
            )
        if "missing" in found:
            raise InputError(f"{name_of(config)}: missing there: {found['missing']}")
        if feeds is None:
            return found, {}
        with np.load(place / "answers.npz", allow_pickle=False) as stored:
            return found, dict(stored)


def _failed(config: Phone, done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """What a program that found nothing was missing; or its last word, as an error."""
    if done.returncode < 0:
        raise InputError(
            f"{name_of(config)}: ended by signal {-done.returncode}; of 9 the machine has too little memory"
        )
    last = (done.stderr.strip().splitlines() or ["ended without a word"])[-1]
    absent = re.fullmatch(r"ModuleNotFoundError: No module named '(.+)'", last)
    if absent:
        return {"absent": absent[1]}
    raise InputError(f"{name_of(config)}: {last}")


def _run_program(config: Phone, place: Path) -> subprocess.CompletedProcess[str]:
    python = str(config.python or sys.executable)
    words = [python, "-I", "-c", START, str(Path(slimrank.__file__).parent), str(place / "tasks.json")]
    try:
        return subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise InputError(f"{name_of(config)}: python={python} cannot be run: {error.strerror}") from None
