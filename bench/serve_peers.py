"""The same ONNX file behind kserve, MLServer, LitServe and Triton, beside ours: requests a second at equal p99.

Every server has one processor and the generator another; servers take turns, each started for its turn. Requests are
256 encoded rows. What is looked for is the highest rate of a Poisson process whose p99, from when a request was due, is
within a bound that is the same for all, and all of whose requests are answered: bisection below what closed loops
reach. A peer is taken in its best form, and ours is compared in the same codec as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.load.requests import Request
from bench.serve import CLIENTS, NAME, Figures, our_service, saturation, sound, stretch
from bench.serve_requests import CANDIDATES, artifacts_of, frappe_works, infer
from bench.serve_servers import Server, cores, free_ports, machine_of_load, peer, served
from slimrank import runtime
from slimrank.config import InputError

P99_MS = 25.0  # the bound: some ten of the slowest peer's requests, one after the other
TURNS, SECONDS, STEPS = 3, 3.0, 5
GOAL = {"ratio_to_each_peer": 2.0}
NOT_THERE = {
    "triton with its ONNX Runtime backend": "not on PyPI (tritonserver, tritonfrontend, triton-python-backend: no "
    "distribution); nvidia-pytriton, which has Triton's server and its Python backend alone, is measured in its place"
}


@dataclass(frozen=True)
class Case:
    """A server and how it is asked.

    Attributes:
        peer: whose, "" is ours.
        codec: how tensors are sent, a key of `bench.serve_requests.CODECS`.
        same: the codec in which ours is held against it beside ours' best.
        more: arguments of its script, after the port.
    """

    peer: str
    codec: str
    same: str
    more: tuple[str, ...] = ()
    ready: str = "/v2/health/ready"

    def open(self, artifact: Path) -> AbstractContextManager[Server]:
        """The server, started."""
        if not self.peer:
            return our_service(artifact)
        port, grpc_port = free_ports(2)
        more = [str(grpc_port) if each == "GRPC_PORT" else each for each in self.more]
        command = peer(self.peer, artifact / "model.onnx", NAME, port, *more)
        return served(command, port, cores=cores()[0], ready=self.ready)


CASES = {
    "ours, binary": Case("", "binary", "binary"),
    "ours, json": Case("", "json", "json"),
    "kserve, binary": Case("kserve", "binary", "binary"),
    "kserve, json": Case("kserve", "json", "json"),
    "mlserver, json": Case("mlserver", "json", "json", ("GRPC_PORT",)),
    "mlserver, json, adaptive batching": Case("mlserver", "json", "json", ("GRPC_PORT", str(4 * CANDIDATES))),
    "pytriton, binary": Case("pytriton", "binary", "binary", ("GRPC_PORT",), f"/v2/models/{NAME}/ready"),
    "pytriton, json": Case("pytriton", "json", "json", ("GRPC_PORT",), f"/v2/models/{NAME}/ready"),
    "litserve, json": Case("litserve", "json", "json", ("json",), "/health"),
    "litserve, raw bytes": Case("litserve", "raw", "binary", ("raw",), "/health"),
    "litserve, raw bytes, batches": Case("litserve", "raw", "binary", ("raw", "4"), "/health"),
}
OURS = {case.codec: name for name, case in CASES.items() if not case.peer}


def serve_peers(folder: Path, turns: int = TURNS, seconds: float = SECONDS) -> Figures:
    """Figures of every server, and ratios of ours to each peer; a peer whose environment is missing is told so."""
    (artifact,) = artifacts_of(folder)
    model = runtime.load(artifact)
    works = frappe_works(model.encoding.schema.inputs)
    requests = {codec: infer({"": model}, works, NAME, codec) for codec in ("binary", "json", "raw")}
    found: dict[str, list[Figures]] = {name: [] for name in CASES}
    missing: dict[str, str] = dict(NOT_THERE)
    for turn in range(turns):
        for name in list(CASES) if turn % 2 == 0 else list(reversed(CASES)):
            case = CASES[name]
            if name in missing:
                continue
            try:
                server = case.open(artifact)
            except InputError as error:
                missing[name] = str(error)
                continue
            with server as opened:
                found[name].append(_highest_rate(opened, requests[case.codec], seconds))
    kept = {name: each for name, each in found.items() if each}
    return {
        "what": f"the ONNX file of Frappe's artifact behind Python servers, {CANDIDATES} rows a request, one processor "
        f"each: the highest rate whose p99 is within {P99_MS:g} ms",
        "p99_bound_ms": P99_MS,
        "servers": {name: summary(each) for name, each in kept.items()},
        **ratios(kept),
        "not_measured": missing,
        "goal": GOAL,
        **machine_of_load(),
        "runs": kept,
    }


def _highest_rate(server: Server, requests: Sequence[Request], seconds: float) -> Figures:
    """Bisection for the rate; the last that held is what is told, 0 requests a second where none did."""
    closed = saturation(server, requests, seconds)
    low, high = 0.0, float(closed["per_second"])
    tried, best = [], None
    for step in range(STEPS):
        rate = 0.8 * high if step == 0 else (low + high) / 2
        one = stretch(server, requests, connections=CLIENTS, seconds=seconds, rate=rate, seed=step)
        tried.append(one)
        if holds(one):
            low, best = rate, one
        else:
            high = rate
    return {
        "closed": closed,
        "per_second": low,
        "p50_ms": best and best["latency_ms"]["p50"],
        "p99_ms": best and best["latency_ms"]["p99"],
        **sound([closed, *tried]),
        "tried": tried,
    }


def holds(one: Figures) -> bool:
    """Whether a stretch stayed within the bound, with every request answered."""
    return set(one["statuses"]) == {"200"} and bool(one["latency_ms"]["p99"] <= P99_MS)


def summary(turns: Sequence[Figures]) -> Figures:
    """Medians over turns."""
    held = [turn for turn in turns if turn["p99_ms"] is not None]
    return {
        "per_second": median(turn["per_second"] for turn in turns),
        "p50_ms": median(turn["p50_ms"] for turn in held) if held else None,
        "p99_ms": median(turn["p99_ms"] for turn in held) if held else None,
        "saturation_per_second": median(turn["closed"]["per_second"] for turn in turns),
        "wrong": sum(turn["wrong"] for turn in turns),
        "generator_share_max": max(turn["generator_share_max"] for turn in turns),
    }


def ratios(found: dict[str, list[Figures]]) -> dict[str, Any]:
    """Medians over turns of ours / peer, ours in the peer's codec and in its best one."""

    def over(mine: str, theirs: str) -> float | None:
        pairs = zip(found[mine], found[theirs], strict=False)
        each = [ours["per_second"] / other["per_second"] for ours, other in pairs if other["per_second"]]
        return median(each) if each else None

    peers = [name for name in found if CASES[name].peer]
    best = max(OURS.values(), key=lambda name: summary(found[name])["per_second"])
    forms: dict[str, list[str]] = {}
    for name in peers:
        forms.setdefault(CASES[name].peer, []).append(name)
    tops = [max(names, key=lambda name: summary(found[name])["per_second"]) for names in forms.values()]
    return {
        "ratio_in_the_same_codec": {name: over(OURS[CASES[name].same], name) for name in peers},
        "ratio_of_the_best_forms": {name: over(best, name) for name in tops},
    }
