"""Rows of Frappe as other libraries take them, and what must hold of every library's model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from slimrank.api import compress, export
from slimrank.config import InputError
from slimrank.data import load_dataset
from slimrank.data.rows import encode_dataset
from slimrank.metrics import auc
from slimrank.runtime import Graph, load_graph
from slimrank.serving.protocol import DATATYPES

ROWS = {"train": 40_000, "test": 10_000}
PAIR = ("before", "after")


@dataclass(frozen=True)
class FrappeRows:
    """Ids by field, and for each part of the data some rows, a column a field, and their labels."""

    sizes: dict[str, int]
    parts: dict[str, tuple[dict[str, Tensor], Tensor]]

    def batches(self, part: str, size: int = 2048) -> list[tuple[dict[str, Tensor], Tensor]]:
        """The rows in batches of columns and labels."""
        columns, label = self.parts[part]
        cuts = [slice(start, start + size) for start in range(0, len(label), size)]
        return [({name: column[cut] for name, column in columns.items()}, label[cut]) for cut in cuts]

    def columns(self, part: str) -> list[dict[str, Tensor]]:
        """The rows in batches without labels."""
        return [columns for columns, _ in self.batches(part)]

    def auc(self, score: np.ndarray) -> float:
        """AUC of the test rows."""
        return float(auc(self.parts["test"][1].numpy(), score.ravel()))


@pytest.fixture(scope="session")
def frappe() -> FrappeRows:
    """Some of Frappe's rows; skips where the data is not there."""
    try:
        encoded = encode_dataset(load_dataset("frappe"))
    except InputError as error:
        pytest.skip(str(error))
    sizes = dict(encoded.encoding.sizes)
    parts = {}
    for name, count in ROWS.items():
        rows = getattr(encoded, name)
        chosen = np.random.default_rng(0).permutation(len(rows.label))[:count]
        ids = torch.from_numpy(rows.inputs.ids[chosen].astype(np.int64))
        columns = {field: ids[:, place].contiguous() for place, field in enumerate(sizes)}
        parts[name] = columns, torch.from_numpy(rows.label[chosen].astype(np.float32))
    return FrappeRows(sizes, parts)


@dataclass(frozen=True)
class Library:
    """A trained model of another library, and what is asked of it.

    Attributes:
        model: the library's.
        batches: of training rows, in the form that the library has them.
        example: what it is exported with; of 4 rows or more.
        answer: what the library itself says of the example.
        forward: how slimrank calls it; None for as its adaptor does.
        axes: of the example, beside its rows.
        steps: what it is compressed with.
        rounding: share of the largest answer by which an artifact may differ from its module: where a number lies
            between two bytes, they may round it otherwise, and the layers behind that go on with another byte.
    """

    model: nn.Module
    batches: list[Any]
    example: Any
    answer: Callable[[nn.Module], Tensor]
    forward: Callable[[nn.Module, Any], Any] | None = None
    axes: dict[str, dict[int, str]] = field(default_factory=dict)
    steps: list[Any] = field(default_factory=lambda: [{"name": "quantize-tables", "bits": 4}, "quantize-dense"])
    rounding: float = 0.03

    def compressed(self) -> tuple[nn.Module, list[dict[str, Any]]]:
        """The smaller model and the records of its steps."""
        return compress(self.model, self.steps, self.batches, forward=self.forward)

    def said(self, model: nn.Module) -> NDArray[np.float32]:
        """What the library says of the example with such a model."""
        with torch.no_grad():
            return self.answer(model.eval()).numpy()

    def served(self, model: nn.Module, path: Path) -> NDArray[np.float32]:
        """What the artifact of the model says of the example: of all rows at once, and of some the same."""
        export(model, self.example, path, forward=self.forward, axes=self.axes)
        graph = load_graph(path)
        rows = self.arrays(graph)
        (found,) = graph.run(rows).values()
        (some,) = graph.run({name: array[1:3] for name, array in rows.items()}).values()
        np.testing.assert_allclose(some, found[1:3], rtol=1e-4, atol=1e-5)
        return found

    def check(self, path: Path, smaller: float) -> None:
        """That it is compressed as it comes: bytes touched, parity of artifacts and modules, sizes, state, service."""
        before = self.said(self.model)
        small, records = self.compressed()
        np.testing.assert_array_equal(self.said(self.model), before)
        assert type(small) is type(self.model)
        tables = [each.weight for each in self.model.modules() if isinstance(each, nn.Embedding | nn.EmbeddingBag)]
        touched = sum(each["touched_bytes"] for each in records if each["name"] == "quantize-tables")
        assert touched == sum(4 * each.numel() for each in tables)
        scale = np.abs(before).max()
        for name, model in (("before", self.model), ("after", small)):
            found = self.served(model, path / name)
            tolerance = scale * (1e-4 if name == "before" else self.rounding)
            np.testing.assert_allclose(found, self.said(model), atol=tolerance)
        sizes = {name: sum(file.stat().st_size for file in (path / name).glob("model.onnx*")) for name in PAIR}
        assert sizes["before"] > smaller * sizes["after"]
        self.check_state(small, path)
        self.check_service(path / "after")

    def check_service(self, path: Path) -> None:
        """That a server answers over HTTP as the artifact does."""
        graph = load_graph(path)
        rows = {name: leaf[:3] for name, leaf in self.arrays(graph).items()}
        ((name, expected),) = graph.run(rows).items()
        with server(path) as address:
            found = infer(address, path.name, graph, rows)
        assert found["name"] == name
        np.testing.assert_allclose(found["data"], expected.ravel(), rtol=1e-6)

    def arrays(self, graph: Graph) -> dict[str, NDArray[Any]]:
        """The example by the names of a graph's inputs."""
        leaves = [leaf.numpy() for leaf in tree_leaves(self.example) if isinstance(leaf, Tensor)]
        return dict(zip(graph.inputs, leaves, strict=True))

    def check_state(self, small: nn.Module, path: Path) -> None:
        """That a state from a file makes a model that was compressed alike answer the same."""
        again, _ = self.compressed()
        with torch.no_grad():
            for parameter in again.parameters():
                parameter.add_(0.01)
        assert not np.allclose(self.said(again), self.said(small), atol=1e-6)
        save_file({name: each.contiguous().clone() for name, each in small.state_dict().items()}, path / "state")
        again.load_state_dict(load_file(path / "state"))
        np.testing.assert_allclose(self.said(again), self.said(small), atol=1e-6)


@contextmanager
def server(path: Path) -> Iterator[str]:
    """The address of a service of an artifact, in a process of its own."""
    program = (
        "import sys; from slimrank.serving import Settings, models_of, serve; "
        "serve(Settings(models=models_of([sys.argv[1]]), port=0))"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(path)], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "INFO: serving" in line:
                yield line.split()[-1]
                return
        raise AssertionError("".join(lines))
    finally:
        process.terminate()
        process.communicate()


def infer(address: str, name: str, graph: Graph, rows: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """What a service answers to rows by the Open Inference Protocol: its one output."""
    inputs = [
        {
            "name": each,
            "shape": list(array.shape),
            "datatype": DATATYPES[graph.inputs[each].dtype.name],
            "data": array.ravel().tolist(),
        }
        for each, array in rows.items()
    ]
    request = Request(f"{address}/v2/models/{name}/infer", json.dumps({"inputs": inputs}).encode(), method="POST")
    with urlopen(request) as reply:
        (found,) = json.load(reply)["outputs"]
    return dict(found)


@pytest.fixture(scope="session")
def library() -> type[Library]:
    """What takes a model of a library, and checks it."""
    return Library
