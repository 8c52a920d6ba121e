"""Numbers to words, and the terminal table, which shows the same ones."""

import io

import pytest
from rich.console import Console

from slimrank.config import InputError
from slimrank.report import print_result
from slimrank.report.figures import answer, figures, limits_line, machine_line, milliseconds, signed, size
from slimrank.report.result import Result, read


def lines_by_name(content):
    return {line.name: line for line in figures(read(content, Result))}


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.00 KB"),
        (9_994, "9.99 KB"),
        (9_996, "10.0 KB"),
        (99_960, "100 KB"),
        (999_499, "999 KB"),
        (999_500, "1.00 MB"),
        (2_500_000_000, "2.50 GB"),
        (3e12, "3000 GB"),
    ],
)
def test_bytes_have_three_digits(count, words):
    assert size(count) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0.0000 ms"), (0.00312, "0.0031 ms"), (0.09996, "0.100 ms"), (0.9996, "1.00 ms"), (1234, "1234 ms")],
)
def test_times_have_three_digits(value, words):
    assert milliseconds(value) == words


def test_a_difference_too_small_to_show_has_no_sign():
    assert [signed(value) for value in (0.00004, -0.00004, 0.00005001, -1.0)] == [
        "0.0000",
        "0.0000",
        "+0.0001",
        "−1.0000",
    ]


def test_ratios_and_what_is_better(content):
    lines = lines_by_name(content)
    assert (lines["Graph, weights on disk"].change, lines["Graph, weights on disk"].better) == (
        "20.0x smaller",
        True,
    )
    assert (lines["Vocabulary on disk"].change, lines["Vocabulary on disk"].better) == ("about equal", None)
    assert lines["p50 at 1 row"].change == "20.0x faster"
    assert (lines["AUC"].change, lines["AUC"].better) == ("+0.0010", True)
    assert (lines["PCOC"].change, lines["PCOC"].better) == ("−0.0950", True)
    assert (lines["Logloss"].change, lines["Logloss"].better) == ("0.0000", None)


def test_what_is_worse_says_so(content):
    content["teacher"], content["slim"] = content["slim"], content["teacher"]
    content["slim"]["quality"]["logloss"] = 0.16
    lines = lines_by_name(content)
    assert lines["Graph, weights on disk"].change == "20.0x larger"
    assert lines["p99 at 256 rows"].change == "20.0x slower"
    for name in ("AUC", "PCOC", "Logloss", "Graph, weights on disk", "p99 at 256 rows"):
        assert lines[name].better is False


def test_several_seeds_show_their_range(content):
    assert lines_by_name(content)["AUC"].teacher == "0.9800 (0.9790 to 0.9810)"
    content["teacher"]["by_seed"] = content["teacher"]["by_seed"][:1]
    assert lines_by_name(content)["AUC"].teacher == "0.9800"


def test_rows_are_in_order_of_number(content):
    names = [line.name for line in figures(read(content, Result)) if line.group == "Latency"]
    assert names[::2] == ["p50 at 1 row", "p50 at 32 rows", "p50 at 256 rows"]


def test_bytes_on_the_wire_are_told_by_part_where_they_were_measured(content):
    before = [line.name for line in figures(read(content, Result)) if line.group == "Bytes"]
    assert before == ["Graph, weights on disk", "Vocabulary on disk", "On the wire, zstd", "Resident in memory"]
    for name, graph in (("teacher", 800_000), ("slim", 20_000)):
        content[name]["bytes"] |= {"wire_graph": graph, "wire_vocabulary": 9000, "wire_brotli": graph + 8000}
    lines = lines_by_name(content)
    assert lines["Wire: graph, weights"].change == "40.0x smaller"
    assert lines["Wire: vocabulary"].slim == "9.00 KB"
    assert lines["On the wire, brotli"].slim == "28.0 KB"
    assert [*lines].index("On the wire, brotli") < [*lines].index("Resident in memory")


def test_what_is_missing_is_a_dash(content):
    del content["slim"]["quality"]["gauc"]
    del content["teacher"]["latency_ms"]["1"]
    lines = lines_by_name(content)
    assert (lines["GAUC"].slim, lines["GAUC"].change) == ("–", "–")
    assert (lines["p50 at 1 row"].teacher, lines["p50 at 1 row"].change) == ("–", "–")


def test_a_metric_without_a_name_here_is_shown_under_its_own(content):
    content["teacher"]["quality"]["ece"] = content["slim"]["quality"]["ece"] = 0.01
    assert lines_by_name(content)["ece"].slim == "0.0100"


def test_the_answer_is_one_sentence(content, smallest):
    words = answer(read(content, Result))
    assert words == (
        "Against its teacher the slim model is 20.0x smaller and 20.0x faster at 256 rows; its AUC changes by +0.0010 "
        "(non-inferior at 0.001 on 1 of 2 seeds)."
    )
    first, second = content["comparison"]
    content["comparison"] = first
    words = "+0.0010 (95% interval −0.0002 to +0.0022, non-inferior at 0.001)."
    assert answer(read(content, Result)).endswith(words)
    content["comparison"] = second
    words = "+0.0010 (95% interval −0.0002 to +0.0022, undecided at 0.001)."
    assert answer(read(content, Result)).endswith(words)
    del second["verdict"]
    assert answer(read(content, Result)).endswith("+0.0010 (95% interval −0.0002 to +0.0022).")
    assert (
        answer(read(smallest, Result))
        == "Against its teacher the slim model is about as large; its AUC changes by 0.0000."
    )
    smallest["teacher"] = {"quality": {}, "bytes": {}}
    assert answer(read(smallest, Result)) == "Nothing can be compared."


def test_the_machine_is_named_as_far_as_it_is_known(content, smallest):
    content["processor"] = "Xeon"
    assert machine_line(read(content, Result)) == "Xeon · 2 cores · 1 thread a model · avx2, avx512_vnni · Linux x86_64"
    assert machine_line(read(smallest, Result)) == ""


def test_what_synthetic_data_allows_is_said(content, smallest):
    content["data_facts"] = {"bayes_auc": 0.75, "bayes_logloss": 0.5, "left_out": ["hour"]}
    words = "The data allows: bayes auc 0.7500, bayes logloss 0.5000."
    assert limits_line(read(content, Result)) == words
    assert words in printed(content)
    assert words in printed(content, force_terminal=True)
    assert limits_line(read(smallest, Result)) == ""


def printed(content, **options):
    console = Console(file=io.StringIO(), width=80, **options)
    print_result(content, console)
    return console.file.getvalue()


def test_the_terminal_shows_the_same_figures(content, write):
    plain, framed = printed(write(content)), printed(content, force_terminal=True, color_system=None)
    for line in figures(read(content, Result)):
        for words in (line.name, line.teacher, line.slim, line.change):
            assert words in plain
            assert all(part in framed for part in words.removesuffix(")").split(" ("))
    assert max(map(len, framed.splitlines())) <= 80
    assert "…" not in framed


def test_lines_in_a_file_are_plain(content):
    content["name"] = "[bold]not markup[/bold]"
    lines = printed(content).splitlines()
    assert lines[0].split() == ["teacher", "slim", "change"]
    assert len(lines) == 1 + 15 + 2
    assert not {"\x1b", "│", "━"} & set("".join(lines))
    assert "[bold]not markup[/bold]" in printed(content, force_terminal=True, color_system=None)


def test_what_is_no_result_is_refused():
    with pytest.raises(InputError, match="result: teacher is missing"):
        printed({})
