"""A table of 5,000,000 x 16 in a browser: bytes on the wire at 4 bits, memory of the tab, ids checked.

Ten fields of 500,000 ids each, as they are (no vocabulary). Codes stay packed in memory (`unpack_limit = 0`), which a
tab needs more than a faster lookup. The table is as it was initialised, which is the worst case
for entropy coding: of a trained one, rare rows are alike. Left out: quality, which such a table has none of.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench.edge.browser import DIST, asked, chromium, hosted, tab_memory_mb
from bench.edge.frappe import sizes
from slimrank import runtime
from slimrank.compression.quantize_dense import QuantizeDense
from slimrank.compression.quantize_tables import QuantizeTables
from slimrank.compression.steps import Context, compress
from slimrank.data import load_dataset
from slimrank.data.datasets.synthetic import Synthetic
from slimrank.data.rows import encode_dataset
from slimrank.deploying.deploy import deploy
from slimrank.deploying.web import Web
from slimrank.exporting.artifact import export
from slimrank.exporting.onnx import Onnx
from slimrank.models.architecture import build_model
from slimrank.models.dnn import DNN
from slimrank.tables.embedding import Layout
from slimrank.training.examples import Examples

FIELDS, IDS, DIM, ROWS = 10, 500_000, 16, 256
GOAL = {"wire": {"graph": 42_000_000}}

ASK = """
const { load } = await import("/slimrank.js");
const model = await load("/", { cache: false });
const { scores } = await model.rank(given[0]);
let refused = "";
try { await model.rank([given[1]]); } catch (error) { refused = error.message; }
return { scores: Array.from(scores), refused, milliseconds: model.info.milliseconds };
"""


def edge_large() -> dict[str, Any]:
    """The artifact, exported for the web, and what a tab needs for it."""
    with tempfile.TemporaryDirectory() as work:
        rows = made(Path(work) / "artifact")
        deployed = deploy(f"large={Path(work) / 'artifact'}", Path(work) / "web", Web(runtime=str(DIST), webgpu=False))
        native = runtime.load(Path(work) / "artifact").predict(rows).probability
        wrong = {**rows[0], "c3": IDS}
        with hosted(deployed) as address, chromium() as driver:
            driver.get(f"{address}/blank")
            empty = tab_memory_mb(driver)
            answer = asked(driver, ASK, rows, wrong)
            memory = tab_memory_mb(driver)
        if not answer["refused"]:
            raise RuntimeError("an id out of range was scored")
        return {
            "what": f"{FIELDS * IDS:,} x {DIM} at 4 bits in headless Chromium, onnxruntime-web (wasm), one thread",
            "wire": sizes(deployed),
            "disk": sum(each.stat().st_size for each in deployed.glob("model.onnx*") if each.suffix != ".br"),
            "tab_mb": {"empty": empty, "peak": memory},
            "milliseconds": answer["milliseconds"],
            "largest_difference": float(np.abs(np.asarray(answer["scores"]) - native).max()),
            "refused": answer["refused"],
            "load_average": os.getloadavg()[0],
            "goal": GOAL,
        }


def made(path: Path) -> list[dict[str, Any]]:
    """Writes the artifact, and gives raw rows of it."""
    dataset = load_dataset(Synthetic(rows=20_000, fields=FIELDS, ids=IDS))
    encoded = encode_dataset(dataset)
    train, valid = (Examples.of(each, "cpu") for each in (encoded.train, encoded.valid))
    model = build_model(DNN(embedding_dim=DIM, hidden=(64, 32)), Layout.of(encoded.encoding), seed=0)
    steps = [QuantizeTables(bits=4), QuantizeDense()]
    slim, _ = compress(model, steps, Context(train, valid, encoded.encoding.counts))
    export(slim, encoded.encoding, path, Onnx(unpack_limit=0))
    return list(dataset.test.head(ROWS).select(encoded.encoding.schema.inputs).to_dicts())
