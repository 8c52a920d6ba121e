"""The page in a real browser: charts are drawn, the console is clean, nothing is asked of any network."""

from __future__ import annotations

import json

import pytest

from slimrank.report import write_report

pytestmark = pytest.mark.long


@pytest.fixture
def address(content, search, write, tmp_path) -> str:
    page = tmp_path / "report.html"
    write_report(write({**content, "search": search}), page)
    return page.as_uri()


def test_it_renders_with_a_clean_console_and_no_request(browser, address, scheme, size) -> None:
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(address)
    assert browser.find_element("tag name", "h1").text.startswith("frappe")
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith(("file://", "data:"))] == []
    assert [url for url in asked if url.startswith("file://")] == [address]


def test_every_chart_is_drawn_and_the_page_is_no_wider_than_the_window(browser, address, scheme, size) -> None:
    browser.get(address)
    drawn = browser.execute_script(
        "return [...document.querySelectorAll('figure svg')].filter(e => e.getClientRects().length)"
        ".map(e => [e.getBoundingClientRect().width, e.querySelectorAll('path, line, text').length])"
    )
    assert len(drawn) == 5
    assert all(width > 250 and marks > 10 for width, marks in drawn)
    wide = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert wide[0] <= wide[1]


def test_ink_stands_out_from_paper(browser, address, scheme, size) -> None:
    """A contrast of 4.5 to 1 for text (WCAG 2.1, 1.4.3), words of pictures included."""
    browser.get(address)
    pairs = browser.execute_script(
        "const paper = getComputedStyle(document.body).backgroundColor;"
        "const words = [...document.querySelectorAll('p, td, th, dt, dd, summary, figure text')];"
        "return words.filter(e => e.getClientRects().length && e.textContent.trim()).map(e =>"
        " [getComputedStyle(e)[e.tagName === 'text' ? 'fill' : 'color'], paper])"
    )
    assert len(pairs) > 100
    assert min(contrast(ink, paper) for ink, paper in map(tuple, pairs)) >= 4.5


def test_a_pointer_on_a_trial_finds_its_recipe(browser, address) -> None:
    browser.get(address)
    found = browser.execute_script(
        "const point = [...document.querySelectorAll('figure svg path')].find(e => e.querySelector('title')"
        " && e.getClientRects().length);"
        "point.scrollIntoView({block: 'center'});"
        "const box = point.getBoundingClientRect();"
        "const hit = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);"
        "return hit.querySelector('title') && hit.querySelector('title').textContent"
    )
    assert found is not None
    assert "quantize-tables (bits 4" in found


def test_the_trials_open(browser, address) -> None:
    browser.get(address)
    fold = next(one for one in browser.find_elements("tag name", "details") if "trials" in one.text)
    assert not fold.find_element("tag name", "table").is_displayed()
    browser.execute_script("arguments[0].scrollIntoView()", fold)
    fold.find_element("tag name", "summary").click()
    assert fold.find_element("tag name", "table").is_displayed()


def contrast(one: str, other: str) -> float:
    """Of two colours as a browser writes them, rgb(r, g, b)."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.1)."""
    parts = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
