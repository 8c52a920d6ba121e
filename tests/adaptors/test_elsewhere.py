"""Libraries that do not go with ours: their tests run in the environments that `bench/peers/*.sh` make."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = {
    "recbole": "test_recbole.py",
    "fuxictr": "test_fuxictr.py",
    "deepctr": "test_deepctr_torch.py",
    "sentence-transformers": "test_sentence_transformers.py",
    "torchrec": "test_torchrec.py",
}


@pytest.mark.long
@pytest.mark.parametrize("environment", TESTS)
def test_the_library_in_its_own_environment(environment: str) -> None:
    """No test collected, as where the library is missing there too, is a failure; its own warnings are not."""
    python = ROOT / f".venv-{environment}" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"sh bench/peers/{environment}.sh makes the environment")
    path = Path("tests/adaptors") / TESTS[environment]
    command = [str(python), "-m", "pytest", "--override-ini=filterwarnings=", "-p", "no:cacheprovider", str(path)]
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | paths)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
