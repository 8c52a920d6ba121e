"""The service under all that it may meet at once: is an answer wrong, does memory grow, does more than shedding fail.

Two workers on all processors, half an hour, at 80% of what they can do: ranking, tensors as JSON and in binary form,
malformed requests, gRPC, slow and broken clients, a new version every 20 s, a worker killed every minute. Two versions
take turns by `write_artifact` in the same place, so that a version is exchanged in one step; every answer must be what
the runtime gives for the version that the answer names. It is the youngest worker that is killed, so that the oldest
lives long enough to show a leak. Requests whose connection died are counted apart: who asked has seen that it did.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.load.figures import figures
from bench.load.malformed import malformed
from bench.load.plan import Plan
from bench.load.process import Load, load
from bench.load.requests import Request
from bench.serve_requests import artifacts_of, encoded, frappe_works, infer, ranking, same_ids, tensors
from bench.serve_servers import HOST, ROOT, Server, free_ports, ours, served
from slimrank import runtime
from slimrank.artifact import SEALED_KEYS, open_artifact, write_artifact
from slimrank.config import InputError
from slimrank.runtime import Model
from slimrank.runtime.model import sigmoid

MINUTES, WORKERS, SHARE, CONNECTIONS = 30.0, 2, 0.8, 32
RELOAD_SECONDS, KILL_SECONDS, LOOK_SECONDS = 20.0, 60.0, 5.0
GRPC_RATE = 20.0  # calls a second
WEIGHTS = {"ranking": 0.5, "infer-binary": 0.25, "infer-json": 0.15, "malformed": 0.1}
SETTLED = 0.2  # of the time, at the beginning, that no slope of memory is taken of
GOAL = {"wrong": 0, "failed": 0, "unexpected": 0, "unreadable": 0, "growth_of_the_oldest_mb": 2.0}
NAME = "frappe"
MB = 1 << 20


@dataclass
class Events:
    """What was done to the service, and what was seen of it.

    Attributes:
        server: the process that watches over the workers.
        memory: seconds since the begin, process, resident bytes.
    """

    server: int
    reloads: int = 0
    killed: list[int] = field(default_factory=list)
    memory: list[tuple[float, int, int]] = field(default_factory=list)


def soak(folder: Path, minutes: float = MINUTES) -> dict[str, Any]:
    """The figures of artifacts of two seeds of the run in `folder`, which is made where it is missing.

    Raises:
        InputError: the artifacts do not take the same tensors.
    """
    with tempfile.TemporaryDirectory() as work:
        versions = _versions(artifacts_of(folder, 2), Path(work))
        live = Path(work) / NAME
        _publish(versions[0], live)
        port, grpc_port = free_ports(2)
        with served(ours([live], port, grpc_port, WORKERS), port, grpc_port) as server:
            return _soak(server, versions, live, minutes, Path(work))


def _soak(server: Server, versions: Sequence[Path], live: Path, minutes: float, work: Path) -> dict[str, Any]:
    requests, asked = _requests(versions)
    np.savez(work / "asked.npz", **asked)
    (work / "request").write_bytes(requests[0].data)
    length = min(10.0, 6 * minutes)
    load(Plan(HOST, server.port, "", WORKERS, length), requests)  # what is done once is done
    short = Plan(HOST, server.port, "", 4 * WORKERS, length, pause=0.05)
    with _beside(server, length, work):
        full = figures(load(short, requests), short, requests)
    seconds = 60 * minutes
    plan = Plan(HOST, server.port, "", CONNECTIONS, seconds, SHARE * float(full["per_second"]) / good_share())
    with Load(plan, requests) as running, _beside(server, seconds, work) as beside:
        events = _disturb(server, running.process, versions, live, seconds)
        http = figures(running.result(), plan, requests)
        said = {name: _said(child) for name, child in beside.items()}
    return {
        "what": f"{minutes:g} minutes of mixed load on slimrank serve, {WORKERS} workers, at {SHARE:.0%} of what a "
        "closed loop reaches beside gRPC and slow clients; killed workers and reloads come on top",
        **verdict(http, said["grpc"], said["slow"], memory_of(events)),
        "reloads": events.reloads,
        "killed": len(events.killed),
        "saturation": full,
        "http": http,
        **said,
        "memory": memory_of(events),
        "weights": WEIGHTS,
        "goal": GOAL,
        "load_average": os.getloadavg()[0],
        "log": server.log.read_text(errors="replace").splitlines()[-20:],
    }


@contextmanager
def _beside(server: Server, seconds: float, work: Path) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Clients of gRPC and slow ones, for so long, and gone afterwards."""
    grpc = [str(server.grpc_port), NAME, str(seconds), str(GRPC_RATE), str(work / "asked.npz")]
    children = {
        "grpc": _child("grpc_clients", *grpc),
        "slow": _child("slow_clients", str(server.port), str(seconds), str(work / "request")),
    }
    try:
        yield children
    finally:
        for child in children.values():
            child.kill()
            child.wait()


def good_share() -> float:
    """The part of requests that is answered with 200."""
    return 1.0 - WEIGHTS["malformed"]


def _versions(artifacts: Sequence[Path], work: Path) -> list[Path]:
    """Copies of the artifacts, as they are published."""
    found = []
    for place, artifact in enumerate(artifacts):
        found.append(work / f"version-{place}")
        _publish(artifact, found[-1])
    return found


def _publish(artifact: Path, place: Path) -> None:
    """Write an artifact to a place where another may stand: exchanged in one step."""
    opened = open_artifact(artifact)
    manifest = {key: value for key, value in opened.manifest.items() if key not in SEALED_KEYS}
    write_artifact(place, opened.files, manifest)


def _requests(versions: Sequence[Path]) -> tuple[list[Request], dict[str, Any]]:
    """Everything that is asked over HTTP, and what is asked over gRPC with what must be answered."""
    loaded = [runtime.load(each) for each in versions]
    models = {each.artifact.digest: each for each in loaded}
    if len(models) != len(versions):
        raise InputError("both versions are the same; versions that answer alike prove nothing")
    works = frappe_works(loaded[0].encoding.schema.inputs)
    if not same_ids(loaded, works):
        raise InputError("the versions do not take the same tensors, so no request could be answered by either")
    kinds = {
        "ranking": ranking(models, works, NAME),
        "infer-binary": infer(models, works, NAME, "binary"),
        "infer-json": infer(models, works, NAME, "json"),
    }
    first = works[0]
    good = {"shared": first.shared, "candidates": first.candidates}
    bad = malformed(NAME, tensors(loaded[0], first)["ids"], good, WEIGHTS["malformed"])
    every = [_weighted(each, WEIGHTS[kind] / len(asked)) for kind, asked in kinds.items() for each in asked]
    return [*every, *bad], _asked(models, works)


def _weighted(request: Request, weight: float) -> Request:
    return Request(request.data, request.allowed, request.form, request.expected, weight)


def _asked(models: Mapping[str, Model], works: Sequence[Any]) -> dict[str, Any]:
    """Arrays for the clients of gRPC."""
    inputs = [[encoded(model, work) for work in works] for model in models.values()]
    scores = {
        f"expected.{digest}": np.stack([sigmoid(model.score(each)) for each in mine])
        for (digest, model), mine in zip(models.items(), inputs, strict=True)
    }
    return {"ids": np.stack([each.ids for each in inputs[0]]), **scores}


def _child(name: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"bench.load.{name}", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def _said(child: subprocess.Popen[str]) -> dict[str, Any]:
    said, _ = child.communicate()
    if child.returncode:
        raise InputError(f"{child.args!r} ended with {child.returncode}")
    found: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
    return found


def _disturb(
    server: Server, running: subprocess.Popen[str], versions: Sequence[Path], live: Path, seconds: float
) -> Events:
    """Reload, kill and look until the load is over."""
    events, begin = Events(server.process.pid), time.monotonic()
    due = {"reload": RELOAD_SECONDS, "kill": KILL_SECONDS, "look": 0.0}
    while running.poll() is None and (now := time.monotonic() - begin) < seconds:
        if now >= due["look"]:
            due["look"] += LOOK_SECONDS
            events.memory += [(round(now, 1), *each) for each in _resident(server)]
        if now >= due["reload"]:
            due["reload"] += RELOAD_SECONDS
            events.reloads += 1
            _publish(versions[events.reloads % len(versions)], live)
        if now >= due["kill"]:
            due["kill"] += KILL_SECONDS
            events.killed += _kill_the_youngest(server)
        time.sleep(min(0.25, max(0.0, min(due.values()) - (time.monotonic() - begin))))
    return events


def _workers(server: Server) -> list[Any]:
    """Processes that answer: children of the server, but those that keep books for multiprocessing."""
    import psutil

    found = []
    for child in psutil.Process(server.process.pid).children():
        try:
            if "resource_tracker" not in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return sorted(found, key=lambda child: child.create_time())


def _kill_the_youngest(server: Server) -> list[int]:
    *_, youngest = _workers(server) or [None]
    if youngest is None:
        return []
    youngest.kill()
    return [youngest.pid]


def _resident(server: Server) -> list[tuple[int, int]]:
    """Resident bytes of the server and its workers, by process."""
    import psutil

    found = []
    for process in (psutil.Process(server.process.pid), *_workers(server)):
        try:
            found.append((process.pid, process.memory_info().rss))
        except psutil.Error:
            continue
    return found


def memory_of(events: Events) -> dict[str, Any]:
    """By process that was seen ten times: first and last megabytes, and growth by the hour once it has settled.

    Settled is after a fifth of the time that it was seen; the ends are medians of five looks, the slope is Theil and
    Sen's, the median of the slopes of all pairs.
    """
    found = {}
    for pid in dict.fromkeys(pid for _, pid, _ in events.memory):
        seen = np.array([(when, bytes_) for when, who, bytes_ in events.memory if who == pid], np.float64)
        if len(seen) < 10:
            continue
        settled = seen[int(SETTLED * len(seen)) :]
        pairs = [(a, b) for a in range(len(settled)) for b in range(a)]
        chosen = pairs if len(pairs) <= 50_000 else random.Random(0).sample(pairs, 50_000)
        slopes = [(settled[a, 1] - settled[b, 1]) / (settled[a, 0] - settled[b, 0]) for a, b in chosen]
        found[str(pid)] = {
            "role": "server" if pid == events.server else "worker",
            "seconds": float(seen[-1, 0] - seen[0, 0]),
            "looks": len(seen),
            "first_mb": round(median(settled[:5, 1]) / MB, 2),
            "last_mb": round(median(settled[-5:, 1]) / MB, 2),
            "peak_mb": round(float(seen[:, 1].max()) / MB, 2),
            "growth_mb_per_hour": round(3600 * median(slopes) / MB, 3),
        }
    return found


def verdict(
    http: Mapping[str, Any], grpc: Mapping[str, Any], slow: Mapping[str, int], memory: Mapping[str, Any]
) -> dict[str, Any]:
    """The figures that the goal is about.

    `failed` counts 5xx other than 503 over HTTP, and INTERNAL or UNKNOWN over gRPC; `unsent` what found no free
    connection in time, because the service was slower than the load.
    """
    statuses = {key: count for key, count in http["statuses"].items() if key.isdecimal()}
    slow_statuses = {key.rpartition(": ")[2]: count for key, count in slow.items()}
    failed = sum(count for each in (statuses, slow_statuses) for key, count in each.items() if _failure(key))
    failed += sum(count for end, count in grpc["calls"].items() if "INTERNAL" in end or "UNKNOWN" in end)
    workers = [each for each in memory.values() if each["role"] == "worker"]
    oldest = max(workers, key=lambda each: float(each["seconds"]), default=None)
    return {
        "right": http["right"] + grpc["calls"].get("right", 0),
        "wrong": http["wrong"] + grpc["calls"].get("wrong", 0),
        "failed": failed,
        "unexpected": http["unexpected"],
        "shed": statuses.get("503", 0),
        "unsent": http["statuses"].get("no_connection", 0),
        "unreadable": http["statuses"].get("unreadable", 0),
        "died_with_a_worker": http["statuses"].get("reset", 0),
        "growth_of_the_oldest_mb": oldest and round(oldest["last_mb"] - oldest["first_mb"], 2),
    }


def _failure(status: str) -> bool:
    return status.isdecimal() and status.startswith("5") and status != "503"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description="The soak, shorter than half an hour.")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    options = parser.parse_args()
    print(json.dumps(soak(options.runs / "frappe", options.minutes), indent=1))
