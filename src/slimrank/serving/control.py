"""Loading and unloading by request, in all workers: one writes what is wanted, each does it and says how it went.

A worker that begins later reads what is wanted first. The folder is the service's own and goes with it.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

from slimrank.config import InputError
from slimrank.files import replace_file
from slimrank.serving.repository import Repository

WANTED = ".wanted"  # behind a model's name: a file for each, since workers may be asked for several at once
PATIENCE = 60.0  # seconds for all workers to load a model
LOOK_SECONDS = 0.05


class Control:
    """One worker's end of it.

    Attributes:
        folder: what all workers share; None where there is one worker.
    """

    def __init__(self, repository: Repository, folder: Path | None) -> None:
        self.repository, self.folder = repository, folder
        self.done: dict[str, dict[str, Any]] = {}
        self.told: dict[str, dict[str, Any]] | None = None
        self.busy = asyncio.Lock()

    async def ask(self, name: str, *, load: bool) -> None:
        """Load or unload a model in all workers, and wait for them.

        Raises:
            Unknown: there is no such model.
            InputError: requests may not, or a worker could not.
        """
        self.repository.model(name)
        if not self.repository.settings.may_load:
            raise InputError("this service does not load or unload models by request")
        if self.folder is None:
            await self._do(name, load)
            return
        place = self.folder / f"{name}{WANTED}"
        turn = max(time.time_ns(), self._read(place).get("turn", 0) + 1)  # clocks step back
        replace_file(place, json.dumps({"load": load, "turn": turn}).encode())
        await self.look()
        await self._others(name, turn)

    async def look(self) -> None:
        """Do what is wanted and not done yet; errors are told where they were asked for, and logged."""
        if self.folder is None:
            return
        async with self.busy:
            for name in self.repository.models:
                each = self._read(self.folder / f"{name}{WANTED}")
                if self.done.get(name, {}).get("turn", 0) >= each.get("turn", 0):
                    continue
                fault = ""
                try:
                    await self._do(name, each["load"])
                except InputError as error:
                    fault = str(error)
                self.done[name] = {"turn": each["turn"], "fault": fault}
            if self.done != self.told:
                replace_file(self._own, json.dumps(self.done).encode())
                self.told = dict(self.done)

    @property
    def _own(self) -> Path:
        assert self.folder is not None
        return self.folder / f"{os.getpid()}.json"

    async def _do(self, name: str, load: bool) -> None:
        if load:
            await self.repository.load(name)
        else:
            self.repository.unload(name)

    async def _others(self, name: str, turn: int) -> None:
        """Wait until every worker that lives has done a turn.

        Raises:
            InputError: one could not, or did not in time.
        """
        assert self.folder is not None
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            found = {path: self._read(path).get(name, {}) for path in self.folder.glob("[0-9]*.json") if _lives(path)}
            if all(each.get("turn", 0) >= turn for each in found.values()):
                faults = sorted({each["fault"] for each in found.values() if each["turn"] == turn and each["fault"]})
                if faults:
                    raise InputError("\n".join(faults))
                return
            await asyncio.sleep(LOOK_SECONDS)
        raise InputError(f"not every worker has answered within {PATIENCE:.0f} s")

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(path.read_bytes())
        except FileNotFoundError:
            return {}
        return found


def _lives(path: Path) -> bool:
    """Whether the worker whose file this is still runs."""
    try:
        os.kill(int(path.stem), 0)
    except OSError:
        return False
    return True
