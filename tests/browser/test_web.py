"""The module in a real Chromium: it ranks as Python does, wherever it runs, and what is wrong is met in words."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from tests.browser.pages import ROWS, fault, resealed, run, value

from slimrank.deploying.deploy import deploy
from slimrank.deploying.web import MANIFEST
from slimrank.runtime import load
from slimrank.runtime.retriever import load_retriever


@pytest.mark.parametrize("loader", ["load", "loadInWorker"])
def test_it_ranks_as_python_does(browser, host, site, loader: str) -> None:
    body = f"""
      const model = await {loader}("/model/");
      const ranking = await model.rank(given), top = await model.topK(given, 2);
      const [shared, own] = [{{ user: 7, history: ["tea"] }}, given.map(({{ item, price }}) => ({{ item, price }}))];
      const candidates = await model.topK({{ shared, candidates: own }}, 3);
      const values = await model.values("item"), info = model.info;
      await model.close();
      return {{ ranking, top, candidates, values, info }};
    """
    found = value(run(browser, host, body, ROWS))
    model = load(site.linear.path)
    expected = model.predict(ROWS)
    np.testing.assert_allclose(found["ranking"]["scores"], expected.probability, rtol=1e-6)
    assert found["ranking"]["unknown"] == expected.unknown == {"user": 1, "item": 1, "history": 2}
    assert found["ranking"]["shortened"] == expected.shortened == {"history": 1}
    order = np.argsort(-expected.probability, kind="stable")
    assert [each["index"] for each in found["top"]["ranked"]] == order[:2].tolist()
    merged = [{**row, "user": 7, "history": ["tea"]} for row in ROWS]
    scores = model.predict(merged).probability
    assert [each["index"] for each in found["candidates"]["ranked"]] == np.argsort(-scores, kind="stable")[:3].tolist()
    assert found["values"] == model.encoding.codecs["item"].values.to_list()
    assert found["info"]["artifact"] == model.artifact.digest
    assert "golden rows answered as at export" in found["info"]["notes"]


def test_nothing_and_many_rows_are_ranked(browser, host, site) -> None:
    body = """
      const model = await load("/model/");
      const columns = { user: [7], item: ["tea"], price: [1], history: [[]] };
      const many = Array.from({ length: 9000 }, (_, place) => given[place % given.length]);
      return [await model.rank([]), (await model.rank(many)).logits, (await model.rank(columns)).logits];
    """
    nothing, many, columns = value(run(browser, host, body, ROWS))
    assert nothing["scores"] == []
    model = load(site.linear.path)
    np.testing.assert_allclose(many, np.tile(model.score(model.encoder(ROWS)[0]), 2250), rtol=1e-6, atol=1e-6)
    assert len(columns) == 1


WRONG_CALLS = [
    ("rank([{ user: 7, item: 'tea', price: NaN, history: [] }])", "column 'price': 1 NaN of 1 values"),
    ("rank([{ usr: 7, item: 'tea', price: 1, history: [] }])", "missing column 'user'. Did you mean 'usr'?"),
    ("rank([{ user: { a: 1 }, item: 'tea', price: 1, history: [] }])", "an id is an integer or text"),
    ("rank('tea')", "rows are a str"),
    ("topK([], 0)", "k: got 0, allowed 1 or more"),
    ("topK({ shared: { user: 7 }, candidates: [{ user: 8 }] })", "'user' stands in what is shared and"),
    (
        "score({ rows: 1, ids: Int32Array.of(0, 0, 0, 0, 99), numbers: Float32Array.of(0) })",
        "id 99 in row 0 is out",
    ),
    ("score({ rows: 1, ids: Int32Array.of(-1, 0, 0, 0, 0), numbers: Float32Array.of(0) })", "field 'user'"),
    (
        "score({ rows: 1, ids: Int32Array.of(0, 0, 0, 0, 0), numbers: Float32Array.of(NaN) })",
        "1 NaN and 0 infinite",
    ),
    ("score({ rows: 2, ids: Int32Array.of(0, 0, 0, 0, 0), numbers: Float32Array.of(0) })", "must be [2, 5]"),
]


def test_what_is_wrong_in_a_call_is_told(browser, host, site) -> None:
    told = "({ kind: error.name, error: error.message })"
    calls = "".join(f"await model.{call}.then(() => null, (error) => {told})," for call, _ in WRONG_CALLS)
    body = f"const model = await load('/model/'); return [{calls}];"
    for found, (call, expected) in zip(value(run(browser, host, body)), WRONG_CALLS, strict=True):
        assert expected in fault(found), call


def test_it_tells_its_progress_and_keeps_files(browser, serve, site) -> None:
    host = serve(site.root)
    body = """
      const told = [];
      const model = await loadInWorker("/model/", { onProgress: (each) => told.push(each) });
      return { told, files: model.info.files };
    """
    first = value(run(browser, host, body))
    loaded = [each["loaded"] for each in first["told"]]
    assert loaded == sorted(loaded)
    assert first["told"][-1]["loaded"] == first["told"][-1]["total"] == sum(each["bytes"] for each in first["files"])
    by_name = {each["name"]: each for each in first["files"]}
    assert not any(each["cached"] for each in first["files"])
    assert by_name["encoding.json"]["wire"] == (site.folder / "encoding.json.br").stat().st_size
    second = value(run(browser, host, body))
    assert {each["name"] for each in second["files"] if each["cached"]} == {
        name for name in by_name if not name.endswith((".js", ".mjs"))
    }
    assert not any(each["wire"] for each in second["files"] if each["cached"])
    assert (
        value(run(browser, host, "return (await load('/model/', { cache: false })).info.files.some((e) => e.cached);"))
        is False
    )


def test_two_models_are_opened_at_the_same_time(browser, serve, site, tmp_path: Path, write_linear_at) -> None:
    """Their weights have one file's name, by which the runtime finds them."""
    other = write_linear_at(tmp_path / "other", external=True, seed=1)
    target = {"name": "web", "runtime": "https://cdn.example/ort/"}
    deploy(f"other={other.path}", site.root, target)
    body = """
      const ort = await import("/model/ort/ort.wasm.min.mjs");
      const models = await Promise.all(["/model/", "/other/", "/model/"].map((url) => load(url, { ort })));
      return (await Promise.all(models.map((model) => model.rank(given)))).map(({ logits }) => logits);
    """
    first, second, third = value(run(browser, serve(site.root), body, ROWS))
    for found, path in ((first, site.linear.path), (second, other.path), (third, site.linear.path)):
        model = load(path)
        np.testing.assert_allclose(found, model.score(model.encoder(ROWS)[0]), rtol=1e-6, atol=1e-6)


def test_a_worker_that_fails_later_ends_all_that_is_asked(browser, serve, site) -> None:
    host = serve(site.root)
    script = (site.folder / "worker.js").read_bytes()
    script += b"addEventListener('message', ({ data }) => { if (data.method === 'values') throw new Error('gone'); });"
    script = script.replace(b"model.values(...args)", b"new Promise(() => {})")
    files = json.loads((site.folder / MANIFEST).read_bytes())["files"]
    files["worker.js"] = {"bytes": len(script), "sha256": hashlib.sha256(script).hexdigest()}
    host.instead |= {"/model/worker.js": script, f"/model/{MANIFEST}": resealed(site, files=files)}
    body = """
      let ended = 0;
      const { terminate } = Worker.prototype;
      Worker.prototype.terminate = function () { ended += 1; return terminate.call(this); };
      const model = await loadInWorker("/model/");
      const told = [model.values("item"), model.rank(given)].map((asked) => asked.catch((error) => error.message));
      const both = await Promise.all(told);
      const later = await model.rank(given).catch((error) => error.message), before = ended;
      await model.close();
      return { both, later, before };
    """
    found = value(run(browser, host, body, ROWS))
    assert all("the worker could not run" in each and "gone" in each for each in [*found["both"], found["later"]])
    assert found["before"] == 1


def test_where_there_is_no_webgpu_webassembly_is_used(browser, host, site) -> None:
    """This Chromium has none."""
    body = "return (await load('/model/', { executionProviders: ['webgpu'] })).info;"
    info = value(run(browser, host, body))
    assert info["provider"] == "wasm"
    assert any("no WebGPU" in note for note in info["notes"])
    assert "allowed wasm, webgpu" in fault(
        run(browser, host, "await load('/model/', { executionProviders: ['cuda'] });")
    )


def test_without_the_runtime_it_says_where_to_put_it(browser, serve, site) -> None:
    host = serve(site.root)
    host.instead[f"/model/{MANIFEST}"] = resealed(
        site,
        runtime={
            "wasm": {"module": "there/ort.mjs", "loader": "there/a.mjs", "wasm": "there/a.wasm", "verified": False}
        },
    )
    assert "onnxruntime-web is not at" in fault(run(browser, host, "await load('/model/');"))


def test_ort_may_be_handed_over(browser, host, site) -> None:
    body = """
      const ort = await import("/model/ort/ort.wasm.min.mjs");
      return (await load("/model/", { ort })).info.files.map((each) => each.name);
    """
    assert not any(name.startswith("ort/") for name in value(run(browser, host, body)))


def test_rows_that_no_message_holds_are_refused(browser, host, site) -> None:
    body = "await (await loadInWorker('/model/')).rank([{ user: () => 7 }]);"
    assert "cannot be handed to a worker" in fault(run(browser, host, body))


@contextmanager
def chromium_with(*flags: str) -> Iterator[Any]:
    """A Chromium of its own with further flags."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs chromium and chromedriver")
    options = Options()
    options.binary_location = chromium
    for flag in ("--headless", "--no-sandbox", *flags):
        options.add_argument(flag)
    found = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield found
    finally:
        found.quit()


def test_a_browser_without_simd_is_refused_in_words(serve, site) -> None:
    """On a processor without SSE4.1, which WebAssembly's SIMD needs."""
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("SIMD cannot be switched off on this processor")
    with chromium_with("--disable-gpu", "--js-flags=--no-enable-sse4-1") as browser:
        told = fault(run(browser, serve(site.root), "await load('/model/');"))
    assert "no WebAssembly SIMD" in told


def test_webgpu_ranks_as_python_does(serve, site) -> None:
    """On WebGPU drawn by the processor; where it answers otherwise than at export, WebAssembly takes its place."""
    body = """
      if (!(await navigator.gpu?.requestAdapter())) return null;
      const model = await load("/model/", { executionProviders: ["webgpu"] });
      return [model.info, (await model.rank(given)).logits];
    """
    host = serve(site.root)
    flags = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")
    with chromium_with(*flags) as browser:
        found = value(run(browser, host, body, ROWS))
        if found is None:
            pytest.skip("this Chromium has no WebGPU")
        broken = body.replace("const model", "GPUQueue.prototype.writeBuffer = () => {}; const model")
        info, logits = value(run(browser, host, broken, ROWS))
    model = load(site.linear.path)
    expected = model.score(model.encoder(ROWS)[0])
    assert found[0]["provider"] == "webgpu"
    np.testing.assert_allclose(found[1], expected, rtol=1e-5, atol=1e-5)
    assert info["provider"] == "wasm"
    assert any("WebGPU is not used" in note for note in info["notes"])
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("loader", ["load", "loadInWorker"])
def test_who_asks_a_closed_model_is_told(browser, host, site, loader: str) -> None:
    body = f"""
      const model = await {loader}("/model/");
      await Promise.all([model.close(), model.close()]);
      await model.close();
      await model.rank(given);
    """
    assert fault(run(browser, host, body, ROWS)) == "the model was closed"


@pytest.mark.parametrize("kind", ["vectors", "scores"])
def test_items_are_found_as_python_finds_them(
    browser, serve, site, tmp_path: Path, finder: Callable[..., Any], dist: Path, kind: str
) -> None:
    artifact = finder(kind).path
    target = {"name": "web", "runtime": str(dist), "webgpu": False}
    deploy(f"model={artifact}", tmp_path / "out", target)
    retriever = load_retriever(artifact)
    (history,) = (each.name for each in retriever.encoding.schema.sequences)
    rows = [{history: [f"item {place}" for place in places]} for places in ([3, 4, 6], [10], [], [1, 2, 3, 4, 5, 7, 9])]
    rows.append({history: ["never seen", "item 8"]})
    body = """
      const model = await loadInWorker("/model/");
      const refusal = await model.rank(given).catch((error) => error.message);
      return [await model.topK(given, 5), await model.topK(given, 5, { leaveOutMet: false }), refusal];
    """
    *answers, refusal = value(run(browser, serve(tmp_path / "out"), body, rows))
    assert "answers with items" in refusal
    for found, leave_out_met in zip(answers, (True, False), strict=True):
        expected = retriever.top_k(rows, 5, leave_out_met=leave_out_met)
        assert [each["places"] for each in found["found"]] == expected.places.tolist()
        assert [each["items"] for each in found["found"]] == expected.items
        np.testing.assert_allclose([each["scores"] for each in found["found"]], expected.scores, rtol=1e-4, atol=1e-5)
        assert found["unknown"] == expected.unknown
        assert found["shortened"] == expected.shortened
    assert math.isfinite(expected.scores.sum())
