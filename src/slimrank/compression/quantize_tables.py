"""Step: tables of floats become tables of small integers with one scale per field or table, learned in retraining."""

from __future__ import annotations

from typing import Literal

from slimrank.compression.steps import Context, replace_module
from slimrank.config import InputError, register
from slimrank.models.layers import Ranker
from slimrank.tables.dense import DenseTable
from slimrank.tables.embedding import FusedEmbedding
from slimrank.tables.scaled import Grid, scaled


class QuantizeTables(Grid):
    """Quantise tables to 8, 4 or 2 bits with one scale per field or per table."""

    name: Literal["quantize-tables"] = "quantize-tables"


@register("step", QuantizeTables)
def quantize_tables(model: Ranker, config: QuantizeTables, context: Context) -> Ranker:
    """Every dense table of the model in its quantised, trainable form."""
    for name, module in list(model.named_modules()):
        if not isinstance(module, FusedEmbedding):
            continue
        if not isinstance(module.table, DenseTable):
            context.skip(f"{name}.table", f"is no dense table: {type(module.table).__name__}")
            continue
        try:
            table = scaled(config, module.table.weight.detach(), module.table.starts)
        except InputError as error:
            context.skip(f"{name}.table", str(error))
            continue
        table.sparse = module.table.sparse
        replace_module(model, name, module.with_table(table))
        context.touch(f"{name}.table")
    return model
