"""A running service: in a thread of this process, where a test looks inside, or as the processes that a user starts."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
import uvicorn

from slimrank.runtime import Model, load
from slimrank.serving import Limits, Settings, models_of
from slimrank.serving.app import create_app
from slimrank.serving.server import listening
from slimrank.serving.service import Service
from slimrank.serving.worker import PatientProtocol, running

LONGEST_WAIT = 60.0  # seconds, of what comes at once on a machine that is not busy
ROW = {"user": 7, "item": "tea", "price": 1.5, "history": ["tea"]}


def wait_for(condition: Callable[[], Any], what: str = "") -> Any:
    """What `condition` gives as soon as it is true; fails where it does not become so."""
    until = time.monotonic() + LONGEST_WAIT
    while not (found := condition()):
        assert time.monotonic() < until, f"waited in vain for {what or condition}"
        time.sleep(0.005)
    return found


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Any]:
    """Waits for a condition."""
    return wait_for


@pytest.fixture
def row() -> dict[str, Any]:
    """One that the linear model takes."""
    return dict(ROW)


@dataclass
class Served:
    """A service in a thread of this process, and a client of it."""

    service: Service
    http: httpx.Client
    port: int

    def rank(self, name: str = "linear", **request: Any) -> httpx.Response:
        """The answer to a ranking request."""
        return self.http.post(f"/v2/models/{name}/rank", json=request)

    def infer(self, name: str = "linear", **request: Any) -> httpx.Response:
        """The answer to a request of tensors."""
        return self.http.post(f"/v2/models/{name}/infer", json=request)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels, among others; all that was answered is counted."""
        self.http.get("/v2/health/live")  # what is counted after an answer is counted before the next request
        samples = (s for metric in self.service.metrics.together().collect() for s in metric.samples)
        return sum(s.value for s in samples if s.name == f"slimrank_{name}" and labels.items() <= s.labels.items())


@contextlib.contextmanager
def in_a_thread(settings: Settings) -> Iterator[Served]:
    """The service of these settings, as a worker runs it."""
    service = Service(settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> Any:
        async with running(service, None):
            yield

    door = listening("127.0.0.1", 0)  # listens before the server runs, so a client may connect at once
    config = uvicorn.Config(
        create_app(service, lifespan),
        http=PatientProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        limit_concurrency=settings.limits.max_connections,
        timeout_keep_alive=max(1, settings.limits.idle_ms // 1000),
    )
    server = uvicorn.Server(config)
    thread = Thread(target=server.run, kwargs={"sockets": [door]})
    thread.start()
    host, port = door.getsockname()
    try:
        address = f"http://{host}:{port}"  # without certificates, whose reading takes longer than a test
        with httpx.Client(base_url=address, timeout=LONGEST_WAIT, verify=False) as http:
            http.get("/v2/health/live")  # is answered when the models are loaded
            yield Served(service, http, port)
    finally:
        server.should_exit = True
        thread.join()
        door.close()


def settings_of(models: Mapping[str, Path | Mapping[str, Any]] | Path, **changes: Any) -> Settings:
    """Settings of models by name: a path, or the keys of one."""
    if isinstance(models, Path):
        return Settings(models=models_of([models]), **changes)
    parsed = [
        {"name": name, "versions": [{"path": each}]} if isinstance(each, Path) else {"name": name, **each}
        for name, each in models.items()
    ]
    return Settings.parse({"models": parsed, **changes}, "a test")


@pytest.fixture
def serving() -> Iterator[Callable[..., Served]]:
    """Starts services that stop with the test: `serving(path or {name: path or keys}, setting=...)`."""
    with contextlib.ExitStack() as stack:
        yield lambda models, **changes: stack.enter_context(in_a_thread(settings_of(models, **changes)))


@pytest.fixture(scope="module")
def serve_once() -> Iterator[Callable[..., Served]]:
    """The same, for all tests of a file."""
    with contextlib.ExitStack() as stack:
        yield lambda models, **changes: stack.enter_context(in_a_thread(settings_of(models, **changes)))


@pytest.fixture(scope="session")
def linear_served(
    write_linear_at: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Served, Any]]:
    """One service of the linear model with small limits, for tests that only ask; and the model's arithmetic."""
    linear = write_linear_at(tmp_path_factory.mktemp("served") / "linear")
    limits = Limits(max_body_bytes=20_000, max_rows=50, max_wait_ms=60_000)
    with in_a_thread(settings_of(linear.path, limits=limits)) as served:
        yield served, linear


@dataclass
class Started:
    """A service that a user started, and what it has said on stderr."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert self.process.stderr is not None
        self.reader = Thread(target=self.lines.extend, args=[self.process.stderr])
        self.reader.start()

    @property
    def told(self) -> str:
        """All that it has said by now."""
        return "".join(self.lines)

    def address(self, words: str) -> str:
        """Where it says that it is: the last word of the line with these words."""
        found = wait_for(lambda: self._line(words) or self.process.poll() is not None, words)
        assert isinstance(found, str), self.told
        return found.split()[-1]

    def _line(self, words: str) -> str | None:
        return next((line for line in self.lines if words in line), None)

    @property
    def url(self) -> str:
        """Of HTTP, once it is ready."""
        return self.address("on http")

    @property
    def grpc(self) -> str:
        """Of gRPC."""
        return self.address("by gRPC on")

    def workers(self) -> list[int]:
        """The processes that have begun to answer and still live."""
        begun = [int(line.split("[")[1].split("]")[0]) for line in list(self.lines) if "Started server process" in line]
        return [pid for pid in begun if Path(f"/proc/{pid}").exists()]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code."""
        self.process.send_signal(how)
        return self.process.wait(LONGEST_WAIT)


@contextlib.contextmanager
def started_by(arguments: tuple[object, ...], script: str = "") -> Iterator[Started]:
    """`slimrank serve` with these arguments, or a `script` that gets them."""
    code = script or "from slimrank.cli import main; main()"
    command = [sys.executable, "-c", code, *([] if script else ["serve"]), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    started = Started(process)
    try:
        yield started
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(LONGEST_WAIT)
        started.reader.join()
        assert process.stderr is not None
        process.stderr.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Started]]:
    """Starts `slimrank serve` with arguments; it is stopped with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *arguments, script="": stack.enter_context(started_by(arguments, script))


@pytest.fixture(scope="module")
def start_once() -> Iterator[Callable[..., Started]]:
    """The same, for all tests of a file."""
    with contextlib.ExitStack() as stack:
        yield lambda *arguments, script="": stack.enter_context(started_by(arguments, script))


@pytest.fixture(scope="module")
def artifacts(
    write_linear_at: Callable[..., Any],
    finder: Callable[[str], Any],
    asked_by_tensors: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """By name: a model of rows, a finder, a module."""
    linear = write_linear_at(tmp_path_factory.mktemp("artifacts") / "linear").path
    return {"linear": linear, "vectors": finder("vectors").path, "mine": asked_by_tensors}


@pytest.fixture(scope="module")
def model(linear_served: Any) -> Model:
    """The linear model, by the runtime."""
    return load(linear_served[1].path)


@pytest.fixture(scope="module")
def client(linear_served: Any) -> httpx.Client:
    """A client of the service of the linear model that only asks."""
    found: httpx.Client = linear_served[0].http
    return found
