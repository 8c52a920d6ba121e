from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from slimrank.config import InputError
from slimrank.data.scaling import Scale, fit_scale, scaled
from slimrank.data.schema import Field

PLAIN = Field(name="x", kind="numeric")
LOG = Field(name="x", kind="numeric", log=True)


def test_mean_and_standard_deviation_from_arithmetic() -> None:
    scale = fit_scale(pl.Series("x", [1.0, 3.0, None]), PLAIN)
    assert scale == Scale(2.0, 1.0)
    assert scaled(pl.Series("x", [1.0, 3.0, None, 6.0]), PLAIN, scale).tolist() == [-1.0, 1.0, 0.0, 4.0]


def test_the_log_keeps_the_sign() -> None:
    scale = fit_scale(pl.Series("x", [-1.0, 1.0]), LOG)
    assert scale.mean == 0.0
    assert scale.std == pytest.approx(math.log(2))
    assert scaled(pl.Series("x", [-3, 0, 3]), LOG, scale) == pytest.approx([-2.0, 0.0, 2.0])


@pytest.mark.parametrize("values", [[], [None, None], [5.0], [5.0, 5.0]])
def test_nothing_to_scale_by_gives_zero(values: list[float | None]) -> None:
    series = pl.Series("x", values, dtype=pl.Float64)
    assert scaled(series, PLAIN, fit_scale(series, PLAIN)).tolist() == [0.0] * len(values)


@pytest.mark.parametrize("size", [1e-300, 1e-30, 1e30, 1e300])
def test_extreme_sizes_scale_like_any(size: float) -> None:
    series = pl.Series("x", [-size, size, 0.5 * size])
    reference = np.array([-1, 1, 0.5])
    expected = (reference - reference.mean()) / reference.std()
    assert scaled(series, PLAIN, fit_scale(series, PLAIN)) == pytest.approx(expected, rel=1e-6)


def test_numbers_as_text_and_booleans_are_numbers() -> None:
    assert scaled(pl.Series("x", ["1", "2.5"]), PLAIN, Scale(0.0, 1.0)).tolist() == [1.0, 2.5]
    assert scaled(pl.Series("x", [True, False]), PLAIN, Scale(0.0, 1.0)).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, math.nan, math.nan], "column 'x': 2 NaN of 3 values. Allowed: finite or missing."),
        ([math.inf, -math.inf, math.nan], "column 'x': 1 NaN and 2 infinite of 3 values. Allowed: finite or missing."),
        (["1", "tea", None], "column 'x': 1 of 3 values are no numbers, such as 'tea'"),
        ([[1.0]], "column 'x' is of type List(Float64), a number is needed"),
        ([1e300], "column 'x': 1 values too large after scaling"),
    ],
)
def test_what_is_no_finite_number_is_refused_counted_and_named(values: list[object], message: str) -> None:
    with pytest.raises(InputError) as error:
        scaled(pl.Series("x", values), PLAIN, Scale(0.0, 1.0))
    assert str(error.value) == message
