"""What every deployment that can be asked here promises: the artifact's answers, and the artifact's refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimrank import runtime
from slimrank.compression.steps import Context, compress
from slimrank.config import InputError, as_config, entries
from slimrank.deploying.asking import ask, bounds_of, deployed_graph, tensor_graph
from slimrank.deploying.parity import Parity, parity
from slimrank.exporting.artifact import export
from slimrank.training.examples import Examples

ROOT = Path(__file__).parents[2]
TARGETS = sorted(entries("deployed"))
SHAPE = "ids, sequence and numbers"
STEPS: dict[str, list[Any]] = {
    "int8": [{"name": "quantize-tables", "bits": 8}],
    "int4": [{"name": "quantize-tables", "bits": 4}, "quantize-dense"],
    "codebook": [{"name": "codebook-tables", "parts": 4, "bits": 4}, "quantize-dense"],
    "hashed": [{"name": "hash-tables", "ratio": 4, "least_rows": 8}, "quantize-tables", "quantize-dense"],
}


@pytest.fixture(scope="module")
def ranker(problem: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The artifact of a ranker whose tables are of that kind; made once."""
    folder = tmp_path_factory.mktemp("rankers")

    def make(kind: str) -> Path:
        if not (folder / kind).exists():
            case = problem(SHAPE)
            context = Context(Examples.of(case.encoded.train), Examples.of(case.encoded.valid), case.encoding.counts)
            model, _ = compress(case.model("dnn"), STEPS[kind], context)
            export(model.eval(), case.encoding, folder / kind)
        return folder / kind

    return make


def target(name: str) -> Any:
    """The target, with what it runs in where that is beside the project: an environment, or packages of npm."""
    beside = {
        "python": ROOT / f".venv-edge-{name}" / "bin" / "python",
        "runtime": ROOT / "tests" / "browser" / "node_modules" / "onnxruntime-web" / "dist",
    }
    if not (beside["python"].parent.parent / "ready").exists():  # it is made just now
        del beside["python"]
    known = entries("deployment target")[name].config.model_fields
    found = {key: str(path) for key, path in beside.items() if key in known and path.exists()}
    return as_config("deployment target", {"name": name, **found})


def of_target(name: str, artifact: Path, **more: Any) -> Parity:
    """What parity finds of it; the test is skipped where its runtime is not installed."""
    (found,) = parity(artifact, [target(name)], **more)
    if "not installed" in found.refused or "edge.sh" in found.refused:
        pytest.skip(found.refused)
    return found


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("name", TARGETS)
def test_it_answers_as_the_artifact_does(name: str, kind: str, ranker: Any) -> None:
    found = of_target(name, ranker(kind), requests=30)
    assert (found.refused, found.agrees) == ("", True)
    assert found.rows > 300
    assert found.largest <= 1e-3
    assert (found.rows_within, found.same_top) == (1.0, 1.0)


@pytest.mark.parametrize("name", TARGETS)
def test_raw_rows_with_ids_that_nobody_knows_score_the_same(name: str, ranker: Any, problem: Any) -> None:
    rows = problem(SHAPE).dataset.test.head(20).drop("label").to_dict(as_series=False)
    rows = {**rows, "user": [10**9] * 10 + [None] * 10, "item": ["no such item"] * 20, "tags": [["?"], []] * 10}
    opened = runtime.load(ranker("int4"))
    unknown = opened.encoder(rows)[1]
    assert (unknown["user"], unknown["item"], unknown["tags"]) == (10, 20, 10)
    assert of_target(name, ranker("int4"), rows=rows).agrees


def faults(opened: Any) -> dict[str, dict[str, Any]]:
    """Feeds that no runtime may see, by what is wrong with them."""
    limits = np.array([count for _, _, count in bounds_of(opened)["ids"]], np.int32)
    ids, numbers = np.zeros((3, len(limits)), np.int32), np.zeros((3, 2), np.float32)
    last = ids.copy()
    last[2] = limits - 1
    changed = {
        "below": last - np.eye(3, len(limits), dtype=np.int32),
        "above": last + (np.arange(3) == 2)[:, None] * np.eye(1, len(limits), dtype=np.int32),
        "far above": ids + np.int32(2**31 - 1),
    }
    found: dict[str, dict[str, Any]] = {name: {"ids": each, "numbers": numbers} for name, each in changed.items()}
    for name, value in (("NaN", np.nan), ("infinite", -np.inf)):
        found[name] = {"ids": last, "numbers": np.array([[0, 0], [value, 0], [0, 1]], np.float32)}
    found["missing"] = {"ids": last}
    found["unknown"] = {"ids": last, "numbers": numbers, "number": numbers}
    found["type"] = {"ids": last.astype(np.float32), "numbers": numbers}
    found["rows"] = {"ids": last, "numbers": numbers[:2]}
    return found


@pytest.mark.parametrize("name", TARGETS)
def test_what_the_artifact_refuses_no_runtime_sees(name: str, ranker: Any, tmp_path: Path) -> None:
    """There is nothing in the folder, so a fault that came as far as the runtime would be another error."""
    opened = runtime.load(ranker("int4"))
    deployed = deployed_graph(opened, target(name), tmp_path / "nothing")
    for fault, feeds in faults(opened).items():
        words = []
        for graph in (tensor_graph(opened), deployed):
            with pytest.raises(InputError) as refused:
                ask(graph, feeds)
            words.append(str(refused.value))
        assert words[0] == words[1], fault
