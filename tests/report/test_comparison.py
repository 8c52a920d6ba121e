"""The words of a comparison: verdict, slices that lost, behaviour; framed and plain."""

import io

import pytest
from rich.console import Console

from slimrank.config import InputError
from slimrank.report.comparison import Evidence, notes, print_comparison, sentence
from slimrank.report.result import read

ONE = {"metric": "auc", "better": "higher", "a": 0.7, "b": 0.69}
NONE = {"low": None, "high": None, "p": None}
ONE |= {"difference": -0.01, "low": -0.02, "high": -0.001, "p": 0.03}
PART = {"name": "tail", "rows": 100, "positives": 10, "comparison": ONE, "p_worse": 0.004, "lost": True}


def record(outcome="non-inferior", needed=500, lost=True):
    return {
        "a": "runs/a[bold]",
        "b": "scores.parquet",
        "rows": 1000,
        "positives": 100,
        "groups": 50,
        "metrics": [ONE, {**ONE, "metric": "logloss", "better": "lower"}, {**ONE, "metric": "ece", **NONE}],
        "left_out": {},
        "verdict": {"metric": "auc", "margin": 0.05, "outcome": outcome, "rows_needed": needed},
        "slices": {"item": [{**PART, "lost": lost}, {**PART, "name": "new", "comparison": None, "lost": False}]},
        "behaviour": {
            "rank_correlation": 0.98765,
            "overlap@10": {"mean": 0.9, "groups": 40},
            "invariance of a": {"by_neighbours": 1e-7, "unoptimised": 0.004},
            "invariance of b": {"by_neighbours": 0.5, "unoptimised": 0.5},
        },
    }


@pytest.mark.parametrize(
    ("outcome", "needed", "words"),
    [
        ("non-inferior", 500, "B is non-inferior to A: auc at a margin of 0.05 on 1,000 rows of 50 groups."),
        ("inferior", None, "B is inferior to A: auc at a margin of 0.05 on 1,000 rows of 50 groups; the whole"),
        ("undecided", 4000, "do not decide whether B is non-inferior to A: auc at a margin of 0.05 on 1,000 rows"),
        ("undecided", 4000, "were both equally good, about 4,000 rows of this kind would show it."),
    ],
)
def test_the_verdict_in_a_sentence(outcome, needed, words):
    assert words in sentence(read(record(outcome, needed), Evidence))


def test_what_hides_is_told():
    lines = list(notes(read(record(), Evidence)))
    assert lines[0] == "Lost within item, tail: auc −0.01000 (−0.02000 to −0.00100), p 0.004, corrected."
    assert "Of A's first 10, 90.0% are among B's (mean of 40 groups)." in lines
    assert "A's scores do not depend on the rows beside them: logits differ by 1e-07." in lines
    assert "A by a graph that is not optimised: logits differ by 0.004." in lines
    assert "Fault: B's scores depend on the rows beside them: logits differ by 0.5." in lines
    assert "Too small to compare: 1 slice." in lines
    assert "Left out, gauc: no groups." in list(notes(read({**record(), "left_out": {"gauc": "no groups"}}, Evidence)))
    assert "No loss shown in any of 1 slice: item." in list(notes(read(record(lost=False), Evidence)))


def test_what_models_take_is_told_where_they_are_artifacts():
    takes = {"disk": 31_000, "vocabulary": 12_000}
    sent = {"wire": 40_000, "wire_graph": 27_000, "wire_vocabulary": 11_000, "wire_brotli": 38_000}
    lines = list(notes(read({**record(), "bytes": {"a": {**takes, **sent}, "b": takes}}, Evidence)))
    assert lines[-2:] == [
        "A takes 31.0 KB on disk and its vocabulary 12.0 KB; "
        "all of it on the wire 40.0 KB with zstd, 38.0 KB with brotli.",
        "B takes 31.0 KB on disk and its vocabulary 12.0 KB.",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_it_is_printed(terminal):
    out = io.StringIO()
    print_comparison(record(), Console(file=out, force_terminal=terminal, width=100, no_color=True))
    printed = out.getvalue()
    assert "logloss" in printed
    assert "−0.02000 to −0.00100" in printed
    assert "non-inferior" in printed
    assert "runs/a[bold]" in printed


def test_another_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        print_comparison(tmp_path / "none.json")
    with pytest.raises(InputError, match="verdict"):
        print_comparison({key: value for key, value in record().items() if key != "verdict"})
