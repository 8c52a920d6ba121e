"""The rows of `bench.byo` as one table of Markdown, for the README."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.byo import ROWS
from slimrank.report.figures import size

HEAD = (
    "model",
    "embedding bytes touched",
    "on disk",
    "smaller",
    "metric",
    "before",
    "after",
    "parity",
    "p50 at 256 rows",
)
FORMS = {"post_training": "post-training", "fine_tuned": "trained on after the steps"}
METRICS = {"auc": "AUC", "logloss": "logloss", "hit_rate@10": "HR@10", "ndcg@10": "NDCG@10", "recall@10": "Recall@10"}


def table(results: Path) -> str:
    """A line for every row that has been measured, in the order of `ROWS`; two where a model was also trained on.

    Parity is the largest difference between what the artifact answers and what the library's own module does, before
    compression and after; of a model that the library cannot hold in its compressed form, before alone.
    """
    lines = [line for name in ROWS for line in _lines(results / f"byo-{name}.json")]
    return "\n".join([_row(HEAD), _row(["---"] * len(HEAD)), *map(_row, lines)])


def _lines(path: Path) -> Iterator[list[str]]:
    if not path.exists():
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    forms = {words: found[form] for form, words in FORMS.items() if form in found} or {"": found}
    for words, figures in forms.items():
        yield _cells(f"{found['model']}{words and f', {words}'}", figures)


def _cells(what: str, figures: Mapping[str, Any]) -> list[str]:
    touched, disk = figures["embedding_bytes_touched"], figures["bytes_on_disk"]
    latency = figures["latency_ms"]["256"]
    quality = figures["quality"].items()
    return [
        what,
        "none to touch" if touched is None else f"{100 * touched:.1f}%",
        f"{size(disk['before'])} to {size(disk['after'])}",
        f"{figures['times_smaller']:.1f}x",
        "<br>".join(METRICS[name] for name, _ in quality),
        "<br>".join(f"{each['before']:.4f}" for _, each in quality),
        "<br>".join(f"{each['after']:.4f} ({each['change']:+.4f})" for _, each in quality),
        ", ".join(f"{value:.0e}" for value in figures["parity"].values()),
        f"{latency['before']['p50']:.2g} to {latency['after']['p50']:.2g} ms",
    ]


def _row(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"
