"""The rows of `bench.byo` as one table of Markdown, for the README."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.byo import ROWS
from slimrank.report.figures import size

HEAD = (
    "model",
    "embedding bytes touched (99%)",
    "on disk",
    "smaller",
    "metric",
    "before",
    "change",
    "parity",
    "p50 at 256 rows",
)
FORMS = {"post_training": "post-training", "fine_tuned": "trained on after the steps"}
METRICS = {"auc": "AUC", "logloss": "logloss", "hit_rate@10": "HR@10", "ndcg@10": "NDCG@10", "recall@10": "Recall@10"}


def table(results: Path) -> str:
    """A line for every row in the order of `ROWS`, two where a model was also trained on; goals in brackets.

    Parity is the largest difference between what the artifact answers and what the library's own module does, before
    compression and after; of a model that the library cannot hold in its compressed form, before alone.
    """
    lines = [line for name in ROWS for line in _lines(name, results / f"byo-{name}.json")]
    return "\n".join([_row(HEAD), _row(["---"] * len(HEAD)), *map(_row, lines)])


def _lines(name: str, path: Path) -> Iterator[list[str]]:
    if not path.exists():
        yield [f"`byo-{name}`", "not measured", *[""] * (len(HEAD) - 2)]
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    forms = [form for form in FORMS if form in found]
    for form in forms:
        goals = {path.removeprefix(f"{form}."): value for path, value in found["goal"].items()}
        yield _cells(f"{found['model']}, {FORMS[form]}", found[form], goals)
    if not forms:
        yield _cells(found["model"], found, found["goal"])


def _cells(what: str, figures: Mapping[str, Any], goals: Mapping[str, float]) -> list[str]:
    touched, disk = figures["embedding_bytes_touched"], figures["bytes_on_disk"]
    latency, quality = figures["latency_ms"]["256"], figures["quality"]
    smaller = f" ({goals['times_smaller']}x)" if "times_smaller" in goals else ""
    limits = {name: goals.get(f"quality.{name}.change") for name in quality}
    changes = [
        f"{each['change']:+.4f}" + ("" if limits[name] is None else f" ({limits[name]})")
        for name, each in quality.items()
    ]
    return [
        what,
        "none to touch" if touched is None else f"{100 * touched:.1f}%",
        f"{size(disk['before'])} to {size(disk['after'])}",
        f"{figures['times_smaller']:.1f}x{smaller}",
        "<br>".join(METRICS[name] for name in quality),
        "<br>".join(f"{each['before']:.4f}" for each in quality.values()),
        "<br>".join(changes),
        ", ".join(f"{value:.0e}" for value in figures["parity"].values()),
        f"{_ms(latency['before']['p50'])} to {_ms(latency['after']['p50'])} ms",
    ]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _ms(value: float) -> str:
    """Two digits, or all of a whole number."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
