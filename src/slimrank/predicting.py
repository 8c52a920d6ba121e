"""What `slimrank predict` does: an artifact of any kind answers the rows of a file, to a file or on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from slimrank.data.encoding import Encoding


def predict(artifact: Path, rows: Path, out: Path | None, k: int) -> None:
    """Score the rows of a file, find the first `k` items of its queries, or answer its tensors; print where no `out`.

    Raises:
        InputError: the artifact is damaged, or the rows do not fit it.
    """
    from slimrank.artifact import open_artifact
    from slimrank.runtime import load
    from slimrank.runtime.files import predict_file
    from slimrank.runtime.opened import answers_with_items, asked_by_tensors

    found = open_artifact(artifact)
    if answers_with_items(found):
        _find(artifact, rows, out, k)
        return
    if asked_by_tensors(found):
        _answer(artifact, rows, out)
        return
    model = load(artifact)
    predictions = predict_file(model, rows, out)
    if out is None:
        typer.echo("probability")
        typer.echo("\n".join(f"{value:.6g}" for value in predictions.probability))
    _tell(model.encoding, predictions.unknown, predictions.shortened)


def _answer(artifact: Path, rows: Path, out: Path | None) -> None:
    """What a graph answers to the rows of a file, a line of JSON each on stdout where there is no file for it."""
    import polars

    from slimrank.runtime import load_graph
    from slimrank.runtime.files import answer_file

    graph = load_graph(artifact)
    found = answer_file(graph, rows, out)
    if out is None:
        typer.echo(polars.DataFrame(found).write_ndjson(), nl=False)
    for name in graph.outputs:
        if name not in found:
            typer.echo(f"{name}: has no row for each row, and is left out", err=True)


def _find(artifact: Path, rows: Path, out: Path | None, k: int) -> None:
    """The first k items of every query, a line of JSON each on stdout where there is no file for them."""
    import json

    from slimrank.runtime import load_retriever
    from slimrank.runtime.files import find_file

    finder = load_retriever(artifact)
    found = find_file(finder, rows, k, out)
    if out is None:
        typer.echo("\n".join(json.dumps(items, ensure_ascii=False) for items in found.items))
    _tell(finder.encoding, found.unknown, found.shortened)


def _tell(encoding: Encoding, unknown: dict[str, int], shortened: dict[str, int]) -> None:
    """Counts of values that the vocabulary does not hold, and of rows that were cut, on stderr."""
    for field, count in unknown.items():
        if count:
            typer.echo(f"{field}: {count} unknown values, scored as out of vocabulary", err=True)
    texts = {each.name for each in encoding.schema.texts}
    for field, count in shortened.items():
        if count:
            lost = "their ends were cut" if field in texts else "the most recent items were kept"
            typer.echo(f"{field}: {count} longer than the model reads, {lost}", err=True)
