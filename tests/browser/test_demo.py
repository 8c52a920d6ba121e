"""The demo page in Chromium: in light and dark, wide and narrow, with hostile rows, and where a file is damaged."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
from selenium.webdriver.support.ui import Select, WebDriverWait
from tests.conftest import LINEAR_ROWS, linear_graph, write_linear

from slimrank.data.encoding import Encoding
from slimrank.data.schema import Field, Schema
from slimrank.deploying.deploy import deploy
from slimrank.runtime import load

RANKED = "return [...document.querySelectorAll('#ranking li')].map((each) => each.querySelector('.title').title);"
SETTLED = "return !document.getElementById('main').hidden && document.querySelector('#ranking li') !== null"
FAULT = "const at = document.getElementById('fault'); return at.hidden ? '' : at.textContent;"


@pytest.fixture
def page(browser, host) -> str:
    """The address of the page, with the logs of the browser emptied."""
    browser.get_log("browser"), browser.get_log("performance")
    return f"{host.address}/model/"


def opened(browser: Any, address: str) -> None:
    browser.get(address)
    WebDriverWait(browser, 30, 0.05).until(lambda it: it.execute_script(f"{SETTLED};") or it.execute_script(FAULT))
    assert browser.execute_script(FAULT) == ""


def set_field(browser: Any, name: str, value: str) -> None:
    browser.execute_script(
        "const it = document.querySelector(`[data-field='${arguments[0]}']`); it.value = arguments[1];"
        "it.dispatchEvent(new Event('input'));",
        name,
        value,
    )


def test_it_is_clean_and_asks_no_one_else(browser, host, page, scheme, size) -> None:
    """No word on the console, no request elsewhere, no wider than the window, ink on paper, a name for all inputs.

    What the worker asks stands in no log of the browser, but the host served it.
    """
    opened(browser, page)
    assert len(browser.execute_script(RANKED)) == 3
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"}
    assert f"{page}page.json" in asked
    assert not [address for address in asked if not address.startswith((page, "data:"))]
    assert not [path for path in host.asked if not path.startswith("/model/")]
    worker = ("worker.js", "model.onnx", "model.onnx.data", "encoding.json", "ort/ort-wasm-simd-threaded.wasm")
    assert all(host.asked[f"/model/{name}"] for name in worker)
    wide, window, ink, paper, named = browser.execute_script(
        "const own = getComputedStyle(document.body), inputs = [...document.querySelectorAll('input, select')];"
        "return [document.documentElement.scrollWidth, window.innerWidth, own.color, own.backgroundColor,"
        "        inputs.every((each) => each.labels.length || each.ariaLabel)];"
    )
    assert wide <= window
    assert named
    dark, light = sorted(sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ink, paper))
    assert dark < 200 < 600 < light
    assert (str(light) == str(sum(map(int, re.findall(r"\d+", paper)[:3])))) == (scheme == "light")


def test_the_page_may_ask_no_one_else(browser, serve, site, page) -> None:
    other = serve(site.root)
    opened(browser, page)
    ask = "const done = arguments[1]; fetch(arguments[0]).then(() => done('answered'), () => done('refused'));"
    assert browser.execute_async_script(ask, f"{other.address}/model/page.json") == "refused"
    assert "Content Security Policy" in "".join(each["message"] for each in browser.get_log("browser"))
    assert not other.asked


def test_hostile_rows_are_shown_as_they_are(browser, page, site) -> None:
    opened(browser, page)
    titles = browser.execute_script(RANKED)
    assert all(site.hostile in title for title in titles)
    Select(browser.find_element("id", "user")).select_by_visible_text("row 2")
    WebDriverWait(browser, 10, 0.05).until(lambda it: any("</script>" in each for each in it.execute_script(RANKED)))
    shown = browser.find_element("id", "ranking").text
    assert site.hostile in shown
    assert browser.find_elements("css selector", "#main img") == []
    assert browser.title == "model, ranked in the browser"
    assert browser.get_log("browser") == []


def test_a_change_moves_the_ranking_and_is_undone(browser, page, site) -> None:
    opened(browser, page)
    before = browser.find_element("id", "ranking").text
    assert not browser.find_element("id", "reset").is_enabled()
    set_field(browser, "history", "jam, never seen")
    WebDriverWait(browser, 10, 0.05).until(lambda it: "moved" in it.find_element("id", "moved").text)
    assert browser.find_element("id", "ranking").text != before
    assert "unknown to the model" in browser.find_element("id", "fields").text
    browser.find_element("id", "reset").click()
    WebDriverWait(browser, 10, 0.05).until(lambda it: it.find_element("id", "ranking").text == before)
    assert browser.find_element("id", "moved").text == ""


def test_it_tells_bytes_and_milliseconds(browser, serve, site) -> None:
    page = f"{serve(site.root).address}/model/"
    opened(browser, page)
    rows = {
        row.find_element("tag name", "th").text: [cell.text for cell in row.find_elements("tag name", "td")[:2]]
        for row in browser.find_elements("css selector", "#files tr")
    }
    assert rows["ort/ort-wasm-simd-threaded.wasm"][0].endswith("MB")
    size = (site.folder / "encoding.json").stat().st_size
    assert rows["encoding.json"][0] == f"{size} B"
    assert "ms" in browser.find_element("id", "stages").text
    assert browser.find_element("id", "tile-wire").text.endswith("MB")
    opened(browser, page)
    assert browser.find_element("id", "tile-wire").text.endswith("KB")  # scripts
    assert browser.find_element("id", "tile-model-wire").text == "kept in this browser"


@pytest.mark.parametrize("name", ["model.onnx", "page.json", "slimrank.js", "worker.js", "remote.js", "demo.js"])
def test_a_damaged_file_is_told_on_the_page(browser, serve, site, name: str) -> None:
    """Scripts of the page that are damaged do not run at all: what the page says is in its markup."""
    host = serve(site.root)
    content = (site.folder / name).read_bytes()
    host.instead[f"/model/{name}"] = content[: len(content) // 2]
    browser.get(f"{host.address}/model/")
    told = "return document.querySelector('header').innerText;"
    words = {"model.onnx": "model.onnx: truncated", "page.json": "page.json", "slimrank.js": "the worker could not run"}
    words |= {
        "worker.js": "the worker could not run",
        "remote.js": "missing or damaged",
        "demo.js": "missing or damaged",
    }
    WebDriverWait(browser, 20, 0.05).until(lambda it: words[name] in it.execute_script(told))
    assert not browser.find_element("id", "main").is_displayed()
    browser.get_log("browser")  # which says so as well


def test_users_that_were_changed_are_not_shown(browser, serve, site) -> None:
    """Though they are rows as good as any."""
    host = serve(site.root)
    host.instead["/model/page.json"] = (site.folder / "page.json").read_bytes().replace(b"row 1", b"row 9")
    browser.get(f"{host.address}/model/")
    told = "page.json: missing, damaged or of another version"
    WebDriverWait(browser, 20, 0.05).until(lambda it: told in it.execute_script(FAULT))
    assert not browser.find_element("id", "main").is_displayed()
    browser.get_log("browser")  # which says so as well


def deployed(artifact: Path, folder: Path, dist: Path, rows: polars.DataFrame) -> Path:
    rows.write_parquet(folder / "rows.parquet")
    target = {"name": "web", "runtime": str(dist), "webgpu": False, "examples": str(folder / "rows.parquet")}
    return deploy(f"model={artifact}", folder / "out", target | {"candidates": ["price"]})


def scores(browser: Any) -> list[str]:
    return [each.text for each in browser.find_elements("css selector", "#ranking .score")]


def test_values_with_commas_are_typed_as_json(browser, serve, site, tmp_path: Path, dist: Path) -> None:
    rows = polars.DataFrame({"user": [7], "item": ["tea"], "price": [1.0], "history": [["tea, jam", "rye"]]})
    deployed(site.linear.path, tmp_path, dist, rows)
    opened(browser, f"{serve(tmp_path / 'out').address}/model/")
    model = load(site.linear.path)
    field = browser.find_element("css selector", "[data-field='history']")
    assert json.loads(field.get_attribute("value")) == ["tea, jam", "rye"]
    for typed, history in (('["jam", "tea, jam"]', ["jam", "tea, jam"]), ("jam, tea", ["jam", "tea"])):
        (probability,) = model.predict(rows.with_columns(history=polars.Series([history])).to_dicts()).probability
        set_field(browser, "history", typed)
        WebDriverWait(browser, 10, 0.05).until(lambda it, p=probability: scores(it) == [f"{100 * p:.1f}%"])
    set_field(browser, "history", '["jam')
    WebDriverWait(browser, 10, 0.05).until(lambda it: "not JSON" in it.execute_script(FAULT))


def test_fields_may_be_called_as_keys_of_every_object(browser, serve, tmp_path: Path, dist: Path) -> None:
    names = {"user": "constructor", "item": "__proto__"}
    rows = LINEAR_ROWS.rename(names)
    fields = (
        Field(name="constructor", kind="categorical"),
        Field(name="__proto__", kind="categorical"),
        Field(name="price", kind="numeric"),
        Field(name="history", kind="sequence", max_length=3),
    )
    encoding = Encoding.fit(Schema(fields=fields), rows)
    weights = np.random.default_rng(0).normal(size=(sum(encoding.sizes.values()), 4)).astype(np.float32)
    graph = linear_graph(encoding, weights, np.array([[0.5]], np.float32))
    write_linear(tmp_path / "artifact", encoding, graph, False, None)
    deployed(tmp_path / "artifact", tmp_path, dist, rows.head(1))
    opened(browser, f"{serve(tmp_path / 'out').address}/model/")
    assert "was" not in browser.find_element("id", "fields").text
    before = scores(browser)
    set_field(browser, "__proto__", str(rows["__proto__"][1]))
    WebDriverWait(browser, 10, 0.05).until(lambda it: scores(it) != before)
    assert browser.find_element("id", "fields").text.count("was") == 1


def test_without_examples_there_is_a_user_of_frequent_values(browser, serve, site, tmp_path: Path, dist: Path) -> None:
    target = {"name": "web", "runtime": str(dist), "webgpu": False}
    deploy(f"model={site.linear.path}", tmp_path, target)
    opened(browser, f"{serve(tmp_path).address}/model/")
    assert browser.find_element("id", "made").is_displayed()
    assert len(browser.execute_script(RANKED)) == 3  # values of the field with the most


def test_items_are_found_on_the_page(browser, serve, tmp_path: Path, dist: Path, finder: Callable[..., Any]) -> None:
    target = {"name": "web", "runtime": str(dist), "webgpu": False}
    deploy(f"model={finder('scores').path}", tmp_path, target)
    opened(browser, f"{serve(tmp_path).address}/model/")
    found = browser.execute_script(RANKED)
    assert len(found) == 20
    assert all(each.startswith("item ") for each in found)
    field = browser.find_element("css selector", "#fields [data-field]").get_attribute("data-field")
    set_field(browser, field, "item 3, item 4")
    WebDriverWait(browser, 10, 0.05).until(lambda it: it.execute_script(RANKED) != found)
    assert browser.get_log("browser") == []
