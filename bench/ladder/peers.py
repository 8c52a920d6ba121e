"""What a user would do otherwise, as points of the same ladder: general compressors on the same trained teachers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from bench.peers import in_environment


def peer_points(folder: Path, seeds: Sequence[int], teacher: dict[str, Any]) -> list[dict[str, Any]]:
    """A point a peer: means over seeds of what `bench/peers/compressors.py` finds for the teachers in `folder`.

    Raises:
        InputError: the peers' environment is not there.
    """
    found = [in_environment("compressors", str(folder.resolve()), str(seed)) for seed in seeds]
    return [_point(name, [one[name] for one in found], teacher) for name in found[0]]


def _point(name: str, seeds: Sequence[dict[str, Any]], teacher: dict[str, Any]) -> dict[str, Any]:
    """One peer's point."""
    failed = [one["failed"] for one in seeds if "failed" in one]
    known = {"name": f"peer: {name}", "kind": f"peer: {name}", "peer": True, "aimed": 4}
    if failed:
        return {**known, "refused": failed[0]}
    figures = {key: fmean(one[key] for one in seeds) for key in seeds[0]}
    return {
        **known,
        **figures,
        "auc_by_seed": [one["auc"] for one in seeds],
        "ratio": teacher["bytes"] / figures["bytes"],
        "auc_drop": teacher["auc"] - figures["auc"],
    }
