"""Frappe's slim artifact in a browser: bytes on the wire, time to the first score, and speed beside native.

The runtime is excluded: it is started by a graph of one node before the clock. A page is a fresh tab each time. 256
rows are scored by both runtimes on one thread, ids encoded before, in turns; what raw rows cost more in the browser
stands beside it.
"""

from __future__ import annotations

import base64
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import onnx
from onnx import TensorProto, helper

from bench.edge.browser import DIST, asked, chromium, hosted
from slimrank import runtime
from slimrank.data import load_dataset
from slimrank.data.encoding import Inputs
from slimrank.deploying.deploy import deploy
from slimrank.deploying.web import MODULES, Web
from slimrank.files import read_json
from slimrank.pipeline.run import run
from slimrank.recipe import read_recipe

GOAL = {"graph": 32_000, "with_vocabulary": 45_000, "first_score_ms": 100.0, "over_native": 3.0}
ROWS = 256
TABS, TURNS, SAMPLES, CALLS = 9, 10, 20, 20  # a sample is the mean of so many calls: a page's clock ticks in 100 us

START = """
const ort = await import("/ort/ort.wasm.min.mjs");
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = { mjs: "/ort/ort-wasm-simd-threaded.mjs", wasm: "/ort/ort-wasm-simd-threaded.wasm" };
const bytes = Uint8Array.from(atob(given[0]), (letter) => letter.charCodeAt(0));
const nothing = await ort.InferenceSession.create(bytes);
await nothing.run({ x: new ort.Tensor("float32", [1], [1]) });
const { load } = await import("/slimrank.js");
const before = performance.now();
const model = await load("/", { ort, cache: false });
const { scores } = await model.rank([given[1]]);
const { milliseconds } = model.info;
window.model = model;
return { first_score_ms: performance.now() - before - milliseconds.download, stages: milliseconds, score: scores[0] };
"""
TIME = """
const [rows, samples, calls, encoded] = given, inputs = model.encoding.encode(rows), found = [];
for (let warm = 0; warm < calls; warm += 1) await model.score(inputs);
for (let sample = 0; sample < samples; sample += 1) {
  const before = performance.now();
  for (let call = 0; call < calls; call += 1) await (encoded ? model.score(inputs) : model.rank(rows));
  found.push((performance.now() - before) / calls);
}
return found;
"""


def edge(folder: Path) -> dict[str, Any]:
    """The run in `folder`, made where it is missing (minutes), and its slim artifact as the target `web` has it."""
    recipe = read_recipe(Path(__file__).parents[2] / "recipes" / "frappe_edge.py")
    run(recipe, folder)
    artifact = folder / "artifact"
    test = load_dataset(recipe.data).test
    model = runtime.load(artifact)
    rows = test.head(ROWS).select(model.encoding.schema.inputs).to_dicts()
    with tempfile.TemporaryDirectory() as work:
        deployed = deploy(f"frappe={artifact}", Path(work), Web(runtime=str(DIST), webgpu=False))
        wire = sizes(deployed)
        with hosted(deployed) as address, chromium() as driver:
            tabs = [in_a_fresh_tab(driver, address, rows) for _ in range(TABS)]
            turns = [turn(driver, model, rows) for _ in range(TURNS)]
            version = driver.capabilities["browserVersion"]
    middle = {key: median(each[key] for each in turns) for key in turns[0]}
    return {
        "what": "Frappe's slim artifact in headless Chromium, onnxruntime-web (wasm), one thread, beside ONNX Runtime",
        "wire": wire,
        "first_score_ms": median(each["first_score_ms"] for each in tabs),
        "tabs": tabs,
        "p50_ms": middle,
        "over_native": median(each["browser"] / each["native"] for each in turns),
        "turns": turns,
        "quality": {name: read_json(folder / "result.json")[name]["quality"] for name in ("teacher", "slim")},
        "chromium": version,
        "load_average": os.getloadavg()[0],
        "goal": GOAL,
    }


def sizes(deployed: Path) -> dict[str, int]:
    """Bytes of what a browser fetches, in brotli: graph, vocabulary, both, and the module with its manifest."""
    graph = sum(packed_bytes(each) for each in deployed.glob("model.onnx*") if each.suffix != ".br")
    vocabulary = packed_bytes(deployed / "encoding.json")
    module = sum(packed_bytes(deployed / name) for name in (*MODULES, "slimrank-web.json"))
    return {"graph": graph, "vocabulary": vocabulary, "with_vocabulary": graph + vocabulary, "module": module}


def packed_bytes(file: Path) -> int:
    """Bytes of a file as a host sends it: the one in brotli beside it, where there is one."""
    packed = file.with_name(f"{file.name}.br")
    return (packed if packed.exists() else file).stat().st_size


def in_a_fresh_tab(driver: Any, address: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Milliseconds from when all files are there to the first score, the runtime started before."""
    driver.get(f"{address}/blank")
    return dict(asked(driver, START, base64.b64encode(one_node()).decode(), rows[0]))


def turn(driver: Any, model: runtime.Model, rows: list[dict[str, Any]]) -> dict[str, float]:
    """p50 of 256 encoded rows in the page and natively, and of raw rows in the page."""
    inputs = model.encoding.encode_counting(columns(rows))[0]
    native = timed(model, inputs)
    encoded = asked(driver, TIME, rows, SAMPLES, CALLS, True)
    raw = asked(driver, TIME, rows, SAMPLES, CALLS, False)
    return {"native": native, "browser": median(encoded), "browser, raw rows": median(raw)}


def columns(rows: list[dict[str, Any]]) -> Mapping[str, list[Any]]:
    """Rows as columns."""
    return {name: [row[name] for row in rows] for name in rows[0]}


def timed(model: runtime.Model, inputs: Inputs) -> float:
    """The median over samples of the mean milliseconds of a call on encoded rows, as the page is timed."""
    found = []
    for sample in range(-1, SAMPLES):  # the first is a warm-up
        before = time.perf_counter()
        for _ in range(CALLS):
            model.score(inputs)
        if sample >= 0:
            found.append(1000 * (time.perf_counter() - before) / CALLS)
    return median(found)


def one_node() -> bytes:
    """A graph that gives its input back: whoever has asked it has a runtime that is started."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "nothing", ends[:1], ends[1:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(onnx.ModelProto.SerializeToString(made))
