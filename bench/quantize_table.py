"""Post-training quantisation of one large table: seconds, memory over the table's own, and noise.

Each width runs in a child process of its own, whose high-water mark of resident memory (Linux) is set to what it holds
right after the table is made. Two ways: the table kind by itself (`scaled(...).pack()`), and the public verb
(`compress(model, [QuantizeTables(bits)], context, in_place=True)`, then the table's `pack()`).
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
GOAL = {"seconds": 15.0, "extra_copies": 1.0}


def quantize_table(threads: int = 2) -> dict[str, Any]:
    """int8 and int4 of a float32 table of 10,000,000 x 16 in ten fields, by both ways, a process each."""
    runs = [_in_child(way, bits, threads) for way in WAYS for bits in (8, 4)]
    return {
        "what": f"post-training quantisation of {ROWS:,} x {DIM} float32 ({ROWS * DIM * 4:,} bytes), {FIELDS} fields",
        "threads": threads,
        "load_average": os.getloadavg()[0],
        "goal": GOAL,
        "results": runs,
    }


def _in_child(way: str, bits: int, threads: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.quantize_table", way, str(bits), str(threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parents[1])
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _by_kind(bits: int, rows: int) -> tuple[Tensor, Callable[[], Table]]:
    """A table's rows, and the work on them."""
    from slimrank.tables.scaled import Scaled, scaled

    weight = torch.randn(rows, DIM).mul_(0.01)
    starts = torch.arange(0, rows, rows // FIELDS)
    return weight, lambda: scaled(Scaled(bits=bits), weight, starts).pack()


def _by_step(bits: int, rows: int) -> tuple[Tensor, Callable[[], Table]]:
    """The rows of a model's table, and the work on the model."""
    from slimrank.compression.quantize_tables import QuantizeTables
    from slimrank.compression.steps import Context, compress
    from slimrank.models.architecture import build_model
    from slimrank.models.dnn import DNN
    from slimrank.tables.embedding import Layout
    from slimrank.training.examples import Examples

    layout = Layout(tuple(f"c{place}" for place in range(FIELDS)), (rows // FIELDS,) * FIELDS, (1,) * FIELDS)
    model = build_model(DNN(embedding_dim=DIM, hidden=(8,)), layout, seed=1)
    none = Examples(torch.zeros(1, FIELDS, dtype=torch.int32), torch.zeros(1, 0), torch.zeros(1))
    context = Context(none, none)

    def work() -> Table:
        small, _ = compress(model, [QuantizeTables(bits=bits)], context, in_place=True)
        packed: Table = small.embedding.table.pack()
        return packed

    return model.embedding.table.weight.detach(), work


WAYS: dict[str, Callable[[int, int], tuple[Tensor, Callable[[], Table]]]] = {
    "scaled": _by_kind,
    "compress": _by_step,
}


def _child(way: str, bits: int, threads: int) -> dict[str, Any]:
    """One measurement, in this process. A small table goes first, so that what is loaded once is not counted."""
    torch.set_num_threads(threads)
    WAYS[way](bits, 10 * FIELDS)[1]()
    weight, work = WAYS[way](bits, ROWS)
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM to what is resident now
    before, start, used = _status("VmRSS"), time.perf_counter(), time.process_time()
    packed = work()
    seconds, processor = time.perf_counter() - start, time.process_time() - used
    extra = _status("VmHWM") - before
    return {
        "way": way,
        "bits": bits,
        "seconds": seconds,
        "processor_seconds": processor,
        "extra_copies": extra / (weight.numel() * 4),
        "packed_bytes": packed.nbytes,
        "snr_db": _snr(weight, packed),
    }


def _snr(weight: Tensor, packed: Table) -> float:
    """Signal over noise of a sample of rows, in decibels: 10 log10(sum x^2 / sum (x' - x)^2)."""
    with torch.inference_mode():
        ids = torch.arange(0, len(weight), len(weight) // SAMPLED)
        true = weight[ids]
        noise = (packed(ids) - true).square().sum()
        return float(10 * torch.log10(true.square().sum() / noise))


def _status(key: str) -> int:
    """A number of bytes from Linux's record of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


if __name__ == "__main__":
    print(json.dumps(_child(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
