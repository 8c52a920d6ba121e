"""The verbs on deployments, `export` aside. What they need is imported where it is used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from slimrank.deploying.parity import Parity

deployed = typer.Typer()

DISAGREES = 3  # exit code where a target does not answer as the artifact does


@deployed.command()
def parity(
    artifact: Annotated[str, typer.Argument(help="An artifact; what its answers are is right.")],
    target: Annotated[
        list[str] | None, typer.Option(help="Of those that run here, or NAME:KEY=VALUE,..; may be given several times.")
    ] = None,
    deployment: Annotated[list[Path] | None, typer.Option(help="A folder that was deployed; several times.")] = None,
    requests: Annotated[int, typer.Option(help="How many are made, of 10 to 100 candidates.")] = 1000,
    rows: Annotated[Path | None, typer.Option(help="Rows to ask instead: a .parquet or .csv file.")] = None,
    seed: Annotated[int, typer.Option(help="Of the drawing.")] = 0,
    out: Annotated[Path | None, typer.Option(help="A .json file for what was found.")] = None,
) -> None:
    """Ask every target what the artifact is asked; print what differs in score and in the first ten."""
    from slimrank.config import InputError, read_named
    from slimrank.deploying import parity as held
    from slimrank.files import write_json

    if not target and not deployment:
        raise InputError("say what is asked: --target ort, --target litert:python=.., --deployment FOLDER, ..")
    found = held.parity(
        artifact,
        [read_named(each, "--target") for each in target or []],
        requests=requests,
        rows=rows,
        folders=deployment or [],
        seed=seed,
    )
    _print(found)
    if out is not None:
        write_json(out, [each.plain() for each in found])
    if not all(each.agrees for each in found):
        raise typer.Exit(DISAGREES)


def _print(found: Sequence[Parity]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    for heading in ("target", "bytes", "apart at most", "rows within 1e-3", "same first 10", ""):
        table.add_column(heading, no_wrap=True)
    for each in found:
        if each.refused:
            table.add_row(each.target, f"{each.bytes:,}" if each.bytes else "", "", "", "", "does not answer")
            continue
        top = "" if each.same_top is None else f"{each.same_top:.2%}"
        word = "agrees" if each.agrees else "differs"
        cells = (f"{each.bytes:,}", f"{each.largest:.2g}", f"{each.rows_within:.2%}", top, word)
        table.add_row(each.target, *cells)
    console = Console(soft_wrap=True)
    console.print(table)
    for each in found:
        if each.refused:
            console.print(f"{each.target}: {each.refused}", markup=False, highlight=False)
