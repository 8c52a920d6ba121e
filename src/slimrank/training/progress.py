"""What a person sees of a training: a bar on a terminal, a line an epoch elsewhere. All of it goes to stderr."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from slimrank.training.loop import Hook, State


class ShowProgress(Hook):
    """Shows how far the training called `name` is; `steps` is the number of batches of all its epochs."""

    def __init__(self, name: str, epochs: int, steps: int):
        self.name = name
        self.epochs = epochs
        self.bar = None
        if sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[quality]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=Console(stderr=True))
            self.task = self.bar.add_task(name, total=steps, quality="")
        self.steps_an_epoch = steps // epochs

    def on_start(self, state: State) -> None:
        if self.bar is not None:
            self.bar.start()
            self.bar.update(self.task, completed=state.epoch * self.steps_an_epoch)

    def on_step(self, state: State) -> None:
        if self.bar is not None:
            self.bar.advance(self.task)

    def on_epoch(self, state: State) -> None:
        last = state.history[-1]
        if self.bar is not None:
            self.bar.update(self.task, quality=_quality(last))
        else:
            figures = f"loss {last['loss']:.4f}, {_quality(last)}"
            print(f"{self.name}: epoch {last['epoch']}/{self.epochs}, {figures}", file=sys.stderr, flush=True)

    def on_end(self, state: State) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=self.bar.tasks[0].total)
            self.bar.stop()


def _quality(record: dict[str, Any]) -> str:
    """What a record of an epoch says of the validation rows, such as "valid AUC 0.7123"."""
    name = next(key for key in record if key.startswith("valid_"))
    return f"valid {name.removeprefix('valid_').upper()} {record[name]:.4f}"
