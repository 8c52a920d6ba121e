"""The deployment target `executorch`: a model for ExecuTorch on phones.

    model.pte  checks.json

It takes calls of up to `rows` rows, for which its memory is planned. Bytes of tables and of weights stay bytes; what is
computed with them is computed in floats, which hold the integers exactly. Left out: delegates to one kind of processor.
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

MODEL = "model.pte"


class ExecuTorch(Phone):
    """A model for ExecuTorch, converted and asked in an environment that has it."""

    name: Literal["executorch"] = "executorch"


@register("deployment target", ExecuTorch)
def write_executorch(config: ExecuTorch, opened: Opened | Graph, name: str, folder: Path) -> None:
    """Write the model to the empty `folder`, and ask it the golden rows in its own runtime.

    Raises:
        InputError: an operator is missing there, or an answer is not the artifact's (`write_phone`).
    """
    write_phone(config, opened, folder, MODEL, fixed=False)


@register("deployed", ExecuTorch)
def run_executorch(config: ExecuTorch, folder: Path, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The outputs of the folder's model for tensors by name, as ExecuTorch gives them on one thread.

    Raises:
        InputError: ExecuTorch is not installed, or does not answer (`run_phone`).
    """
    return run_phone(config, folder, feeds, MODEL)
