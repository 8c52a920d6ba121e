"""General compressors on a teacher of ours: what a user would do otherwise. Runs in its own environment.

    python -m bench.peers.compressors RUN SEED

Reads the teacher of one seed from a finished run directory, compresses it with each peer as its documentation says
(post-training, weights only, embeddings where the peer knows them), and prints JSON: for each peer the bytes of the
file that it writes and the quality on the test rows. Peers see the model with plain torch.nn.Embedding tables.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.ladder.points import graph_bytes
from slimrank.artifact import open_artifact
from slimrank.data.rows import group_codes
from slimrank.metrics import quality
from slimrank.models.architecture import build_model
from slimrank.models.layers import Ranker
from slimrank.pipeline.models import MODEL
from slimrank.pipeline.workspace import Run
from slimrank.recipe import Recipe
from slimrank.training.checkpoint import load_tensors
from slimrank.training.examples import Examples, score


class PlainTable(nn.Module):
    """A table as torch.nn.Embedding, which is what the peers look for."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(weight.clone())
        self.dim = weight.shape[1]

    def forward(self, ids: Tensor, fields: Sequence[int] | None = None) -> Tensor:
        vectors: Tensor = self.embedding(ids)
        return vectors


def teacher_of(run: Run, seed: int) -> Ranker:
    """The teacher with plain embeddings."""
    model = build_model(run.recipe.teacher.model, run.layout, seed)
    model.load_state_dict(load_tensors(run.teacher_folder(seed) / MODEL)[0])
    for module in model.modules():
        if hasattr(module, "table"):
            module.table = PlainTable(module.table.weight.detach())
    return model.eval()


def onnxruntime_dynamic(weight_type: str, *operators: str) -> Callable[[Run, int], tuple[int, np.ndarray]]:
    """`quantize_dynamic` on the exported graph: weights to 8 bits, of all the operators that it knows or of some."""

    def work(run: Run, seed: int) -> tuple[int, np.ndarray]:
        import onnxruntime
        from onnxruntime.quantization import QuantType, quantize_dynamic

        source = open_artifact(run.folder / "points" / "teacher" / f"seed-{seed}").files["model.onnx"]
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "model.onnx"
            kind = getattr(QuantType, weight_type)
            quantize_dynamic(
                source, target, op_types_to_quantize=list(operators) or None, weight_type=kind, per_channel=True
            )
            session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
            rows = run.encoded.test.inputs
            names = {each.name for each in session.get_inputs()}
            feeds = {"ids": rows.ids, "numbers": rows.numbers}
            logits = session.run(None, {name: value for name, value in feeds.items() if name in names})[0]
            return graph_bytes(Path(folder)), logits

    return work


def torchao_weights(bits: int) -> Callable[[Run, int], tuple[int, np.ndarray]]:
    """torchao's weight-only integers, for linear layers and embeddings, a scale per row."""

    def work(run: Run, seed: int) -> tuple[int, np.ndarray]:
        from torchao.quantization import IntxWeightOnlyConfig, quantize_
        from torchao.quantization.granularity import PerAxis

        model = teacher_of(run, seed)
        config = IntxWeightOnlyConfig(weight_dtype=getattr(torch, f"int{bits}"), granularity=PerAxis(0))
        quantize_(model, config, filter_fn=lambda module, name: isinstance(module, nn.Linear | nn.Embedding))
        return saved_bytes(model), score(model, Examples.of(run.encoded.test))

    return work


def neural_compressor_weights(bits: int) -> Callable[[Run, int], tuple[int, np.ndarray]]:
    """neural-compressor's round-to-nearest weights; it knows linear layers and passes over embeddings."""

    def work(run: Run, seed: int) -> tuple[int, np.ndarray]:
        from neural_compressor.torch.quantization import RTNConfig, convert, prepare

        teacher = teacher_of(run, seed)
        if not any(isinstance(module, nn.Linear) for module in teacher.modules()):
            raise ValueError("passes over embeddings, and the model has no linear layer")
        model = convert(prepare(teacher, RTNConfig(bits=bits, dtype="int", group_size=-1)))
        return saved_bytes(model), score(model, Examples.of(run.encoded.test))

    return work


PEERS: dict[str, Callable[[Run, int], tuple[int, np.ndarray]]] = {
    "onnxruntime quantize_dynamic, S8": onnxruntime_dynamic("QInt8"),
    "onnxruntime quantize_dynamic, U8": onnxruntime_dynamic("QUInt8"),
    "onnxruntime quantize_dynamic, U8, Gather alone": onnxruntime_dynamic("QUInt8", "Gather"),
    "torchao int8 weight-only": torchao_weights(8),
    "torchao int4 weight-only": torchao_weights(4),
    "neural-compressor RTN int8": neural_compressor_weights(8),
    "neural-compressor RTN int4": neural_compressor_weights(4),
}


def saved_bytes(model: nn.Module) -> int:
    """Bytes of the file that `torch.save` makes of the model's state."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.tell()


def main(folder: Path, seed: int) -> dict[str, Any]:
    """Every peer on the teacher of `seed`: bytes and quality, or the words with which it failed."""
    run = Run(Recipe.parse(json.loads((folder / "recipe.json").read_text())), folder)
    label = run.dataset.test[run.dataset.schema.label].to_numpy()
    groups = group_codes(run.dataset)
    found: dict[str, Any] = {}
    for name, work in PEERS.items():
        try:
            size, logits = work(run, seed)
        except Exception as error:  # a peer's failure is a finding
            found[name] = {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:160]}
            continue
        found[name] = {"bytes": size, **quality(label, logits, None if groups is None else groups["test"])}
    return found


if __name__ == "__main__":
    print("\n" + json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
