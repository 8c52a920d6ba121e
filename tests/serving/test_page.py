"""The page in a real browser over a real service: what it shows and asks, and that nothing of it becomes markup."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from slimrank.artifact import open_artifact, write_artifact
from slimrank.data.encoding import Encoding

pytestmark = pytest.mark.long
HOSTILE = """<img src=x onerror="document.title='taken'">&'`${title}"""
TOKEN = "a-token-of-many-letters"


@pytest.fixture(scope="module")
def address(
    start_once: Callable[..., Any],
    write_linear_at: Callable[..., Any],
    artifacts: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """Where a model of rows, one with names that try to leave their place, a finder and a module are served."""
    folder = tmp_path_factory.mktemp("page")
    write_hostile(folder / "hostile", write_linear_at(folder / "linear"))
    url = start_once(*artifacts.values(), folder / "hostile", "--port", 0).url
    for name, shared in (("linear", "user"), ("hostile", f"user {HOSTILE}")):  # the first of a set takes its time
        fields = httpx.get(f"{url}/v2/models/{name}/schema").json()["fields"]
        row = {each["name"]: each["examples"][0] for each in fields}
        httpx.post(f"{url}/v2/models/{name}/rank", json={"shared": {shared: row.pop(shared)}, "candidates": [row]})
    return str(url)


def write_hostile(path: Path, linear: Any) -> None:
    """The linear model with other names for its fields."""
    old: Encoding = linear.encoding

    def renamed(by_name: Any) -> dict[str, Any]:
        return {f"{name} {HOSTILE}": each for name, each in by_name.items()}

    fields = tuple(each.model_copy(update={"name": f"{each.name} {HOSTILE}"}) for each in old.schema.fields)
    schema = old.schema.model_copy(update={"fields": fields})
    artifact = open_artifact(linear.path)
    files = {**Encoding(schema, renamed(old.codecs), renamed(old.scales)).files(), "README.md": b"# Linear\n"}
    write_artifact(path, {**files, "model.onnx": artifact.files["model.onnx"]}, {"graph": artifact.manifest["graph"]})


def shown(browser: Any, what: str) -> Any:
    """The first element that a selector finds and that is seen, as soon as there is one."""
    from selenium.webdriver.support.ui import WebDriverWait

    def look(driver: Any) -> Any:
        return next((each for each in driver.find_elements("css selector", what) if each.is_displayed()), False)

    return WebDriverWait(browser, 30, ignored_exceptions=stale()).until(look, what)


def reads(browser: Any, what: str, condition: Callable[[str], object]) -> str:
    """The text of an element, as soon as it is as it should be."""
    from selenium.webdriver.support.ui import WebDriverWait

    def look(driver: Any) -> Any:
        found = driver.find_element("css selector", what).text
        return found if condition(found) else False

    return str(WebDriverWait(browser, 30, ignored_exceptions=stale()).until(look, what))


def stale() -> list[type[Exception]]:
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException

    return [NoSuchElementException, StaleElementReferenceException]


def opened(browser: Any, address: str, name: str) -> None:
    """The page, with that model chosen."""
    from selenium.webdriver.support.ui import Select

    browser.get(address)
    reads(browser, "#about", bool)
    Select(browser.find_element("id", "models")).select_by_value(name)
    reads(browser, "h1", lambda text: text == name)
    reads(browser, "#about", bool)
    shown(browser, "#infer .main")


def test_it_asks_nobody_else_and_its_console_is_clean(browser: Any, address: str, scheme: str, size: str) -> None:
    browser.get_log("browser"), browser.get_log("performance")
    opened(browser, address, "linear")
    shown(browser, "#rank .main").click()
    reads(browser, "#ranked", lambda text: "3 scores" in text)
    assert [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"] == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}
    assert {url for url in asked if not url.startswith(("data:", f"{address}/"))} == set()
    assert {f"{address}/{name}" for name in ("", "page.css", "page.js", "figures.js", "metrics")} <= asked


def test_its_policy_allows_no_markup_to_run(address: str) -> None:
    policy = httpx.get(address).headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self'")
    assert "unsafe" not in policy


def test_candidates_are_ranked_as_the_service_ranks_them(browser: Any, address: str) -> None:
    opened(browser, address, "linear")
    for field, value in {"user": "9", "history": "tea, jam"}.items():
        write(shown(browser, f"#shared input[name={field}]"), value)
    for place, (item, price) in enumerate([("tea", "1"), ("rye", "4.5"), ("nothing known", "")], 1):
        write(shown(browser, f'#candidates input[aria-label="item of candidate {place}"]'), item)
        write(shown(browser, f'#candidates input[aria-label="price of candidate {place}"]'), price)
    shown(browser, "#rank .main").click()
    told = reads(browser, "#ranked", lambda text: "scores" in text)
    assert "Unknown: item 1." in told
    candidates = [{"item": "tea", "price": 1}, {"item": "rye", "price": 4.5}, {"item": "nothing known"}]
    request = {"shared": {"user": 9, "history": ["tea", "jam"]}, "candidates": candidates}
    expected = httpx.post(f"{address}/v2/models/linear/rank", json=request).json()["probability"]
    scores = browser.find_elements("css selector", "#candidates td.score")
    assert [each.text for each in scores] == [f"{each:.4f}" for each in expected]
    widths = [each.find_element("css selector", "i").size["width"] for each in scores]
    order = sorted(range(3), key=lambda place: expected[place])
    assert all(widths[low] <= widths[high] for low, high in pairwise(order))
    assert browser.find_element("css selector", "#candidates tr.first .score").text == f"{max(expected):.4f}"


def write(entry: Any, text: str) -> None:
    """Text into an entry, as who types it."""
    from selenium.webdriver.common.keys import Keys

    entry.send_keys(Keys.CONTROL, "a")
    entry.send_keys(Keys.BACKSPACE, text)


def test_what_is_shared_is_the_users_choice_and_candidates_come_and_go(browser: Any, address: str) -> None:
    opened(browser, address, "linear")
    column = '#candidates input[aria-label^="history of"]'
    assert browser.find_elements("css selector", column) == []
    next(each for each in browser.find_elements("css selector", "#sides label") if each.text == "history").click()
    assert len(browser.find_elements("css selector", column)) == 3
    shown(browser, "#more").click()
    assert browser.switch_to.active_element.get_attribute("aria-label").endswith("of candidate 4")
    shown(browser, 'button[aria-label="Leave out candidate 1"]').click()
    shown(browser, "#rank .main").click()
    reads(browser, "#ranked", lambda text: text.startswith("3 scores"))


def test_a_wrong_value_is_told_and_an_error_stays_text(browser: Any, address: str) -> None:
    opened(browser, address, "linear")
    write(shown(browser, '#candidates input[aria-label="price of candidate 1"]'), HOSTILE)
    shown(browser, "#rank .main").click()
    assert "price" in reads(browser, "#ranked.bad", bool)
    assert browser.find_elements("css selector", "img") == []


def test_the_first_items_of_a_catalogue_are_found(browser: Any, address: str) -> None:
    opened(browser, address, "vectors")
    write(shown(browser, "#shared input[name=history]"), "item 3, item 4")
    write(shown(browser, "#k"), "5")
    shown(browser, "#rank .main").click()
    reads(browser, "#ranked", lambda text: text.startswith("5 scores"))
    request = {"shared": {"history": ["item 3", "item 4"]}, "k": 5}
    expected = httpx.post(f"{address}/v2/models/vectors/rank", json=request).json()["items"]
    assert [each.text for each in browser.find_elements("css selector", "#found th")] == expected


def test_a_module_is_asked_by_tensors(browser: Any, address: str) -> None:
    opened(browser, address, "mine")
    assert not browser.find_element("id", "ranking").is_displayed()
    shown(browser, "#infer .main").click()
    reads(browser, "#inferred", lambda text: text.startswith("2 outputs"))
    titles = [each.text for each in browser.find_elements("css selector", "#outputs h3")]
    assert titles == ["score: FP32 [2, 1]", "pair: FP32 [2, 2]"]
    write(shown(browser, "#request"), '{"inputs": [')
    shown(browser, "#infer .main").click()
    assert "not JSON" in reads(browser, "#inferred.bad", bool)


def test_latency_appears_by_stage(browser: Any, address: str) -> None:
    opened(browser, address, "linear")
    reads(browser, "#shed", lambda text: text != "–")
    shown(browser, "#rank .main").click()
    assert reads(browser, "#p50", lambda text: text != "–").endswith("s")
    assert reads(browser, "#p99", lambda text: text != "–").endswith("s")
    stages = reads(browser, "#stages", bool)
    assert {"wait", "read", "parse", "run", "reply"} <= set(stages.split())
    assert float(reads(browser, "#rate", lambda text: text not in ("–", "0"))) > 0
    assert len(browser.find_elements("css selector", "#spark path[d^=M]")) == 2
    assert "item" in reads(browser, "#fields", bool)


def test_hostile_names_stay_text(browser: Any, address: str) -> None:
    opened(browser, address, "hostile")
    shown(browser, "#rank .main").click()
    told = reads(browser, "#ranked", lambda text: "scores" in text)
    assert HOSTILE in told
    assert HOSTILE in reads(browser, "#fields", bool)
    labels = [each.text for each in browser.find_elements("css selector", "#sides label")]
    assert labels == [f"{name} {HOSTILE}" for name in ("user", "item", "price", "history")]
    assert browser.find_elements("css selector", "img, #main script, #main style, #main a") == []
    assert browser.title == "hostile: slimrank service"


@pytest.mark.parametrize("name", ["linear", "hostile", "vectors", "mine"])
def test_it_is_no_wider_than_the_window_and_its_ink_stands_out(
    browser: Any, address: str, name: str, scheme: str, size: str
) -> None:
    """A contrast of 4.5 to 1 for text, and 3 to 1 for the edges of what can be used (WCAG 2.1, 1.4.3 and 1.4.11)."""
    opened(browser, address, name)
    button = "#infer .main" if name == "mine" else "#rank .main"
    shown(browser, button).click()
    reads(browser, "#inferred" if name == "mine" else "#ranked", bool)
    wide = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert wide[0] <= wide[1]
    pairs = browser.execute_script(
        "const under = (e) => { const paint = getComputedStyle(e).backgroundColor;"
        " return paint === 'rgba(0, 0, 0, 0)' && e.parentElement ? under(e.parentElement) : paint; };"
        "const words = [...document.querySelectorAll('p, td, th, dt, dd, small, label, legend, h2, button, input,"
        " select, textarea, figcaption, footer')];"
        "return words.filter(e => e.getClientRects().length && (e.value || e.textContent.trim())).map(e =>"
        " [getComputedStyle(e).color, under(e)])"
    )
    assert len(pairs) > 50
    assert min(contrast(ink, paper) for ink, paper in map(tuple, pairs)) >= 4.5
    edges = browser.execute_script(
        "const paper = getComputedStyle(document.body).backgroundColor;"
        "return [...document.querySelectorAll('input, select')].filter(e => e.getClientRects().length && e.type !="
        " 'checkbox').map(e => [getComputedStyle(e).borderTopColor, paper])"
    )
    assert min(contrast(edge, paper) for edge, paper in map(tuple, edges)) >= 3


def test_everything_can_be_done_with_a_keyboard(browser: Any, address: str) -> None:
    from selenium.webdriver.common.keys import Keys

    opened(browser, address, "linear")
    entry = shown(browser, '#candidates input[aria-label="item of candidate 1"]')
    write(entry, "tea")
    entry.send_keys(Keys.ENTER)
    reads(browser, "#ranked", lambda text: "scores" in text)
    unnamed = browser.execute_script(
        "return [...document.querySelectorAll('input, select, textarea, button, [tabindex]')].filter(e =>"
        " !(e.labels && e.labels.length) && !e.getAttribute('aria-label') && !e.textContent.trim()).length"
    )
    assert unnamed == 0


def test_it_asks_for_a_token_where_the_service_does(
    browser: Any, start_once: Callable[..., Any], write_linear_at: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    linear = write_linear_at(tmp_path / "linear")
    url = start_once(linear.path, "--port", 0, "--token-file", tmp_path / "token").url
    browser.get(url)
    entry = shown(browser, "#token")
    assert not browser.find_element("id", "main").is_displayed()
    write(entry, "another token")
    shown(browser, "#access button").click()
    assert "not the token" in reads(browser, "#fault", bool)
    write(shown(browser, "#token"), TOKEN)
    shown(browser, "#access button").click()
    reads(browser, "h1", lambda text: text == "linear")
    shown(browser, "#rank .main").click()
    reads(browser, "#ranked", lambda text: "scores" in text)
    browser.refresh()  # the tab keeps it
    reads(browser, "h1", lambda text: text == "linear")
    assert browser.execute_script("return [sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]


def contrast(one: str, other: str) -> float:
    """Of two colours as a browser writes them, rgb(r, g, b)."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.1)."""
    parts = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
