"""The model card: what a person needs to know who finds the artifact in a directory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slimrank.artifact import stored_tensors
from slimrank.data.encoding import Encoding

ANSWERS = {
    "click": "It answers with the logit of a click for every row;\nthe probability is 1 / (1 + exp(-logit)).",
    "relevance": "It answers with a score for every document,\nby which the documents of a query are ordered.",
    "item": "It answers with the first items of its catalogue\nfor every query.",
    "vector": "It answers with a vector for every row, to be compared\nby products with those of an index.",
}


def answer_of(manifest: Mapping[str, Any], encoding: Encoding) -> str:
    """What the artifact answers with, by the graph's outputs and the schema."""
    outputs = {each["name"] for each in manifest.get("outputs", [])}
    vectors_alone = "vector" in outputs and encoding.schema.catalogue is None
    return "vector" if vectors_alone else encoding.schema.answer


def model_card(manifest: Mapping[str, Any], encoding: Encoding) -> str:
    """The artifact's README.md, from its manifest and its encoding."""
    fields = "\n".join(
        f"| {each.name} | {each.kind} | {encoding.sizes.get(each.name, 1):,} |" for each in encoding.schema.fields
    )
    stored = sum(tensor["bytes"] for tensor in stored_tensors(manifest))
    origin = "\n".join(
        f"- {key.replace('_', ' ')}: {manifest[key]}" for key in ("data", "data_fingerprint", "seed") if key in manifest
    )
    quality = manifest.get("metrics", {}).get("quality", {})
    figures = "\n".join(f"- {key.replace('_', ' ')}: {value:.4f}" for key, value in quality.items())
    measured = f"\nOn test rows that took no part in any choice:\n\n{figures}\n" if figures else ""
    return f"""# {manifest.get("name", "model")}

A ranking model packed by slimrank: {stored:,} bytes of tensors. {ANSWERS[answer_of(manifest, encoding)]}

    slimrank predict . ROWS.parquet
    slimrank inspect .

{origin}
{measured}
| field | kind | ids |
|---|---|---|
{fields}

Ids that the vocabulary does not hold count as out of vocabulary. The model ranks rows like those it was trained on;
what it says of others is a guess. `manifest.json` holds the recipe, the versions and the sha256 of every file.
"""


def module_card(manifest: Mapping[str, Any]) -> str:
    """The README.md of an artifact that is asked by tensors, from its manifest."""
    stored = sum(tensor["bytes"] for tensor in stored_tensors(manifest))
    rows = "\n".join(
        f"| {each['name']} | {side} | {each['dtype']} | {each['shape']} |"
        for side in ("inputs", "outputs")
        for each in manifest[side]
    )
    return f"""# {manifest.get("name", "model")}

A model packed by slimrank: {stored:,} bytes of tensors. It is asked by tensors:

    slimrank.load_graph(".").run({{name: array, ...}})
    slimrank inspect .

| tensor | side | type | shape |
|---|---|---|---|
{rows}

Ids beyond the rows of their table are refused. `manifest.json` holds the sha256 of every file.
"""
