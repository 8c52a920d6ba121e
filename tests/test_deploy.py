"""What runs the service elsewhere: the image's file and the systemd unit, each held to its own linter and the CLI."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
UNIT = ROOT / "deploy" / "slimrank.service"
PROGRAM = "/opt/slimrank/bin/slimrank"
MOST_EXPOSED = 20  # tenths of systemd's points, of which 0 is the safest and 100 the least safe


def tool(name: str) -> str:
    """Where a linter is: on the path, or beside the interpreter of the tests."""
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def instructions(name: str) -> list[str]:
    """What stands behind every instruction of that name in the image's file, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text())
    return [line.split(maxsplit=1)[1] for line in text.splitlines() if line.split(maxsplit=1)[:1] == [name]]


def unit() -> dict[str, str]:
    """The section Service of the unit; of keys that are given twice the last."""
    parser = configparser.RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return dict(parser["Service"])


def options_of_serve() -> set[str]:
    words = [sys.executable, "-c", "from slimrank.cli import main; main()", "serve", "--help"]
    told = subprocess.run(words, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "200"})
    return set(re.findall(r"--[a-z][a-z-]+", told.stdout))


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run([tool("hadolint"), "--format", "json", DOCKERFILE], capture_output=True, text=True)
    assert (json.loads(done.stdout), done.returncode) == ([], 0)


def test_the_image_runs_as_nobody_in_particular() -> None:
    assert instructions("USER") == ["10001:10001"]
    assert instructions("EXPOSE") == ["8000 8001"]
    assert "python:3.11-slim" in instructions("FROM")


def test_the_image_takes_what_it_needs_of_the_source_tree() -> None:
    copied = {word for line in instructions("COPY") if "--from" not in line for word in line.split()[:-1]}
    assert all((ROOT / each).exists() for each in copied)
    kept = {line[1:] for line in (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().split() if line[0] == "!"}
    assert copied == kept
    (extras,) = re.findall(r'"\.\[(.+?)\]"', DOCKERFILE.read_text())
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras.split(",")) <= set(known)
    assert "torch" not in " ".join(word for extra in extras.split(",") for word in known[extra])


def test_both_say_what_the_command_line_takes() -> None:
    (entry,) = instructions("ENTRYPOINT")
    words = json.loads(entry)
    assert words[:2] == ["slimrank", "serve"]
    started = unit()["ExecStart"].split()
    assert started[:2] == [PROGRAM, "serve"]
    asked = {word for word in words + started if word.startswith("--")}
    assert asked <= options_of_serve()


def test_health_is_asked_of_the_port_that_is_listened_on() -> None:
    (check,) = instructions("HEALTHCHECK")
    words: Any = json.loads(check.partition("CMD ")[2])
    assert words[:2] == ["python", "-c"]
    (entry,) = instructions("ENTRYPOINT")
    port = json.loads(entry)[json.loads(entry).index("--port") + 1]
    assert f"SLIMRANK_HEALTH=http://127.0.0.1:{port}/v2/health/ready" in " ".join(instructions("ENV"))


class Ready(BaseHTTPRequestHandler):
    """Answers one path."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/v2/health/ready" else 503)
        self.end_headers()

    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture(params=["http", "https"])
def address(request: Any, tmp_path: Path) -> Iterator[str]:
    """Of a server that is ready, with a certificate of another name where it has one."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Ready) as server:
        if request.param == "https":
            words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
            words += ["-subj", "/CN=ranker.example", "-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "made")]
            if subprocess.run(words, capture_output=True).returncode:
                pytest.skip("this openssl makes no certificate")
            secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            secure.load_cert_chain(tmp_path / "made", tmp_path / "key")
            server.socket = secure.wrap_socket(server.socket, server_side=True)
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"{request.param}://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_health_is_asked_where_the_environment_says(address: str) -> None:
    (check,) = instructions("HEALTHCHECK")
    _, *words = json.loads(check.partition("CMD ")[2])
    for path, code in (("/v2/health/ready", 0), ("/elsewhere", 1)):
        environment = {**os.environ, "SLIMRANK_HEALTH": address + path}
        assert subprocess.run([sys.executable, *words], capture_output=True, env=environment).returncode == code


def with_secrets(text: str) -> str:
    """The unit with the lines that are there to be taken in."""
    return re.sub(r"^#(LoadCredential=|ExecStart=|    --set )", r"\1", text, flags=re.MULTILINE)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit with a program that is there, since systemd looks for it."""
    (tmp_path / "slimrank").write_text("#!/bin/sh\n")
    (tmp_path / "slimrank").chmod(0o755)
    path = tmp_path / "slimrank.service"
    path.write_text(UNIT.read_text().replace(PROGRAM, str(tmp_path / "slimrank")))
    return path


def test_systemd_finds_nothing(installed: Path) -> None:
    words = [tool("systemd-analyze"), "verify", "--man=no", str(installed)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_lines_for_secrets_are_sound(installed: Path) -> None:
    (extras,) = re.findall(r"'slimrank\[(.+?)\]'", UNIT.read_text())
    assert f"[{extras}]" in DOCKERFILE.read_text()
    text = with_secrets(installed.read_text())
    started = re.findall(r"^ExecStart=((?:.*\\\n)*.*)$", text, re.MULTILINE)
    assert started[1] == ""  # which forgets the first
    words = started[2].replace("\\\n", "").split()
    assert {word for word in words if word.startswith("--")} <= options_of_serve()
    given = set(re.findall(r"^LoadCredential=(.+?):", text, re.MULTILINE))
    assert set(re.findall(r"%d/(\S+)", started[2])) == given
    installed.write_text(text)
    words = [tool("systemd-analyze"), "verify", "--man=no", str(installed)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_systemd_finds_a_key_that_is_wrong(installed: Path) -> None:
    """So that finding nothing says something."""
    installed.write_text(installed.read_text().replace("NoNewPrivileges", "NoNewPriviledges"))
    words = [tool("systemd-analyze"), "verify", "--man=no", str(installed)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert "NoNewPriviledges" in done.stderr


def test_the_unit_is_little_exposed(installed: Path) -> None:
    words = [tool("systemd-analyze"), "security", "--offline=yes", f"--threshold={MOST_EXPOSED}", str(installed)]
    done = subprocess.run(words, capture_output=True, text=True)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze looks at units in use only")
    assert done.returncode == 0, done.stdout[-400:]


def test_an_artifact_answers_where_no_memory_is_written_and_run(linear: Any) -> None:
    """As MemoryDenyWriteExecute has it, asked of the kernel by prctl(2); with the unit's environment."""
    assert unit()["MemoryDenyWriteExecute"] == "yes"
    program = (
        "import ctypes, sys\n"
        "if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0): sys.exit(77)\n"  # PR_SET_MDWE, since Linux 6.3
        "from slimrank import runtime\n"
        "row = {'user': 7, 'item': 'tea', 'price': 1.0, 'history': ['jam']}\n"
        "print(len(runtime.load(sys.argv[1]).predict([row]).probability))\n"
        "from slimrank import serving\n"
    )
    given = dict(word.split("=") for word in unit()["Environment"].split())
    words = [sys.executable, "-c", program, str(linear.path)]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **given})
    if done.returncode == 77:
        pytest.skip("this kernel has no PR_SET_MDWE")
    assert (done.stdout, done.returncode) == ("1\n", 0), done.stderr


def test_a_drain_has_the_time_it_takes() -> None:
    from slimrank.serving.settings import Settings

    drain = Settings.model_fields["drain_ms"].default / 1000
    assert int(unit()["TimeoutStopSec"]) > drain
    assert unit()["KillSignal"] == "SIGTERM"
