"""What encoders of a query and of an item apart have in common: one table of ids, an item's own row in it, popularity.

The items are the values of a sequence field, the history, which shares its rows with them: an item is learned from
wherever it is met. Items that training never met are out of vocabulary. Left out: what a tower computes.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from slimrank.config import Config, InputError, nearest
from slimrank.models.layers import Encoder
from slimrank.models.popularity import Popularity
from slimrank.tables.embedding import FusedEmbedding, Layout


class Towers(Config):
    """The part of a config that all encoders in two towers share.

    `catalogue` is the sequence field whose values are the items; empty: the only one there is. `popularity_rate` is how
    far the estimate of an item's share of batches moves with each batch that holds it.
    """

    catalogue: str = ""
    popularity_rate: float = Field(default=0.05, gt=0, le=1)

    def field_of(self, layout: Layout, model: str) -> str:
        """The catalogue's field.

        Raises:
            InputError: there is no such sequence field, or several and none was named.
        """
        fields = layout.sequences
        if self.catalogue in fields:
            return self.catalogue
        if not self.catalogue and len(fields) == 1:
            return fields[0]
        got = f"no sequence field {self.catalogue!r}" if self.catalogue else f"{len(fields)} sequence fields"
        raise InputError(
            f"model {model} multiplies a query's vector by those of items, the values of a sequence field (catalogue), "
            f"and there is {got}: take one. {nearest(self.catalogue, fields)}"
        )


class TowersEncoder(Encoder):
    """An encoder whose items are rows of its own fused table."""

    def __init__(self, embedding: FusedEmbedding, catalogue: str, rate: float):
        super().__init__(embedding)
        self.catalogue = catalogue
        self.popularity = Popularity(self.num_items, rate)

    def item_rows(self, ids: Tensor) -> Tensor:
        """Rows [M, dim] of the table, of the items with local ids `ids` [M]."""
        layout = self.embedding.layout
        place = layout.names.index(self.catalogue or "")
        rows: Tensor = self.embedding.table((ids + layout.starts[place]).unsqueeze(1), (place,))
        return rows.squeeze(1)
