"""What scores and ids were like on the rows that an artifact was measured on, for whoever watches it at work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimrank.data.encoding import Inputs
from slimrank.data.schema import Schema
from slimrank.metrics.drift import histogram
from slimrank.runtime.model import sigmoid


def reference_of(
    schema: Schema, inputs: Inputs, unknown: Mapping[str, int], logit: NDArray[np.float32] | None = None
) -> dict[str, Any]:
    """The manifest's `reference`, of encoded rows and their logits [N] (None of an artifact that finds items).

    Returns:
        `rows` (how many), `unknown` (`unknown_shares`) and, of rows that are scored, `scores`: the `histogram` of
        their probabilities.
    """
    scores = {} if logit is None else {"scores": histogram(sigmoid(logit)).tolist()}
    return {"rows": len(inputs), **scores, "unknown": unknown_shares(schema, inputs, unknown)}


def unknown_shares(schema: Schema, inputs: Inputs, unknown: Mapping[str, int]) -> dict[str, float]:
    """By field, which share of its values the vocabulary did not hold; of a text, which share of texts was cut.

    Values are rows of a categorical field (missing ones too, which are not unknown), and the ids that were read of a
    sequence. 0 where there are none.

    Args:
        schema: the fields.
        inputs: encoded rows.
        unknown: what `Encoding.encode_counting` counted of them.
    """
    columns = np.asarray(schema.columns)
    listed = {each.name for each in schema.sequences}
    counts = {
        name: int(np.count_nonzero(inputs.ids[:, columns == name])) if name in listed else len(inputs)
        for name in unknown
    }
    return {name: round(count / counts[name], 6) if counts[name] else 0.0 for name, count in unknown.items()}
