"""`slimrank serve` as a user starts it: several processes, killed ones, signals, and what keeps it from starting."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from slimrank.cli import main
from slimrank.config import InputError
from slimrank.runtime import load
from slimrank.serving import Settings, models_of, serve, server
from slimrank.serving.server import listening

HTTP = httpx.Client(timeout=60, verify=False, limits=httpx.Limits(max_keepalive_connections=0))


def rank(url: str, row: dict[str, Any], name: str = "linear") -> httpx.Response:
    """By a connection of its own, which any of the workers may take."""
    return HTTP.post(f"{url}/v2/models/{name}/rank", json={"candidates": [row]})


@pytest.fixture(scope="module")
def paths(write_linear_at: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("workers")
    return [write_linear_at(folder / name, seed=seed).path for seed, name in enumerate(("linear", "other"))]


@pytest.fixture(scope="module")
def crew(start_once: Any, eventually: Any, paths: list[Path]) -> Any:
    """A service of two processes."""
    started = start_once(*paths, "--port", 0, "--grpc-port", 0, "--workers", 2, "--set", "limits.max_wait_ms=60000")
    assert started.url.startswith("http://127.0.0.1:")
    eventually(lambda: len(started.workers()) == 2)
    return started


def count_of(url: str, name: str, **labels: str) -> float:
    """The sum of a metric over all workers."""
    told = HTTP.get(f"{url}/metrics").text
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    lines = [line for line in told.splitlines() if re.match(rf"slimrank_{name}[ {{]", line)]
    return sum(float(line.split()[-1]) for line in lines if all(each in line for each in wanted))


def have_answered(workers: list[int]) -> set[int]:
    """Those that have measured a request: each does so in a file of its own."""
    environment = Path(f"/proc/{workers[0]}/environ").read_bytes().split(b"\0")
    folder = next(each.split(b"=")[1].decode() for each in environment if each.startswith(b"PROMETHEUS_MULTIPROC_DIR="))
    return {pid for pid in workers if (Path(folder) / f"histogram_{pid}.db").exists()}


def test_all_workers_answer_and_their_counts_are_added_up(
    crew: Any, paths: list[Path], row: dict[str, Any], eventually: Any
) -> None:
    url, expected = crew.url, load(paths[0]).predict([row]).probability.tolist()
    asked = 0

    def both_have_answered() -> bool:
        nonlocal asked
        answers = list(pool.map(lambda _: rank(url, row).json(), range(20)))
        asked += len(answers)
        assert all(each["probability"] == expected for each in answers)
        return have_answered(crew.workers()) == set(crew.workers())

    with ThreadPoolExecutor(8) as pool:
        eventually(both_have_answered)
    assert {count_of(url, "requests_total", model="linear") for _ in range(8)} == {asked}
    stats = HTTP.get(f"{url}/v2/models/linear/stats").json()["model_stats"]
    assert [each["inference_stats"]["success"]["count"] for each in stats] == [asked]


def test_models_are_unloaded_and_loaded_in_all_workers(crew: Any, row: dict[str, Any]) -> None:
    for what, status in (("unload", 503), ("load", 200), ("unload", 503), ("load", 200)):
        assert HTTP.post(f"{crew.url}/v2/repository/models/other/{what}").json() == {}
        assert {rank(crew.url, row, "other").status_code for _ in range(20)} == {status}
    assert {rank(crew.url, row).status_code for _ in range(5)} == {200}


def test_models_may_be_loaded_at_once(crew: Any, row: dict[str, Any]) -> None:
    def load_both(name: str) -> int:
        return HTTP.post(f"{crew.url}/v2/repository/models/{name}/load").status_code

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(load_both, ["linear", "other"] * 4)) == {200}


def test_what_a_worker_cannot_load_is_told(crew: Any, paths: list[Path], row: dict[str, Any]) -> None:
    away = paths[1].with_name("away")
    paths[1].rename(away)
    answer = HTTP.post(f"{crew.url}/v2/repository/models/other/load")
    assert (answer.status_code, "no artifact there" in answer.json()["error"]) == (400, True)
    assert rank(crew.url, row, "other").status_code == 200  # the old one stays
    away.rename(paths[1])
    assert HTTP.post(f"{crew.url}/v2/repository/models/other/load").json() == {}


def test_another_worker_takes_the_place_of_one_that_was_killed(crew: Any, row: dict[str, Any], eventually: Any) -> None:
    assert HTTP.post(f"{crew.url}/v2/repository/models/other/unload").json() == {}
    before = crew.workers()
    os.kill(before[0], signal.SIGKILL)

    def survives() -> bool:
        """Requests go on meanwhile; one whose connection died with the worker is none that was answered wrong."""
        with contextlib.suppress(httpx.TransportError):
            assert rank(crew.url, row).status_code == 200
        return len(crew.workers()) == 2 and before[0] not in crew.workers()

    eventually(survives, "a new worker")
    assert {rank(crew.url, row).status_code for _ in range(20)} == {200}
    assert {rank(crew.url, row, "other").status_code for _ in range(20)} == {503}  # the new one knows what is wanted
    assert HTTP.post(f"{crew.url}/v2/repository/models/other/load").json() == {}
    assert {rank(crew.url, row, "other").status_code for _ in range(20)} == {200}


def test_grpc_is_answered_by_workers_too(crew: Any) -> None:
    from tritonclient.grpc import InferenceServerClient

    for _ in range(4):
        with InferenceServerClient(crew.grpc) as client:
            assert client.is_model_ready("linear")


SLOW = """
import sys, time
from pathlib import Path
from slimrank.serving import Settings, models_of, serve
from slimrank.serving import batching

begun = Path(sys.argv[2])
called = batching.Batcher._together

def slow(self, requests):
    begun.touch()
    while begun.with_name("held").exists():
        time.sleep(0.01)
    return called(self, requests)

batching.Batcher._together = slow
serve(Settings(models=models_of([Path(sys.argv[1])]), port=0, drain_ms=60_000))
"""


def test_a_request_in_flight_is_answered_before_the_end(
    start: Any, paths: list[Path], row: dict[str, Any], tmp_path: Path, eventually: Any
) -> None:
    held = tmp_path / "held"
    held.touch()
    started = start(paths[0], tmp_path / "begun", script=SLOW)
    url = started.url
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(rank, url, row)
        eventually((tmp_path / "begun").exists)
        started.process.send_signal(signal.SIGTERM)
        eventually(lambda: "Shutting down" in started.told)
        assert started.process.poll() is None
        held.unlink()
        assert asked.result().status_code == 200
    assert started.process.wait(60) == 0
    assert "Finished server process" in started.told
    with pytest.raises(httpx.ConnectError):
        rank(url, row)


def test_ctrl_c_ends_it_too(start: Any, paths: list[Path], row: dict[str, Any]) -> None:
    started = start(paths[0], "--port", 0)
    assert rank(started.url, row).status_code == 200
    assert started.stop(signal.SIGINT) == 0
    started.reader.join()
    assert "Finished server process" in started.told
    assert "Traceback" not in started.told


IMPORTED = """
import atexit, sys
from pathlib import Path
from slimrank.serving import Settings, models_of, serve

atexit.register(lambda: print([m for m in ("torch", "onnx", "sklearn") if m in sys.modules], file=sys.stderr))
serve(Settings(models=models_of([Path(sys.argv[1])]), port=0, grpc_port=0))
"""


def test_a_process_that_serves_never_imports_torch(start: Any, paths: list[Path], row: dict[str, Any]) -> None:
    own = {name: value for name, value in row.items() if name != "user"}
    for shared, imported in ({}, []), ({"user": 7}, ["onnx"]):  # which splits the graph where something is shared
        started = start(paths[0], script=IMPORTED)
        request = {"shared": shared, "candidates": [own if shared else row]}
        assert HTTP.post(f"{started.url}/v2/models/linear/rank", json=request).status_code == 200
        assert started.stop() == 0
        started.reader.join()
        assert started.lines[-1] == f"{imported}\n", started.told


def test_a_service_that_cannot_start_says_why_in_one_line(
    start: Any, paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text("short")
    (tmp_path / "no.toml").write_text("models = [")
    (tmp_path / "key.toml").write_text(f'prot = 1\nmodels = [{{name = "m", versions = [{{path = "{paths[0]}"}}]}}]\n')
    with listening("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        here: Any = ("--port", 0)
        cases: list[tuple[tuple[object, ...], str]] = [
            ((paths[0], "--port", port), f"cannot listen on 127.0.0.1 port {port}: "),
            ((paths[0], *here, "--grpc-port", port), f"cannot listen on 127.0.0.1 port {port}: "),
            ((paths[0], "--token-file", tmp_path / "token"), f"{tmp_path}/token: holds no token; a token has"),
            ((paths[0], "--token-file", tmp_path / "none"), f"{tmp_path}/none: cannot be read: No such file"),
            (
                (
                    *(paths[0], *here, "--set", f"tls_certificate={tmp_path / 'token'}"),
                    *("--set", f"tls_key={tmp_path / 'token'}"),
                ),
                f"{tmp_path}/token, {tmp_path}/token: no certificate and key: ",
            ),
            ((paths[0], *here, "--set", f"tls_key={tmp_path / 'token'}"), "serve: TLS needs both tls_certificate and"),
            (("--config", tmp_path / "no.toml"), f"{tmp_path}/no.toml: not TOML: "),
            (("--config", tmp_path / "none.toml"), f"{tmp_path}/none.toml: cannot be read: No such file"),
            (("--config", tmp_path / "key.toml"), f"{tmp_path}/key.toml: unknown key 'prot'. Did you mean"),
            ((*paths, "--set", "port", *here), "--set: got 'port', must be KEY=VALUE"),
            ((*paths, "--set", "port.of=3", *here), "--set: 'port.of' has no table 'port'"),
            ((*paths, "--set", "limits.max_row=3", *here), "serve: unknown key 'limits.max_row'. Did you mean"),
            ((f"a b={paths[0]}", *here), f"a b={paths[0]}: name: "),
            (
                (paths[0], "--config", tmp_path / "key.toml"),
                f"{tmp_path}/key.toml: has models already; give artifacts there or on the command line",
            ),
            ((), "nothing to serve: give an artifact, or a --config with models"),
            ((tmp_path / "nowhere",), f"{tmp_path}/nowhere: no artifact there ("),
        ]
        process = start(*cases[0][0])
        assert process.process.wait(60) == 2
        assert process.told.startswith(f"error: {cases[0][1]}")
        for arguments, told in cases:
            monkeypatch.setattr("sys.argv", ["slimrank", "serve", *map(str, arguments)])
            with pytest.raises(SystemExit) as ended:
                main()
            assert ended.value.code == 2
            lines = capsys.readouterr().err.splitlines()
            assert len(lines) == 1, lines
            assert lines[0].startswith(f"error: {told}"), lines


def test_a_server_that_cannot_start_says_why(linear: Any) -> None:
    models = models_of([linear.path])
    with listening("127.0.0.1", 0) as taken, pytest.raises(InputError, match=r"cannot listen on 127\.0\.0\.1 port"):
        serve(Settings(models=models, port=taken.getsockname()[1]))
    with pytest.raises(InputError, match=r"port: .* less than or equal to 65535"):
        Settings.parse({"models": models, "port": 70_000}, "serve")
    with pytest.raises(InputError, match=r"port 70000; allowed: 0\.\.65535"):
        listening("127.0.0.1", 70_000)
    with pytest.raises(InputError, match=r"cannot listen on no\.such\.host\.invalid port 0"):
        listening("no.such.host.invalid", 0)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(InputError, match="cannot listen"):
        serve(Settings(models=models, port=0, grpc_port=taken.getsockname()[1]))
    os.remove(linear.path / "schema.json")
    with pytest.raises(InputError, match=r"schema\.json: missing"):
        serve(Settings(models=models, port=0))


def test_workers_share_the_weights_that_they_have_mapped(
    start: Any, eventually: Any, write_linear_at: Callable[..., Any], tmp_path: Path, row: dict[str, Any]
) -> None:
    linear = write_linear_at(tmp_path / "linear", external=True)
    crew = start(linear.path, "--port", 0, "--workers", 2)
    eventually(lambda: len(crew.workers()) == 2)
    assert rank(crew.url, row).status_code == 200
    found = {pid: eventually(lambda: mapped(pid, "model.onnx.data"), "the mapping") for pid in crew.workers()}  # noqa: B023
    assert len({each["inode"] for each in found.values()}) == 1
    assert all(each["Private_Dirty"] == "0 kB" for each in found.values())


def mapped(pid: int, name: str) -> dict[str, str]:
    """What the kernel says of a process's mapping of the file of that name; nothing where it has none."""
    found: dict[str, str] = {}
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            found = {"inode": line.split()[4]} if line.endswith(f"/{name}") else {}
        elif found and ":" in line:
            key, _, value = line.partition(":")
            found[key] = value.strip()
            if key == "Private_Dirty":
                return found
    return {}


def test_workers_count_in_memory_where_there_is_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(server.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(server, "MEMORY", str(tmp_path / "memory"))
    with server._shared_folder() as folder:
        assert folder.parent == tmp_path
    (tmp_path / "memory").mkdir()
    with server._shared_folder() as folder:
        assert folder.parent == tmp_path / "memory"
    monkeypatch.setattr(server, "ROOM", 1 << 62)
    with server._shared_folder() as folder:
        assert folder.parent == tmp_path


def test_no_answer_waits_for_an_acknowledgement() -> None:
    with listening("127.0.0.1", 0) as door, socket.create_connection(door.getsockname()), door.accept()[0] as taken:
        assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_full_disk_stops_nothing(
    start: Any, eventually: Any, paths: list[Path], row: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", full], capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        with contextlib.suppress(OSError), (full / "all").open("wb") as file:
            file.write(bytes(1 << 20))
        with pytest.raises(OSError, match="No space left"):
            (full / "more").write_bytes(bytes(1 << 16))
        monkeypatch.setenv("TMPDIR", str(full))
        crew = start(*paths, "--port", 0, "--workers", 2)
        eventually(lambda: len(crew.workers()) == 2)
        assert HTTP.post(f"{crew.url}/v2/repository/models/other/unload").status_code == 200
        assert {rank(crew.url, row, "other").status_code for _ in range(8)} == {503}
        assert HTTP.post(f"{crew.url}/v2/repository/models/other/load").status_code == 200
        assert {rank(crew.url, row, "other").status_code for _ in range(8)} == {200}
        assert count_of(crew.url, "requests_total", model="other") >= 8
        assert crew.stop() == 0
    finally:
        subprocess.run(["umount", "--lazy", full], check=True)


def test_all_processes_end_when_they_are_told_to(crew: Any, row: dict[str, Any], eventually: Any) -> None:
    workers = crew.workers()
    assert crew.stop() == 0
    crew.reader.join()
    assert crew.told.count("Finished server process") == 2
    assert "Traceback" not in crew.told
    assert [pid for pid in workers if Path(f"/proc/{pid}").exists()] == []
    with pytest.raises(httpx.ConnectError):
        rank(crew.url, row)
