"""Runs that are killed and disks that fill: they go on where they were and end with the same result."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from slimrank.recipe import Recipe

KILLED = """
import os, signal, sys
left, watched = int(sys.argv[1]), sys.argv[3]
WRITES = os.O_WRONLY | os.O_RDWR
def watch(event, args):  # dies at one of its own writes: opening, renaming, deleting, making a directory
    global left
    if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir") and watched in str(args[0]):
        if event == "open" and not args[2] & WRITES:
            return
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
from slimrank.cli import main
sys.addaudithook(watch)
sys.argv = ["slimrank", "run", sys.argv[2], "--out", sys.argv[3]]
main()
"""
LIMITED = """
import resource, sys
limit = int(sys.argv[1])
from slimrank.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
sys.argv = ["slimrank", "run", sys.argv[2], "--out", sys.argv[3]]
main()
"""


@pytest.fixture
def recipe(tiny, tmp_path: Path) -> Path:
    """The tiny recipe as a Python file."""
    path = tmp_path / "recipe.py"
    Recipe.parse(tiny())
    path.write_text(
        f"import json\nfrom slimrank.recipe import Recipe\nrecipe = Recipe.parse(json.loads({json.dumps(tiny())!r}))\n"
    )
    return path


def child(program: str, number: int, recipe: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """`slimrank run` in a process of its own, with one thread."""
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", program, str(number), str(recipe), str(out)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


@pytest.mark.long
def test_a_run_killed_at_any_point_goes_on_and_ends_the_same(recipe, done, essence_of, tmp_path) -> None:
    """SIGKILL at random writes, over and over, each time after a few more of them."""
    out, draw = tmp_path / "run", random.Random(1)
    for most in (6, 12, 20, 28, 36):
        ended = child(KILLED, draw.randint(most // 2, most), recipe, out)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        assert not (out / "report.html").exists()
    assert child(KILLED, 10**9, recipe, out).returncode == 0
    assert essence_of(out) == essence_of(done)
    left = [file.name for file in out.rglob("*") if ".partial-" in file.name or "checkpoint" in file.name]
    assert left == []


@pytest.mark.long
def test_a_full_disk_is_an_error_and_the_run_goes_on_when_there_is_space(recipe, done, essence_of, tmp_path) -> None:
    """Files may be so many bytes and no larger: each limit stops the same run somewhere further on."""
    out = tmp_path / "run"
    for limit in (1_000, 4_000, 12_000, 30_000, 80_000):
        ended = child(LIMITED, limit, recipe, out)
        assert ended.returncode == 2, ended.stderr
        assert "Traceback" not in ended.stderr
        last = ended.stderr.splitlines()[-1]
        assert last.startswith("error: ")
        assert "File too large" in last
        assert [file.name for file in out.rglob("*") if ".partial-" in file.name] == []
    assert child(LIMITED, 10**9, recipe, out).returncode == 0
    assert essence_of(out) == essence_of(done)
