"""Learning to rank from LETOR files to an artifact, as `recipes/mq2008.py` does it, on queries whose order is known."""

from __future__ import annotations

import gzip
import runpy
from pathlib import Path

import numpy as np
import pytest

from slimrank.evaluation.cost import disk_bytes
from slimrank.evaluation.measure import quality_of
from slimrank.metrics.top_k import ndcg

RECIPE = Path(__file__).parents[1] / "recipes" / "mq2008.py"


def write_parts(folder: Path) -> None:
    """Five parts of 24 queries with 8 documents; grades follow two features, the others are noise."""
    draw = np.random.default_rng(1)
    (folder / "mq2008").mkdir()
    for part in range(1, 6):
        lines = []
        for query in range(24):
            features = draw.random((8, 46))
            worth = features[:, 0] + features[:, 1] ** 2
            for row, grade in zip(features, np.digitize(worth, [0.9, 1.4]), strict=True):
                values = " ".join(f"{number}:{value:.6f}" for number, value in enumerate(row, start=1))
                lines.append(f"{grade} qid:{100 * part + query} {values} #docid = G\n")
        with gzip.open(folder / "mq2008" / f"S{part}.txt.gz", "wt") as file:
            file.writelines(lines)


@pytest.mark.long
def test_boosted_trees_teach_a_network_that_ships(tmp_path: Path) -> None:
    write_parts(tmp_path)
    rows, scores, artifacts = runpy.run_path(str(RECIPE))["fold"](1, 1, tmp_path / "runs", tmp_path)
    found = {name: ndcg(rows.label, score, rows.group, 10).mean for name, score in scores.items()}
    chance = ndcg(rows.label, np.zeros(len(rows)), rows.group, 10).mean
    assert min(found["teacher"], found["slim"]) > (1 + chance) / 2
    assert min(found["distilled"], found["slim"]) > found["grades"]
    assert disk_bytes(artifacts["slim"]) < 10_000
    measured = quality_of("relevance", rows.label, rows.group, scores["slim"])
    assert measured.keys() == {"ndcg@10", "map"}
    assert measured["ndcg@10"] == pytest.approx(found["slim"])
