"""On what was it measured, and what is missing here: the record beside every figure, and the list behind `doctor`.

Reads package metadata and the system's own description of the processor; imports none of the packages, so that it
works, and is quick, where half of them are missing. Left out: measuring anything.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from slimrank import __version__

PACKAGES = {
    "": ("numpy", "onnxruntime", "polars", "pydantic", "rich", "typer"),
    "train": (
        "altair",
        "faiss-cpu",
        "onnx",
        "onnxscript",
        "optuna",
        "psutil",
        "pyarrow",
        "safetensors",
        "tokenizers",
        "torch",
        "vl-convert-python",
    ),
    "serve": (
        "grpcio",
        "httptools",
        "onnx",
        "onnx-ir",
        "prometheus-client",
        "starlette",
        "tritonclient",
        "uvicorn",
        "uvloop",
    ),
    "edge": ("brotli", "onnx", "zstandard"),
}
"""The distributions that each extra installs; "" is the base install."""

PYTHON = (3, 11)

INSTRUCTIONS = {
    "avx2": "avx2",
    "avx_vnni": "avx_vnni",
    "avx512f": "avx512",
    "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_tile": "amx",
    "asimd": "neon",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "sve": "sve",
}
"""The processor flags (Linux) that decide how fast a model runs, and the names that they go by here."""

INTEGER_DOT_PRODUCTS = {"avx_vnni", "avx512_vnni", "amx", "dotprod", "i8mm"}
"""Without one of these, int8 layers gain little over fp32."""


def machine() -> dict[str, Any]:
    """The part of `result.json` that says on what it was measured.

    Keys: `processor`, `cores` (that this process may use), `instruction_set`, `system`, `versions`.
    """
    return {
        "processor": processor(),
        "cores": cores(),
        "instruction_set": instruction_set(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Version of Python, of slimrank and of each of its packages that is installed."""
    names = ("slimrank", *(name for group in PACKAGES.values() for name in group))
    known = {name: _version(name) for name in names}
    return {"python": platform.python_version()} | {name: found for name, found in known.items() if found}


def cores() -> int:
    """How many cores this process may use, which in a container is fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """The processor's own name, or its family where the system does not tell."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def instruction_set() -> list[str]:
    """The instructions that decide a model's speed, such as avx2, avx512_vnni or amx; the family where unknown."""
    return named_instructions(_cpuinfo("flags") or _cpuinfo("Features")) or [platform.machine().lower()]


def named_instructions(flags: str) -> list[str]:
    """The names of `INSTRUCTIONS` that a line of processor flags holds, weakest first.

    >>> named_instructions("fpu sse2 avx2 avx512f avx512_vnni amx_tile")
    ['avx2', 'avx512', 'avx512_vnni', 'amx']
    """
    found = set(flags.split())
    return [name for flag, name in INSTRUCTIONS.items() if flag in found]


def _cpuinfo(key: str) -> str:
    """The first value of `key` in Linux's description of the processor, or nothing."""
    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    found = re.search(rf"^{key}\s*: *(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


@dataclass(frozen=True)
class Finding:
    """One line of `doctor`: what was looked for, what was found, and what to do about it (empty: nothing)."""

    name: str
    found: str
    advice: str = ""

    @property
    def ok(self) -> bool:
        """Whether there is nothing to do."""
        return not self.advice

    def __str__(self) -> str:
        return f"{self.name:<18} {self.found}" + ("" if self.ok else f"  ({self.advice})")


def doctor() -> list[Finding]:
    """What this machine and this environment have, and for what is missing the command that installs it."""
    old = sys.version_info < PYTHON
    wanted = ".".join(map(str, PYTHON))
    instructions = instruction_set()
    slow = INTEGER_DOT_PRODUCTS.isdisjoint(instructions)
    findings = [
        Finding("slimrank", __version__),
        Finding("python", platform.python_version(), f"install Python {wanted} or newer" if old else ""),
        Finding("processor", processor()),
        Finding("cores", str(cores())),
        Finding(
            "instruction set",
            ", ".join(instructions),
            "no integer dot product (VNNI, AMX): int8 layers gain little speed here" if slow else "",
        ),
    ]
    return findings + [package(name, extra) for extra, names in PACKAGES.items() for name in names]


def package(name: str, extra: str = "") -> Finding:
    """Whether a distribution is installed, and if not, the command that installs the extra it belongs to.

    >>> package("no-such-package", "train")
    Finding(name='no-such-package', found='missing', advice='pip install "slimrank[train]"')
    """
    found = _version(name)
    if found:
        return Finding(name, found)
    return Finding(name, "missing", f'pip install "slimrank[{extra}]"' if extra else "pip install slimrank")


def _version(name: str) -> str:
    """A distribution's version, or nothing where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
