"""The deployment target `triton`: a model of a model repository of NVIDIA's Triton Inference Server.

    NAME/config.pbtxt  NAME/VERSION/model.onnx  [NAME/VERSION/model.onnx.data]

Its ONNX Runtime backend takes the artifact's graph as it is. It takes tensors: raw rows are encoded by whoever asks,
with the artifact's schema and vocabulary. Left out: several versions at once, processors other than the CPU, and what
checks ids; an id that is in no table has to be kept from Triton, as from any bare runtime.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import NonNegativeInt, PositiveInt

from slimrank.config import Config, InputError, register
from slimrank.runtime import Graph
from slimrank.runtime.opened import Opened, asked_by_tensors

GRAPH = "model.onnx"
TYPES = {
    "bool": "TYPE_BOOL",
    "float": "TYPE_FP32",
    "double": "TYPE_FP64",
    "float16": "TYPE_FP16",
    **{f"int{bits}": f"TYPE_INT{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"TYPE_UINT{bits}" for bits in (8, 16, 32, 64)},
}


class Triton(Config):
    """A model for NVIDIA Triton: the graph, and a `config.pbtxt` for its ONNX Runtime backend.

    Attributes:
        version: the only one that the deployment holds; one that replaces it may have the next number.
        batching: whether requests share a call. None: those of a model that is asked by rows do, as in our service, and
            those of a module of your own do not, since nothing proves that its rows do not see each other.
        max_batch_size: rows of a call, of several requests together; where requests share one.
        max_queue_delay_us: microseconds that a request may wait for others.
        instances: sessions at work at once.
        threads: of a session.
    """

    name: Literal["triton"] = "triton"
    version: PositiveInt = 1
    batching: bool | None = None
    max_batch_size: PositiveInt = 4096
    max_queue_delay_us: NonNegativeInt = 200
    instances: PositiveInt = 1
    threads: PositiveInt = 1


@register("deployment target", Triton)
def write_triton(config: Triton, opened: Opened | Graph, name: str, folder: Path) -> None:
    """Write the model `name` of a repository to the empty `folder`.

    Raises:
        InputError: a tensor of the graph is of a type that Triton has not, or requests cannot share a call and are to.
    """
    version = folder / str(config.version)
    version.mkdir()
    for file, source in opened.artifact.files.items():
        if file in (GRAPH, f"{GRAPH}.data"):
            shutil.copyfile(source, version / file)
    (folder / "config.pbtxt").write_text(model_config(config, opened, name), encoding="utf-8")


def model_config(config: Triton, opened: Opened | Graph, name: str) -> str:
    """Triton's `ModelConfig` as protobuf text.

    A tensor without its batch axis has at least one dimension there: one of none is [1], reshaped to nothing.
    """
    session = opened.session
    batched = is_batched(config, opened)
    parts = [
        f"name: {_text(name)}",
        'backend: "onnxruntime"',
        'platform: "onnxruntime_onnx"',
        f"default_model_filename: {_text(GRAPH)}",
        f"max_batch_size: {config.max_batch_size if batched else 0}",
        *(f"input [\n{_tensor(each, batched)}\n]" for each in session.get_inputs()),
        *(f"output [\n{_tensor(each, batched)}\n]" for each in session.get_outputs()),
        f"instance_group [\n  {{\n    count: {config.instances}\n    kind: KIND_CPU\n  }}\n]",
    ]
    if batched:
        parts.append(f"dynamic_batching {{\n  max_queue_delay_microseconds: {config.max_queue_delay_us}\n}}")
    said = {
        "intra_op_thread_count": str(config.threads),
        "inter_op_thread_count": "1",
        "slimrank_digest": opened.artifact.digest,
    }
    parts += [f"parameters {{\n  key: {_text(k)}\n  value: {{ string_value: {_text(v)} }}\n}}" for k, v in said.items()]
    return "\n".join(parts) + "\n"


def is_batched(config: Triton, opened: Opened | Graph) -> bool:
    """Whether requests share a call.

    Raises:
        InputError: the config says so, and the axes of the graph do not allow it.
    """
    if config.batching is None:
        return not asked_by_tensors(opened.artifact) and rows_are_a_batch(opened)
    if config.batching and not rows_are_a_batch(opened):
        raise InputError(
            "batching: rows are not the first axis of all tensors and no other, so no requests share a call"
        )
    return config.batching


def rows_are_a_batch(opened: Opened | Graph) -> bool:
    """Whether rows are the first axis of all tensors and no other."""
    ends = [*opened.session.get_inputs(), *opened.session.get_outputs()]
    firsts = {each.shape[0] if each.shape else None for each in ends}
    rows = next(iter(firsts))
    if len(firsts) != 1 or not isinstance(rows, str):
        return False
    others = [size for each in ends for size in each.shape[1:] if isinstance(size, str)]
    return not any(rows in re.findall(r"\w+", size) for size in others)


def _tensor(node: Any, batched: bool) -> str:
    """An input or output of the graph, in braces."""
    kind = node.type.removeprefix("tensor(").removesuffix(")")
    if kind not in TYPES:
        raise InputError(f"{node.name}: is of type {node.type}; Triton has {', '.join(TYPES)}")
    dims = [size if isinstance(size, int) else -1 for size in node.shape[int(batched) :]]
    lines = [f"name: {_text(node.name)}", f"data_type: {TYPES[kind]}", *_dims(dims)]
    return "\n".join(["  {", *(f"    {line}" for line in lines), "  }"])


def _dims(dims: list[int]) -> Iterator[str]:
    yield f"dims: [ {', '.join(map(str, dims or [1]))} ]"
    if not dims:
        yield "reshape: { shape: [ ] }"


def _text(value: str) -> str:
    """A string as protobuf text has it, which escapes as JSON does what is no control character beyond."""
    return json.dumps(value, ensure_ascii=False)
