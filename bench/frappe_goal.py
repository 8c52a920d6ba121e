"""Frappe from a goal: what `slimrank search` finds in half an hour on two cores, beside its fp32 teacher."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from bench.shipped import NAMES, latencies_of, summary
from slimrank import runtime
from slimrank.data import load_dataset
from slimrank.files import read_json
from slimrank.pipeline.search import search
from slimrank.recipe import read_recipe
from slimrank.searching.search import Search

ASKED = Search.parse({"goal": "auc_drop <= 0.001", "minutes": 30, "workers": 2})
GOAL = {"weights": 32_000, "times_smaller": 57.0, "outcome": "non-inferior", "p50_ratio": {"256": 12.0}}


def frappe_goal(folder: Path, repetitions: int = 5) -> dict[str, Any]:
    """The search in `folder`, done where it is not, and what it ended with, beside what it should reach."""
    recipe = read_recipe(Path(__file__).parents[1] / "recipes" / "frappe.py")
    written = folder / "result.json"
    found = read_json(written) if written.exists() else search(recipe, ASKED, folder, say=print)
    dataset = load_dataset(recipe.data)
    artifacts = {"teacher": folder / "baseline" / "artifact", "slim": folder / "artifact"}
    models = {name: runtime.load(path) for name, path in artifacts.items()}
    inputs = {name: model.encoding.encode(dataset.test) for name, model in models.items()}
    turns = latencies_of(models, inputs, artifacts["slim"], repetitions)
    said = found["search"]
    bound = next(bound for bound in said["bounds"] if bound["key"] == "auc_drop")
    sizes = {name: found[name]["bytes"]["disk"] for name in NAMES}
    return {
        "what": f"search for {said['goal']} on Frappe, {ASKED.minutes:g} minutes, {said['workers']} workers, test rows",
        "met": said["met"],
        "proof": bound["proof"],
        "auc": {name: found[name]["quality"]["auc"] for name in NAMES},
        "logloss": {name: found[name]["quality"]["logloss"] for name in NAMES},
        "bytes_on_disk": sizes,
        "weights": sum(tensor["bytes"] for tensor in found["slim"]["tensors"]),
        "times_smaller": sizes["teacher"] / sizes["slim"],
        **summary(turns),
        "seconds": said["seconds"],
        "trials": {
            state: sum(trial["state"] == state for trial in said["trials"])
            for state in ("complete", "stopped", "failed")
        },
        "trainings": said["spent"],
        "rows": said["rows"],
        "recipe": found["recipe"],
        "load_average": os.getloadavg()[0],
        "goal": GOAL,
    }
