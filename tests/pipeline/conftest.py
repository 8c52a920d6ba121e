"""One finished run, made once, and what of a result must not depend on how it came about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slimrank.files import read_json
from slimrank.pipeline.run import run
from slimrank.recipe import Recipe


@pytest.fixture(scope="session")
def done(tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of the tiny recipe that nothing disturbed; not to be changed."""
    folder = tmp_path_factory.mktemp("done") / "run"
    run(Recipe.parse(tiny()), folder)
    return folder


def essence(folder: Path) -> dict[str, Any]:
    """Quality, bytes on disk and steps of every model, and every byte of every graph: all that is not measured time."""
    result = read_json(folder / "result.json")
    models = {name: result[name] for name in ("teacher", "student", "slim") if name in result}
    kept = {
        name: {
            "quality": model["quality"],
            "bytes": {key: value for key, value in model["bytes"].items() if key != "resident"},
            "steps": model.get("steps"),
            "tensors": model["tensors"],
        }
        for name, model in models.items()
    }
    artifacts = sorted(folder.glob("seed-*/artifacts/*/*"))
    graphs = {str(file.relative_to(folder)): file.read_bytes() for file in artifacts if file.name != "stage.json"}
    return {"models": kept, "comparison": result["comparison"], "artifacts": graphs}


@pytest.fixture(scope="session")
def essence_of() -> Callable[[Path], dict[str, Any]]:
    return essence
