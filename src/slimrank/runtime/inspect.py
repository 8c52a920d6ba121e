"""What is in an artifact, as plain data. Everything comes from its verified files; no session, no onnx."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from slimrank.artifact import open_artifact, stored_tensors
from slimrank.runtime.golden import golden_of
from slimrank.runtime.wire import MISSING, measurable, sent


def inspect(path: str | Path) -> dict[str, Any]:
    """The schema, tensors by bytes, operators, hashes and metrics of the artifact in `path`.

    Returns:
        `path`, `digest`, `bytes` (all files), `sent` (`wire.sent`, or why it cannot be told here), `schema` and `sizes`
        (local ids by field), `tensors` (largest first: name, dtype, shape, bytes, and `share` of all tensors' bytes),
        `operators` (name -> count, most first), `files` (name -> sha256, bytes), `golden` (how many rows, or why none;
        shapes), and every other key of the manifest as it stands (inputs, outputs, recipe, metrics, ...).

    Raises:
        InputError: the artifact is damaged.
    """
    artifact = open_artifact(path)
    rest = {key: value for key, value in artifact.manifest.items() if key != "graph"}
    graph = artifact.manifest.get("graph") or {}
    rows = artifact.files.get("schema.json")  # one that is asked by tensors has none
    schema = {"schema": None, "sizes": {}} if rows is None else json.loads(rows.read_bytes())
    golden = golden_of(artifact)
    return {
        **rest,
        **({} if golden is None else {"golden": golden.short()}),
        "path": str(artifact.path),
        "bytes": sum(record["bytes"] for record in artifact.manifest["files"].values()),
        "sent": sent(artifact) if measurable() else {"none": MISSING},
        "schema": schema["schema"],
        "sizes": schema["sizes"],
        "tensors": _by_bytes(stored_tensors(artifact.manifest)),
        "operators": dict(sorted(graph.get("operators", {}).items(), key=lambda item: (-item[1], item[0]))),
    }


def _by_bytes(tensors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    total = sum(tensor["bytes"] for tensor in tensors) or 1
    ordered = sorted(tensors, key=lambda tensor: (-tensor["bytes"], tensor["name"]))
    return [{**tensor, "share": tensor["bytes"] / total} for tensor in ordered]
