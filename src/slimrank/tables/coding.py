"""How vectors are cut and coded, which steps of models and of graphs share; without torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from slimrank.config import Config, InputError
from slimrank.tables.codes import row_bytes


class Coding(Config):
    """How vectors are cut and coded: `parts` codes of `bits` a vector, entries of `entry_bits` a number."""

    parts: int = Field(default=4, ge=1)
    bits: Literal[2, 4, 8] = 8
    entry_bits: Literal[8, 32] = 8


def code_bytes(rows: int, fields: int, dim: int, config: Coding) -> int:
    """Packed bytes: codes, entries, a step for each field where entries are bytes, and where each part begins.

    >>> code_bytes(1000, 1, 16, Coding(parts=4, bits=4, entry_bits=8))
    2276
    """
    codes, entries = rows * row_bytes(config.parts, config.bits), fields * dim << config.bits
    steps = 4 * fields if config.entry_bits == 8 else 0
    return codes + entries * config.entry_bits // 8 + steps + 4 * fields * config.parts


def check_codes(dim: int, config: Coding) -> None:
    """Raises `InputError` where vectors of `dim` numbers do not divide into the parts."""
    if dim % config.parts:
        raise InputError(f"dimension {dim} does not divide into {config.parts} parts")
