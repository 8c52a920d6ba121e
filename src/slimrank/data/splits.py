"""One table to train, valid and test: by time, by rows, or as the data was given.

Left out: splits by group, which leave no history of a test user to learn from.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar, Literal

import numpy as np
import polars as pl
from pydantic import AfterValidator, Field, NonNegativeInt, model_validator

from slimrank.config import Config, InputError

Share = Annotated[float, Field(gt=0.0, lt=1.0)]
Splits = tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]


def _whole(fractions: tuple[float, float, float]) -> tuple[float, float, float]:
    if abs(sum(fractions) - 1.0) > 1e-9:
        raise ValueError(f"fractions must add up to 1, these add up to {sum(fractions):g}")
    return fractions


class Split(Config):
    """How a table is divided.

    Attributes:
        kind: `given` keeps the splits that the data comes with, `time` puts the earliest rows in train and the
            latest in test (rows of one time stay together), `rows` draws rows at random.
        fractions: shares of train, valid and test; for `time` and `rows`.
        seed: of the draw; for `rows`.
        train_until: a value of the time column; train has no row from then on, valid and test stay what they are. So
            models of one day and of the next are judged on the same later rows. For `time`.
    """

    kind: Literal["given", "time", "rows"] = "given"
    fractions: Annotated[tuple[Share, Share, Share], AfterValidator(_whole)] = (0.8, 0.1, 0.1)
    seed: NonNegativeInt = 0
    train_until: int | datetime | None = None
    LATER: ClassVar = frozenset({"train_until"})

    @model_validator(mode="after")
    def _in_order_of_time(self) -> Split:
        if self.train_until is not None and self.kind != "time":
            raise ValueError(f"train_until is for kind 'time', and kind is {self.kind!r}")
        return self


def divide(frames: tuple[pl.DataFrame, ...], split: Split, time: str | None = None) -> Splits:
    """Train, valid and test of one table, or of three that were given.

    Args:
        frames: one table, or three in the order train, valid, test (joined again unless `split.kind` is `given`).
        split: how to divide.
        time: the time column, for `time`.

    Raises:
        InputError: the split needs what is not there (three tables, a time column without gaps), or one of the
            three would be empty.
    """
    if split.kind == "given":
        if len(frames) != 3:
            raise InputError(
                "split 'given' needs three tables (train, valid, test), there is one. Allowed: time, rows."
            )
        splits = (frames[0], frames[1], frames[2])
    else:
        frame = pl.concat(frames, how="vertical_relaxed")
        splits = by_rows(frame, split) if split.kind == "rows" else by_time(frame, split, time)
    empty = [name for name, part in zip(("train", "valid", "test"), splits, strict=True) if part.is_empty()]
    if empty:
        rows = sum(map(len, frames))
        raise InputError(f"split {split.kind!r} of {rows} rows leaves no rows for {', '.join(empty)}")
    return splits


def by_rows(frame: pl.DataFrame, split: Split) -> Splits:
    """Rows drawn at random without replacement, each split in the table's order."""
    order = np.random.Generator(np.random.PCG64(split.seed)).permutation(len(frame))
    first, second = _cuts(len(frame), split)
    train, valid, test = (frame[np.sort(part)] for part in np.split(order, [first, second]))
    return train, valid, test


def by_time(frame: pl.DataFrame, split: Split, time: str | None) -> Splits:
    """Rows in order of time (ties in the table's order), cut where the time changes nearest to the fractions."""
    if time is None:
        raise InputError("split 'time' needs a time column, and the schema names none. Allowed: rows, given.")
    missing = frame[time].null_count()
    if missing:
        raise InputError(f"split 'time': {missing} of {len(frame)} values of column {time!r} are missing")
    frame = frame.sort(time, maintain_order=True)
    first, second = (_between_times(frame[time], cut) for cut in _cuts(len(frame), split))
    train = frame[:first]
    if split.train_until is not None:
        train = train[: _rows_before(train[time], split.train_until)]
    return train, frame[first:second], frame[second:]


def _cuts(rows: int, split: Split) -> tuple[int, int]:
    """How many rows come before valid and before test."""
    train, valid, _ = split.fractions
    return round(rows * train), round(rows * (train + valid))


def _rows_before(times: pl.Series, until: int | datetime) -> int:
    """How many of the ascending `times` lie before `until`.

    Raises:
        InputError: `until` is no value of such a column, or no row lies before it.
    """
    try:
        rows = int((times < until).sum())
    except (pl.exceptions.PolarsError, NotImplementedError, TypeError, ValueError) as error:
        raise InputError(f"train_until: {until!r} is no value of column {times.name!r} ({times.dtype})") from error
    if not rows and len(times):
        raise InputError(f"train_until: {until!r} leaves no train rows; the first is of {times[0]!r}")
    return rows


def _between_times(times: pl.Series, cut: int) -> int:
    """The place nearest to `cut` in ascending `times` where no two rows of one time are parted."""
    if cut in (0, len(times)):
        return cut
    before = int(times.search_sorted(times[cut], side="left"))
    after = int(times.search_sorted(times[cut], side="right"))
    return before if cut - before <= after - cut else after
