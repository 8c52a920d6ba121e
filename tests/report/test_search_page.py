"""What a search adds to the page, to Markdown and to the terminal: goal, trials, first look."""

import re
from html import unescape

import pytest

from slimrank.report.figures import asked, figure
from slimrank.report.front import front, recipe_words, trial_words
from slimrank.report.goal import bound_words
from slimrank.report.latencies import latencies
from slimrank.report.markdown import markdown
from slimrank.report.page import render
from slimrank.report.result import Bound, Result, read
from slimrank.report.terminal import plain_lines


@pytest.fixture
def result(content, search):
    return read({**content, "search": search}, Result)


def test_the_answer_says_what_was_asked_and_what_would_have_to_give(result) -> None:
    words = asked(result.search)
    assert words.startswith("Asked for auc_drop <= 0.001, bytes <= 40 KB: none meets it; nearest is trial 3 of 9 (7 ")
    assert "auc_drop −0.0003, bytes 50.0 KB on test rows" in words
    assert words.endswith("On validation rows it would be met with bytes <= 50.0 KB (trial 3).")
    for text in (render(result), markdown(result), "\n".join(plain_lines(result))):
        assert "none meets it; nearest is trial 3" in text


def test_a_goal_that_is_met_is_said_to_be(content, search) -> None:
    search["met"] = True
    words = asked(read({**content, "search": search}, Result).search)
    assert ": met by trial 3 of 9 (7 trained whole), with" in words
    assert words.endswith("on test rows, which do not prove it: auc_drop undecided.")
    search["bounds"][0]["proof"]["outcome"] = "non-inferior"
    assert asked(read({**content, "search": search}, Result).search).endswith("on test rows, which prove it.")
    del search["bounds"][0]["proof"]
    assert asked(read({**content, "search": search}, Result).search).endswith("50.0 KB on test rows.")


def test_every_bound_has_its_value_interval_and_verdict(result) -> None:
    loss, size = result.search.bounds
    assert bound_words(loss) == ("at most 0.001", "−0.0003", "−0.0011 to +0.0005", "undecided")
    assert bound_words(size) == ("at most 40.0 KB", "50.0 KB", "–", "missed")
    text = render(result)
    assert "These rows do not decide auc_drop: of equally good models about 123,456 rows like these would." in text
    assert "123,456 rows" in markdown(result)


def test_an_interval_of_a_metric_where_less_is_better_keeps_its_signs() -> None:
    proof = {"low": -0.01, "high": 0.02, "better": "lower", "outcome": "undecided"}
    bound = Bound(key="logloss_rise", limit=0.001, value=0.005, met=False, proof=proof)
    assert bound_words(bound)[2] == "−0.0100 to +0.0200"


def test_a_bound_without_an_interval_says_why() -> None:
    bound = Bound(
        key="auc_drop", limit=0.1, value=0.0, met=True, proof={"reason": "an interval needs 20 groups, got 3"}
    )
    assert bound_words(bound)[3] == "an interval needs 20 groups, got 3"


def test_every_trial_of_the_picture_has_its_recipe_where_a_pointer_rests(result) -> None:
    picture = front(result)
    for drawn in (picture.wide, picture.narrow):
        hints = [unescape(hint) for hint in re.findall(r"<title>(.*?)</title>", drawn)]
        whole = [trial for trial in result.search.trials if trial.state == "complete"]
        assert hints == [f"trial {trial.number}: {trial_words(trial, result.search)}" for trial in whole]
        assert "<script" not in drawn
    assert "7 trials were trained whole, 1 were stopped early." in picture.caption


def test_losers_are_not_drawn_on_the_front(content, search, tried) -> None:
    """A front of one trial: the others lose more, and lie above it and above the goal."""
    search["trials"] = [tried(1, 1000, -0.0002), *(tried(number, 2000, 0.003 * number) for number in range(2, 6))]
    search["front"], search["chosen"] = [1], 1
    drawn = front(read({**content, "search": search}, Result)).wide
    marks = drawn[drawn.index("trials_marks") :]
    heights = [float(y) for y in re.findall(r"translate\([\d.]+,([\d.]+)\)", marks[: marks.index("</g>")])]
    assert len(heights) == 5
    assert max(heights) == heights[0] > max(heights[1:]) + 10
    assert "stroke-dasharray" in drawn


def test_a_page_of_very_many_trials_stays_small(content, search, tried) -> None:
    search["trials"] = [tried(number, 1000 + number, 0.5 / number) for number in range(1, 5001)]
    search["front"], search["chosen"] = [1, 7, 5000], 7
    text = render(read({**content, "search": search}, Result))
    assert len(text) < 2_000_000
    assert "All 5,000 trials, 400 of them here and all in result.json" in text
    assert "4600 of them, far from the front, are not drawn" in text
    assert all(f">{number} " in text for number in (1, 7, 5000))


def test_every_trial_is_in_the_table_with_why_it_failed(result) -> None:
    text = render(result)
    table = text[text.index('aria-label="trials"') :]
    table = table[: table.index("</table>")]
    assert table.count("<tr>") == 1 + 9
    assert "stopped early at 11%" in table
    assert "a budget &lt;script&gt;" in table
    assert "3 ★" in table
    assert "<script" not in text


def test_no_picture_of_one_trial(content, search) -> None:
    search["trials"] = search["trials"][:1]
    search["front"], search["chosen"] = [1], 1
    assert front(read({**content, "search": search}, Result)) is None
    assert front(read(content, Result)) is None


def test_trials_in_words() -> None:
    changes = {
        "student.model.hidden": [32, 16],
        "student.fields": ["user", "item"],
        "retraining.epochs": 6,
        "steps": [],
    }
    assert recipe_words(changes) == "hidden 32-16, fields user item, retraining epochs 6"
    assert recipe_words({"steps.0.bits": 4}) == "steps bits 4"


def test_figures_of_a_goal_in_words() -> None:
    assert figure("p99_ms@256", 1.5) == "1.50 ms"
    assert figure("wire_bytes", 1500) == "1.50 KB"
    assert figure("logloss_rise", -0.002) == "−0.0020"


def test_latencies_are_drawn_beside_the_lookups(result, content, smallest) -> None:
    picture = latencies(result)
    assert "Lookups" not in picture.caption
    content["floor"]["latency_ms"] = {"256": content["slim"]["latency_ms"]["256"]}
    beside = latencies(read(content, Result))
    assert "Lookups alone at 256 rows" in beside.words
    assert "Lookups alone are the rows" in beside.caption
    assert "Slim at 256 rows" in picture.words
    assert latencies(read(smallest, Result)) is None
    for model in ("teacher", "slim"):
        for times in content[model]["latency_ms"].values():
            times.pop("quantiles", None)
    assert latencies(read(content, Result)) is None


def test_the_first_look_is_a_table_of_fields_and_layers(result) -> None:
    text = render(result)
    assert "What the first look found" in text
    assert "30% zeros" in text
    assert "1 bit</th>" in text


def test_how_to_make_it_again_has_the_recipe(result) -> None:
    text = render(result)
    assert "slimrank run recipe.json" in text
    assert "&quot;seeds&quot;" in text
