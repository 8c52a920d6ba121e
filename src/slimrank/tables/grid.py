"""The settings of integer tables, which steps of models and of graphs share; without torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from slimrank.config import Config
from slimrank.tables.codes import Codes

Bits = Literal[1, 2, 4, 8, 32]
LEAST_RATIO, MOST_RATIO = 2.0**-14, 65504.0  # what float16 holds with all its bits
RangeName = Literal["max", "squared-error"]


class Grid(Config):
    """The integers of a table: their bits, what shares a scale, and how the scale is chosen.

    With `scale` "row" each group of `rows_per_scale` neighbouring rows of a field has a scale. A grid that is not
    `symmetric` has a zero point for every scale. `levels` of a symmetric one: "midtread" has zero, "midrise" lies
    around it; None is midrise for 1 bit and else midtread. `range` is where scales start, and stay unless `learned`;
    `rounding` is that of training. 32 bits leave the rows as they are.
    """

    bits: Bits = 8
    scale: Literal["table", "field", "row"] = "field"
    rows_per_scale: int = Field(default=1, ge=1)
    symmetric: bool = True
    levels: Literal["midtread", "midrise"] | None = None
    range: RangeName = "squared-error"
    learned: bool = True
    rounding: Literal["nearest", "stochastic"] = "nearest"

    @model_validator(mode="after")
    def _settings_fit(self) -> Grid:
        if self.rows_per_scale > 1 and self.scale != "row":
            raise ValueError(f"rows_per_scale is for scale 'row', and scale is {self.scale!r}")
        if self.levels is not None and not self.symmetric:
            raise ValueError("levels are for a symmetric grid: any other has a zero point for every scale")
        if self.levels == "midtread" and self.bits == 1:
            raise ValueError("levels 'midtread' need 2 bits or more: with 1 bit one of two values would be zero")
        if self.levels == "midrise" and self.bits == 8:
            raise ValueError("levels 'midrise' need 4 bits or fewer: 8-bit codes leave no room between two bytes")
        return self

    @property
    def midrise(self) -> bool:
        """Whether zero lies between two codes."""
        return self.symmetric and (self.levels == "midrise" or (self.levels is None and self.bits == 1))

    @property
    def codes(self) -> Codes:
        """The codes of a row, without the zero points of a grid that is not symmetric."""
        return Codes.unsigned(self.bits, midrise=self.midrise)

    def with_bits(self, bits: Bits) -> Grid:
        """The same with other bits, and with the levels of these where its own do not fit them."""
        settings = {key: getattr(self, key) for key in Grid.model_fields}
        fits = not (bits == 1 and self.levels == "midtread") and not (bits == 8 and self.levels == "midrise")
        return Grid(**{**settings, "bits": bits, "levels": self.levels if fits else None})

    @property
    def by_rows(self) -> bool:
        """Whether rows have scales of their own."""
        return self.scale == "row"
