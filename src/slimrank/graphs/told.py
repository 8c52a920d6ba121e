"""Steps on graphs as the command line takes them, and what it says of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from slimrank.config import InputError, read_named


def asked_steps(words: Sequence[str] | None, bits: int | None) -> list[dict[str, Any]]:
    """The steps that `--step` names, or tables of `bits` bits (8 if None) and dense layers of int8.

    Raises:
        InputError: both are given, or a step is not NAME or NAME:KEY=VALUE,..
    """
    if words and bits is not None:
        raise InputError("--bits is that of tables where no --step is given: say --step quantize-tables:bits=N")
    if words:
        return [read_named(each, "--step") for each in words]
    return [{"name": "quantize-tables"} | ({} if bits is None else {"bits": bits}), {"name": "quantize-dense"}]


def told(result: dict[str, Any], out: Path) -> Iterator[str]:
    """What `compress_graph` did, in lines."""
    if result["converted"]:
        yield f"converted: {result['converted']}"
    yield from (f"rewritten {what}" for what in result["rewritten"])
    for record in result["steps"]:
        share = record["facts"]["percent_touched"]
        yield f"{record['name']}: {record['bytes_before']:,} bytes to {record['bytes_after']:,}, touched {share:.1f}%"
        yield from (f"  touched {what}" for what in record["touched"])
        yield from (f"  skipped {each['name']}: {each['reason']}" for each in record["skipped"])
        facts = {name: value for name, value in record["facts"].items() if name != "percent_touched"}
        yield from (f"  {name} {value:.4g}" for name, value in facts.items())
    yield from (f"left {name}: {why}" for name, why in result["left"].items())
    if result["agreement"] is not None:
        yield from (f"output {name}: {_agreement(value)}" for name, value in result["agreement"].items())
    before, after = result["bytes_before"], result["bytes_after"]
    yield f"touched {result['percent_touched']:.1f}% of the bytes of all constants"
    yield f"{out}: {before:,} bytes to {after:,}, {before / after:.1f}x smaller"


def _agreement(value: Mapping[str, float]) -> str:
    if "equal" in value:
        return f"{100 * value['equal']:.2f}% as before"
    return f"{value['decibels']:.1f} dB over its change"
