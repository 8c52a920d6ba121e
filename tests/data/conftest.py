from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The directory of real data; tests that need it are skipped where it is not named."""
    folder = os.environ.get("SLIMRANK_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("SLIMRANK_DATA names no directory of real data")
    return Path(folder)
