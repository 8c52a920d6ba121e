"""How long `import slimrank.runtime` takes in a fresh interpreter, beside an interpreter that imports nothing.

Beside the wall time stands the processor time (user and system), which a busy machine stretches less.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from typing import Any

GOAL = {"import_seconds": 0.5, "torch_imported": False}
STATEMENTS = {"nothing": "pass", "onnxruntime": "import onnxruntime", "slimrank.runtime": "import slimrank.runtime"}
IMPORTS_TORCH = "import sys, slimrank.runtime; print('torch' in sys.modules)"


def import_time(runs: int = 20) -> dict[str, Any]:
    """Seconds of whole processes, the statements in turns, after a round that warms up."""
    rounds = [{name: _seconds(statement) for name, statement in STATEMENTS.items()} for _ in range(runs + 1)][1:]
    times = {name: [each[name][0] for each in rounds] for name in STATEMENTS}
    used = {name: statistics.median(each[name][1] for each in rounds) for name in STATEMENTS}
    torch = subprocess.run([sys.executable, "-c", IMPORTS_TORCH], check=True, capture_output=True, text=True)
    return {
        "what": "import slimrank.runtime, fresh process",
        "samples": runs,
        "seconds": {name: {"p50": statistics.median(t), "min": min(t), "max": max(t)} for name, t in times.items()},
        "import_seconds": statistics.median(times["slimrank.runtime"]) - statistics.median(times["nothing"]),
        "import_processor_seconds": used["slimrank.runtime"] - used["nothing"],
        "torch_imported": torch.stdout.strip() == "True",
        "load_average": os.getloadavg()[0],
        "goal": GOAL,
    }


def _seconds(statement: str) -> tuple[float, float]:
    """Wall and processor time of one interpreter that runs `statement`."""
    start, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, "-c", statement], check=True)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, used
