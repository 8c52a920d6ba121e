"""The environments in which phones' tools convert and run; without them a test is skipped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def interpreter() -> Callable[[str], Path]:
    """The interpreter of a tool's environment."""

    def find(tool: str) -> Path:
        python = ROOT / f".venv-edge-{tool}" / "bin" / "python"
        if not (python.parent.parent / "ready").exists():
            pytest.skip(f"no environment with {tool}; `sh bench/peers/edge.sh` makes it")
        return python

    return find
