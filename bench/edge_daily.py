"""A day's retraining on MovieLens-100K: the delta that a device takes, with codes kept and without.

The recipe `movielens_100k_daily` is run up to a day, then for each of some days after it with one day of rows more:
`fresh` knows nothing of the day before, `stable` starts from the stable model of the day before (the first from the
fresh one), and `control` is stable with neither hysteresis nor pull, so with ids and grids kept and no more. Each delta
is against the artifact that a device would have: the stable one of the day before, for `fresh` the fresh one. All are
judged on the same later rows, beside `unchanged`, the first day's artifact. Settings were chosen on validation rows.
"""

from __future__ import annotations

import runpy
import shutil
import time
from pathlib import Path
from statistics import fmean
from typing import Any

from slimrank import runtime
from slimrank.data import load_dataset
from slimrank.data.rows import Dataset, group_codes
from slimrank.evaluation.paired import compare
from slimrank.files import read_json
from slimrank.pipeline.run import run
from slimrank.recipe import read_recipe
from slimrank.shipping.delta import delta

RECIPE = Path(__file__).parents[1] / "recipes" / "movielens_100k_daily.py"
DAYS = 3
CONTROL = {"hysteresis": 0.0, "pull": 0.0}
GOAL = {"delta_share": 0.25, "auc_loss": 0.0005}


def edge_daily(folder: Path) -> dict[str, Any]:
    """The runs in `folder`, made where they are missing, and what each day's artifacts cost and are worth."""
    begun = time.monotonic()
    recipe, given = read_recipe(RECIPE), runpy.run_path(str(RECIPE))
    first = folder / "day-0"
    run(recipe, first)
    days, before = [], {"fresh": first, "stable": first}
    for number in range(1, DAYS + 1):
        data = given["until"](given["DAY"] + number)
        now = {name: folder / f"day-{number}-{name}" for name in ("fresh", "stable", "control")}
        run(read_recipe(RECIPE, data=data), now["fresh"])
        run(read_recipe(RECIPE, data=data, stability={"base": str(before["stable"])}), now["stable"])
        for teacher in now["stable"].glob("teacher-*"):  # the same, and the control's too
            if not (now["control"] / teacher.name).exists():
                shutil.copytree(teacher, now["control"] / teacher.name)
        run(read_recipe(RECIPE, data=data, stability={"base": str(before["stable"]), **CONTROL}), now["control"])
        days.append(_day(now, before, first, load_dataset(data)))
        before = {name: now[name] for name in before}
    return {
        "what": f"{DAYS} days of MovieLens-100K after the first, one day of rows more each, test rows, one seed",
        "mean": _means(days),
        "days": days,
        "recipe": recipe.model_dump(mode="json"),
        "seconds": time.monotonic() - begun,
        "goal": GOAL,
    }


def _day(now: dict[str, Path], before: dict[str, Path], first: Path, dataset: Dataset) -> dict[str, Any]:
    """One day: bytes of every arm's delta, its AUC, and how it compares with `fresh` on the same rows."""
    scores = {name: _scores(path, dataset) for name, path in {**now, "unchanged": first}.items()}
    label, groups = dataset.test[dataset.schema.label].to_numpy(), group_codes(dataset)
    assert groups is not None
    arms: dict[str, Any] = {name: {} for name in scores}
    for name, path in now.items():
        old = before["fresh" if name == "fresh" else "stable"]
        made = delta(old / "artifact", path / "artifact", path / "from-the-day-before.delta")
        share = made.bytes / made.packed_bytes
        arms[name] |= {"delta_bytes": made.bytes, "packed_bytes": made.packed_bytes, "delta_share": share}
        record = read_json(path / "result.json")["slim"]
        facts = next((step["facts"] for step in record["steps"] if step["name"] == "stability"), None)
        arms[name] |= {"valid_auc": _valid_auc(path), **({} if facts is None else {"codes": facts})}
    for name, score in scores.items():
        found = compare(label, scores["fresh"], score, group=groups["test"])
        arms[name] |= {"auc": found.b}
        if name != "fresh":
            arms[name]["against_fresh"] = {
                key: getattr(found, key) for key in ("difference", "low", "high", "standard_error", "rows", "groups")
            }
    return {"train_rows": len(dataset.train), "arms": arms}


def _scores(path: Path, dataset: Dataset) -> Any:
    model = runtime.load(path / "artifact")
    return model.score(model.encoding.encode(dataset.test))


def _valid_auc(path: Path) -> float:
    seed = read_json(path / "result.json")["shipped_seed"]
    return float(read_json(path / f"seed-{seed}" / "measured" / "result.json")["slim_valid_quality"])


def _means(days: list[dict[str, Any]]) -> dict[str, Any]:
    """Over days: share and AUC of every arm, the difference to `fresh`, and the share of codes that were kept."""
    found: dict[str, Any] = {}
    for name in days[0]["arms"]:
        arms = [day["arms"][name] for day in days]
        found[name] = {key: fmean(arm[key] for arm in arms) for key in ("delta_share", "auc") if key in arms[0]}
        if "against_fresh" in arms[0]:
            found[name]["auc_difference"] = fmean(arm["against_fresh"]["difference"] for arm in arms)
        if "codes" in arms[0]:
            kept = fmean(arm["codes"]["codes kept"] / arm["codes"]["codes"] for arm in arms)
            found[name]["codes_kept"] = kept
    return found
