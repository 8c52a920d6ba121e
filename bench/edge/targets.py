"""Frappe's slim artifact through every deployment target, each in its own runtime: what differs, and what it weighs.

`sh bench/peers/edge.sh` makes the environments of litert and executorch; without one its row says so.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from bench.edge.browser import DIST
from slimrank.deploying.parity import parity
from slimrank.evaluation.cost import disk_bytes
from slimrank.pipeline.run import run
from slimrank.recipe import read_recipe

ROOT = Path(__file__).parents[2]
GOAL = {"requests_within": 0.999, "same_top": 0.999}
REQUESTS = 1000
OWN = ("litert", "executorch")  # targets with environments of their own


def edge_targets(folder: Path) -> dict[str, Any]:
    """Made requests of 10 to 100 candidates, and golden rows, asked of all targets."""
    run(read_recipe(ROOT / "recipes" / "frappe_edge.py"), folder)
    artifact = folder / "artifact"
    targets = [
        {"name": "ort"},
        {"name": "web", "runtime": str(DIST), "webgpu": False},
        *({"name": name, "python": str(ROOT / f".venv-edge-{name}" / "bin" / "python")} for name in OWN),
    ]
    found = {each.target: each.plain() for each in parity(artifact, targets, requests=REQUESTS)}
    return {
        "what": f"{REQUESTS} made requests to Frappe's slim artifact, as each deployment target answers them",
        "artifact_bytes": disk_bytes(artifact),
        "targets": found,
        "agreeing": sum(each["agrees"] for each in found.values()),
        "requests_within": min(each["requests_within"] for each in found.values()),
        "same_top": min(each["same_top"] or 0.0 for each in found.values()),
        "largest": max(float(each["largest"]) for each in found.values()),
        "load_average": os.getloadavg()[0],
        "goal": GOAL,
    }
