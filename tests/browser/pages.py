"""What JavaScript on a page of the host returns, for the tests of the module in a browser."""

from __future__ import annotations

import json
from typing import Any

from slimrank.deploying.web import MANIFEST, sealed

ROWS: list[dict[str, Any]] = [
    {"user": 7, "item": "tea", "price": 1.5, "history": ["tea", "jam", "rye", "tea"]},
    {"user": "9", "item": "never seen", "price": None, "history": []},
    {"user": 1000, "item": None, "price": 4.0, "history": None},
    {"user": 11.0, "item": "rye", "price": -3, "history": ["never seen", None]},
]
RUN = """
const done = arguments[arguments.length - 1], given = arguments[0];
const plain = (_, value) => ArrayBuffer.isView(value) ? Array.from(value) : value;
(async () => {
  const { load, InputError } = await import("/model/slimrank.js");
  const { loadInWorker } = await import("/model/remote.js");
  %s
})().then((value) => done(JSON.stringify({ value: value ?? null }, plain)),
          (error) => done(JSON.stringify({ error: error.message, kind: error.name }, plain)));
"""


def run(browser: Any, host: Any, body: str, given: Any = None) -> Any:
    """What JavaScript on an empty page of the host returns; `given` is there as JSON."""
    browser.get(f"{host.address}/blank")
    browser.set_script_timeout(30)
    return json.loads(browser.execute_async_script(RUN % body, given))


def value(found: dict[str, Any]) -> Any:
    assert "error" not in found, found
    return found["value"]


def fault(found: dict[str, Any]) -> str:
    assert found.get("kind") == "InputError", found
    return str(found["error"])


def resealed(site: Any, **changes: Any) -> bytes:
    manifest = json.loads((site.folder / MANIFEST).read_bytes())
    del manifest["seal"]
    return sealed({**manifest, **changes})
