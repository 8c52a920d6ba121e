"""What a lookup costs in the artifact: every kind of table as the exporter ships it, beside one Gather of floats.

26 lookups a row from one table of 16 dimensions, 256 rows a call, one thread of ONNX Runtime. The ids are uniform, so
that a table larger than the cache is read from memory, and the kinds take turns in one run. A lookup ends in floats;
where a layer of integers would take the bytes of a table as they are, that is measured beside it. Memory is what a
fresh process adds when it opens the graph and looks 256 rows up. Left out: rows of power-law ids, which stay cached.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slimrank.config import as_config, entries, runner
from slimrank.data.encoding import Inputs
from slimrank.evaluation.cost import latency
from slimrank.evaluation.resident import resident_now, use_libraries
from slimrank.exporting.graph import build_graph, write_graph
from slimrank.tables.embedding import FusedEmbedding, Layout
from slimrank.tables.integer import BYTE_ZERO, quantize_linear

FIELDS, DIM, BATCH = 26, 16, 256
ROWS = (100_000, 1_000_000, 10_000_000)
SAMPLES = 400
FLOATS = "float32"
SETTINGS: dict[str, dict[str, Any]] = {
    FLOATS: {"name": "dense"},
    "int8, one scale": {"name": "scaled", "bits": 8, "scale": "table", "range": "max"},
    "int8, a scale a field": {"name": "scaled", "bits": 8, "scale": "field", "range": "max"},
    "int4, one scale": {"name": "scaled", "bits": 4, "scale": "table", "range": "max"},
    "int4, a scale a field": {"name": "scaled", "bits": 4, "scale": "field", "range": "max"},
    "int2, a scale a field": {"name": "scaled", "bits": 2, "scale": "field", "range": "max"},
}


@dataclass(frozen=True)
class Opened:
    """A graph that `latency` can time."""

    session: Any


class Lookups(nn.Module):
    """ids [N, 26] to vectors [N, 26 * 16]: floats, or with `steps` the bytes that a layer of integers takes."""

    def __init__(self, embedding: FusedEmbedding, steps: Tensor | None = None):
        super().__init__()
        self.embedding = embedding
        self.register_buffer("steps", None if steps is None else steps.repeat_interleave(DIM))
        self.register_buffer("zero", torch.full((FIELDS * DIM,), BYTE_ZERO, dtype=torch.uint8))

    def forward(self, ids: Tensor) -> Tensor:
        vectors = self.embedding.look_up(ids, self.embedding.offsets).flatten(1)
        return vectors if self.steps is None else quantize_linear(vectors, self.steps, self.zero)


def lookups(sizes: tuple[int, ...] = ROWS, samples: int = SAMPLES) -> dict[str, Any]:
    """Nanoseconds and memory of a lookup, for every kind and number of rows, with ratios to floats in the same run."""
    return {
        "what": f"a lookup of {DIM} numbers in the artifact, {FIELDS} a row, {BATCH} rows a call, one thread",
        "shape": {"fields": FIELDS, "dim": DIM, "rows_a_call": BATCH},
        "threads": 1,
        "samples": samples,
        "settings": settings(),
        "rows": {str(rows): measured(rows, samples) for rows in sizes},
    }


def settings() -> dict[str, dict[str, Any]]:
    """Every registered kind: with the settings above, or as it is by default."""
    named = {each["name"] for each in SETTINGS.values()}
    return SETTINGS | {name: {"name": name} for name in sorted(set(entries("table")) - named)}


def measured(rows: int, samples: int) -> dict[str, dict[str, float]]:
    """All kinds over one table of so many rows, in turns."""
    with TemporaryDirectory(prefix="bench-") as folder:
        paths = write_graphs(rows, Path(folder))
        draw = np.random.default_rng(0)
        ids = draw.integers(0, rows // FIELDS, (samples * BATCH, FIELDS), dtype=np.int32)
        inputs = Inputs(ids, np.empty((len(ids), 0), np.float32))
        opened = {name: Opened(session(path)) for name, path in paths.items()}
        taken = {name: each[str(BATCH)] for name, each in latency(opened, inputs, (BATCH,), samples).items()}
        return {
            name: {
                "ns": taken[name]["p50"] * 1e6 / (BATCH * FIELDS),
                "ratio": taken[name]["p50"] / taken[FLOATS]["p50"],
                "file_bytes": sum(file.stat().st_size for file in path.parent.iterdir()),
                "resident_bytes": resident(path),
            }
            for name, path in paths.items()
        }


def write_graphs(rows: int, folder: Path) -> dict[str, Path]:
    """The graph of every kind over the same random rows, and of its bytes where a layer of integers would take them."""
    layout = Layout(tuple(f"c{place}" for place in range(FIELDS)), (rows // FIELDS,) * FIELDS, (1,) * FIELDS)
    weight = torch.randn(layout.num_rows, DIM, generator=torch.Generator().manual_seed(0)).mul_(0.1)
    paths = {}
    for name, told in settings().items():
        config = as_config("table", told)
        table = runner("table", config)(config, weight.clone(), torch.tensor(layout.starts))
        embedding = FusedEmbedding(layout, table).pack().eval()
        steps = table.steps(embedding.fields)
        modules = {name: Lookups(embedding)}
        if steps is not None:
            modules[f"{name}, as bytes"] = Lookups(embedding, steps.detach())
        for each, module in modules.items():
            paths[each] = folder / f"{len(paths)}" / "model.onnx"
            paths[each].parent.mkdir()
            write_graph(build_graph(module.requires_grad_(False), FIELDS), paths[each])
    return paths


def session(path: Path) -> Any:
    """The graph on one thread, as `runtime` opens it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def resident(path: Path) -> int:
    """Bytes that a fresh process adds when it opens the graph at `path` and looks 256 rows up."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.lookups", str(path)], capture_output=True, text=True, check=True
    )
    return int(json.loads(done.stdout))


def _child(path: Path) -> int:
    """The measurement of `resident`, in this process."""
    use_libraries()
    before = resident_now()
    opened = session(path)
    opened.run(None, {"ids": np.random.default_rng(0).integers(0, 3000, (BATCH, FIELDS), dtype=np.int32)})
    return max(0, resident_now() - before)


if __name__ == "__main__":
    print(json.dumps(_child(Path(sys.argv[1]))))
