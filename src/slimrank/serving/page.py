"""The page of a service: a few files, sent as they are, that ask the same routes as every client.

The page may load its own style and script, and ask its own server; nothing else, and nothing that stands within it.
Whatever a server answers is put into it as text.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

FILES = {
    "page.html": "text/html",
    "page.css": "text/css",
    "page.js": "text/javascript",
    "figures.js": "text/javascript",
}
ALLOWED = (
    *("default-src 'none'", "style-src 'self'", "script-src 'self'", "connect-src 'self'", "img-src data:"),
    *("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"),
)
HEADERS = {
    "content-security-policy": "; ".join(ALLOWED),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


@cache
def page_file(name: str) -> bytes:
    """One of `FILES`."""
    return resources.files("slimrank.serving").joinpath(name).read_bytes()
