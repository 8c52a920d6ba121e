"""General tuners on a teacher of ours, led by the goal of a search of ours. Runs in its own environment.

    python -m bench.peers.tuning FOLDER MINUTES

Reads the teacher of a finished search directory and lets each peer look, for MINUTES at most, for the smallest file
within the search's limit of lost AUC: ONNX Runtime's own quantisers and Olive on the teacher's ONNX file, torchao on
its torch module. They calibrate on train rows and are led by the rows that led the search. Of what a peer tried, the
smallest within the limit is scored on test rows and timed in turns with the teacher. Prints JSON, a record a peer.
Left out: retraining, which none of the peers does by itself.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime import quantization as ort
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

from bench.ladder.points import graph_bytes
from bench.peers.compressors import saved_bytes, teacher_of
from bench.shipped import SIZES, ratios
from slimrank import runtime
from slimrank.config import InputError
from slimrank.data.encoding import Inputs
from slimrank.evaluation.cost import latency
from slimrank.metrics import auc
from slimrank.models.layers import MLP, Ranker
from slimrank.pipeline.search import margin_of
from slimrank.pipeline.trials import ARTIFACT, Trials
from slimrank.pipeline.worker import ASKED
from slimrank.recipe import read_recipe
from slimrank.searching.search import read_search

CALIBRATION_ROWS = 2048
BATCH = 4096  # rows at a time that Olive scores
REPETITIONS = 3  # of the turns of the latency
OPERATORS = (None, ["Gather"], ["Gemm", "MatMul"])  # None: all that a quantiser knows

Make = Callable[[], tuple[Any, int]]  # compresses the teacher: a session, or what is asked like one, and file bytes


@dataclass(frozen=True)
class Task:
    """What every peer is given: `limit` is the AUC that may be lost, `seconds` are each peer's own."""

    trials: Trials
    teacher: runtime.Model
    limit: float
    seconds: float
    folder: Path

    @property
    def graph(self) -> Path:
        """The teacher's ONNX file."""
        return self.trials.teacher / ARTIFACT / "model.onnx"

    @cached_property
    def rows(self) -> dict[str, tuple[Inputs, NDArray[Any]]]:
        """Encoded rows and labels: `search` to tune on, `test` for what a peer chose."""
        name = self.trials.halves[0].schema.label
        frames = {part: self.trials.rows[part] for part in ("search", "test")}
        return {part: (self.teacher.encoding.encode(rows), rows[name].to_numpy()) for part, rows in frames.items()}

    @cached_property
    def calibration(self) -> Inputs:
        """Train rows, drawn at random."""
        rows = self.trials.halves[0].train
        return self.teacher.encoding.encode(rows.sample(min(CALIBRATION_ROWS, len(rows)), seed=0))

    @cached_property
    def teacher_auc(self) -> dict[str, float]:
        """By part of the rows."""
        return {part: self.auc(self.teacher.session, part) for part in self.rows}

    def auc(self, session: Any, part: str) -> float:
        """AUC of a session's logits on a part of the rows."""
        inputs, label = self.rows[part]
        return auc(label, session.run(None, feeds(session, inputs))[0])

    def drop(self, session: Any, part: str) -> float:
        """The teacher's AUC less the session's."""
        return self.teacher_auc[part] - self.auc(session, part)


@dataclass(frozen=True)
class Candidate:
    """One setting of a peer, its bytes and the AUC that it loses on search rows, or the words with which it failed."""

    settings: dict[str, Any]
    make: Make
    bytes: int = 0
    drop: float = math.inf
    failed: str = ""


def feeds(session: Any, inputs: Inputs) -> dict[str, NDArray[Any]]:
    """Those of the rows' arrays that a session takes."""
    return {each.name: getattr(inputs, each.name) for each in session.get_inputs()}


def open_graph(path: Path) -> tuple[Any, int]:
    """A session of one thread over `model.onnx` in a folder of its own, and the bytes of graph and weights."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session, graph_bytes(path.parent)


def measured(task: Task, attempts: Iterable[tuple[dict[str, Any], Make]]) -> Iterator[Candidate]:
    """What the attempts come to, one after the other, until the task's time is up."""
    until = time.monotonic() + task.seconds
    for settings, make in attempts:
        try:
            session, size = make()
            yield Candidate(settings, make, size, task.drop(session, "search"))
        except Exception as error:  # a setting that does not work here is a finding
            yield Candidate(settings, make, failed=reason(error))
        if time.monotonic() > until:
            return


def reason(error: Exception) -> str:
    """The first line of an error."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:160]


class OneBatch(ort.CalibrationDataReader):  # type: ignore[misc]
    """All calibration rows at once."""

    def __init__(self, batch: dict[str, NDArray[Any]]):
        self.batches = iter((batch, None))

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """The rows, then None."""
        return next(self.batches)


def onnxruntime_quantisers(task: Task) -> Iterator[Candidate]:
    """`quantize_static` (QDQ, U8S8, a scale a channel) and `quantize_dynamic`, of all operators or of some."""
    source, batch = str(task.folder / "prepared.onnx"), feeds(task.teacher.session, task.calibration)
    quant_pre_process(str(task.graph), source)
    signed, unsigned = ort.QuantType.QInt8, ort.QuantType.QUInt8
    u8s8 = {"quant_format": ort.QuantFormat.QDQ, "activation_type": unsigned, "weight_type": signed}

    def quantize_static(*files: str, **settings: Any) -> None:
        ort.quantize_static(*files, OneBatch(batch), **settings)

    def make(work: Callable[..., None], settings: dict[str, Any]) -> tuple[Any, int]:
        target = Path(tempfile.mkdtemp(dir=task.folder)) / "model.onnx"
        work(source, str(target), **settings)
        return open_graph(target)

    choices = [
        (quantize_static, {"op_types_to_quantize": names, "calibrate_method": method, "per_channel": True, **u8s8})
        for names, method in product(OPERATORS, list(ort.CalibrationMethod)[:3])
    ] + [
        (ort.quantize_dynamic, {"op_types_to_quantize": names, "weight_type": kind, "per_channel": by_channel})
        for names, kind, by_channel in product(OPERATORS, (signed, unsigned), (True, False))
    ]
    attempts = (({"by": work.__name__, **asked}, partial(make, work, asked)) for work, asked in choices)
    return measured(task, attempts)


@dataclass(frozen=True)
class TorchSession:
    """A torch module, eager, that is asked as a session is."""

    model: Ranker

    def get_inputs(self) -> list[Any]:
        """What has the names of the inputs."""
        names = ("ids", "numbers") if self.model.embedding.layout.numbers else ("ids",)
        return [SimpleNamespace(name=name) for name in names]

    @torch.inference_mode()
    def run(self, _: None, rows: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The logits [N]."""
        return [self.model(**{name: torch.from_numpy(array) for name, array in rows.items()}).numpy()]


def torch_teacher(task: Task) -> Ranker:
    """The teacher with plain embeddings, its batch normalisation folded into the layers as in the ONNX file."""
    model = teacher_of(task.trials.run, task.trials.seed)
    for module in model.modules():
        if isinstance(module, MLP):
            module.fold_norms()
    return model


def torchao(task: Task) -> Iterator[Candidate]:
    """The integers that torchao documents for tables and for linear layers on a CPU; it has 4 bits in whole bytes."""
    from torchao import quantization as ao
    from torchao.prototype.quantization.int4.inference_workflow import PrototypeInt4WeightOnlyConfig
    from torchao.quantization.granularity import PerAxis

    def make(layers: Any, tables: Any) -> tuple[Any, int]:
        model = torch_teacher(task)
        ao.quantize_(model, layers, filter_fn=lambda module, _: isinstance(module, nn.Linear))
        ao.quantize_(model, tables, filter_fn=lambda module, _: isinstance(module, nn.Embedding))
        return TorchSession(model), saved_bytes(model)

    kinds = product((torch.int8, torch.int4), (torch.float16, torch.float32))
    tables = [ao.IntxWeightOnlyConfig(weight, PerAxis(0), scale_dtype=scale) for weight, scale in kinds]
    layers = [
        *tables,
        ao.Int8WeightOnlyConfig(),
        ao.Int8DynamicActivationInt8WeightConfig(),
        ao.Int8DynamicActivationIntxWeightConfig(torch.int4, PerAxis(0)),
        ao.Int4WeightOnlyConfig(group_size=32),
        PrototypeInt4WeightOnlyConfig(group_size=32),
    ]
    timed = "the eager torch module; the ONNX file that torch makes of it has its weights in floats again"
    pairs = product(tables, layers)
    attempts = (({"layers": one, "tables": other, "timed": timed}, partial(make, one, other)) for other, one in pairs)
    return measured(task, attempts)


def olive_passes() -> list[dict[str, Any]]:
    """Olive's quantisers for CPUs; what is not said here is at the values that Olive itself searches over.

    Of `OnnxBlockWiseRtnQuantization` 2 bits end the process, and of its accuracy levels 4 is the one for CPUs.
    """

    def any_of(*values: Any) -> dict[str, Any]:
        return {"olive_parameter_type": "SearchParameter", "type": "Categorical", "support": list(values)}

    operators = any_of(*OPERATORS, ["Gather", "Gemm", "MatMul"])
    blocks = {"bits": any_of(4, 8), "block_size": any_of(16, 32, 64, 128), "accuracy_level": 4}
    return [
        {"type": "OnnxBlockWiseRtnQuantization", "is_symmetric": any_of(True, False), **blocks},
        {"type": "OnnxKQuantQuantization", **blocks},
        {"type": "OnnxDynamicQuantization", "op_types_to_quantize": operators},
        {"type": "OnnxStaticQuantization", "op_types_to_quantize": operators, "data_config": "calibration"},
    ]


# Olive 0.13 searches over one pass alone: its Optuna samplers forget which of several passes a point is of, and a
# candidate that shares its first pass with an earlier one fails. So each quantiser gets a search of its own, and what
# knows only MatMul starts from a graph whose Gemm was taken apart before. A custom metric ends every run, since its
# configuration cannot be written, and so does an evaluator without a type: AUC is Olive's own, the evaluator named.
def olive(task: Task) -> Iterator[Candidate]:
    """Olive's search over each of its quantisers, each with its share of the time that is left."""
    os.environ["OLIVE_DISABLE_TELEMETRY"] = "1"
    from olive.data.registry import Registry
    from olive.workflows import run

    unlabelled = np.zeros(len(task.calibration.ids))
    Registry.register_dataset("calibration_rows")(lambda **_: _batches(task.calibration, unlabelled))
    Registry.register_dataset("search_rows")(lambda **_: _batches(*task.rows["search"]))
    until, passes = time.monotonic() + task.seconds, olive_passes()
    apart = {"type": "GraphSurgeries", "surgeries": [{"surgeon": "GemmToMatMulAdd"}]}
    for place, quantiser in enumerate(passes):
        seconds = (until - time.monotonic()) / (len(passes) - place)
        source = task.graph
        try:
            if "bits" in quantiser:
                source = Path(run(_workflow(task, source, apart)).get_best_candidate().model_path)
            yield from _candidates(run({**_workflow(task, source, quantiser), **_search(task, seconds)}).footprint)
        except Exception as error:  # one search that fails leaves the others
            yield Candidate({"by": quantiser["type"]}, partial(open_graph, source), failed=reason(error))


def _batches(inputs: Inputs, label: NDArray[Any]) -> list[tuple[dict[str, NDArray[Any]], NDArray[np.int32]]]:
    """The rows as Olive's data loaders take them."""
    labels = label.astype(np.int32)
    places = [slice(start, start + BATCH) for start in range(0, len(labels), BATCH)]
    return [({"ids": inputs.ids[rows], "numbers": inputs.numbers[rows]}, labels[rows]) for rows in places]


def _workflow(task: Task, source: Path, step: Mapping[str, Any]) -> dict[str, Any]:
    """Olive's configuration for one pass over a graph on this machine."""
    folder, loader = tempfile.mkdtemp(dir=task.folder), {"type": "no_auto_batch_dataloader"}
    return {
        "input_model": {"type": "OnnxModel", "model_path": str(source)},
        "data_configs": [
            {"name": name, "load_dataset_config": {"type": f"{name}_rows"}, "dataloader_config": loader}
            for name in ("calibration", "search")
        ],
        "passes": {"quantise": dict(step)},
        "cache_dir": f"{folder}/cache",
        "output_dir": f"{folder}/output",
        "log_severity_level": 3,
    }


def _search(task: Task, seconds: float) -> dict[str, Any]:
    """The part of Olive's configuration that makes it search: small files, and a goal for AUC."""
    goal = {"type": "max-degradation", "value": task.limit}
    auroc = {"name": "auroc", "priority": 2, "metric_config": {"task": "binary"}, "goal": goal}
    quality = {"name": "quality", "type": "accuracy", "data_config": "search", "sub_types": [auroc]}
    threads = {"inference_settings": {"onnx": {"session_options": {"intra_op_num_threads": 1}}}}
    size = {"name": "size", "type": "size_on_disk", "sub_types": [{"name": "bytes", "priority": 1}]}
    metrics = [size, {**quality, "user_config": threads}]
    return {
        "evaluators": {"both": {"type": "OnnxEvaluator", "metrics": metrics}},
        "evaluator": "both",
        "search_strategy": {"execution_order": "joint", "sampler": "tpe", "max_time": max(1, round(seconds))},
    }


def _candidates(footprint: Any) -> Iterator[Candidate]:
    """What Olive tried, from its record; losses are as Olive measured them."""
    auroc = {key: one.metrics.value["quality-auroc"].value for key, one in footprint.nodes.items() if one.metrics}
    for key, node in footprint.nodes.items():
        if key != footprint.input_model_id:
            said = {name: value for name, value in node.pass_run_config.items() if isinstance(value, int | str | list)}
            path = Path(footprint.get_model_path(key) or "")
            one = Candidate({"by": node.from_pass, **said}, partial(open_graph, path), failed="Olive pruned it")
            drop = auroc[footprint.input_model_id] - auroc.get(key, math.nan)
            yield replace(one, bytes=graph_bytes(path.parent), drop=drop, failed="") if key in auroc else one


# Olive comes last: it changes how ONNX Runtime calibrates in the whole process.
PEERS = {"onnxruntime": onnxruntime_quantisers, "torchao": torchao, "olive": olive}


def tuned(task: Task, peer: Callable[[Task], Iterator[Candidate]]) -> tuple[dict[str, Any], Any]:
    """A peer's record but for its p50s, and the session of the smallest file within the limit, or the nearest to it.

    Raises:
        InputError: nothing that the peer tried worked.
    """
    begun = time.monotonic()
    tried = list(peer(task))
    seconds = time.monotonic() - begun
    able = [candidate for candidate in tried if not candidate.failed]
    if not able:
        raise InputError(f"nothing worked: {tried[0].failed if tried else 'nothing was tried'}")
    best = min(able, key=lambda one: (max(one.drop, task.limit), one.bytes, one.drop))
    session, size = best.make()
    return {
        "bytes": size,
        "auc": task.auc(session, "test"),
        "auc_drop": task.drop(session, "test"),
        "seconds": round(seconds, 1),
        "tried": len(tried),
        "goal_met": task.drop(session, "search") <= task.limit,
        "settings": best.settings,
        "failures": {", ".join(map(str, one.settings.values())): one.failed for one in tried if one.failed},
    }, session


def times(task: Task, sessions: Mapping[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Milliseconds of each, and the teacher's over them, by rows a call: all in turns, one thread, medians of all."""
    timed = {name: SimpleNamespace(session=session) for name, session in sessions.items()}
    turns = [latency({"teacher": task.teacher, **timed}, task.rows["test"][0]) for _ in range(REPETITIONS)]
    return {
        name: {
            "p50_ms": {size: median(turn[name][size]["p50"] for turn in turns) for size in SIZES},
            "p50_ratio": ratios(turns, "teacher", name),
        }
        for name in sessions
    }


def main(folder: Path, minutes: float) -> dict[str, Any]:
    """Every peer's record, or the words with which it failed; torchao's also has the p50 of the fp32 torch module."""
    torch.set_num_threads(1)
    search = read_search(folder / ASKED)
    trials = Trials(search, read_recipe(folder / ASKED), folder)
    teacher = runtime.load(trials.teacher / ARTIFACT, threads=1)
    records: dict[str, Any] = {}
    sessions: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        task = Task(trials, teacher, margin_of(search.goal), minutes * 60, Path(place))
        for name, peer in PEERS.items():
            try:
                records[name], sessions[name] = tuned(task, peer)
            except Exception as error:  # a peer's failure is a finding
                records[name] = {"failed": reason(error)}
        found = times(task, {**sessions, "fp32": TorchSession(torch_teacher(task))})
    for name in sessions:
        records[name].update(found[name])
    if "torchao" in sessions:
        records["torchao"]["settings"]["fp32_p50_ms"] = found["fp32"]["p50_ms"]
    return records


if __name__ == "__main__":
    print("\n" + json.dumps(main(Path(sys.argv[1]), float(sys.argv[2])), default=str))
