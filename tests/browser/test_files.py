"""Files in a real Chromium: what is damaged, missing, older, of another version or cannot be kept is met in words."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.browser.pages import ROWS, fault, resealed, run, value

from slimrank.deploying.deploy import deploy
from slimrank.deploying.web import MANIFEST, sealed
from slimrank.runtime import load

SCRIPTS = ["ort/ort.wasm.min.mjs", "ort/ort-wasm-simd-threaded.mjs"]
FILES = ["model.onnx", "model.onnx.data", "encoding.json", "ort/ort-wasm-simd-threaded.wasm", MANIFEST, *SCRIPTS]


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named(browser, serve, site, name: str) -> None:
    host, path = serve(site.root), f"/model/{name}"
    content = (site.folder / name).read_bytes()
    body = "return Promise.all([load, loadInWorker].map((loads) => loads('/model/').catch((error) => error.message)));"
    for damaged, told in (
        (content[: len(content) // 2], f"{name}: truncated"),
        (content[:40] + bytes([content[40] ^ 1]) + content[41:], f"{name}: damaged"),
        (None, f"{name}: not found where the page looked (HTTP 404)"),
    ):
        host.instead[path] = damaged
        for message in value(run(browser, host, body)):
            assert told in message
    del host.instead[path]
    value(run(browser, host, "await load('/model/');"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_of_the_runtime_is_checked_at_every_load(browser, serve, site, name: str) -> None:
    """The browser fetches scripts itself, so that a copy that was right says nothing of what runs."""
    host, content = serve(site.root), (site.folder / name).read_bytes()
    host.instead[f"/model/{name}"] = content  # without a date, so that the browser asks again
    value(run(browser, host, "await load('/model/');"))
    host.instead[f"/model/{name}"] = content + b"\n// changed"
    assert f"{name}: damaged" in fault(run(browser, host, "await load('/model/');"))


def test_an_older_module_that_runs_is_refused(browser, serve, site) -> None:
    """What the browser had of it when the page was opened is not what the host has now."""
    body = """
      const fetchOlder = (address, init) => fetch(address, init).then(async (found) => {
        const older = init.cache === "default" && address.endsWith("/tensors.js");
        return older ? new Response(`${await found.text()} // older`) : found;
      });
      await load("/model/", { fetch: fetchOlder });
    """
    assert "tensors.js: an older one may be running; reload the page" in fault(run(browser, serve(site.root), body))


def test_a_connection_that_breaks_is_named(browser, serve, site) -> None:
    for name in ("model.onnx.data", "ort/ort.wasm.min.mjs"):
        host = serve(site.root)
        host.broken = {f"/model/{name}"}
        assert f"{name}: the connection broke after" in fault(run(browser, host, "await load('/model/');"))


def test_a_longer_file_is_named(browser, serve, site) -> None:
    host = serve(site.root)
    host.instead["/model/encoding.json"] = (site.folder / "encoding.json").read_bytes() + b" "
    assert "encoding.json: damaged" in fault(run(browser, host, "await load('/model/');"))


def test_swapped_files_are_named(browser, serve, site) -> None:
    host = serve(site.root)
    for one, other in (("model.onnx", "encoding.json"), ("encoding.json", "model.onnx")):
        host.instead[f"/model/{one}"] = (site.folder / other).read_bytes()
    told = fault(run(browser, host, "await load('/model/');"))
    assert "swapped, it holds" in told


def test_a_damaged_module_is_found(browser, serve, site) -> None:
    host = serve(site.root)
    host.instead["/model/tensors.js"] = (site.folder / "tensors.js").read_bytes() + b"\n// changed"
    assert "tensors.js: damaged or of another version" in fault(run(browser, host, "await load('/model/');"))


def test_a_vocabulary_of_another_version_is_refused(browser, serve, site) -> None:
    """Even where its sum is right: the vocabulary says of which artifact it is."""
    host = serve(site.root)
    host.instead[f"/model/{MANIFEST}"] = resealed(site, artifact="0" * 64)
    assert "the vocabulary of another version" in fault(run(browser, host, "await load('/model/');"))


def test_a_model_that_answers_otherwise_is_refused(browser, serve, site) -> None:
    host = serve(site.root)
    golden = json.loads((site.folder / MANIFEST).read_bytes())["golden"]
    first, *rest = golden["outputs"]["logit"]["values"].split(" ")
    golden["outputs"]["logit"]["values"] = " ".join([str(float(first) + 0.01), *rest])
    host.instead[f"/model/{MANIFEST}"] = resealed(site, golden=golden)
    assert "golden row 0: logit is" in fault(run(browser, host, "await load('/model/');"))


def test_another_format_and_another_artifact_are_refused(browser, serve, site) -> None:
    host = serve(site.root)
    assert "the page asked for 'abc'" in fault(run(browser, host, "await load('/model/', { digest: 'abc' });"))
    digest = load(site.linear.path).artifact.digest
    value(run(browser, host, f"await load('/model/', {{ digest: '{digest}' }});"))
    host.instead[f"/model/{MANIFEST}"] = resealed(site, format=2)
    assert "format 2 is unknown" in fault(run(browser, host, "await load('/model/');"))


def test_the_browsers_older_copy_is_not_taken_for_the_new_one(browser, serve, site, tmp_path, write_linear_at) -> None:
    """A new version under the same names: files of the old one are forgotten, and the new one ranks."""
    host = serve(site.root)
    value(run(browser, host, "await load('/model/');"))
    other = write_linear_at(tmp_path / "other", external=True, seed=1)
    folder = deploy(f"model={other.path}", tmp_path / "out", "web")
    for name in ("model.onnx", "model.onnx.data", "encoding.json"):
        host.instead[f"/model/{name}"] = (folder / name).read_bytes()
    manifest = json.loads((folder / MANIFEST).read_bytes())
    old = json.loads((site.folder / MANIFEST).read_bytes())
    del manifest["seal"]
    ort = {name: record for name, record in old["files"].items() if name.startswith("ort/")}
    manifest |= {"runtime": old["runtime"], "files": {**manifest["files"], **ort}}
    host.instead[f"/model/{MANIFEST}"] = sealed(manifest)
    body = """
      const model = await load("/model/"), ranking = await model.rank(given);
      const keys = await (await caches.open("slimrank-web")).keys();
      return { logits: ranking.logits, kept: keys.map(({ url }) => url.split("/").at(-1)) };
    """
    found = value(run(browser, host, body, ROWS))
    model = load(other.path)
    np.testing.assert_allclose(found["logits"], model.score(model.encoder(ROWS)[0]), rtol=1e-6, atol=1e-6)
    sums = {record["sha256"] for record in manifest["files"].values()}
    assert set(found["kept"]) <= sums


def test_a_damaged_copy_in_the_browser_is_read_anew(browser, serve, site) -> None:
    host = serve(site.root)
    body = """
      await load("/model/");
      const cache = await caches.open("slimrank-web");
      for (const key of await cache.keys()) await cache.put(key, new Response("damaged"));
      return (await load("/model/")).info.files.filter((each) => each.cached).length;
    """
    assert value(run(browser, host, body)) == 0


def test_where_storage_is_full_it_ranks_all_the_same(browser, serve, site) -> None:
    host = serve(site.root)
    browser.get(f"{host.address}/blank")
    browser.execute_cdp_cmd("Storage.overrideQuotaForOrigin", {"origin": host.address, "quotaSize": 1000})
    body = "const model = await load('/model/'); return [model.info.notes, (await model.rank(given)).scores.length];"
    notes, count = value(run(browser, host, body, ROWS))
    assert any("the browser's storage is full" in note for note in notes)
    assert count == len(ROWS)
    browser.execute_cdp_cmd("Storage.overrideQuotaForOrigin", {"origin": host.address})
