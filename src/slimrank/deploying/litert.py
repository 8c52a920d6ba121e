"""The deployment target `litert`: a model for LiteRT on phones.

    model.tflite  checks.json

litert-torch converts it. It takes calls of a fixed number of rows: whoever has fewer puts zeros behind them. Bytes of
tables and of weights stay bytes; what is computed with them is computed in floats, which hold the integers exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from slimrank.config import register
from slimrank.deploying.converting import Phone, run_phone, write_phone
from slimrank.runtime import Graph
from slimrank.runtime.opened import Opened

MODEL = "model.tflite"


class LiteRT(Phone):
    """A model for LiteRT, converted and asked in an environment that has it."""

    name: Literal["litert"] = "litert"


@register("deployment target", LiteRT)
def write_litert(config: LiteRT, opened: Opened | Graph, name: str, folder: Path) -> None:
    """Write the model to the empty `folder`, and ask it the golden rows in its own runtime.

    Raises:
        InputError: an operator is missing there, or an answer is not the artifact's (`write_phone`).
    """
    write_phone(config, opened, folder, MODEL, fixed=True)


@register("deployed", LiteRT)
def run_litert(config: LiteRT, folder: Path, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The outputs of the folder's model for tensors by name, as LiteRT gives them on one thread.

    Raises:
        InputError: LiteRT is not installed, or does not answer (`run_phone`).
    """
    return run_phone(config, folder, feeds, MODEL)
