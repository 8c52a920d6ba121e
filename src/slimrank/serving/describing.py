"""What a service says of its models in the words of Triton's protocol: configuration, repository, statistics."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from slimrank.serving.protocol import DATATYPES, sizes_of
from slimrank.serving.repository import Model, Repository
from slimrank.serving.served import Served
from slimrank.serving.service import Service

PARTS = {
    "queue": ("wait", "queue"),
    "compute_input": ("parse", "encode"),
    "compute_infer": ("run",),
    "compute_output": ("reply",),
}


def config_of(name: str, served: Served) -> dict[str, Any]:
    """A model's configuration (ModelConfig of Triton's model_config.proto, as JSON); all sizes are told, rows too."""
    ends = {
        side: [
            {"name": spec.name, "data_type": f"TYPE_{DATATYPES[spec.dtype.name]}", "dims": sizes_of(spec)}
            for spec in specs.values()
        ]
        for side, specs in (("input", served.inputs), ("output", served.outputs))
    }
    return {"name": name, "platform": "onnxruntime_onnx", "backend": "onnxruntime", "max_batch_size": 0, **ends}


def index_of(repository: Repository, *, only_ready: bool = False) -> list[dict[str, str]]:
    """Every version of every model, and why one is not loaded."""
    found = [entry for model in repository for entry in _entries(model)]
    return [each for each in found if each["state"] == "READY" or not only_ready]


def _entries(model: Model) -> list[dict[str, str]]:
    name = model.settings.name
    if not model.ready:
        return [{"name": name, "version": "", "state": "UNAVAILABLE", "reason": model.reason}]
    return [{"name": name, "version": each.name, "state": "READY", "reason": model.reason} for each in model.versions]


def statistics_of(service: Service, name: str = "", version: str = "") -> list[dict[str, Any]]:
    """What each version has answered since the service started, in all workers, as Triton's statistics extension."""
    values: dict[tuple[str, str], dict[tuple[str, str], float]] = defaultdict(lambda: defaultdict(float))
    answering = {model.settings.name: [each.name for each in model.versions] for model in service.repository}
    for metric in service.metrics.together().collect():
        for sample in metric.samples:
            labels = sample.labels
            model, stage = labels.get("model", ""), labels.get("stage", labels.get("code", ""))
            if model in answering and "version" in labels:
                # Who asked for a version that there is none of, or for none that could be chosen, has failed as well.
                own = labels["version"] or next(iter(answering[model]), "")
                values[model, own][sample.name, stage] += sample.value
    keys = {*values, *((model, each) for model, versions in answering.items() for each in versions)}
    wanted = [key for key in keys if key[0] == (name or key[0]) and key[1] == (version or key[1]) and key[1]]
    return [_statistics(*key, values[key]) for key in sorted(wanted)]


def _statistics(name: str, version: str, values: dict[tuple[str, str], float]) -> dict[str, Any]:
    def of(*stages: str) -> dict[str, int]:
        counts = [int(values["slimrank_stage_seconds_count", each]) for each in stages]
        return {"count": max(counts), "ns": _ns(sum(values["slimrank_stage_seconds_sum", each] for each in stages))}

    answered = int(values["slimrank_requests_total", "ok"])
    failed = sum(
        int(count) for (metric, code), count in values.items() if metric == "slimrank_requests_total" and code != "ok"
    )
    whole = _ns(sum(taken for (metric, _), taken in values.items() if metric == "slimrank_stage_seconds_sum"))
    parts = {part: of(*stages) for part, stages in PARTS.items()}
    return {
        "name": name,
        "version": version,
        "inference_count": int(values["slimrank_batch_rows_sum", ""]),
        "execution_count": int(values["slimrank_batch_rows_count", ""]),
        "inference_stats": {"success": {"count": answered, "ns": whole}, "fail": {"count": failed, "ns": 0}, **parts},
        "batch_stats": [],
    }


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
