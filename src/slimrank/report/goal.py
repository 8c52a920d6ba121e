"""The parts of the page that are of a search: its goal bound by bound, all it tried, and its first look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from slimrank.report.figures import NONE, figure, plural, signed
from slimrank.report.front import most_telling, recipe_words
from slimrank.report.html import folded, header, scroll, section, table_row
from slimrank.report.result import Bound, Searched, Sensitive, Tried

STATES = {"complete": "whole", "stopped": "stopped early", "running": "elsewhere"}


def goal_section(search: Searched) -> str:
    """Every bound: what was asked, what test rows say, and for a loss of quality whether they prove it."""
    title = header("", "Asked", "Test rows", "95% interval", "Verdict")
    lines = "".join(table_row(bound.key, *bound_words(bound), bad=not bound.met) for bound in search.bounds)
    rows = search.rows
    notes = [
        f"{plural(rows.get('search', 0), 'validation row')} led the search, {rows.get('selection', 0):,} others chose "
        f"among what it found, and {plural(rows.get('test', 0), 'test row')}, which took part in neither, gave the "
        "figures above.",
        f"{plural(len(search.trials), 'trial')} in {search.seconds / 60:.1f} minutes, of {search.spent:.1f} whole "
        f"trainings, by {plural(search.workers, 'worker')}.",
    ]
    notes += undecided(search.bounds)
    table = scroll(f"{title}<tbody>{lines}</tbody>", "goal")
    return section("The goal", f'{table}<p class="note">{escape(" ".join(notes))}</p>')


def bound_words(bound: Bound) -> tuple[str, str, str, str]:
    """Limit, value, interval and verdict of one bound."""
    value, proof = figure(bound.key, bound.value), bound.proof
    asked = f"at most {figure(bound.key, bound.limit) if proof is None else f'{bound.limit:g}'}"
    if proof is None:
        return asked, value, NONE, "met" if bound.met else "missed"
    if "outcome" not in proof:
        return asked, value, NONE, proof.get("reason", "not decided")
    ends = sorted((proof["low"], proof["high"]))
    least, most = ends if proof.get("better") == "lower" else (-ends[1], -ends[0])
    return asked, value, f"{signed(least)} to {signed(most)}", proof["outcome"]


def undecided(bounds: Sequence[Bound]) -> list[str]:
    """How many rows would decide what these do not."""
    needed = {
        bound.key: bound.proof["rows_needed"] for bound in bounds if bound.proof and bound.proof.get("rows_needed")
    }
    return [
        f"These rows do not decide {key}: of equally good models about {rows:,} rows like these would."
        for key, rows in needed.items()
    ]


def trials_section(search: Searched) -> str:
    """Every trial with its recipe, folded away; of very many those that say most."""
    shown = most_telling(search.trials, search)
    left_out = f", {len(shown)} of them here and all in result.json" if len(shown) < len(search.trials) else ""
    title = header("Trial", "State", *search.keys, "Recipe, or why it failed", words=(len(search.keys) + 2,))
    lines = "".join(_trial(trial, search) for trial in shown)
    table = scroll(f"{title}<tbody>{lines}</tbody>", "trials")
    return folded(f"All {plural(len(search.trials), 'trial')}{left_out}", table)


def _trial(trial: Tried, search: Searched) -> str:
    """A line of the trials; the front and the one that was chosen are marked."""
    mark = " ★" if trial.number == search.chosen else " ·" if trial.number in search.front else ""
    state = STATES.get(trial.state, trial.state)
    state += f" at {trial.share:.0%}" if trial.state == "stopped" else ""
    values = [figure(key, trial.figures[key]) if key in trial.figures else NONE for key in search.keys]
    words = trial.reason if trial.state == "failed" and trial.reason else recipe_words(trial.changes)
    cells = "".join(f'<td class="number">{escape(value)}</td>' for value in (state, *values))
    return f'<tr><th scope="row">{trial.number}{mark}</th>{cells}<td class="words">{escape(words)}</td></tr>'


def sensitivity_section(found: Sensitive) -> str:
    """What AUC the teacher loses by field, by bits of a field's vectors, and by zeros of a layer."""
    if not found.fields and not found.layers:
        return ""
    bits = sorted({one["bits"] for one in found.tables}, reverse=True)
    zeros = sorted({one["zeros"] for one in found.layers})
    fields = {name: [loss, *_losses(found.tables, "field", name, "bits", bits)] for name, loss in found.fields.items()}
    named = dict.fromkeys(one["layer"] for one in found.layers)
    layers = {name: _losses(found.layers, "layer", name, "zeros", zeros) for name in named}
    tables = _losses_table("field", ["Ids shuffled", *(plural(each, "bit") for each in bits)], fields)
    tables += _losses_table("layer", [f"{each:.0%} zeros" for each in zeros], layers)
    note = (
        "Of the teacher's module after its training, one part at a time, on rows that led the search. It says what is "
        "worth trying, and nothing of what ships."
    )
    return section("What the first look found", f'{tables}<p class="note">{note}</p>')


def _losses(
    found: Sequence[dict[str, Any]], owner: str, name: str, key: str, values: Sequence[float]
) -> list[float | None]:
    """The losses of one field or layer, for each of the values; None where that was not tried."""
    known = {one[key]: one["loss"] for one in found if one[owner] == name}
    return [known.get(value) for value in values]


def _losses_table(kind: str, titles: Sequence[str], losses: Mapping[str, Sequence[float | None]]) -> str:
    """A table of losses by field or layer, or nothing where there are none."""
    if not losses:
        return ""
    lines = "".join(
        table_row(name, *(NONE if loss is None else signed(loss) for loss in each)) for name, each in losses.items()
    )
    table = f"{header(kind.capitalize(), *titles)}<tbody>{lines}</tbody>"
    return scroll(table, f"{kind}s", f"AUC lost, {kind} by {kind}")
