"""What `slimrank predict` does: an artifact of any kind answers the rows of a file, to a file or on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from slimrank.data.encoding import Encoding
    from slimrank.runtime import Graph, Retriever


def predict(artifact: Path, rows: Path, out: Path | None, k: int) -> None:
    """Score the rows of a file, find the first `k` items of its queries, or answer its tensors; print where no `out`.

    Raises:
        InputError: the artifact is damaged, or the rows do not fit it.
    """
    from slimrank.runtime import Graph, Retriever, load_any
    from slimrank.runtime.files import predict_file

    model = load_any(artifact)
    if isinstance(model, Retriever):
        _find(model, rows, out, k)
        return
    if isinstance(model, Graph):
        _answer(model, rows, out)
        return
    predictions = predict_file(model, rows, out)
    if out is None:
        typer.echo("probability")
        typer.echo("\n".join(f"{value:.6g}" for value in predictions.probability))
    _tell(model.encoding, predictions.unknown, predictions.shortened)


def _answer(graph: Graph, rows: Path, out: Path | None) -> None:
    """What a graph answers to the rows of a file, a line of JSON each on stdout where there is no file for it."""
    import polars

    from slimrank.runtime.files import answer_file

    found = answer_file(graph, rows, out)
    if out is None:
        typer.echo(polars.DataFrame(found).write_ndjson(), nl=False)
    for name in graph.outputs:
        if name not in found:
            typer.echo(f"{name}: has no row for each row, and is left out", err=True)


def _find(finder: Retriever, rows: Path, out: Path | None, k: int) -> None:
    """The first k items of every query, a line of JSON each on stdout where there is no file for them."""
    import json

    from slimrank.runtime.files import find_file

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
