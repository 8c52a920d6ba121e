"""The verbs, as people type them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from slimrank.cli import app, main

TABLE = np.random.default_rng(0).integers(0, 256, (500, 8), np.uint8)


def told(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_an_artifact_goes_there_and_the_next_day_what_changed(
    made: Callable[..., Path], tmp_path: Path, content: Callable[[Path], dict[str, bytes]]
) -> None:
    changed = TABLE.copy()
    changed[7] += 1
    old, new = made("old", {"t": TABLE}), made("new", {"t": changed})
    line = told("pack", old, "--out", tmp_path / "m.slim")
    found = re.fullmatch(r".*m\.slim: ([\d,]+) bytes, [\d.]+% of ([\d,]+)\n", line)
    assert found
    assert int(found[1].replace(",", "")) == (tmp_path / "m.slim").stat().st_size
    assert told("unpack", tmp_path / "m.slim", "--out", tmp_path / "there") == f"{tmp_path / 'there'}\n"

    line = told("delta", old, new, "--out", tmp_path / "d")
    found = re.fullmatch(
        r".*d: ([\d,]+) bytes, [\d.]+% of the artifact's ([\d,]+), [\d.]+% of its ([\d,]+) on the wire\n", line
    )
    assert found
    assert int(found[1].replace(",", "")) == (tmp_path / "d").stat().st_size < 600
    assert told("apply", tmp_path / "there", tmp_path / "d", "--out", tmp_path / "there") == f"{tmp_path / 'there'}\n"
    assert content(tmp_path / "there") == content(new)


def test_a_wrong_base_is_one_line_and_exit_code_2(
    made: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = made("old", {"t": TABLE}), made("new", {"t": TABLE[::-1]})
    told("delta", old, new, "--out", tmp_path / "d")
    words = ["slimrank", "apply", str(new), str(tmp_path / "d"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert re.match(r"error: .*d: is a delta of ", lines[0])
    assert not (tmp_path / "out").exists()


def test_an_installation_without_zstandard_says_what_to_install(made: Callable[..., Path], tmp_path: Path) -> None:
    path = made("a", {"t": TABLE})
    program = (
        "import sys; sys.modules['zstandard'] = None; from slimrank.cli import main\n"
        f"sys.argv = ['slimrank', 'pack', {str(path)!r}, '--out', {str(tmp_path / 'x')!r}]; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: zstandard is not installed; this needs: pip install 'slimrank[edge]'\n"
    assert not (tmp_path / "x").exists()
