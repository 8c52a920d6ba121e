"""Numbers to model inputs: logarithm, standard scaling, and the refusal of NaN and infinity.

Left out: clipping and bucketing. polars is imported where it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from slimrank.config import InputError
from slimrank.data.schema import Field

if TYPE_CHECKING:
    import polars


@dataclass(frozen=True)
class Scale:
    """Standard scaling of one number, x -> (x - mean) / std, after sign(x) * log(1 + |x|) where the field says so."""

    mean: float
    std: float


def scaled(column: polars.Series, each: Field, scale: Scale) -> NDArray[np.float32]:
    """A raw column as float32 [N]: ((sign(x) log(1 + |x|) or x) - mean) / std; missing values are 0.

    Raises:
        InputError: NaN, infinity or text in the column, or a value beyond float32 after scaling.
    """
    numbers, present = _numbers(column, each)
    return _scaled(numbers, present, each, scale)


def scaled_numbers(numbers: NDArray[np.float64], each: Field, scale: Scale) -> NDArray[np.float32]:
    """The same of numbers [N] none of which is missing.

    Raises:
        InputError: as `scaled`.
    """
    return _scaled(_finite(numbers, each), np.True_, each, scale)


def _scaled(
    numbers: NDArray[np.float64], present: NDArray[np.bool_] | np.bool_, each: Field, scale: Scale
) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        result = np.where(present, (numbers - scale.mean) / scale.std, 0.0).astype(np.float32)
    if not np.isfinite(result).all():
        raise InputError(f"column {each.name!r}: {int((~np.isfinite(result)).sum())} values too large after scaling")
    return result


def _numbers(column: polars.Series, each: Field) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """A column as float64 (after the log, where the field says so) with 0 for missing values, and where it is not."""
    import polars

    if column.dtype.is_nested() or column.dtype.is_temporal():
        raise InputError(f"column {each.name!r} is of type {column.dtype}, a number is needed")
    wide = column.cast(polars.Float64, strict=False)
    if wide.null_count() > column.null_count():
        wrong = column.filter(wide.is_null() & column.is_not_null())
        raise InputError(
            f"column {each.name!r}: {len(wrong)} of {len(column)} values are no numbers, such as {wrong[0]!r}"
        )
    missing = wide.is_null() if wide.null_count() else None  # the two calls below cost more than all the rest
    numbers = _finite((wide if missing is None else wide.fill_null(0.0)).to_numpy(), each)
    return numbers, np.ones(len(wide), np.bool_) if missing is None else ~missing.to_numpy()


def _finite(numbers: NDArray[np.float64], each: Field) -> NDArray[np.float64]:
    """Numbers after the log, where the field says so.

    Raises:
        InputError: one is NaN or infinite.
    """
    if not np.isfinite(numbers).all():
        counts = {"NaN": int(np.isnan(numbers).sum()), "infinite": int(np.isinf(numbers).sum())}
        parts = " and ".join(f"{count} {what}" for what, count in counts.items() if count)
        raise InputError(f"column {each.name!r}: {parts} of {len(numbers)} values. Allowed: finite or missing.")
    return np.sign(numbers) * np.log1p(np.abs(numbers)) if each.log else numbers


def fit_scale(column: polars.Series, each: Field) -> Scale:
    """Mean and standard deviation (divisor N, 1 where it is 0) of the values that are there."""
    numbers, present = _numbers(column, each)
    numbers = numbers[present]
    if len(numbers) == 0:
        return Scale(0.0, 1.0)
    unit = float(np.abs(numbers).max()) or 1.0  # so that squares of large numbers stay finite
    return Scale(float((numbers / unit).mean()) * unit, float((numbers / unit).std()) * unit or 1.0)
