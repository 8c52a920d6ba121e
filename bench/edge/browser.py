"""A static host and a headless Chromium for the benchmarks of the edge: folders that are asked as a page asks them.

Chromium and its driver are the system's (Debian: chromium, chromium-driver); onnxruntime-web is that of
tests/browser (`npm ci` there). Left out: what is asked (`frappe`, `large`).
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import psutil

from slimrank.config import InputError

DIST = Path(__file__).parents[2] / "tests" / "browser" / "node_modules" / "onnxruntime-web" / "dist"
BLANK = b"<!doctype html><title>bench</title><link rel=icon href='data:,'>"
SECONDS = 300  # a script may take


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder as it is, and an empty page at /blank."""

    extensions_map: ClassVar = {
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""

    def do_GET(self) -> None:
        """The empty page, or a file."""
        if self.path != "/blank":
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(BLANK)))
        self.end_headers()
        self.wfile.write(BLANK)


@contextlib.contextmanager
def hosted(folder: Path) -> Iterator[str]:
    """The address of a static host of `folder`, an origin of its own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A fresh headless Chromium, driven by selenium.

    Raises:
        InputError: it, its driver, or onnxruntime-web is not installed.
    """
    found = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if missing := [name for name, path in found.items() if path is None]:
        raise InputError(f"{', '.join(missing)} is not installed (Debian: chromium, chromium-driver)")
    if not DIST.is_dir():
        raise InputError("onnxruntime-web is not installed: npm ci in tests/browser")
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = str(found["chromium"])
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(str(found["chromedriver"])))
    driver.set_script_timeout(SECONDS)
    try:
        yield driver
    finally:
        driver.quit()


def asked(driver: Any, script: str, *given: Any) -> Any:
    """What an async function body of JavaScript returns, for `given`, in the page that is open.

    Raises:
        RuntimeError: it threw; with its message.
    """
    wrapped = (
        "const done = arguments[arguments.length - 1], given = Array.from(arguments).slice(0, -1);"
        f"(async (given) => {{ {script} }})(given)"
        ".then((found) => done({found}), (error) => done({error: String(error)}));"
    )
    answer = driver.execute_async_script(wrapped, *given)
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer["found"]


def tab_memory_mb(driver: Any) -> float:
    """The most memory in MB that the process of the open tab has had resident (Linux)."""
    service = psutil.Process(driver.service.process.pid)
    renderers = [each for each in service.children(recursive=True) if "--type=renderer" in " ".join(each.cmdline())]
    peaks = [_peak_kb(each.pid) for each in renderers]
    return max(peaks) / 1000


def _peak_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0
