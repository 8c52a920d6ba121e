"""Made rows of any number, whose best possible AUC and logloss are known because their true probabilities are.

Ids follow a power law. The logit of a row is a bias, an effect per id and an interaction of low rank (a factorisation
machine), so that both linear and interacting models have something to learn. Effects are hashes of field, id and
seed: millions of ids cost no memory. Each column has its own counter-based random stream, so that a row is the same
however the rows are chunked. Left out: drift over time, sequences, missing values.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field as Bound
from pydantic import NonNegativeFloat, PositiveInt, model_validator

from slimrank.config import Config, register
from slimrank.data.rows import Dataset, make_dataset
from slimrank.data.schema import Field, Schema
from slimrank.data.splits import Split, Splits, divide

Floats = NDArray[np.float64]
Ids = Annotated[int, Bound(ge=2, le=2**31 - 2)]
LABEL_STREAM = 1 << 20  # streams below it are fields, then numbers
PER_HASH = 4  # effects of 16 bits in a hash of 64


class Synthetic(Config):
    """Made rows with power-law ids, whose Bayes-optimal AUC and logloss are known and reported.

    Attributes:
        rows: of all splits together.
        fields: categorical fields `c0`, `c1`, ...
        ids: ids of each field, or one number for all.
        numbers: numeric fields `n0`, `n1`, ... with linear effects.
        exponent: of the power law; id k (from 0) has the probability of k+1 <= x < k+2 under a density of x^-exponent.
        rank: of the interaction.
        main: standard deviation over ids of the sum of effects (in logits, ids drawn evenly).
        interaction: standard deviation of the interaction, likewise.
        bias: the logit of a row without effects.
        encoding: `identity` for tables of exactly `ids` rows, or `vocabulary`.
        seed: of everything.
        chunk: rows made at a time; changes memory, not rows.
        split: `given` cuts by position (rows are independent and alike), `rows` draws.
    """

    name: Literal["synthetic"] = "synthetic"
    rows: PositiveInt = 100_000
    fields: Annotated[int, Bound(ge=1, le=1000)] = 8
    ids: Ids | tuple[Ids, ...] = 10_000
    numbers: Annotated[int, Bound(ge=0, le=1000)] = 0
    exponent: Annotated[float, Bound(ge=0.0, le=10.0)] = 1.1
    rank: PositiveInt = 3
    main: NonNegativeFloat = 1.0
    interaction: NonNegativeFloat = 0.5
    bias: float = -1.0
    encoding: Literal["identity", "vocabulary"] = "identity"
    seed: Annotated[int, Bound(ge=0, lt=2**32)] = 0
    chunk: PositiveInt = 1 << 18
    split: Split = Split(kind="given")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Ids of each field."""
        return self.ids if isinstance(self.ids, tuple) else (self.ids,) * self.fields

    @model_validator(mode="after")
    def _a_size_per_field(self) -> Synthetic:
        if len(self.sizes) != self.fields:
            raise ValueError(f"ids names {len(self.sizes)} sizes, there are {self.fields} fields")
        return self


@register("dataset", Synthetic)
def load(config: Synthetic, folder: Path | None = None) -> Dataset:
    """The made rows; `facts` holds the Bayes-optimal AUC and logloss of the test split, and what the truth reaches."""
    frame = pl.concat(list(chunks(config)))
    fields = [_field(config, place, size) for place, size in enumerate(config.sizes)]
    fields += [Field(name=f"n{place}", kind="numeric") for place in range(config.numbers)]
    splits = _by_position(frame, config.split) if config.split.kind == "given" else divide((frame,), config.split)
    truth, label = splits[2]["probability"].to_numpy(), splits[2]["label"].to_numpy().astype(np.float64)
    facts = {
        "bayes_auc": weighted_auc(truth, truth, 1.0 - truth),
        "bayes_logloss": float(np.mean(entropy(truth))),
        "true_auc": weighted_auc(truth, label, 1.0 - label),
    }
    return make_dataset(config.name, Schema(fields=tuple(fields)), splits, facts)


def _field(config: Synthetic, place: int, ids: int) -> Field:
    """The categorical field at `place`."""
    num_ids = ids if config.encoding == "identity" else None
    return Field(name=f"c{place}", kind="categorical", encoding=config.encoding, num_ids=num_ids)


def _by_position(frame: pl.DataFrame, split: Split) -> Splits:
    """The first rows to train, the next to valid, the last to test."""
    numbered = frame.with_columns(position=pl.int_range(len(frame), dtype=pl.Int64))
    train, valid, test = divide((numbered,), split.model_copy(update={"kind": "time"}), "position")
    return train, valid, test


def chunks(config: Synthetic) -> Iterator[pl.DataFrame]:
    """Tables of up to `config.chunk` rows: label Int8, c0.. Int32, n0.. Float32, and the true probability Float64."""
    for start in range(0, config.rows, config.chunk):
        yield _chunk(config, start, min(config.chunk, config.rows - start))


def _chunk(config: Synthetic, start: int, count: int) -> pl.DataFrame:
    """Rows start..start+count-1."""
    columns: dict[str, NDArray[np.generic]] = {}
    main, total, squares = np.zeros(count), np.zeros((count, config.rank)), np.zeros(count)
    for place, size in enumerate(config.sizes):
        ids = power_law(uniform(config.seed, place, start, count), size, config.exponent)
        effects = hashed_effects(ids, place, config.seed, 1 + config.rank)
        main += effects[:, 0]
        total += effects[:, 1:]
        squares += (effects[:, 1:] ** 2).sum(1)
        columns[f"c{place}"] = ids.astype(np.int32)
    pairs = max(config.fields * (config.fields - 1) / 2, 1)
    logit = config.bias + config.main * main / np.sqrt(config.fields)
    logit += config.interaction * ((total**2).sum(1) - squares) / 2 / np.sqrt(pairs * config.rank)
    for place in range(config.numbers):
        numbers = (np.sqrt(12) * (uniform(config.seed, config.fields + place, start, count) - 0.5)).astype(np.float32)
        logit += config.main * numbers * _slope(config, place)
        columns[f"n{place}"] = numbers
    probability = 1.0 / (1.0 + np.exp(-logit))
    label = uniform(config.seed, LABEL_STREAM, start, count) < probability
    return pl.DataFrame({"label": label.astype(np.int8), **columns, "probability": probability})


def _slope(config: Synthetic, place: int) -> float:
    """The linear effect of a number, of variance 1/numbers over seeds."""
    hashed = hashed_effects(np.zeros(1, np.int64), config.fields + place, config.seed, 1)
    return float(hashed[0, 0]) / float(np.sqrt(config.numbers))


def uniform(seed: int, stream: int, start: int, count: int) -> Floats:
    """Values start..start+count-1 of a random stream, uniform on [0, 1), whatever was drawn before.

    Philox (Salmon et al. 2011) counts; each count gives four doubles.
    """
    generator = np.random.Philox(np.random.SeedSequence((seed, stream))).advance(start // 4)
    skip = start % 4
    return np.random.Generator(generator).random(skip + count)[skip:]


def power_law(u: Floats, size: int, exponent: float) -> NDArray[np.int64]:
    """Ids 0..size-1 by inversion of a density proportional to x^-exponent on [1, size + 1): id = floor(x) - 1.

    Needs no table, and id k has the probability of k+1 <= x < k+2.
    """
    if abs(exponent - 1.0) < 1e-9:
        x = np.exp(u * np.log(size + 1.0))
    else:
        power = 1.0 - exponent
        x = (1.0 + u * ((size + 1.0) ** power - 1.0)) ** (1.0 / power)
    ids: NDArray[np.int64] = np.clip(x.astype(np.int64) - 1, 0, size - 1)
    return ids


def hashed_effects(ids: NDArray[np.int64], field: int, seed: int, count: int) -> Floats:
    """Effects [N, count] of ids, even on a grid of 2^16 values with mean 0 and variance 1, from a hash of each id.

    The hash is splitmix64 (Steele et al. 2014); four effects of 16 bits come from one.
    """
    parts = []
    for block in range(-(-count // PER_HASH)):
        mixed = splitmix64(
            ids.astype(np.uint64) + splitmix64(np.array([(seed << 24) + (field << 8) + block], np.uint64))
        )
        parts += [(mixed >> np.uint64(16 * part)) & np.uint64(0xFFFF) for part in range(PER_HASH)]
    effects: Floats = np.sqrt(12) * ((np.stack(parts[:count], 1).astype(np.float64) + 0.5) / 65536 - 0.5)
    return effects


def splitmix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The splitmix64 step: an avalanche of 64 bits onto 64 bits."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def weighted_auc(score: Floats, positive: Floats, negative: Floats) -> float:
    """P(score of a positive > score of a negative) + P(equal)/2 over pairs of different rows.

    Row i counts as a positive with weight `positive[i]` and as a negative with `negative[i]`. With weights p and 1-p
    and score p it is the expected AUC of the truth, which no model can exceed in expectation; with labels it is AUC.
    """
    order = np.argsort(score, kind="stable")
    score, positive, negative = score[order], positive[order], negative[order]
    below = np.concatenate(([0.0], np.cumsum(negative)))
    left, right = np.searchsorted(score, score, "left"), np.searchsorted(score, score, "right")
    itself = float((positive * negative).sum())
    wins = float((positive * (below[left] + below[right])).sum()) / 2 - itself / 2
    pairs = float(positive.sum() * negative.sum()) - itself
    return wins / pairs if pairs > 0 else float("nan")


def entropy(probability: Floats) -> Floats:
    """-p log p - (1-p) log(1-p) in nats, 0 at p of 0 and 1: the expected logloss of the truth."""
    p = np.clip(probability, 1e-300, 1.0)
    q = np.clip(1.0 - probability, 1e-300, 1.0)
    return np.asarray(-probability * np.log(p) - (1.0 - probability) * np.log(q))
