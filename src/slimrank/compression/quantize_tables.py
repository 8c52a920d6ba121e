"""Step: tables of floats become tables of small integers with one scale per field or table, learned in retraining."""

from __future__ import annotations

from typing import Literal

from slimrank.compression.steps import Context
from slimrank.compression.tables import Selection, find_parts, replace_parts
from slimrank.config import InputError, register
from slimrank.models.layers import Ranker
from slimrank.tables.scaled import Grid, scaled


class QuantizeTables(Grid, Selection):
    """Quantise tables to 8, 4 or 2 bits with one scale per field or per table."""

    name: Literal["quantize-tables"] = "quantize-tables"


@register("step", QuantizeTables)
def quantize_tables(model: Ranker, config: QuantizeTables, context: Context) -> Ranker:
    """Every selected dense table of the model in its quantised, trainable form."""
    made = {}
    for part in find_parts(model, config, context):
        try:
            table = scaled(config, part.table.weight.detach(), part.table.starts)
        except InputError as error:
            context.skip(part.name, str(error))
            continue
        table.sparse = part.table.sparse
        made[part] = table
    replace_parts(model, made, context)
    return model
