"""Rows mean the same in JavaScript as in Python: ids, numbers, what is unknown, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest

from slimrank.config import InputError
from slimrank.data.encoding import Encoding
from slimrank.data.schema import Field, Schema
from slimrank.deploying.encoding import encoding_json
from slimrank.runtime.encoder import RowEncoder

INTEGERS = [0, 1, 2, 5, 7, -1, -7, 2**31, 2**53 - 1, 2**53, 2**53 + 1, -(2**53) - 1, 10**18, 2**63 - 1, -(2**63)]
BEYOND = [2**63, -(2**63) - 1, 2**64, 10**30, 10**300]
FLOATS = [0.0, -0.0, 1.0, 7.0, 0.5, 1.5, -2.5, 0.1 + 0.2, 1e-4, 1.5e-5, 1e-5, 2e-10, 5e-324, 1e15 + 0.5, 2.0**53, 1e18]
FLOATS += [1e22, 1e300, 123456.789, -0.00012, float("nan"), float("inf"), float("-inf")]
WORDS = [
    "",
    " ",
    "7",
    "+7",
    "-7",
    "007",
    " 7",
    "7 ",
    "7.0",
    "7.5",
    "1e3",
    "0x7",
    "1_000",
    "1,000",
    "--7",
    "+-7",
    "-0",
    "9",
]
WORDS += [
    "٣",
    "tea",
    "Tea",
    "tea ",
    "jam|rye",
    "a|b||c",
    "|",
    "true",
    "True",
    "None",
    "null",
    "NaN",
    "inf",
    "é",
    "e\u0301",
]
WORDS += ["日本", "😀", "\u0000", "a\nb", '"', "'", "\\", "<b>", "__proto__", "constructor", "9223372036854775807"]
WORDS += ["a\ud800", "\udc00", "\u0000exact:7", "0x", "7e0", "९", "\ufeff7"]
WORDS += [
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "9007199254740993",
    "0" * 30 + "7",
    "x" * 500,
]
LISTS: list[Any] = [
    [],
    [7],
    [7, 7.0, "7"],
    ["tea", "jam"],
    [None],
    [None, "tea"],
    [1, 2, 3, 4, 5],
    [True, False],
    [0.5],
]
LISTS += [
    [float("nan"), 7],
    ["tea"] * 9,
    [2**53 + 1],
    [2**63],
    [[7]],
    [{}],
    ["unseen", "tea"],
    [""],
    ["a|b"],
    [5, None, 0],
]
GRID = [*INTEGERS, *BEYOND, *FLOATS, *WORDS, *LISTS, True, False, None, {}, {"a": 1}]

TEA = [
    "tea",
    "jam",
    "rye",
    "7",
    "",
    "é",
    "😀",
    "0.5",
    "1e-05",
    "a",
    "b",
    "__proto__",
    "1",
    "0",
    "inf",
    "NaN",
    "x" * 500,
]
WIDE = [7, -7, 0, 1, 2**53 + 1, 2**53, -(2**53) - 1, 2**63 - 1, -(2**63), 10**18]
FIELDS: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "dense": ({"kind": "categorical"}, [0, 1, 2, 5, 7, 9]),
    "wide": ({"kind": "categorical"}, WIDE),
    "text": ({"kind": "categorical"}, TEA),
    "hash": ({"kind": "categorical", "encoding": "hash", "num_ids": 1000}, TEA),
    "identity": ({"kind": "categorical", "encoding": "identity", "num_ids": 8}, [0, 1]),
    "number": ({"kind": "numeric"}, [1.5, 2.5, 4.0]),
    "log": ({"kind": "numeric", "log": True}, [1.5, 2.5, 400.0]),
    "texts": ({"kind": "sequence", "max_length": 3}, [TEA, ["tea"]]),
    "integers": ({"kind": "sequence", "max_length": 3}, [WIDE, [7]]),
    "split": ({"kind": "sequence", "max_length": 3, "separator": "|"}, ["tea|jam|a|b|7", "c"]),
    "hashes": ({"kind": "sequence", "max_length": 3, "encoding": "hash", "num_ids": 50}, [TEA, ["tea"]]),
    "identities": ({"kind": "sequence", "max_length": 3, "encoding": "identity", "num_ids": 8}, [[0, 1], [2]]),
}


def encoding_of(name: str) -> Encoding:
    keys, values = FIELDS[name]
    frame = polars.DataFrame({name: values, "label": [place % 2 for place in range(len(values))]})
    return Encoding.fit(Schema(fields=(Field(name=name, **keys),)), frame)


def in_python(encoder: RowEncoder, rows: Any) -> dict[str, Any]:
    try:
        inputs, unknown, shortened = encoder(rows)
    except InputError as error:
        return {"error": str(error)}
    return {"ids": inputs.ids, "numbers": inputs.numbers, "unknown": unknown, "shortened": shortened}


def both(ask_node: Callable[..., Any], wanted: dict[str, list[Any]]) -> dict[str, list[tuple[Any, Any, Any]]]:
    """By field every case with what Python and JavaScript make of it."""
    encodings = {name: encoding_of(name) for name in wanted}
    asked = [
        {"record": json.loads(encoding_json(encodings[name], "digest")), "cases": cases}
        for name, cases in wanted.items()
    ]
    answers = ask_node(Path(__file__).with_name("encode.mjs"), asked)
    return {
        name: list(zip(cases, [in_python(RowEncoder(encodings[name]), rows) for rows in cases], found, strict=True))
        for (name, cases), found in zip(wanted.items(), answers, strict=True)
    }


def assert_same(rows: Any, expected: dict[str, Any], found: dict[str, Any]) -> None:
    if "error" in expected or "error" in found:
        assert ("error" in expected) == ("error" in found), (rows, expected, found)
        return
    assert found["ids"] == expected["ids"].ravel().tolist(), rows
    np.testing.assert_allclose(found["numbers"], expected["numbers"].ravel(), rtol=2e-7, err_msg=str(rows))
    assert found["unknown"] == expected["unknown"], rows
    assert found["shortened"] == expected["shortened"], rows


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_every_value_means_the_same_in_every_kind_of_field(ask_node: Callable[..., Any]) -> None:
    wanted = {name: [[{name: value}] for value in GRID] for name in FIELDS}
    for cases in both(ask_node, wanted).values():
        assert len(cases) == len(GRID) >= 120
        for case in cases:
            assert_same(*case)


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_values_mean_the_same_among_others(ask_node: Callable[..., Any]) -> None:
    draw = np.random.default_rng(0)
    plain = [value for value in GRID if not isinstance(value, list | dict)]
    lists = [value for value in LISTS if not any(isinstance(each, list | dict) for each in value)]
    wanted: dict[str, list[Any]] = {}
    for name, (keys, _) in FIELDS.items():
        pool = [*lists, None] if keys["kind"] == "sequence" else plain
        picks = draw.integers(0, len(pool), (60, 4))
        wanted[name] = [[{name: pool[place]} for place in pick] for pick in picks]
    for cases in both(ask_node, wanted).values():
        for case in cases:
            assert_same(*case)


def test_columns_are_taken_as_rows_are(ask_node: Callable[..., Any]) -> None:
    cases: list[Any] = [{"dense": [7, "7", None, 3]}, {"dense": "7"}, {"other": [7]}, {"dense": []}, [], 7, [7], [None]]
    for case in both(ask_node, {"dense": cases})["dense"]:
        assert_same(*case)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("identity", [{"identity": 8}, {"identity": 1}, {"identity": -1}]),
        ("identity", [{"identity": "tea"}, {"identity": 0}]),
        ("number", [{"number": float("nan")}, {"number": 1.0}, {"number": float("-inf")}]),
        ("number", [{"numbr": 1.0}]),
        ("dense", [7]),
        ("dense", [{"dense": [7]}]),
        ("texts", [{"texts": ["tea"]}, {"texts": 7}]),
    ],
)
def test_a_refusal_is_worded_alike(ask_node: Callable[..., Any], name: str, rows: list[Any]) -> None:
    ((_, expected, found),) = both(ask_node, {name: [rows]})[name]
    assert found["error"] == expected["error"]


def test_all_faults_are_told_at_once(ask_node: Callable[..., Any]) -> None:
    fields = (Field(name="a", kind="numeric"), Field(name="b", kind="categorical", encoding="identity", num_ids=3))
    frame = polars.DataFrame({"a": [1.0, 2.0], "b": [0, 1], "label": [0, 1]})
    record = json.loads(encoding_json(Encoding.fit(Schema(fields=fields), frame), "digest"))
    script = Path(__file__).with_name("encode.mjs")
    ((found,),) = ask_node(script, [{"record": record, "cases": [[{"a": float("nan"), "b": 5}]]}])
    assert sorted(line.split(":")[0] for line in found["error"].splitlines()) == ["column 'a'", "column 'b'"]


def test_integers_that_no_double_holds_stand_as_text() -> None:
    record = json.loads(encoding_json(encoding_of("wide"), "digest"))
    values = record["fields"][0]["values"]
    assert {str(2**53 + 1), 7} <= set(values)
    assert record["artifact"] == "digest"
