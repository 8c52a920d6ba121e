"""How long `import slimrank.runtime` takes in a fresh interpreter, beside an interpreter that imports nothing.

python bench/import_time.py [RUNS]        prints one JSON object; seconds, the whole process

Beside the wall time stands the processor time (user and system), which a busy machine stretches less.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time

GOAL_SECONDS = 0.5
STATEMENTS = {"nothing": "pass", "onnxruntime": "import onnxruntime", "slimrank.runtime": "import slimrank.runtime"}


def seconds(statement: str) -> tuple[float, float]:
    """Wall and processor time of one interpreter that runs `statement`."""
    start, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, "-c", statement], check=True)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, used


def main(runs: int) -> None:
    """Interleave the statements, so that a slow moment of the machine hits all of them; the first round warms up."""
    rounds = [{name: seconds(statement) for name, statement in STATEMENTS.items()} for _ in range(runs + 1)][1:]
    times = {name: [each[name][0] for each in rounds] for name in STATEMENTS}
    used = {name: statistics.median(each[name][1] for each in rounds) for name in STATEMENTS}
    script = "import sys, slimrank.runtime; print('torch' in sys.modules)"
    torch = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.strip()
    report = {
        "what": "import slimrank.runtime, fresh process",
        "runs": runs,
        "seconds": {name: {"p50": statistics.median(t), "min": min(t), "max": max(t)} for name, t in times.items()},
        "import_seconds": statistics.median(times["slimrank.runtime"]) - statistics.median(times["nothing"]),
        "processor_seconds": used,
        "load_average": os.getloadavg()[0],
        "goal_seconds": GOAL_SECONDS,
        "torch_imported": torch == "True",
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
