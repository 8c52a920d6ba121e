"""Post-training compression of one large table, by every kind: seconds, memory over the table's own, and noise.

Each case runs in a child process of its own, whose high-water mark of resident memory (Linux) is set to what it holds
right after the table is made. Every step goes by the public verb (`compress(model, [step], context, in_place=True)`,
then the table's `pack()`); int8 and int4 by the kind alone as well (`scaled(...).pack()`). Ids are met as often as a
power law says, so that steps which look at frequency have one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slimrank.tables.table import Table

ROWS, DIM, FIELDS = 10_000_000, 16, 10
SAMPLED = 100_003  # rows read back for the noise; a prime stride visits all fields
GOAL = {"seconds": 60.0, "extra_copies": 2.0}
GOAL_OF_SCALED = {"seconds": 15.0, "extra_copies": 1.0}  # int8 and int4
LOOKED_AT = 4096  # rows of data, for the steps that measure on them
EIGHTH = ROWS * DIM * 4 // 8  # bytes
KIND = "the kind alone"
CASES: dict[str, dict[str, Any]] = {
    f"int8, {KIND}": {"bits": 8},
    f"int4, {KIND}": {"bits": 4},
    "int8": {"name": "quantize-tables", "bits": 8},
    "int4": {"name": "quantize-tables", "bits": 4},
    "int2": {"name": "quantize-tables", "bits": 2},
    "int1": {"name": "quantize-tables", "bits": 1},
    "int4, a scale a row": {"name": "quantize-tables", "bits": 4, "scale": "row"},
    "mixed": {"name": "mix-bits", "budget": EIGHTH},
    "codebook, 8 parts of 8 bits": {"name": "codebook-tables", "parts": 8, "bits": 8},
    "codebook, 4 parts of 4 bits": {"name": "codebook-tables", "parts": 4, "bits": 4},
    "low-rank, 8 of 16": {"name": "reduce-dimensions", "rank": 8, "fold": False},
    "hashed, weighted": {"name": "hash-tables", "ratio": 16},
    "hashed, clustered": {"name": "hash-tables", "ratio": 16, "method": "clustered"},
    "hashed, plain": {"name": "hash-tables", "ratio": 16, "method": "plain"},
    "remapped, a tenth kept": {"name": "threshold-rows", "keep": 0.1},
}


def post_training(threads: int = 2) -> dict[str, Any]:
    """Every kind on a float32 table of 10,000,000 x 16 in ten fields, a process each."""
    return {
        "what": f"post-training compression of {ROWS:,} x {DIM} float32 ({ROWS * DIM * 4:,} bytes), {FIELDS} fields",
        "threads": threads,
        "load_average": os.getloadavg()[0],
        "goal": GOAL,
        "goal_of_int8_and_int4": GOAL_OF_SCALED,
        "results": {case: _in_child(case, threads) for case in CASES},
    }


def _in_child(case: str, threads: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.post_training", case, str(threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parents[1])
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _by_kind(told: dict[str, Any], rows: int) -> tuple[Tensor, Callable[[], Table]]:
    """A table's rows, and the work on them."""
    from slimrank.tables.scaled import Scaled, scaled

    weight = torch.randn(rows, DIM).mul_(0.01)
    starts = torch.arange(0, rows, rows // FIELDS)
    return weight, lambda: scaled(Scaled(**told), weight, starts).pack()


def _by_step(told: dict[str, Any], rows: int) -> tuple[Tensor, Callable[[], Table]]:
    """The rows of a model's table, and the work on the model."""
    from slimrank.compression.steps import Context, compress
    from slimrank.config import as_config
    from slimrank.models.architecture import build_model
    from slimrank.models.dnn import DNN
    from slimrank.tables.embedding import Layout
    from slimrank.training.examples import Examples

    own = rows // FIELDS
    layout = Layout(tuple(f"c{place}" for place in range(FIELDS)), (own,) * FIELDS, (1,) * FIELDS)
    model = build_model(DNN(embedding_dim=DIM, hidden=(8,)), layout, seed=1)
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(own, (LOOKED_AT, FIELDS), dtype=torch.int32, generator=draw)
    seen = Examples(ids, torch.zeros(LOOKED_AT, 0), torch.randint(2, (LOOKED_AT,), generator=draw).float())
    met = (own / torch.arange(1.0, own + 1)).floor().numpy()
    given = frozenset(layout.names) if told["name"] == "threshold-rows" else frozenset()  # a map, not a cut vocabulary
    context = Context(seen, seen, dict.fromkeys(layout.names, met), unsorted=given)
    step = as_config("step", told)

    def work() -> Table:
        small, _ = compress(model, [step], context, in_place=True)
        packed: Table = small.embedding.pack().table
        return packed

    return model.embedding.table.weight.detach(), work


def _child(case: str, threads: int) -> dict[str, Any]:
    """One measurement, in this process. A small table goes first, so that what is loaded once is not counted."""
    torch.set_num_threads(threads)
    told = CASES[case]
    way = _by_step if "name" in told else _by_kind
    small = told | ({"budget": 100_000} if "budget" in told else {})
    way(small, 1000 * FIELDS)[1]()
    weight, work = way(told, ROWS)
    signal = _sampled(weight)
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM to what is resident now
    before, start, used = _status("VmRSS"), time.perf_counter(), time.process_time()
    packed = work()
    seconds, processor = time.perf_counter() - start, time.process_time() - used
    extra = _status("VmHWM") - before
    return {
        "seconds": seconds,
        "processor_seconds": processor,
        "extra_copies": extra / (ROWS * DIM * 4),
        "packed_bytes": packed.nbytes,
        "snr_db": _snr(signal, packed),
    }


def _sampled(weight: Tensor) -> Tensor:
    """Rows of all fields, copied."""
    return weight[:: len(weight) // SAMPLED].clone()


def _snr(true: Tensor, packed: Table) -> float | None:
    """Signal over noise of a sample of rows, in decibels: 10 log10(sum x^2 / sum (x' - x)^2); None where rows moved."""
    if packed.num_rows != ROWS:
        return None
    with torch.inference_mode():
        ids = torch.arange(0, ROWS, ROWS // SAMPLED)
        fields = ids // (ROWS // FIELDS)
        noise = sum(
            (packed(ids[fields == field].unsqueeze(1), (field,)).flatten(1) - true[fields == field]).square().sum()
            for field in range(FIELDS)
        )
        return float(10 * torch.log10(true.square().sum() / noise))


def _status(key: str) -> int:
    """A number of bytes from Linux's record of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


if __name__ == "__main__":
    print(json.dumps(_child(sys.argv[1], int(sys.argv[2]))))
