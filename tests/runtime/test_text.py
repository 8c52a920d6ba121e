"""Texts in an artifact: the tokenizer travels, the runtime takes raw texts, and bad ones are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from slimrank import runtime
from slimrank.artifact import open_artifact
from slimrank.compression.steps import Context, compress
from slimrank.config import InputError
from slimrank.data.encoding import Encoding
from slimrank.data.schema import Field, Schema
from slimrank.data.text import TextCodec
from slimrank.exporting.artifact import export
from slimrank.models.architecture import build_model
from slimrank.models.cross_encoder import CrossEncoder
from slimrank.models.text_encoder import TextEncoder, TextModel, outputs_of
from slimrank.predicting import predict
from slimrank.runtime.shared import SharedScorer
from slimrank.tables.embedding import Layout
from slimrank.training.examples import Examples

CLAIMS = ["the cat sat", "unwell dogs", "", "the mat on the cat", "zebra"]
DOCUMENTS = ["the dog", "cats sat on the mat", "the", "", "unwell " * 50]


@pytest.fixture(scope="module")
def model(tokenizer: bytes) -> TextModel:
    codec = TextCodec(tokenizer, 16)
    layout = Layout(("claim",), (codec.size,), (16,), 0, ("claim",))
    small = {"embedding_dim": 16, "layers": 2, "heads": 2, "hidden": 24, "embedding_std": 0.5, "separator": 4}
    made = build_model(CrossEncoder.parse(small), layout, seed=1)
    assert isinstance(made, TextModel)
    made.codec = codec
    ids = torch.from_numpy(codec.encode(CLAIMS * 8, DOCUMENTS * 8)[0])
    rows = Examples(ids, torch.zeros(len(ids), 0), torch.zeros(len(ids)))
    steps = ["prune-vocabulary", {"name": "quantize-tables", "bits": 4}, "quantize-dense"]
    small_one, _ = compress(made, steps, Context(rows, rows))
    assert isinstance(small_one, TextModel)
    return small_one


@pytest.fixture(scope="module")
def artifact(model: TextModel, tokenizer: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the encoding of the whole vocabulary: the model's own tokenizer has to take its place."""
    path = tmp_path_factory.mktemp("text") / "artifact"
    export(model, Encoding.of_text(TextCodec(tokenizer, 16), "claim", "document"), path)
    return path


def logits(probability: np.ndarray) -> np.ndarray:
    return np.log(probability / (1 - probability))


def test_texts_score_as_the_model_does_alone_and_together(artifact: Path, model: TextModel) -> None:
    opened = runtime.load(artifact)
    rows = [{"claim": one, "document": other} for one, other in zip(CLAIMS, DOCUMENTS, strict=True)]
    found = opened.predict(rows)
    assert (found.unknown, found.shortened) == ({}, {"claim": 1})
    assert model.codec is not None
    ids = torch.from_numpy(model.codec.encode(CLAIMS, DOCUMENTS)[0])
    np.testing.assert_allclose(logits(found.probability), model(ids).detach().numpy(), atol=2e-2)
    alone = np.concatenate([opened.predict([row]).probability for row in rows])
    np.testing.assert_allclose(alone, found.probability, atol=1e-6)
    frame = pl.DataFrame(rows)
    np.testing.assert_array_equal(opened.predict(frame).probability, found.probability)
    columns = {"claim": CLAIMS, "document": [each.encode() for each in DOCUMENTS]}
    np.testing.assert_array_equal(opened.predict(columns).probability, found.probability)


def test_the_tokenizer_travels_and_is_verified(artifact: Path, model: TextModel, tmp_path: Path) -> None:
    files = open_artifact(artifact).files
    assert model.codec is not None
    assert files["tokenizer.json"].read_bytes() == model.codec.content
    assert "tokenizer" not in files["schema.json"].read_text()
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in (*files, "manifest.json"):
        (copy / name).write_bytes((artifact / name).read_bytes())
    (copy / "tokenizer.json").write_bytes(model.codec.content.replace(b"cat", b"cot"))
    with pytest.raises(InputError, match=r"tokenizer\.json: damaged, sha256"):
        runtime.load(copy)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"claim": "the"}, "missing column 'document'"),
        ({"claim": 7, "document": "x"}, "field 'claim': row 1 holds a int, must be text"),
        ({"claim": "the", "document": b"\xff"}, r"field 'document': row 1 is not UTF-8 \(byte 0\)"),
        ({"claim": ["the"], "document": ""}, "field 'claim': row 1 holds a list, must be text"),
    ],
)
def test_what_is_no_text_is_named(artifact: Path, row: dict[str, object], fault: str) -> None:
    first = dict.fromkeys(row, "the")
    with pytest.raises(InputError, match=fault):
        runtime.load(artifact).predict([first, row])


def test_a_shared_query_is_read_with_every_document(artifact: Path) -> None:
    """One sequence of tokens holds both texts, so nothing is multiplied once."""
    opened = runtime.load(artifact)
    scorer = SharedScorer(opened)
    expected = opened.predict([{"claim": "the cat", "document": each} for each in DOCUMENTS])
    for candidates in ([{"document": each} for each in DOCUMENTS], {"document": DOCUMENTS}):
        found = scorer.predict({"claim": "the cat"}, candidates)
        np.testing.assert_array_equal(found.probability, expected.probability)
        assert (found.unknown, found.shortened) == (expected.unknown, expected.shortened)


def test_a_text_of_ten_megabytes_is_scored_by_its_beginning(artifact: Path) -> None:
    opened = runtime.load(artifact)
    found = opened.predict([{"claim": "the cat " * 1_250_000, "document": "the " * 2_500_000}])
    expected = opened.predict([{"claim": "the cat " * 128, "document": "the " * 256}])  # 64 characters a token
    assert (found.unknown, found.shortened) == ({}, {"claim": 1})
    np.testing.assert_array_equal(found.probability, expected.probability)


def test_a_text_that_is_cut_is_not_told_as_unknown(artifact: Path, tmp_path: Path, capsys: Any) -> None:
    rows = pl.DataFrame({"claim": CLAIMS, "document": DOCUMENTS})
    rows.write_parquet(tmp_path / "rows.parquet")
    predict(artifact, tmp_path / "rows.parquet", None, 10)
    assert capsys.readouterr().err == "claim: 1 longer than the model reads, their ends were cut\n"


def test_a_schema_says_what_a_text_is_fitted_with(tokenizer: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(tokenizer)
    text = Field(name="claim", kind="text", max_length=6, tokenizer=tmp_path / "tokenizer.json")
    schema = Schema(fields=(text, Field(name="user", kind="categorical")))
    frame = pl.DataFrame({"claim": CLAIMS, "user": [1, 1, 2, 3, 3], "label": [0, 1, 0, 1, 0]})
    encoding = Encoding.fit(schema, frame)
    inputs, unknown = encoding.encode_counting(frame)
    assert inputs.ids.shape == (5, 7)
    assert schema.columns == ("user", *["claim"] * 6)
    assert unknown["claim"] == 2  # "the mat on the cat" and "zebra", letter by letter
    assert encoding.counts["claim"].sum() == 30
    encoding.save(tmp_path / "saved")
    loaded = Encoding.load(tmp_path / "saved")
    np.testing.assert_array_equal(loaded.encode(frame).ids, inputs.ids)
    assert loaded.schema.fields[0].tokenizer is None
    with pytest.raises(InputError, match="names no tokenizer"):
        Encoding.fit(Schema(fields=(Field(name="claim", kind="text"),)), frame)


def test_texts_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="a text field has no ids to encode by 'hash'"):
        Field.parse({"name": "t", "kind": "text", "encoding": "hash", "num_ids": 3})
    with pytest.raises(InputError, match="tokenizer and pair are for text fields only"):
        Field.parse({"name": "t", "kind": "categorical", "pair": "u"})
    with pytest.raises(InputError, match="fields a, b are texts: one at most may be"):
        Schema.parse({"fields": [{"name": "a", "kind": "text"}, {"name": "b", "kind": "text"}]})


def test_an_encoder_gives_vectors_of_raw_texts_and_no_top_k(tokenizer: bytes, tmp_path: Path) -> None:
    codec = TextCodec(tokenizer, 16)
    layout = Layout(("text",), (codec.size,), (16,), 0, ("text",))
    small = {"embedding_dim": 16, "layers": 1, "heads": 2, "hidden": 24, "embedding_std": 0.5}
    made = build_model(TextEncoder.parse(small), layout, seed=1)
    assert isinstance(made, TextModel)
    export(made, Encoding.of_text(codec), tmp_path / "artifact")
    found = runtime.load_retriever(tmp_path / "artifact")
    texts = [*CLAIMS, *DOCUMENTS] * 2  # more than are encoded at once
    vectors = found.encode([{"text": text} for text in texts])
    assert vectors.shape == (20, 16)
    np.testing.assert_allclose(vectors, outputs_of(made, torch.from_numpy(codec.encode(texts)[0])), atol=1e-5)
    np.testing.assert_allclose(found.encode({"text": [texts[4]]})[0], vectors[4], atol=1e-6)
    assert found.encode({"text": []}).shape == (0, 16)
    with pytest.raises(InputError, match="has no vectors of items"):
        found.top_k([{"text": "the cat"}])
    with pytest.raises(InputError, match="field 'text': row 0 holds a int, must be text"):
        found.encode([{"text": 5}])
