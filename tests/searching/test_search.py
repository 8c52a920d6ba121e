"""One worker on figures that are known, and what is chosen among trials that are there."""

import math
import time
from pathlib import Path

import optuna
import pytest

from slimrank.config import InputError
from slimrank.recipe import Recipe
from slimrank.searching.choice import concessions, front_of, order_of_choice, recipe_of
from slimrank.searching.goal import read_goal
from slimrank.searching.search import Attempt, Search, Worker, read_search, sampler_of
from slimrank.searching.space import named_space
from slimrank.searching.study import Trial, cut_off, open_study, shown, sqlite, trials_of

SPACE = {"steps.0.bits": [2, 4, 8], "student.model.hidden": [[8], [16]]}


WIDE = {"student.training.batch_size": list(range(64, 1088, 16)), "retraining.batch_size": list(range(64, 1088, 16))}


def bowl(recipe: Recipe, number: int = 0, share: float = 1.0) -> Attempt:
    """Bytes rise with the student's batch; the loss is least at one value of the other."""
    x, y = recipe.student.training.batch_size / 1024, recipe.retraining.batch_size / 1024
    figures = {"bytes": 1e4 * x, "auc_drop": (y - 0.3) ** 2 + 0.02 * (1 - x) ** 2}
    return Attempt(figures, {"figures": {}, "proven": {}})


def size_and_loss(recipe: Recipe, number: int = 0, share: float = 1.0) -> Attempt:
    """More bits and wider layers cost bytes and save AUC; what is trained for a share of its epochs loses more."""
    bits, width = recipe.steps[0].bits, recipe.student.model.hidden[0]
    loss = 0.01 / bits - width * 1e-5 + (1 - share) * 0.01 + (recipe.distillation.temperature - 1) * 0.1
    figures = {"bytes": bits * 100.0 + width, "auc_drop": loss}
    return Attempt(figures, {"figures": {"auc_drop": figures["auc_drop"]}, "proven": {"auc_drop": True}})


def search_with(folder: Path, asked: Search, space, attempt=size_and_loss, **settings):
    url = f"sqlite:///{folder / 'study.db'}"
    made = named_space(Recipe(), space)
    study = open_study(url, "a", {"goal": str(asked.goal)}, create=True, sampler=sampler_of(asked, 1))
    cut_off(study, "")
    if not study.get_trials(deepcopy=False):
        for start in made.starts:
            study.enqueue_trial(made.parameters(start))
    Worker(asked, Recipe(), made, attempt, url=url, **settings).run(study)
    return trials_of(study)


def asked_for(goal: str = "auc_drop <= 0.0024", **settings) -> Search:
    return Search.parse({"goal": goal, **settings})


def test_the_smallest_that_meets_the_goal_is_found(tmp_path: Path) -> None:
    asked = asked_for()
    found = search_with(tmp_path, asked, SPACE)
    assert len(found) == 6
    best = order_of_choice(found, asked)[0]
    assert best.changes == {"steps.0.bits": 4, "student.model.hidden": [16]}
    assert recipe_of(best, Recipe()).steps[0].bits == 4


def test_if_none_meets_it_the_nearest_is_first_and_what_would_give_is_told(tmp_path: Path) -> None:
    asked = asked_for("auc_drop <= 0.0001, bytes <= 300")
    found = search_with(tmp_path, asked, SPACE)
    best = order_of_choice(found, asked)[0]
    assert not asked.goal.met(best.figures)
    assert best.changes == {"steps.0.bits": 8, "student.model.hidden": [16]}
    ((bound, trial, value),) = concessions(found, asked)  # with any number of bytes nothing loses so little
    assert bound.key == "auc_drop"
    assert trial.changes == {"steps.0.bits": 2, "student.model.hidden": [16]}
    assert value == pytest.approx(0.00484)


def test_a_goal_that_none_meets_stops_no_trial_that_comes_nearer(tmp_path: Path) -> None:
    found = search_with(tmp_path, asked_for("auc_drop <= 0.0001"), SPACE)
    assert [trial.state for trial in found] == ["complete"] * 6


def test_trials_that_others_lead_are_stopped_and_count_for_their_share(tmp_path: Path) -> None:
    asked = asked_for("auc_drop <= 0.0024", trainings=6)
    found = search_with(tmp_path, asked, {**SPACE, "distillation.temperature": [1.0, 2.0, 3.0]})
    stopped = [trial for trial in found if trial.state == "stopped"]
    assert stopped
    assert all(trial.share < 1 and trial.spent < 1 and trial.reason for trial in stopped)
    assert 6 <= sum(trial.spent for trial in found) <= 6 + 1 + 1 / 3 + 1 / 9
    assert all(trial.spent == pytest.approx(1 + 1 / 3 + 1 / 9) for trial in found if trial.state == "complete")


def test_without_halving_every_trial_is_whole(tmp_path: Path) -> None:
    found = search_with(tmp_path, asked_for(halving=False, trainings=5), SPACE)
    assert [trial.spent for trial in found] == [1.0] * 5


def test_tpe_finds_more_than_chance() -> None:
    """Three seeds each, in studies in memory."""
    best = {"tpe": 0.0, "random": 0.0}
    space = named_space(Recipe(), WIDE)
    for sampler in best:
        for seed in range(3):
            asked = asked_for("auc_drop <= 0.02", sampler=sampler, seed=seed, trainings=40, halving=False)
            study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler_of(asked, 1))
            Worker(asked, Recipe(), space, bowl).run(study)
            best[sampler] += order_of_choice(trials_of(study), asked)[0].figures["bytes"]
    assert best["tpe"] < best["random"]


def test_a_killed_search_goes_on_with_the_trials_it_had(tmp_path: Path) -> None:
    tried: list[int] = []

    def dies_at_the_third(recipe: Recipe, number: int, share: float) -> Attempt:
        if len(tried) == 2:
            raise KeyboardInterrupt
        tried.append(recipe.steps[0].bits)
        return size_and_loss(recipe)

    asked = asked_for(halving=False)
    with pytest.raises(KeyboardInterrupt):
        search_with(tmp_path, asked, SPACE, dies_at_the_third)
    again: list[int] = []

    def counting(recipe: Recipe, number: int, share: float) -> Attempt:
        again.append(number)
        return size_and_loss(recipe)

    found = search_with(tmp_path, asked, SPACE, counting)
    whole = [trial for trial in found if trial.state == "complete"]
    assert len(tried) == 2
    assert len(again) == 4
    assert len(whole) == 6  # the one in flight is tried again
    assert [trial.state for trial in found].count("cut off") == 1
    assert order_of_choice(found, asked)[0].changes == {"steps.0.bits": 4, "student.model.hidden": [16]}


def test_a_trial_that_fails_is_told_with_its_reason_and_the_search_goes_on(tmp_path: Path) -> None:
    def some_fail(recipe: Recipe, number: int, share: float) -> Attempt:
        if recipe.steps[0].bits == 4:
            raise InputError("a budget of 5 bytes is below the least possible: 900")
        return size_and_loss(recipe, number, share)

    found = search_with(tmp_path, asked_for(halving=False), SPACE, some_fail)
    failed = [trial for trial in found if trial.state == "failed"]
    assert len(failed) == 2
    assert all("below the least possible" in trial.reason for trial in failed)
    assert sum(trial.state == "complete" for trial in found) == 4


def test_an_error_in_one_recipe_is_that_trials_alone_and_a_full_disk_is_not(tmp_path: Path) -> None:
    def odd(recipe: Recipe, number: int, share: float) -> Attempt:
        if recipe.steps[0].bits == 2:
            raise RuntimeError("shapes do not fit")
        return size_and_loss(recipe, number, share)

    found = search_with(tmp_path, asked_for(halving=False), SPACE, odd)
    assert [trial.reason for trial in found if trial.state == "failed"] == ["RuntimeError: shapes do not fit"] * 2

    def full(recipe: Recipe, number: int, share: float) -> Attempt:
        raise OSError(28, "No space left on device")

    (tmp_path / "full").mkdir()
    with pytest.raises(InputError, match="No space left on device"):
        search_with(tmp_path / "full", asked_for(halving=False), SPACE, full)


def test_a_search_that_failed_for_a_full_disk_goes_on_when_there_is_room(tmp_path: Path) -> None:
    def full(recipe: Recipe, number: int, share: float) -> Attempt:
        raise InputError("could not be written: No space left on device")

    space = {**SPACE, "distillation.temperature": [1, 2, 3]}
    with pytest.raises(InputError, match="10 trials failed"):
        search_with(tmp_path, asked_for(halving=False), space, full)
    found = search_with(tmp_path, asked_for(halving=False), space)
    assert sum(trial.state == "complete" for trial in found) == 18 - 10


def test_a_trial_that_another_machine_took_for_dead_ends_no_worker(tmp_path: Path) -> None:
    def told_by_others(recipe: Recipe, number: int, share: float) -> Attempt:
        if number == 1:
            from optuna.trial import TrialState

            open_study(f"sqlite:///{tmp_path / 'study.db'}", "a", {"goal": "auc_drop <= 0.0024"}, create=False).tell(
                number, state=TrialState.FAIL
            )
        return size_and_loss(recipe, number, share)

    found = search_with(tmp_path, asked_for(halving=False), SPACE, told_by_others)
    assert sum(trial.state == "complete" for trial in found) >= 5


def test_settings_of_a_combination_that_do_not_fit_are_a_failure_with_a_reason(tmp_path: Path) -> None:
    space = {
        "steps": [
            [{"name": "prune-weights", "sparsity": 0.3}],
            [{"name": "prune-weights", "tau": 0.1}],
        ],
        "student.training.epochs": [1, 2],
    }

    def attempt(recipe: Recipe, number: int, share: float) -> Attempt:
        if recipe.steps[0].tau:
            raise InputError("no")
        return Attempt({"bytes": 1.0, "auc_drop": 0.0}, {"figures": {}, "proven": {}})

    found = search_with(tmp_path, asked_for(halving=False), space, attempt)
    assert sorted((trial.state, trial.reason) for trial in found) == [("complete", "")] * 2 + [("failed", "no")] * 2


def test_a_slow_machine_elsewhere_ends_no_search_here(tmp_path: Path) -> None:
    asked = asked_for()
    slow = Trial(0, "complete", {"n": 1}, {}, seconds=1900.0, place="elsewhere")
    worker = Worker(asked, Recipe(), named_space(Recipe(), SPACE), size_and_loss, "here", deadline=time.time() + 60)
    assert not worker.spent([slow])
    assert worker.spent([Trial(1, "complete", {"n": 2}, {}, seconds=61.0, place="here")])


def test_trials_that_fail_one_after_the_other_end_the_search(tmp_path: Path) -> None:
    def always(recipe: Recipe, number: int, share: float) -> Attempt:
        raise InputError("/out: could not be written: No space left on device")

    with pytest.raises(InputError, match="10 trials failed one after the other: /out: could not be written"):
        search_with(tmp_path, asked_for(), {**SPACE, "distillation.temperature": [1, 2, 3]}, always)


def test_nothing_is_begun_that_would_end_after_the_deadline(tmp_path: Path) -> None:
    assert search_with(tmp_path, asked_for(), SPACE, deadline=time.time() - 1) == []


def test_a_trial_that_cannot_meet_the_goal_any_more_is_stopped(tmp_path: Path) -> None:
    """Whoever trained to the end gained 0.01; who lacks 1 at the first share is not on the way to 0.1."""

    def hopeless_when_small(recipe: Recipe, number: int, share: float) -> Attempt:
        width = recipe.student.model.hidden[0]
        loss = (1.0 if width < 50 else 0.05) + (1 - share) * 0.01 - width * 1e-5
        return Attempt({"bytes": 100.0 + width, "auc_drop": loss}, {"figures": {}, "proven": {}})

    space = {"student.model.hidden": [[width] for width in (100, 90, 80, 70, 60, 8)]}
    found = search_with(tmp_path, asked_for("auc_drop <= 0.1"), space, hopeless_when_small)
    assert [trial.state for trial in found] == ["complete"] * 5 + ["stopped"]


def test_what_costs_twice_as_much_as_one_within_the_goal_is_stopped(tmp_path: Path) -> None:
    def dear(recipe: Recipe, number: int, share: float) -> Attempt:
        width = recipe.student.model.hidden[0]
        return Attempt({"bytes": float(width), "auc_drop": 0.01 - width * 1e-5}, {"figures": {}, "proven": {}})

    space = {"student.model.hidden": [[width] for width in (40, 60, 79, 81, 100)]}
    found = search_with(tmp_path, asked_for("auc_drop <= 0.1"), space, dear)
    assert [trial.state for trial in found] == ["complete"] * 3 + ["stopped"] * 2


# What is chosen ------------------------------------------------------------------------------------------------


def trial(number: int, size: float, loss: float, selected: float, proven: bool) -> Trial:
    selection = {"figures": {"auc_drop": selected}, "proven": {"auc_drop": proven}}
    return Trial(number, "complete", {"n": number}, {"bytes": size, "auc_drop": loss}, selection, 1.0, 1.0)


def test_proven_before_met_before_near_and_smaller_first() -> None:
    trials = [
        trial(0, 10, 0.0005, 0.0009, False),
        trial(1, 20, 0.0005, 0.0002, True),
        trial(2, 30, -0.001, -0.001, True),
        trial(3, 5, 0.0005, 0.0030, False),
        trial(4, 1, 0.0200, 0.0200, False),
    ]
    assert [one.number for one in order_of_choice(trials, asked_for("auc_drop <= 0.001"))] == [1, 2, 0, 3, 4]


def test_the_front_is_of_complete_trials_from_small_to_large() -> None:
    trials = [trial(0, 30, 0.1, 0, True), trial(1, 10, 0.3, 0, True), trial(2, 20, 0.4, 0, True)]
    stopped = Trial(3, "stopped", {}, {"bytes": 1.0, "auc_drop": 0.0})
    assert [one.number for one in front_of([*trials, stopped], asked_for())] == [1, 0]


def test_something_else_may_be_made_small() -> None:
    asked = asked_for("auc_drop <= 0.1, bytes <= 100", minimise="p50_ms@256")
    assert asked.measured == ("auc_drop", "bytes", "p50_ms@256")
    fast, small = trial(0, 50, 0, 0, True), trial(1, 10, 0, 0, True)
    fast.figures["p50_ms@256"], small.figures["p50_ms@256"] = 0.1, 0.2
    assert order_of_choice([small, fast], asked)[0] is fast


def test_a_goal_of_costs_alone_asks_for_the_best_within_them() -> None:
    asked = asked_for("bytes <= 25")
    assert (asked.wanted, asked.cost, asked.loss) == ("auc_drop", "bytes", "auc_drop")
    trials = [trial(0, 30, 0.0, 0.0, False), trial(1, 20, 0.01, 0.03, False), trial(2, 10, 0.02, 0.02, False)]
    assert [one.number for one in order_of_choice(trials, asked)] == [2, 1, 0]
    fast = asked_for("p99_ms@256 <= 2")
    assert (fast.wanted, fast.cost) == ("auc_drop", "p99_ms@256")


# What is asked -------------------------------------------------------------------------------------------------


def test_a_search_is_read_from_toml_with_what_the_command_line_says_over_it(tmp_path: Path) -> None:
    path = tmp_path / "clicks.toml"
    path.write_text('[search]\ngoal = "bytes <= 64 KB"\nminutes = 2\n[search.space]\n"steps.0.bits" = [2, 4]\n')
    asked = read_search(path, goal=None, minutes=3)
    assert str(asked.goal) == "bytes <= 64 KB"
    assert asked.minutes == 3
    assert asked.space == {"steps.0.bits": [2, 4]}


def test_a_search_is_read_from_python(tmp_path: Path) -> None:
    path = tmp_path / "clicks.py"
    path.write_text("from slimrank.searching.search import Search\nsearch = Search(goal='bytes <= 1 MB', workers=1)\n")
    assert read_search(path) == Search.parse({"goal": "bytes <= 1 MB", "workers": 1})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "no goal; give one as --goal"),
        ({"goal": "bytes <= 64 KX"}, "unknown unit 'KX'"),
        ({"goal": "ndgc <= 3"}, "unknown figure 'ndgc'"),
        ({"goal": "bytes <= 1 KB, bytes <= 2 KB"}, "bytes is bounded twice"),
        ({"goal": "bytes <= 1 KB", "minutes": 0}, "minutes: Input should be greater than 0"),
        ({"goal": "bytes <= 1 KB", "minimise": "byte"}, "unknown figure 'byte'. Did you mean 'bytes'?"),
        ({"goal": "bytes <= 1 KB", "minits": 3}, "unknown key 'minits'"),
    ],
)
def test_what_cannot_be_asked_is_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(InputError) as error:
        read_search(None, **given)
    assert words in str(error.value)


def test_a_goal_is_written_as_it_is_read() -> None:
    for text in ("auc_drop <= 0.001, bytes <= 64 KB", "p99_ms@256 <= 2", "auc_drop <= -0.01, bytes <= 65536"):
        assert str(read_goal(text)) == text
    for text in (
        "bytes <= 64 KiB",
        "bytes <= 64123",
        "auc_drop <= 0.0012345",
        "p99_ms@1 <= 1500",
        "logloss_rise <= 1e+22",
    ):
        assert read_goal(str(read_goal(text))) == read_goal(text)


# The study -----------------------------------------------------------------------------------------------------


def test_a_study_of_another_search_or_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    open_study(url, "a", {"goal": "x", "data": "1"}, create=True)
    open_study(url, "a", {"goal": "x", "data": "1"}, create=False)
    open_study(url, "b", {"goal": "y", "data": "1"}, create=True)
    with pytest.raises(InputError, match=r"study 'a' .* was made with another data, another goal; name another"):
        open_study(url, "a", {"goal": "y", "data": "2"}, create=True)
    monkeypatch.setattr("slimrank.searching.study.__version__", "9.9")
    with pytest.raises(InputError, match=r"made with slimrank \d.*, this is 9.9"):
        open_study(url, "a", {"goal": "x", "data": "1"}, create=True)


def test_a_study_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    optuna.create_study(study_name="mine", storage=url)
    with pytest.raises(InputError, match="was not made by slimrank"):
        open_study(url, "mine", {"goal": "x"}, create=True)
    assert optuna.load_study(study_name="mine", storage=url).user_attrs == {}
    with pytest.raises(InputError, match="there is none called 'none'"):
        open_study(url, "none", {"goal": "x"}, create=False)


@pytest.mark.parametrize("name", ["a?b", "{x}", "a b#c%20"])
def test_any_path_holds_a_study(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    open_study(sqlite(folder / "s.db"), "a", {}, create=True)
    assert [path.name for path in folder.iterdir()] == ["s.db"]


def test_no_message_holds_a_password() -> None:
    assert shown("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"
    with pytest.raises(InputError) as error:
        open_study("nodb://me:secret@host/db", "a", {}, create=True)
    assert "secret" not in str(error.value)


def test_values_that_are_given_twice_are_tried_once(tmp_path: Path) -> None:
    found = search_with(tmp_path, asked_for(halving=False), {"steps.0.bits": [4, 4, 2]})
    assert len(found) == 2


@pytest.mark.parametrize(
    ("url", "words"),
    [("sqlite:////no/such/folder/s.db", "unable to open"), ("nodb://x", "nodb"), ("nonsense", "nonsense")],
)
def test_a_database_that_cannot_be_used_is_told(url: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        open_study(url, "a", {}, create=True)


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "s.db").write_text("nothing of the kind" * 100)
    with pytest.raises(InputError, match="file is not a database"):
        open_study(f"sqlite:///{tmp_path / 's.db'}", "a", {}, create=True)


def test_values_of_the_study_are_logarithms_of_costs(tmp_path: Path) -> None:
    search_with(tmp_path, asked_for(halving=False, trainings=1), SPACE)
    study = open_study(f"sqlite:///{tmp_path / 'study.db'}", "a", {"goal": "auc_drop <= 0.0024"}, create=False)
    assert study.trials[0].values == [math.log(208), pytest.approx(0.00492)]
