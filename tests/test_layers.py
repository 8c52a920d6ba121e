"""The house as its source stands: imports point one way, the runtime needs no torch, nothing outgrows its size."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import slimrank

SOURCE = Path(slimrank.__file__).parent
ORDER = (
    *(
        "config",
        "files",
        "artifact",
        "signing",
        "metrics",
        "data",
        "indexing",
        "tables",
        "models",
        "training",
        "compression",
    ),
    *(
        "adaptors",
        "exporting",
        "graphs",
        "runtime",
        "deploying",
        "shipping",
        "evaluation",
        "serving",
        "recipe",
        "searching",
        "report",
    ),
    *("pipeline", "api", "estimator", "predicting", "cli"),
    "reference",
)
SERVING = {"config", "files", "artifact", "signing", "metrics", "data", "indexing", "runtime", "serving"}
LOADED_WHERE_INSTALLED = {"slimrank.runtime.shared": {"graphs"}}  # inside a function: it works without, and says so
TORCH_FREE = (
    *("runtime", "serving", "artifact", "config", "files", "metrics", "data", "indexing", "evaluation", "report"),
    *("graphs", "signing", "deploying", "shipping"),
)
HEAVY = {"torch", "onnx", "onnxscript", "onnx_ir", "optuna", "sklearn"}
NEEDED = {"graphs": {"onnx", "onnx_ir"}}  # what a room is there to read
MODULES = sorted(SOURCE.rglob("*.py"))


def room(name: str) -> str:
    """The room of a dotted module name inside the package; '' for the package itself."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports(path: Path) -> Iterator[str]:
    """The modules of this package that a file imports, wherever in the file, type checking included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "slimrank":
                yield from (f"slimrank.{alias.name}" for alias in node.names)
            elif (node.module or "").startswith("slimrank."):
                yield str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("slimrank."))


def name_of(path: Path) -> str:
    return "slimrank." + ".".join(path.relative_to(SOURCE).with_suffix("").parts)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_one_way(path: Path) -> None:
    own = room(name_of(path))
    if own == "__init__":  # the package's own face: it holds the version, and what it offers is imported when asked for
        return
    assert own in ORDER, f"{own} has no place in the order"
    above = {room(name) for name in imports(path)} - {own, "__version__"}
    wrong = [name for name in above if ORDER.index(name) > ORDER.index(own)]
    assert wrong == []
    if own in ("runtime", "serving"):
        assert above <= SERVING | LOADED_WHERE_INSTALLED.get(name_of(path), set())


@pytest.mark.parametrize("name", TORCH_FREE)
def test_what_serves_and_measures_needs_no_torch(name: str) -> None:
    """In a fresh interpreter, with every module of the room imported."""
    program = (
        "import importlib, pkgutil, sys\n"
        f"room = importlib.import_module('slimrank.{name}')\n"
        "for each in pkgutil.walk_packages(getattr(room, '__path__', []), room.__name__ + '.'):\n"
        "    importlib.import_module(each.name)\n"
        f"heavy = {HEAVY - NEEDED.get(name, set())} & set(sys.modules)\n"
        "print(*sorted(heavy))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("name", ["runtime", "serving"])
def test_serving_loads_no_room_that_it_does_not_need(name: str) -> None:
    program = f"import sys, slimrank.{name}; print(*[m for m in sys.modules if m.startswith('slimrank.')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {room(module) for module in done.stdout.split()} <= SERVING


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_are_small_and_say_why_they_exist(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree), f"{path} has no docstring"
    assert len(text.splitlines()) <= 400, f"{path} has outgrown a file"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 60, f"{path}: {node.name} has outgrown a function"
            count = len(node.args.args) + len(node.args.kwonlyargs) + len(node.args.posonlyargs)
            assert count <= 9, f"{path}: {node.name} takes too much"


def test_no_room_is_called_after_nothing() -> None:
    names = {path.stem for path in MODULES} | {path.parent.name for path in MODULES}
    assert not names & {"utils", "helpers", "common", "misc", "manager"}
