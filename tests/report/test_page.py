"""The page: whole, offline, escaped, accessible, and with the figures of the result file."""

from html.parser import HTMLParser

import pytest

from slimrank.config import InputError
from slimrank.report import write_report
from slimrank.report.figures import figures
from slimrank.report.page import render
from slimrank.report.result import Result, read

VOID = {"meta", "link", "br", "img", "input", "hr"}
ALLOWED_ADDRESSES = ("data:,", "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink")


class Page(HTMLParser):
    """A page's elements and text; refuses an element that is not closed in its order."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words, self.open = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "title"} & set(self.open[-1:]):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def page(content, write):
    return Page(render(read(write(content), Result)))


def test_every_figure_of_the_table_is_on_the_page(page, content):
    lines = figures(read(content, Result))
    assert len(lines) == 5 + 4 + 6
    for line in lines:
        assert line.name in page.text
        assert line.change in page.text
        assert line.slim.partition(" (")[0] in page.text


def test_nothing_comes_from_outside_and_nothing_runs(page):
    tags = {tag for tag, _ in page.elements}
    assert tags.isdisjoint({"script", "iframe", "img", "object", "embed", "base", "form", "foreignobject", "image"})
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        addresses = [attributes.get(name) for name in ("href", "src", "xlink:href", "xmlns", "xmlns:xlink", "srcset")]
        assert {address for address in addresses if address} <= set(ALLOWED_ADDRESSES)
    policies = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_styles_ask_for_nothing(content):
    text = render(read(content, Result))
    assert "@import" not in text
    assert "@font-face" not in text
    assert "url(" not in text.partition("</style>")[0]


def test_every_string_of_the_data_is_escaped(content):
    text = render(read(content, Result))
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 6
    assert "${title}" in text, "a name that looks like a placeholder stays as it is"


def test_the_page_can_be_read_without_eyes(page):
    assert page.elements[0] == ("html", {"lang": "en"})
    images = page.all("svg")
    assert len(images) == 2 * 4
    assert all(image["role"] == "img" and len(image["aria-label"]) > 40 for image in images)
    assert {cell.get("scope") for cell in page.all("th")} == {"col", "row", "rowgroup"}
    levels = [tag for tag, _ in page.elements if tag in ("h1", "h2", "h3")]
    assert levels == ["h1"] + ["h2"] * 10
    assert len(page.all("main")) == 1


def test_identifiers_are_unique(page):
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))


def test_both_colour_schemes_define_every_colour_that_is_used(content):
    text = render(read(content, Result))
    light, dark, paper = text.split(":root {")[1:4]
    for name in ("paper", "panel", "ink", "muted", "line", "teacher", "student", "slim", "good", "bad"):
        for scheme in (light, dark, paper):
            assert f"--{name}:" in scheme.partition("}")[0]
    assert "prefers-color-scheme: dark" in light
    assert "print" in dark


def test_steps_slices_and_comparison_are_told(page):
    for words in ("quantize-tables", "user (2.00 KB to 500 bytes)", "out: tied", "400 KB", "60.0 KB", "bits 4"):
        assert words in page.text
    for words in (
        "Seed 2",
        "−0.0002 to +0.0022",
        "0.100",
        "A dash: too few",
        "avx2, avx512_vnni",
        "onnxruntime 1.32.0",
    ):
        assert words in page.text


def test_a_result_of_only_what_must_be_gives_a_page(smallest):
    page = Page(render(read(smallest, Result)))
    assert "Is the difference real?" not in page.text
    assert len(page.all("svg")) == 2
    assert "about equal" in page.text


def test_the_page_is_written_whole_and_small(content, write, tmp_path):
    target = tmp_path / "deep" / "report.html"
    write_report(write(content), target)
    text = target.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert text.rstrip().endswith("</html>")
    assert len(text) < 2_000_000
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]


def test_the_same_result_gives_the_same_page(content):
    assert render(read(content, Result)) == render(read(content, Result))


def test_a_result_that_is_not_one_leaves_no_page(write, tmp_path, smallest):
    page = tmp_path / "report.html"
    with pytest.raises(InputError, match=r"absent\.json: no such file"):
        write_report(tmp_path / "absent.json", page)
    (tmp_path / "half.json").write_text('{"teacher": ')
    with pytest.raises(InputError, match=r"half\.json: not a JSON file"):
        write_report(tmp_path / "half.json", page)
    del smallest["teacher"]
    smallest["slim"]["quality"]["auc"] = "high"
    with pytest.raises(InputError) as error:
        write_report(write(smallest), page)
    assert "teacher is missing" in str(error.value)
    assert "slim.quality.auc" in str(error.value)
    assert not page.exists()


def test_how_many_rows_would_show_it_is_said(content):
    words = "Undecided: of equally good models about 12,345 rows like these would show it."
    assert words in render(read(content, Result))
    for one in content["comparison"]:
        one["verdict"]["rows_needed"] = None
    assert "Undecided: of equally" not in render(read(content, Result))


def test_a_slice_that_lost_stands_out(content):
    (parts,) = content["slices"].values()
    assert 'class="number bad">0.01' not in render(read(content, Result))
    parts[0] |= {"p_worse": 0.011, "lost": True}
    assert 'class="number bad">0.011' in render(read(content, Result))
