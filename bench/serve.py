"""The service on Frappe: end to end beside the runtime alone, 256 candidates a request, and where the time goes.

One worker on one processor, the generator on another. Saturation is the best closed loop of 1 to 32 clients; below it,
requests come at the times of a Poisson process over at most 32 connections, and a latency begins when its request is
due. The runtime alone is timed on the server's processor before each stretch, while the server is idle: call after
call, which is what the goal is about, and at the rate of the load, when the processor sleeps between calls. So is
uvicorn with an application of no more than an answer.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from bench.load.figures import figures
from bench.load.plan import Plan
from bench.load.process import load
from bench.load.requests import Request
from bench.serve_bare import bare
from bench.serve_requests import CANDIDATES, artifacts_of, frappe_works, infer, ranking
from bench.serve_servers import HOST, Server, cores, free_ports, machine_of_load, ours, served
from slimrank import runtime
from slimrank.config import InputError

CLIENTS = 32
CLOSED = (1, 4, 8, 16, 32)  # clients of closed loops: of more than may wait some are shed, and come back at once
SHARES = (0.2, 0.4, 0.6, 0.8)  # of saturation
JUDGED = 0.4
TURNS, SECONDS, WARM_UP, SAMPLES = 3, 8.0, 1.0, 300
BARE = {"ranking": "columns", "infer-binary": "tensors"}  # what each kind of request is held against
GOAL = {"p50_over_bare": 2.0, "p99_over_bare": 5.0, "at": JUDGED}
NAME = "frappe"
Figures = dict[str, Any]


def serve(folder: Path, turns: int = TURNS, seconds: float = SECONDS) -> Figures:
    """The figures of the first seed's artifact in the run in `folder`, which is made where it is missing."""
    (artifact,) = artifacts_of(folder)
    with our_service(artifact) as server, nothing() as floor:
        requests = requests_of(artifact)
        found = [_turn(server, floor, artifact, requests, seconds) for _ in range(turns)]
    return {
        "what": f"slimrank serve of Frappe's artifact, {CANDIDATES} candidates a request, one worker on one processor: "
        f"{CLIENTS} clients at shares of saturation, beside the runtime alone",
        **{kind: summary([turn[kind] for turn in found]) for kind in BARE},
        "goal": GOAL,
        **machine_of_load(),
        "runs": found,
    }


def requests_of(artifact: Path) -> dict[str, list[Request]]:
    """Requests by kind, each with the scores that the runtime gives."""
    model = runtime.load(artifact)
    works, models = frappe_works(model.encoding.schema.inputs), {model.artifact.digest: model}
    return {"ranking": ranking(models, works, NAME), "infer-binary": infer(models, works, NAME, "binary")}


@contextmanager
def our_service(artifact: Path) -> Iterator[Server]:
    """Our service over a copy of an artifact that is called as the model is: one worker, on the servers' processor."""
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory() as work:
        copy = Path(work) / NAME
        shutil.copytree(artifact, copy)
        with served(ours([copy], port), port, cores=cores()[0]) as server:
            yield server


@contextmanager
def nothing() -> Iterator[Server]:
    """uvicorn with an application that answers at once, on the servers' processor."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "uvicorn", "bench.serve_floor:answer", "--port", str(port), "--no-access-log"]
    with served(command, port, cores=cores()[0]) as server:
        yield server


def stretch(server: Server, requests: Sequence[Request], **given: Any) -> Figures:
    """A stretch of load on a server, and its figures.

    Raises:
        InputError: no request was answered, so that there are none.
    """
    told: dict[str, Any] = {"connections": CLIENTS, "seconds": SECONDS, "core": cores()[1], **given}
    plan = Plan(HOST, server.port, "", warm_up=min(WARM_UP, told["seconds"] / 4), **told)
    found = figures(load(plan, requests), plan, requests)
    if not found["latency_ms"]["count"]:
        raise InputError(f"no request was answered: {found['statuses']}, {server.log.read_text()[-400:]}")
    return found


def saturation(server: Server, requests: Sequence[Request], seconds: float) -> Figures:
    """The closed loop that answers the most a second, once what is done at the first requests is done."""
    load(Plan(HOST, server.port, "", 1, max(2.0, seconds / 4), core=cores()[1]), requests)
    every = [stretch(server, requests, connections=clients, seconds=seconds) for clients in CLOSED]
    return max(every, key=lambda each: float(each["per_second"]))


def _turn(
    server: Server, floor: Server, artifact: Path, requests: Mapping[str, Sequence[Request]], seconds: float
) -> Figures:
    """Each kind of request at saturation and below it, every stretch beside the runtime alone and the floor."""
    core, found = min(cores()[0]), {}
    for kind, asked in requests.items():
        closed = saturation(server, asked, seconds / 2)
        unchecked = [replace(each, expected={}) for each in asked]
        below = {}
        for share in SHARES:
            rate = share * closed["per_second"]
            beside = {
                "bare_ms": bare(artifact, core, SAMPLES)[BARE[kind]],
                "bare_at_rate_ms": bare(artifact, core, SAMPLES, rate)[BARE[kind]],
                "floor": stretch(floor, unchecked, seconds=seconds / 4, rate=rate),
            }
            before = stages(server)
            at_share = stretch(server, asked, seconds=seconds, rate=rate)
            below[f"{share:.0%}"] = {**at_share, **beside, "stages_us": spent(before, stages(server))}
        found[kind] = {"closed": closed, "open": below}
    return found


def summary(turns: Sequence[Figures]) -> Figures:
    """Medians over turns of one kind of request; ratios are to the runtime beside each stretch."""

    def over(share: str, name: str, bare: str = "bare_ms") -> float:
        every = (turn["open"][share] for turn in turns)
        return float(median(each["latency_ms"][name] / each[bare]["p50"] for each in every))

    shares = [each for turn in turns for each in turn["open"].values()]
    every = [*(turn["closed"] for turn in turns), *shares, *(each["floor"] for each in shares)]
    return {
        "saturation_per_second": median(turn["closed"]["per_second"] for turn in turns),
        "bare_p50_ms": _by_share(turns, lambda each: each["bare_ms"]["p50"]),
        "bare_at_rate_p50_ms": _by_share(turns, lambda each: each["bare_at_rate_ms"]["p50"]),
        "floor_p50_ms": _by_share(turns, lambda each: each["floor"]["latency_ms"]["p50"]),
        "p50_ms": _by_share(turns, lambda each: each["latency_ms"]["p50"]),
        "p99_ms": _by_share(turns, lambda each: each["latency_ms"]["p99"]),
        "p50_over_bare": {share: over(share, "p50") for share in turns[0]["open"]},
        "p99_over_bare": {share: over(share, "p99") for share in turns[0]["open"]},
        "p50_over_bare_at_rate": {share: over(share, "p50", "bare_at_rate_ms") for share in turns[0]["open"]},
        "p99_over_bare_at_rate": {share: over(share, "p99", "bare_at_rate_ms") for share in turns[0]["open"]},
        "overhead_ms": _by_share(turns, lambda each: each["latency_ms"]["p50"] - each["bare_ms"]["p50"]),
        "overhead_at_rate_ms": _by_share(
            turns, lambda each: each["latency_ms"]["p50"] - each["bare_at_rate_ms"]["p50"]
        ),
        "stages_us": _stages(turns),
        **sound(every),
    }


def sound(stretches: Sequence[Figures]) -> Figures:
    """What was wrong in any of them, and how busy the generator was at most."""
    return {
        "right": sum(each["right"] for each in stretches),
        "wrong": sum(each["wrong"] for each in stretches),
        "unexpected": sum(each["unexpected"] for each in stretches),
        "generator_share_max": max(each["processor_share"] for each in stretches),
    }


def _by_share(turns: Sequence[Figures], read: Any) -> dict[str, float]:
    return {share: median(read(turn["open"][share]) for turn in turns) for share in turns[0]["open"]}


def _stages(turns: Sequence[Figures]) -> dict[str, float]:
    """Mean microseconds of every stage at the load that is judged."""
    told = [turn["open"][f"{JUDGED:.0%}"]["stages_us"] for turn in turns]
    return {stage: median(each[stage] for each in told) for stage in told[0] if all(stage in each for each in told)}


Counted = dict[str, tuple[float, float]]


def stages(server: Server) -> Counted:
    """By stage of a request, seconds and how many so far; `whole` is a request from its first byte to its answer."""
    from prometheus_client.parser import text_string_to_metric_families

    status, text = server.get("/metrics")
    if status != 200:
        return {}
    found: dict[str, list[float]] = {}
    for family in text_string_to_metric_families(text.decode()):
        if family.name not in ("slimrank_stage_seconds", "slimrank_request_seconds"):
            continue
        for sample in family.samples:
            place = {"_sum": 0, "_count": 1}.get(sample.name.removeprefix(family.name))
            if place is not None:
                found.setdefault(sample.labels.get("stage", "whole"), [0.0, 0.0])[place] += sample.value
    return {stage: (total, count) for stage, (total, count) in found.items()}


def spent(before: Counted, after: Counted) -> dict[str, float]:
    """Mean microseconds of every stage between two looks."""
    found = {}
    for stage, (total, count) in after.items():
        earlier = before.get(stage, (0.0, 0.0))
        if count > earlier[1]:
            found[stage] = round(1e6 * (total - earlier[0]) / (count - earlier[1]), 2)
    return found


if __name__ == "__main__":
    print(json.dumps(serve(Path(sys.argv[1]), turns=1, seconds=float(sys.argv[2])), indent=1))
