"""What scores and ids were like on the rows that an artifact was measured on, for whoever watches it at work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimrank.data.encoding import Inputs
from slimrank.metrics.drift import histogram
from slimrank.runtime.model import sigmoid


def reference_of(
    inputs: Inputs,
    unknown: Mapping[str, int],
    shortened: Mapping[str, int],
    logit: NDArray[np.float32] | None = None,
) -> dict[str, Any]:
    """The manifest's `reference`, of what `Encoding.encode_telling` gave and logits [N] (None where items are found).

    Returns:
        `rows` (how many), `unknown` (by field, unknown values a row: of a sequence it may be above 1), `shortened` (by
        field, the share of rows that were longer than the model reads) and, of rows that are scored, `scores`: the
        `histogram` of their probabilities.
    """
    rows = len(inputs)
    scores = {} if logit is None else {"scores": histogram(sigmoid(logit)).tolist()}
    return {"rows": rows, **scores, "unknown": _by_row(unknown, rows), "shortened": _by_row(shortened, rows)}


def _by_row(counts: Mapping[str, int], rows: int) -> dict[str, float]:
    return {name: round(count / rows, 6) if rows else 0.0 for name, count in counts.items()}
