"""Goals as people write them."""

import pytest

from slimrank.config import InputError
from slimrank.searching.goal import OF_WIRE, Bound, read_goal


def test_bounds_with_units_and_rows() -> None:
    goal = read_goal("auc_drop <= 0.001, bytes <= 64 KB,p99_ms@256<=2.5")
    assert goal.bounds == (
        Bound(figure="auc_drop", limit=0.001),
        Bound(figure="bytes", limit=64_000),
        Bound(figure="p99_ms", limit=2.5, rows=256),
    )


def test_bytes_on_the_wire_are_of_all_or_of_a_part() -> None:
    goal = read_goal(
        "wire_bytes <= 32 KB, wire_graph_bytes <= 20KB, wire_vocabulary_bytes <= 9000, wire_brotli_bytes<=1 MiB"
    )
    assert [(bound.key, bound.limit) for bound in goal.costs.bounds] == [
        ("wire_bytes", 32_000),
        ("wire_graph_bytes", 20_000),
        ("wire_vocabulary_bytes", 9000),
        ("wire_brotli_bytes", 2**20),
    ]
    assert {f"{name}_bytes" for name in ("wire", "wire_graph", "wire_vocabulary", "wire_brotli")} == set(OF_WIRE)
    assert read_goal(str(goal)) == goal


def test_excess_adds_up_what_is_missed_as_shares() -> None:
    goal = read_goal("bytes <= 100, p50_ms@1 <= 2, auc_drop <= 0")
    figures = {"bytes": 150.0, "p50_ms@1": 1.0, "auc_drop": 0.002}
    assert goal.excess(figures) == pytest.approx(0.5 + 0.0 + 2.0)
    assert not goal.met(figures)
    assert goal.met({"bytes": 100.0, "p50_ms@1": 2.0, "auc_drop": -0.1})


def test_what_was_not_measured_cannot_be_bounded() -> None:
    with pytest.raises(InputError, match="the goal bounds gauc_drop, measured are auc_drop, bytes"):
        read_goal("gauc_drop <= 0.001").met({"bytes": 1.0, "auc_drop": 0.0})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("byte <= 3", "unknown figure 'byte'. Did you mean 'bytes'?"),
        ("bytes <= 3 Kb", "unknown unit 'Kb'. Did you mean 'KB'?"),
        ("auc_drop <= 1 KB", "unknown unit 'KB'. It takes none."),
        ("p50_ms <= 1", "latency, and nothing else, is of a number of rows"),
        ("bytes@3 <= 1", "latency, and nothing else, is of a number of rows"),
        ("p50_ms@64 <= 2", "latency is measured at 1, 32, 256 rows, got 64"),
        ("bytes <= 1.2.3", "is not of the form"),
        ("bytes < 3", "is not of the form"),
        ("", "is not of the form"),
        ("bytes <= 3 KB, bytes <= 2 KB", "bytes is bounded twice"),
        ("p50_ms@1 <= 3, p50_ms@1 <= 2, p50_ms@32 <= 2", "p50_ms@1 is bounded twice"),
        ("bytes <= 0", "no model takes so little; bytes must be above 0"),
        ("p99_ms@1 <= -1", "no model takes so little"),
        ("auc_drop <= 1", "differences of AUC lie between -1 and 1"),
        ("gauc_drop <= -1.5", "differences of AUC lie between -1 and 1"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_nearest(text: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        read_goal(text)
    assert words in str(error.value)
