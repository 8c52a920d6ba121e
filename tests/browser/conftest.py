"""A static host, the runtime from npm, and an exported folder; without Node or the packages tests are skipped."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any, BinaryIO, ClassVar

import polars
import pytest

from slimrank.data.golden import Golden, made_rows
from slimrank.deploying.deploy import deploy
from slimrank.runtime import load

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "src" / "slimrank" / "deploying" / "browser"
OLDEST_NODE = 20


@pytest.fixture(scope="session")
def node() -> str:
    """Node, of a release that has what the module needs."""
    found = shutil.which("node")
    if found is None or shutil.which("npm") is None:
        pytest.skip("needs Node and npm")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").split(".")[0]) < OLDEST_NODE:
        pytest.skip(f"needs Node {OLDEST_NODE}, found {version.strip()}")
    return found


@pytest.fixture(scope="session")
def packages(node: str) -> Path:
    """The folder of the npm packages of the lock file, installed where they are not."""
    folder = HERE / "node_modules"
    with open(HERE / "package-lock.json") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not (folder / "onnxruntime-web" / "package.json").is_file():
            command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"npm could not install the packages of tests/browser: {done.stderr.strip()[-300:]}")
    return folder


@pytest.fixture(scope="session")
def dist(packages: Path) -> Path:
    """onnxruntime-web as it is published."""
    return packages / "onnxruntime-web" / "dist"


@dataclass
class Host:
    """A static host: `address` of a folder, where `instead` holds other content for a path, None for none.

    It counts what was `asked` of it by path, and answers for the paths in `broken` with half of a file.
    """

    address: str
    instead: dict[str, bytes | None] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    asked: Counter[str] = field(default_factory=Counter)


class Handler(SimpleHTTPRequestHandler):
    """Serves the compressed file beside one to who accepts it, an empty page at /blank, and what stands `instead`."""

    host: Host
    extensions_map: ClassVar = {
        **SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".js": "text/javascript",
        ".wasm": "application/wasm",
    }

    def log_message(self, *_: object) -> None:
        """Tests read no log."""

    def send_head(self) -> BytesIO | BinaryIO | None:
        path = self.path.partition("?")[0]
        path = f"{path}index.html" if path.endswith("/") else path
        self.host.asked[path] += 1
        if path == "/blank":
            return self.answer(b"<!doctype html><title>blank</title><link rel=icon href='data:,'>", "text/html")
        if path in self.host.instead:
            content = self.host.instead[path]
            if content is None:
                self.send_error(404)
                return None
            return self.answer(content, self.guess_type(path))
        if path in self.host.broken:
            content = Path(self.translate_path(path)).read_bytes()
            return self.answer(content[: len(content) // 2], self.guess_type(path), length=len(content))
        packed = Path(f"{self.translate_path(path)}.br")
        if packed.is_file() and "br" in self.headers.get("Accept-Encoding", ""):
            return self.answer(packed.read_bytes(), self.guess_type(path), "br")
        return super().send_head()

    def answer(self, content: bytes, kind: str, encoding: str = "", length: int | None = None) -> BytesIO:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        if encoding:
            self.send_header("Content-Encoding", encoding)
        self.end_headers()
        return BytesIO(content)


@contextmanager
def hosted(folder: Path) -> Iterator[Host]:
    """Hosts a folder at an address of its own."""
    handler = type("Own", (Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *given: handler(*given, directory=str(folder)))
    handler.host = Host(f"http://127.0.0.1:{server.server_port}")
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield handler.host
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[[Path], Host]]:
    """Hosts a folder at an address that no browser remembers anything of."""
    with ExitStack() as hosts:
        yield lambda folder: hosts.enter_context(hosted(folder))


@pytest.fixture(scope="module")
def host(site: Site) -> Iterator[Host]:
    """The site for tests that change nothing of it: what the browser keeps of it makes later ones quicker."""
    with hosted(site.root) as found:
        yield found


def with_golden(write: Callable[..., Any], path: Path, **options: Any) -> Any:
    """A linear artifact with the golden rows that an exported one has."""
    write(path, **options)
    model = load(path)
    rows = made_rows(model.encoding.schema, model.encoding.sizes)
    golden = Golden.of({"ids": rows.ids, "numbers": rows.numbers}, {"logit": model.score(rows)})
    shutil.rmtree(path)
    return write(path, **options, manifest={"golden": golden.model_dump(mode="json")})


HOSTILE = "<img src=x onerror=\"document.title='taken'\">"


@dataclass(frozen=True)
class Site:
    """An exported folder, what holds it, and the artifact it was made of."""

    root: Path
    folder: Path
    linear: Any
    hostile: str = HOSTILE


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, write_linear_at: Callable[..., Any], dist: Path) -> Site:
    """The linear model with external weights, examples of three users, one of them hostile, and the runtime."""
    root = tmp_path_factory.mktemp("site")
    linear = with_golden(write_linear_at, root / "artifact", external=True)
    items = ["tea", "jam", "rye", HOSTILE, "</script>", "tea"]
    examples = polars.DataFrame(
        {
            "user": [7, 7, 7, 9, 9, 11],
            "item": items,
            "price": [1.0, 2.5, 3.0, 0.5, 9.0, 4.0],
            "history": [["tea"], ["tea"], ["tea"], [HOSTILE, "jam"], [HOSTILE, "jam"], []],
            "label": [1, 0, 0, 1, 0, 1],
            "named": [f"{item} {HOSTILE}" for item in items],
        }
    )
    examples.write_parquet(root / "examples.parquet")
    target = {
        "name": "web",
        "runtime": str(dist),
        "examples": str(root / "examples.parquet"),
        "candidates": ["item", "price"],
        "title": "named",
    }
    folder = deploy(f"model={linear.path}", root / "out", target)
    return Site(root / "out", folder, linear)


@pytest.fixture(scope="session")
def ask_node(node: str) -> Callable[..., Any]:
    """What a script of Node answers to JSON, as JSON."""

    def ask(script: Path, given: Any, *words: str, env: Mapping[str, str] | None = None) -> Any:
        command = [node, str(script), *words]
        own = {**os.environ, **(env or {})}
        done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, env=own, check=False)
        assert done.returncode == 0, done.stderr[-1500:]
        return json.loads(done.stdout)

    return ask
