"""The result for a pull request: what it says, and that no string of the data becomes markup."""

import pytest

from slimrank.config import InputError
from slimrank.report import write_markdown, write_pictures
from slimrank.report.figures import answer, figures
from slimrank.report.markdown import escape, markdown
from slimrank.report.result import Result, read


def test_it_says_what_the_page_says(content):
    result = read(content, Result)
    text = markdown(result)
    assert answer(result) in text
    assert all(f"| {line.name} |" in text for line in figures(result))
    assert "| seed 2 | +0.0010 | −0.0002 to +0.0022 | 0.100 | undecided at 0.001 |" in text
    assert "- `quantize-tables`: embedding, user" in text
    assert "  - skipped out: tied" in text


def test_a_slice_that_lost_is_named(content):
    assert "No loss shown in any of 1 slices" in markdown(read(content, Result))
    (parts,) = content["slices"].values()
    parts[0] |= {"p_worse": 0.01, "lost": True}
    text = markdown(read(content, Result))
    assert "**Lost within**\n- item" in text
    assert "p of a loss 0.010, corrected" in text


def test_the_smallest_result_has_a_text(smallest):
    text = markdown(read(smallest, Result))
    assert text.startswith("Against its teacher")
    assert "difference" not in text


def test_nothing_in_the_data_becomes_markup(content):
    text = markdown(read(content, Result))
    assert "<script" not in text
    assert "<img" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {5, 6}
    assert escape("a\nb") == "a b"


def test_it_is_written_whole_or_not_at_all(content, tmp_path):
    source = tmp_path / "result.json"
    with pytest.raises(InputError, match="no such file"):
        write_markdown(source, tmp_path / "page.md")
    assert not (tmp_path / "page.md").exists()


def test_pictures_stand_by_themselves(content, tmp_path):
    import json

    source = tmp_path / "result.json"
    source.write_text(json.dumps(content))
    drawn = write_pictures(source, tmp_path / "pictures", "svg")
    assert [path.name for path in drawn] == ["bytes.svg", "quality.svg", "calibration.svg", "latency.svg"]
    for path in drawn:
        text = path.read_text()
        assert "var(--" not in text
        assert 'fill="#ffffff"' in text
    for path in write_pictures(source, tmp_path / "pictures", "png"):
        assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="of kind svg or png, got 'jpg'"):
        write_pictures(source, tmp_path / "pictures", "jpg")
