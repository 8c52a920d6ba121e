"""The result file as records: what the report may rely on, checked where it enters.

Keys that the report does not show are ignored, so that a result file may grow. Left out: writing one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from slimrank.config import Config, InputError, describe


class Record(BaseModel):
    """A frozen part of a result file; keys it does not name are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


def _named(value: Any) -> Any:
    """A bare name as a record of one."""
    return {"name": value} if isinstance(value, str) else value


def _several(value: Any) -> Any:
    """One record as a list of one."""
    return [value] if isinstance(value, Mapping) else value


class Latency(Record):
    """Milliseconds per call: median, 99th percentile, others by their percent, and of how many calls."""

    p50: float = Field(ge=0)
    p99: float = Field(ge=0)
    samples: int = 0
    quantiles: dict[str, float] = {}


class Tensor(Record):
    """One tensor of an artifact's graph and its bytes there."""

    name: str
    bytes: int = Field(ge=0)


class Measured(Record):
    """One model: `quality` (of several seeds the mean, each in `by_seed`), bytes by kind, latency by rows."""

    quality: dict[str, float]
    by_seed: tuple[dict[str, float], ...] = ()
    bytes: dict[str, int]
    latency_ms: dict[str, Latency] = {}
    tensors: tuple[Tensor, ...] = ()


class Touched(Record):
    """What a step changed, and its bytes before and after where known."""

    name: str
    bytes_before: int | None = None
    bytes_after: int | None = None


class Skipped(Record):
    """What a step left alone, and why."""

    name: str
    reason: str = ""


class Step(Record):
    """One step of the compression: what it touched and skipped, and the model's bytes before and after."""

    name: str
    touched: tuple[Annotated[Touched, BeforeValidator(_named)], ...] = ()
    skipped: tuple[Annotated[Skipped, BeforeValidator(_named)], ...] = ()
    bytes_before: int | None = None
    bytes_after: int | None = None
    note: str = ""


class Verdict(Record):
    """`evaluation.paired.Verdict`."""

    margin: float
    outcome: str
    rows_needed: int | None = None


class Curve(Record):
    """`evaluation.calibration.Curve`: predicted and observed click rate by bins of the prediction."""

    predicted: tuple[float, ...]
    observed: tuple[float, ...]


class Paired(Record):
    """`evaluation.paired.Comparison` of teacher (a) and slim (b), for one seed where there are several."""

    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float
    seed: int | None = None
    verdict: Verdict | None = None


class Slice(Record):
    """`evaluation.slices.Slice`: a part of the rows, such as those of rare ids."""

    name: str
    ids: int | None = None
    rows: int
    positives: int
    comparison: Paired | None = None
    p_worse: float = 1.0
    lost: bool = False


class Slim(Measured):
    """The compressed model, with the steps that made it."""

    steps: tuple[Step, ...] = ()


class Floor(Record):
    """Latency of the same lookups and nothing else."""

    latency_ms: dict[str, Latency]


class Bound(Record):
    """One bound of a goal: what it asks for, what test rows say, and the paired comparison that judges it."""

    key: str
    limit: float
    value: float
    met: bool
    proof: dict[str, Any] | None = None


class Concession(Record):
    """What a trial that meets all other bounds reaches of one."""

    key: str
    limit: float
    value: float
    trial: int


class Tried(Record):
    """`searching.study.Trial`."""

    number: int
    state: str
    changes: dict[str, Any] = {}
    figures: dict[str, float] = {}
    share: float = 0.0
    reason: str = ""


class Sensitive(Record):
    """The first look: AUC lost by field shuffled, by field and bits, by layer and share of zeros."""

    fields: dict[str, float] = {}
    tables: tuple[dict[str, Any], ...] = ()
    layers: tuple[dict[str, Any], ...] = ()


class Searched(Record):
    """A search: what was asked, whether it was met, and all that was tried."""

    goal: str
    met: bool
    bounds: tuple[Bound, ...]
    concessions: tuple[Concession, ...] = ()
    trials: tuple[Tried, ...] = ()
    front: tuple[int, ...] = ()
    chosen: int
    cost: str = "bytes"
    loss: str = "auc_drop"
    rows: dict[str, int] = {}
    sensitivity: Sensitive = Sensitive()
    workers: int = 1
    seconds: float = 0.0
    spent: float = 0.0

    @property
    def keys(self) -> tuple[str, ...]:
        """The figures that are told of every trial."""
        return tuple(dict.fromkeys((self.cost, self.loss, *(bound.key for bound in self.bounds))))


class Result(Record):
    """All of `result.json` that the report shows; `metric` is the one that models are compared by."""

    name: str = ""
    data: str = ""
    metric: str = "auc"
    teacher: Measured
    slim: Slim
    student: Measured | None = None
    floor: Floor | None = None
    comparison: Annotated[tuple[Paired, ...], BeforeValidator(_several)] = ()
    slices: dict[str, tuple[Slice, ...]] = {}
    calibration: dict[str, Curve] = {}
    search: Searched | None = None
    command: str = ""
    recipe: dict[str, Any] = {}
    seeds: tuple[int, ...] = ()
    data_fingerprint: str = ""
    data_facts: dict[str, Any] = {}
    processor: str = ""
    cores: int | None = None
    threads: int | None = None
    system: str = ""
    instruction_set: tuple[str, ...] = ()
    versions: dict[str, str] = {}


R = TypeVar("R", bound=Record)


def read(source: Path | Mapping[str, Any], record: type[R]) -> R:
    """A result file, or its content, as a record.

    Raises:
        InputError: no such file, not JSON, or a value is missing or not allowed; every fault by its key.
    """
    try:
        content = source if isinstance(source, Mapping) else json.loads(source.read_text(encoding="utf-8"))
        return record.model_validate(content)
    except FileNotFoundError:
        raise InputError(f"{source}: no such file") from None
    except ValidationError as error:
        where = "result" if isinstance(source, Mapping) else str(source)
        raise InputError(describe(error, Config, where)) from None
    except ValueError as error:
        raise InputError(f"{source}: not a JSON file: {error}") from None
