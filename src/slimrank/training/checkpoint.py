"""Tensors on disk: safetensors, written beside and renamed, and a training that goes on from its last epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from slimrank.files import replace_file
from slimrank.training.loop import Hook, State

PROGRESS = ("epoch", "best_epoch", "best_quality", "history")


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any] | None = None) -> None:
    """Write `tensors` to `path` in one step: the file is the old one, the new one or absent, never half.

    Raises:
        InputError: the disk is full or fails; an old file is untouched.
    """
    from safetensors.torch import save

    content = save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
        {"json": json.dumps(metadata or {}, sort_keys=True)},
    )
    replace_file(path, content)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_tensors` wrote."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = json.loads(file.metadata()["json"])
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118


class Checkpoint(Hook):
    """Writes the whole state of a training after every epoch, and restores it when training starts again.

    The file is deleted by whoever stores the finished model.
    """

    def __init__(self, path: Path):
        self.path = path

    def on_start(self, state: State) -> None:
        if not self.path.exists():
            return
        tensors, metadata = load_tensors(self.path)
        state.model.load_state_dict(_part(tensors, "model."))
        state.best = _part(tensors, "best.")
        for number, optimizer in enumerate(state.optimizers):
            plain = metadata["optimizers"][number]
            values = {int(index): dict(numbers) for index, numbers in plain["numbers"].items()}
            for name, tensor in _part(tensors, f"optimizer.{number}.").items():
                index, key = name.split(".")
                values.setdefault(int(index), {})[key] = tensor
            optimizer.load_state_dict({"state": values, "param_groups": plain["groups"]})
        for name in PROGRESS:
            setattr(state, name, metadata[name])

    def on_epoch(self, state: State) -> None:
        tensors = {f"model.{name}": tensor for name, tensor in state.model.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
        plain = []
        for number, optimizer in enumerate(state.optimizers):
            saved = optimizer.state_dict()
            numbers: dict[str, dict[str, float]] = {}
            for index, values in saved["state"].items():
                for key, value in values.items():
                    if isinstance(value, Tensor):
                        tensors[f"optimizer.{number}.{index}.{key}"] = value
                    else:  # some optimisers count their steps in a plain number
                        numbers.setdefault(str(index), {})[key] = value
            plain.append({"groups": saved["param_groups"], "numbers": numbers})
        save_tensors(self.path, tensors, {name: getattr(state, name) for name in PROGRESS} | {"optimizers": plain})


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
