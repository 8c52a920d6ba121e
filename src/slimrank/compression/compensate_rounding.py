"""Step: the roundings of an item's vector are chosen so that their errors cancel in the products with queries.

An item's score is a product with the vector of a query. Rounding each number to its nearest code makes each error
small; what counts is their sum, weighted by what queries look like. Column by column, the error of what was rounded is
taken up by the columns still to come, as GPTQ does for layers (Frantar et al. 2022, arXiv 2210.17323). Bytes and scales
stay. After it, retraining would round to the nearest again from where the rows now lie.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from slimrank.compression.steps import Context, is_network
from slimrank.config import Config, register
from slimrank.models.layers import Encoder, Network, SequenceEncoder
from slimrank.tables.affine import fake_quantize
from slimrank.tables.scaled import ScaledTable
from slimrank.training.examples import score


class CompensateRounding(Config):
    """Round the items of a sequence model by what `queries` train histories make of them.

    `damping` is added to the mean of the products' diagonal: the larger, the nearer to rounding number by number.
    """

    name: Literal["compensate-rounding"] = "compensate-rounding"
    queries: int = Field(default=2048, ge=1)
    damping: float = Field(default=0.6, gt=0)


@register("step", CompensateRounding)
def compensate_rounding(model: Network, config: CompensateRounding, context: Context) -> Network:
    """The model with the rows of its item table on the codes that were chosen."""
    if not is_network(model, "items", context):
        return model
    table = model.embedding.table
    fault = _unfit(model)
    if fault or not isinstance(table, ScaledTable) or not isinstance(model, Encoder):
        context.skip("embedding.table", fault)
        return model
    queries = torch.from_numpy(score(model, context.sample(config.queries))).double()
    products = queries.T @ queries / len(queries)
    rows = table.weight.detach().clone()
    nearest = table.rows(0, table.num_rows)
    found = compensated(rows, table, products, config.damping)
    before, after = (expected_error(rows - each, products) for each in (nearest, found))
    if after >= before:
        context.skip("embedding.table", f"rounding to the nearest errs less: {before:.4g}, and {after:.4g} so")
        return model
    table.weight.data.copy_(found)
    context.touch(f"embedding.table: {table.num_rows:,} rows")
    context.note(error_before=before, error_after=after)
    return model


def _unfit(model: Network) -> str:
    """Why the step leaves a model alone, or nothing."""
    if not isinstance(model, SequenceEncoder) or len(model.embedding.layout.names) != 1:
        return "its rows are not the items of a sequence model, and nothing else"
    if not isinstance(model.embedding.table, ScaledTable) or model.embedding.table.grid.bits == 32:
        return "its rows are not integers with a scale: `quantize-tables` comes before"
    return ""


def expected_error(errors: Tensor, products: Tensor) -> float:
    """The mean square, over rows and queries, of what `errors` [rows, D] change of a score.

    `products` [D, D] is the mean of q q^T over queries q: the mean of (e q)^2 is e products e^T.
    """
    wide = errors.double()
    return float(((wide @ products) * wide).sum(dim=1).mean())


def compensated(rows: Tensor, table: ScaledTable, products: Tensor, damping: float) -> Tensor:
    """`rows` [rows, D] on the codes of `table`, columns of large `products` first, each taking up errors before it.

    With U the upper Cholesky factor of the inverse of `products`, the error of column j over U_jj, times row j of U, is
    what later columns are moved by.
    """
    scale, codes = table.grid_at(torch.arange(table.num_rows))
    wide = torch.as_tensor(scale.detach(), dtype=torch.float32).reshape(-1, 1).expand(len(rows), 1)
    order = products.diagonal().argsort(descending=True)
    damped = products + damping * products.diagonal().mean() * torch.eye(len(products), dtype=products.dtype)
    upper = torch.linalg.cholesky(torch.linalg.inv(damped[order][:, order]), upper=True)
    left, found = rows.double()[:, order].clone(), torch.empty_like(rows)
    for place, column in enumerate(order.tolist()):
        own = left[:, place : place + 1]
        found[:, column : column + 1] = fake_quantize(own.float(), wide, codes).detach()
        error = (own - found[:, column : column + 1].double()) / upper[place, place]
        left[:, place + 1 :] -= error @ upper[place : place + 1, place + 1 :]
    return found
