"""Which row goes on from which: by value where there are vocabularies, by place elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from slimrank.data.encoding import Encoding
from slimrank.shipping.rows import NONE, Ids, aligned, forerunner
from slimrank.shipping.tensors import Range

Made = Callable[..., Path]


def ids_of(made: Made, encodings: Callable[..., Encoding], old: tuple[list, list], new: tuple[list, list]) -> Ids:  # type: ignore[type-arg]
    table = {"t": np.zeros((20, 4), np.uint8)}
    return Ids.of(made("old", table, encodings(*old)), made("new", table, encodings(*new)))


def range_of(name: str, shape: tuple[int, ...], item_bytes: int = 1) -> Range:
    return Range(name, item_bytes, shape, "", 0, int(np.prod(shape)) * item_bytes)


def test_values_keep_their_rows_where_a_vocabulary_grows(made: Made, encodings: Callable[..., Encoding]) -> None:
    ids = ids_of(made, encodings, ([7, 8], ["a", "b"]), ([7, 8, 9], ["a", "b", "c"]))
    assert (ids.old, ids.new) == ({"user": 3, "seen": 4}, {"user": 4, "seen": 5})
    # user: unknown, 7, 8, 9; seen: padding, unknown, a, b, c; the old table has three rows of user, then four of seen
    assert ids.origin(7, 9).tolist() == [0, 1, 2, NONE, 3, 4, 5, 6, NONE]


def test_values_keep_their_rows_where_their_order_changes(made: Made, encodings: Callable[..., Encoding]) -> None:
    ids = ids_of(made, encodings, ([7, 8, 9], ["a", "b"]), ([9, 5, 7], ["b", "a"]))
    assert ids.origin(8, 8).tolist() == [0, 3, NONE, 1, 4, 5, 7, 6]
    assert ids.origin(4, 4).tolist() == [0, 3, NONE, 1]  # a table of one field


def test_values_that_are_gone_leave_nothing(made: Made, encodings: Callable[..., Encoding]) -> None:
    ids = ids_of(made, encodings, ([7, 8, 9], ["a", "b"]), ([8], ["b"]))
    assert ids.origin(8, 5).tolist() == [0, 2, 4, 5, 7]


def test_rows_of_no_field_go_on_by_place(made: Made, encodings: Callable[..., Encoding]) -> None:
    ids = ids_of(made, encodings, ([7, 8], ["a"]), ([8, 7], ["a"]))
    assert ids.origin(50, 52).tolist() == [*range(50), NONE, NONE]
    assert ids.origin(50, 48).tolist() == [*range(48)]


def test_what_is_no_artifact_of_rows_has_no_ids(tmp_path: Path, asked_by_tensors: Path) -> None:
    assert Ids.of(asked_by_tensors, asked_by_tensors) == Ids({}, {}, {})
    assert Ids.of(tmp_path, tmp_path).origin(2, 3).tolist() == [0, 1, NONE]


def test_numbers_are_moved_row_by_row(made: Made, encodings: Callable[..., Encoding]) -> None:
    ids = ids_of(made, encodings, ([7, 8], ["a"]), ([8, 7, 9], ["a"]))
    old = np.arange(24, dtype=np.uint8).reshape(6, 4)
    found = aligned(old.tobytes(), range_of("t", (6, 4)), range_of("t", (7, 4)), ids)
    assert found is not None
    rows = np.frombuffer(found, np.uint8).reshape(7, 4)
    assert rows.tolist() == [*old[[0, 2, 1]].tolist(), [0] * 4, *old[3:].tolist()]


def test_what_is_not_alike_has_nothing_to_go_on_from() -> None:
    ids = Ids({}, {}, {})
    numbers = bytes(range(24))
    same = range_of("t", (6, 4))
    assert aligned(numbers, same, same, ids) == numbers
    assert aligned(numbers, same, range_of("t", (6, 4), 2), ids) is None
    assert aligned(numbers, same, range_of("t", (6, 5)), ids) is None
    assert aligned(numbers, same, range_of("t", (24,)), ids) is None
    assert aligned(numbers, same, range_of("t", (4, 6)), ids) == numbers  # as many, of other rows
    assert aligned(numbers, range_of("t", ()), range_of("t", ()), ids) == numbers  # one number, without an axis
    assert aligned(b"abcd" * 4, Range("t", 1, (0, 4), "", 0, 16), Range("t", 1, (0, 4), "", 0, 16), ids) == b"abcd" * 4


def test_a_constant_goes_on_from_that_of_its_name_or_the_only_one_of_its_shape() -> None:
    known = [range_of("a", (6, 4)), range_of("b", (6, 4)), range_of("c", (3,), 4)]
    assert forerunner(range_of("b", (9, 4)), known) == known[1]
    assert forerunner(range_of("renamed", (3,), 4), known) == known[2]
    assert forerunner(range_of("renamed", (6, 4)), known) is None
    assert forerunner(range_of("renamed", (3,), 2), known) is None


@pytest.mark.parametrize("size", ["x", None, -5, 1.5, True, [3]])
def test_sizes_that_are_none_are_no_ids(made: Made, size: object) -> None:
    folders = [made(name, {"t": np.zeros((20, 4), np.uint8)}) for name in ("old", "new")]
    assert Ids.of(*folders).new == {"user": 3, "seen": 3}
    for folder in folders:
        intact = (folder / "schema.json").read_bytes()
        (folder / "schema.json").write_text(json.dumps({**json.loads(intact), "sizes": {"user": size, "seen": 3}}))
        assert Ids.of(*folders) == Ids({}, {}, {})
        (folder / "schema.json").write_bytes(intact)
