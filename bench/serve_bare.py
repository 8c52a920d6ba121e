"""The runtime alone, in a process of its own on the servers' processor: what the service is held against.

`python -m bench.serve_bare ARTIFACT CORE SAMPLES RATE` says milliseconds of one thread for the same 256 rows:
`columns` and `rows` are `Model.predict` of raw rows, as columns or a mapping each, and `tensors` is `Model.score` of
encoded ones. Calls come at RATE a second on average, with the gaps of a Poisson process, as requests do: the processor
sleeps between them, and finds its caches cold. Of RATE 0 they follow one another at once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench.load.figures import spread
from bench.serve_servers import ONE_THREAD, ROOT


def bare(artifact: Path, core: int, samples: int, rate: float = 0.0) -> dict[str, dict[str, float]]:
    """Percentiles of milliseconds, by how the runtime is asked, in turns; `rate` calls a second, or as many as go."""
    command = [sys.executable, "-m", "bench.serve_bare", str(artifact), str(core), str(samples), str(rate)]
    environment = {**os.environ, **ONE_THREAD}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=environment)
    found: dict[str, dict[str, float]] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _measure(artifact: str, samples: int, rate: float) -> dict[str, Any]:
    import numpy as np

    from bench.serve_requests import encoded, frappe_works
    from slimrank.evaluation.cost import take_turns
    from slimrank.runtime import load

    model = load(artifact)
    works = frappe_works(model.encoding.schema.inputs)
    asked: dict[str, list[Callable[[], object]]] = {"columns": [], "rows": [], "tensors": []}
    for work in works:
        columns, inputs = work.columns, encoded(model, work)
        rows = [{**work.shared, **row} for row in work.rows]
        asked["columns"].append(partial(model.predict, columns))
        asked["rows"].append(partial(model.predict, rows))
        asked["tensors"].append(partial(model.score, inputs))

    draw, due = np.random.default_rng(0), time.perf_counter()

    def prepared(calls: list[Callable[[], object]], sample: int) -> Callable[[], object]:
        nonlocal due
        if rate:
            due += draw.exponential(1 / rate)
            time.sleep(max(0.0, due - time.perf_counter()))
        return calls[sample % len(calls)]

    taken = take_turns({name: partial(prepared, calls) for name, calls in asked.items()}, samples)
    return {name: spread(each) for name, each in taken.items()}


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(sys.argv[2])})
    print(json.dumps(_measure(sys.argv[1], int(sys.argv[3]), float(sys.argv[4]))))
