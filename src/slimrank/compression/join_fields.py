"""Step: neighbouring fields of few ids become one field over the product of their ids, so that a row has fewer lookups.

The scores stay as they are, to the bit, and so does the file: the joined tables are put together from the rows of the
fields when the artifact is loaded (`exporting/joining.py`), and what is trained or quantised after this step is still
the rows of each field. Left out: fields that do not stand side by side (their vectors would have to change places in
every row), sequences (a row has several ids of those), and whether it is faster, which hangs on the runtime. ONNX
Runtime on a CPU saves 3 ns for each lookup of a row and pays 2 us a call to put the vectors of joined tables beside the
others; it gains where `fold-first-layer` follows, since rows that are added are joined at no cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Literal

from pydantic import ByteSize, Field

from slimrank.compression.selection import Selection, selected
from slimrank.compression.steps import Context, is_network
from slimrank.compression.tables import check_fields
from slimrank.config import register
from slimrank.models.folded import folded_bytes
from slimrank.models.layers import InputLinear, Ranker
from slimrank.tables.dense import DenseTable
from slimrank.tables.embedding import FusedEmbedding, Layout
from slimrank.tables.joined import EXACT, Run
from slimrank.tables.scaled import PackedTable, ScaledTable


class JoinFields(Selection):
    """Join neighbouring fields into tables over the product of their ids, in at most `budget` bytes of memory."""

    name: Literal["join-fields"] = "join-fields"
    budget: ByteSize = Field(default=ByteSize(1 << 18), ge=0)


@register("step", JoinFields)
def join_fields(model: Ranker, config: JoinFields, context: Context) -> Ranker:
    """The same model, with the runs of fields marked that save most lookups within the budget."""
    if not is_network(model, "fields", context):
        return model
    check_fields(model, config)
    embeddings = [(name, module) for name, module in model.named_modules() if isinstance(module, FusedEmbedding)]
    saved, budget = 0, int(config.budget) // len(embeddings)
    for name, module in embeddings:
        why = _unfit(module)
        if why:
            context.skip(name, why)
            continue
        allowed = [selected(config, name, field) for field in module.layout.names[: module.layout.num_categorical]]
        sizes = [size if ok else None for size, ok in zip(module.layout.sizes, allowed, strict=False)]
        module.joined = best_runs(sizes, unpacked_bytes(module), allowed_bytes(module, budget))
        saved += _tell(name, module, config, budget, context)
    _tell_of_folded(model, context)
    context.note(lookups_saved=saved)
    return model


def allowed_bytes(embedding: FusedEmbedding, budget: int) -> int:
    """What of `budget` joined tables may take, so that no row number, with those of all other rows, reaches `EXACT`.

    A joined row holds the vectors of two fields at least.
    """
    return min(budget, (EXACT - 1 - embedding.layout.num_rows) * 2 * unpacked_bytes(embedding))


def best_runs(sizes: Sequence[int | None], width: int, budget: int) -> tuple[Run, ...]:
    """The runs of neighbouring columns, of so many ids each, that save most lookups; of those, the fewest bytes.

    A run of m columns saves m - 1 lookups and takes product of its sizes * m * `width` bytes; all take at most
    `budget`. None stands for a column that must stay as it is.

    >>> best_runs([1000, 2, 3, 4, 1000], width=1, budget=100)
    ((1, 4),)
    """
    # best[k][s]: bytes and runs of the cheapest choice among the first k columns that saves s lookups.
    best: list[dict[int, tuple[int, tuple[Run, ...]]]] = [{0: (0, ())}]
    for last in range(1, len(sizes) + 1):
        here = dict(best[last - 1])
        for first in range(last - 2, -1, -1):
            cost = _bytes(sizes[first:last], width)
            if cost is None or cost > budget:
                break
            for saved, (taken, runs) in best[first].items():
                found = (taken + cost, (*runs, (first, last)))
                now = saved + last - first - 1
                if found[0] <= budget and (now not in here or found[0] < here[now][0]):
                    here[now] = found
        best.append(here)
    return best[-1][max(best[-1])][1]


def _bytes(sizes: Sequence[int | None], width: int) -> int | None:
    """Bytes of the table that joins columns of `sizes`, or None where one of them must stay."""
    known = [size for size in sizes if size is not None]
    return prod(known) * len(known) * width if len(known) == len(sizes) else None


def unpacked_bytes(embedding: FusedEmbedding) -> int:
    """Bytes in memory of one field's vector: floats, or the bytes of a table whose codes are unpacked at load."""
    integers = isinstance(embedding.table, ScaledTable | PackedTable)
    return embedding.dim * (1 if integers else 4)


def _unfit(embedding: FusedEmbedding) -> str:
    """Why nothing of `embedding` can be joined, or nothing."""
    layout: Layout = embedding.layout
    if layout.num_categorical < 2:
        return f"has {layout.num_categorical} field of one id a row: there is nothing to join it with"
    if not isinstance(embedding.table, DenseTable | ScaledTable | PackedTable):
        return f"does not look rows up by their numbers: {type(embedding.table).__name__}"
    if layout.num_rows >= EXACT:
        return f"has {layout.num_rows:,} rows: joined row numbers are exact below {EXACT:,}"
    return ""


def _tell(name: str, embedding: FusedEmbedding, config: JoinFields, budget: int, context: Context) -> int:
    """Note what was joined and what was not, of an embedding's own `budget`; how many lookups of a row were saved."""
    allowed = allowed_bytes(embedding, budget)
    limit = f": joined row numbers are exact below {EXACT:,}" if allowed < budget else ""
    names, sizes = embedding.layout.names, embedding.layout.sizes
    single = set(names[: embedding.layout.num_categorical])
    for first, last in embedding.joined:
        fields, rows = names[first:last], prod(sizes[first:last])
        taken = _bytes(sizes[first:last], unpacked_bytes(embedding))
        context.touch(f"{name}: {' x '.join(fields)}, {rows:,} rows, {taken:,} bytes of memory and none of the file")
        single -= set(fields)
    for field in names:
        if field in embedding.layout.sequences:
            context.skip(f"{name}.{field}", "is a sequence: a row has several of its ids")
        elif field in single and not selected(config, name, field):
            context.skip(f"{name}.{field}", "is not selected")
        elif field in single:
            context.skip(f"{name}.{field}", f"has no neighbour with which {allowed:,} bytes would do{limit}")
    return sum(last - first - 1 for first, last in embedding.joined)


def _tell_of_folded(model: Ranker, context: Context) -> None:
    """Note what layers take that were folded before and now have a row for each of the joined ones: no budget said."""
    for name, layer in model.named_modules():
        if isinstance(layer, InputLinear) and layer.folded and model.embedding.joined:
            taken = folded_bytes(model.embedding, layer.out_features)
            context.touch(f"{name}.lookups: folded before, now in {taken:,} bytes of memory, whatever its budget was")
