"""The pictures: every bar and point is drawn, in the page's colours, with nothing that runs."""

import re

from slimrank.report.pictures import PLACEHOLDERS, bytes_by_tensor, largest_first, quality_against_bytes, round_numbers
from slimrank.report.result import Result, Tensor, read


def test_bars_name_every_tensor_and_its_bytes(content):
    picture = bytes_by_tensor(read(content, Result))
    for drawn in (picture.wide, picture.narrow):
        for words in ("Both on one scale", "Teacher, on its own scale", "dense.11", "1.10 KB", "5 others", "6.60 KB"):
            assert f">{words}" in drawn
    assert "Teacher: 6.60 KB, of which dense.11 takes 1.10 KB." in picture.words


def test_points_are_drawn_in_the_colours_of_the_page(content):
    result = read(content, Result)
    picture = quality_against_bytes(result)
    for drawn in (picture.wide, picture.narrow):
        assert not [colour for colour in PLACEHOLDERS.values() if colour in drawn]
        for name in ("teacher", "student", "slim", "ink", "muted", "line"):
            assert f"var(--{name})" in drawn
        assert not re.search(r'(fill|stroke)="#', drawn)
    assert ">Student, 400 KB</text>" in picture.wide
    assert picture.words.startswith("AUC against bytes on disk. Teacher: 0.9800 at 1.00 MB. Student: 0.9820 at 400 KB.")
    assert picture.caption.endswith("A line spans the least and the greatest of the seeds.")


def test_no_picture_without_what_it_shows(smallest):
    assert bytes_by_tensor(read(smallest, Result)) is None
    assert quality_against_bytes(read(smallest, Result)) is not None
    smallest["teacher"] = {"quality": {}, "bytes": {"disk": 5}}
    assert quality_against_bytes(read(smallest, Result)) is None


def test_equal_models_and_empty_tensors_are_drawn(smallest):
    smallest["teacher"] = smallest["slim"] = {**smallest["slim"], "tensors": [{"name": "", "bytes": 0}]}
    assert "0 bytes" in bytes_by_tensor(read(smallest, Result)).wide
    assert "NaN" not in quality_against_bytes(read(smallest, Result)).wide


def test_bars_beyond_the_most_are_summed():
    tensors = [Tensor(name=str(number), bytes=number) for number in range(20)]
    bars = largest_first(tensors, most=4)
    assert bars == [("19", 19), ("18", 18), ("17", 17), ("17 others", sum(range(17)))]
    assert largest_first(tensors[:4], most=4) == [("3", 3), ("2", 2), ("1", 1), ("0", 0)]


def test_ticks_are_round_and_few():
    for low, high in ((1, 2), (900, 1100), (3e3, 4e8), (1e3, 1e15)):
        ticks = round_numbers(low, high, 4)
        assert 0 <= len(ticks) <= 4
        assert all(low <= tick <= high for tick in ticks)
