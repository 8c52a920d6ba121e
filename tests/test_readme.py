"""Everything shown is executed: the commands and examples of the README and docs/, in a directory of their own.

`PYTHONPATH=. python tests/test_readme.py` writes the figures of bench/results/ into the README's table.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
from bench.byo_table import table

from slimrank.cli import app
from slimrank.report.figures import BYTES, QUALITY, size
from slimrank.searching.goal import read_goal

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
RESULTS = ROOT / "bench" / "results"
PORT = "8000"
CLICKS = ("auc", "gauc", "logloss", "normalized_entropy", "pcoc")  # what the main job's table shows
LANGUAGES = {"bash", "python", "toml", "console", "text"}
BYO = re.compile(r"(<!-- bench/byo.py -->)\n.*?\n(<!-- end -->)", re.DOTALL)
SOURCE = re.compile(r"^(\| .* \|) ([^|]+) \| `([a-z0-9-]+): ([^`|]+)` \|$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    language: str
    text: str
    line: int


def blocks(document: str) -> list[Block]:
    text = (ROOT / document).read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(each[1], each[2], text[: each.start()].count("\n") + 1) for each in found]


def commands(document: str) -> list[str]:
    """The shell commands of a document, without comments, continued lines joined."""
    text = "".join(block.text for block in blocks(document) if block.language == "bash").replace("\\\n", " ")
    return [line for each in text.splitlines() if (line := re.sub(r"\s#.*", "", each).strip())]


def is_checked_apart(command: str) -> bool:
    """Whether a command would take minutes, or change the environment."""
    return command.startswith(("make ", "pip ", "slimrank run recipes/", "slimrank search recipes/"))


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A directory with the files that the documents name: clicks, as someone's own data would look."""
    generator = np.random.default_rng(0)
    rows, later = 2400, 1200
    user, item = generator.integers(0, 40, rows), generator.integers(0, 60, rows)
    price = generator.lognormal(2, 1, rows).round(2)
    logit = generator.normal(size=40)[user] + generator.normal(size=60)[item] - 0.2 * np.log(price)
    frame = polars.DataFrame(
        {
            "user": user,
            "item": [f"film-{each}" for each in item],
            "price": price,
            "shown_at": np.arange(rows),
            "click": (generator.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.int8),
        }
    )
    frame[later:].write_parquet(tmp_path / "later.parquet")
    frame[later:].write_csv(tmp_path / "later.csv")
    frame = frame[:later]
    frame.write_parquet(tmp_path / "clicks.parquet")
    frame.write_csv(tmp_path / "clicks.csv")
    frame.drop("price").write_parquet(tmp_path / "no_price.parquet")
    visitor, page = np.repeat(np.arange(60), 8), (generator.integers(0, 30, 60)[:, None] + np.arange(8)).ravel() % 30
    visits = {"visitor": visitor, "page": [f"page-{each}" for each in page], "seen_at": np.tile(np.arange(8), 60)}
    polars.DataFrame(visits).write_csv(tmp_path / "visits.csv")
    polars.DataFrame({"history": [["page-3", "page-4"], ["page-9"]]}).write_parquet(tmp_path / "histories.parquet")
    return tmp_path


def execute(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program with this environment's commands first, one thread, in `folder`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as door:
        return str(door.getsockname()[1])


def run_block(block: Block, folder: Path) -> str:
    """What the block prints; fails where it fails."""
    named = re.match(r"# (\S+\.(?:py|toml))\n", block.text)
    if named:
        (folder / named[1]).write_text(block.text, encoding="utf-8")
    if block.language == "toml":
        assert named, f"line {block.line}: a TOML block begins with a comment that names its file"
        return ""
    if block.language == "python":
        done = execute([sys.executable, "-W", "error", "-c", block.text], folder)
    else:
        kept = [line for line in block.text.splitlines() if not is_checked_apart(line)]
        script = "\n".join(kept).replace(PORT, free_port())
        done = execute(["bash", "-euo", "pipefail", "-c", script], folder)
    assert done.returncode == 0, f"line {block.line}: {block.text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def check_console(block: Block, folder: Path) -> None:
    """Each `$ command` is refused with exit code 2 and prints exactly what stands below it."""
    for each in block.text.removeprefix("$ ").split("\n$ "):
        command, _, expected = each.partition("\n")
        done = execute(shlex.split(command), folder)
        assert (done.returncode, done.stdout + done.stderr) == (2, expected.rstrip("\n") + "\n")


@pytest.mark.long
@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_runs_in_order(document: str, workplace: Path) -> None:
    printed = ""
    for block in blocks(document):
        assert block.language in LANGUAGES, f"line {block.line}: say the language of the block"
        if block.language == "console":
            check_console(block, workplace)
        elif block.language != "text":
            printed += run_block(block, workplace)
    if document == "README.md":
        lines = [*(QUALITY[name] for name in CLICKS), *BYTES.values()]
        shown = "".join(block.text for block in blocks(document) if block.language == "text")
        assert all(f"\n{line} " in shown for line in lines)
        assert all(f"\n{line} " in printed for line in lines)


def test_every_verb_of_the_command_line_is_shown() -> None:
    shown = {command.split()[1] for command in commands("README.md") if command.startswith("slimrank ")}
    apps = [app, *(group.typer_instance for group in app.registered_groups)]
    assert shown == {each.callback.__name__ for one in apps for each in one.registered_commands if each.callback}


def test_what_make_is_asked_for_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    asked = set()
    for document in DOCUMENTS:
        text = (ROOT / document).read_text(encoding="utf-8")
        asked |= set(re.findall(r"^make ([a-z]+)", "\n".join(commands(document)), re.MULTILINE))
        asked |= set(re.findall(r"`make ([a-z]+)", text))
    assert {"run", "test", "bench"} <= asked <= targets


def test_the_commands_of_contributing_are_those_of_ci() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert sorted(commands("CONTRIBUTING.md")) == sorted(re.findall(r"^make .*$", script, re.MULTILINE))


def test_goals_that_are_asked_for_can_be_read() -> None:
    asked = [shlex.split(command) for command in commands("README.md") if " --goal " in command]
    assert len(asked) >= 2
    for words in asked:
        read_goal(words[words.index("--goal") + 1])


def test_make_run_does_what_the_readme_says() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    line = next(each for each in makefile.splitlines() if "slimrank search" in each)
    assert line.strip().removeprefix("$(BIN)/") in commands("README.md")


def test_extras_that_are_installed_exist() -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    asked = {name for document in DOCUMENTS for name in re.findall(r"\.\[(\w+)\]", "\n".join(commands(document)))}
    assert asked == set(known) - {"test"}


def test_recipes_that_are_run_exist() -> None:
    """That they can be planned is tested with the recipes."""
    begun = re.compile(r"slimrank (run|search) (recipes/\S+)")
    asked = [found[2] for command in commands("README.md") if (found := begun.match(command))]
    assert len(asked) >= 4
    assert all((ROOT / path).is_file() for path in asked)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_named_exists(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    beside = (ROOT / document).parent
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("https://") or (beside / link).exists(), link
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for path in re.findall(r"`((?:src|recipes|docs|tests|bench|\.ci)/[\w./-]*)`", prose):
        assert (ROOT / path).exists(), path


def test_the_tree_of_the_readme_is_that_of_the_package() -> None:
    tree = next(block.text for block in blocks("README.md") if block.text.startswith("src/slimrank/"))
    named = set(re.findall(r"[\w.]+/|\w+\.py", tree)) - {"src/", "slimrank/"}
    inside = {
        path.name + "/" if path.is_dir() else path.name
        for path in (ROOT / "src" / "slimrank").iterdir()
        if not path.name.startswith(("_", "py."))
    }
    assert named == inside | {"recipes/", "bench/", "docs/", "tests/"}


def value_at(result: Any, path: str) -> float:
    """`a.0.b` of a result: keys, and in lists places or names."""

    def inside(found: Any, key: str) -> Any:
        if not isinstance(found, list):
            return found[key]
        return found[int(key)] if key.isdecimal() else next(each for each in found if each["name"] == key)

    return float(reduce(inside, path.split("."), result))


def shown_like(value: float, goal: str, path: str) -> str:
    """A figure in words: quality with four decimals, bytes, copies, seconds, and ratios with one decimal."""
    if path.endswith(("auc_drop", "auc_difference", "proof.low", "change")):
        return f"{value:+.4f}"
    if path.endswith(("kept", "share_of_original", "delta_share", "requests_within", "same_top")):
        return f"{100 * value:.1f}%"
    if path.startswith(("auc", "logloss")) or path.endswith(".auc") or re.search(r"(ndcg|recall)(@\d+)?(\.|$)", path):
        return f"{value:.4f}"
    if (
        path.startswith(("bytes", "weights"))
        or path.endswith("bytes")
        or "artifact_bytes" in path
        or path.startswith("wire.")
    ):
        return size(value)
    if path.startswith("p50_ms"):
        return f"{1000 * value:.0f} us"
    if goal == "0":
        return f"{value:.0f}"
    if goal.endswith(" MB") or "_mb." in path:
        return f"{value:.2f} MB"
    if goal.endswith(" ms"):
        return f"{value:.0f} ms"
    if goal.endswith(("copy", "copies")):
        return f"{value:.2f} copies"
    return f"{value:.2f} s" if goal.endswith(" s") else f"{value:.1f}x"


def filled(text: str) -> str:
    """The README with every figure of its table that a result file holds."""

    def line(match: re.Match[str]) -> str:
        before, _, name, path = match.groups()
        file = RESULTS / f"{name}.json"
        figure = "TBD"
        if file.exists():
            goal = before.rstrip("| ").split("|")[-1].strip()
            figure = shown_like(value_at(json.loads(file.read_text(encoding="utf-8")), path), goal, path)
        return f"{before} {figure} | `{name}: {path}` |"

    return BYO.sub(lambda match: f"{match[1]}\n{table(RESULTS)}\n{match[2]}", SOURCE.sub(line, text))


def test_the_figures_are_those_that_the_benchmarks_wrote() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(SOURCE.findall(text)) >= 15
    assert len(BYO.findall(text)) == 1
    assert text == filled(text), "PYTHONPATH=. python tests/test_readme.py writes them"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(filled(readme.read_text(encoding="utf-8")), encoding="utf-8")
