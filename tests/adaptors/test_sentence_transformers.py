"""all-MiniLM-L6-v2 as sentence-transformers loads it, on SciFact, and a BERT of transformers: as they come."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("sentence_transformers", reason="test_elsewhere.py runs this where it is")

from bench.peers.sentence_transformers import answer, encoder, grades, tensors, tokens
from sentence_transformers import SentenceTransformer
from transformers import BertConfig, BertModel

from slimrank.api import compress, export
from slimrank.config import InputError
from slimrank.data.beir import Collection, read_beir
from slimrank.data.files import data_folder
from slimrank.metrics.top_k import ndcg
from slimrank.runtime import load_graph

QUERIES = 40
STEPS = [{"name": "quantize-tables", "bits": 8, "scale": "row"}, "quantize-dense"]
AXES = {name: {1: "length"} for name in ("input_ids", "token_type_ids", "attention_mask")}


@pytest.fixture(scope="module")
def minilm(tmp_path_factory) -> SentenceTransformer:
    try:
        model = encoder(tmp_path_factory.mktemp("minilm"))
    except InputError as error:
        pytest.skip(str(error))
    model.max_seq_length = 48
    return model


@pytest.fixture(scope="module")
def scifact() -> Collection:
    folder = data_folder(None)
    if folder is None:
        pytest.skip("SLIMRANK_DATA names no directory")
    return read_beir(folder / "scifact")


def texts_of(collection: Collection, split: str) -> tuple[list[str], list[str], np.ndarray]:
    """Some queries, the documents that answer them, and the grades [queries, documents]."""
    queries = collection.queries_of(split)[:QUERIES]
    wanted = sorted({document for query, document, _ in collection.judged[split] if query in set(queries)})
    texts = [collection.documents[document] for document in wanted]
    return [collection.queries[query] for query in queries], texts, grades(collection, split, queries, wanted)


def quality(model: nn.Module, minilm: SentenceTransformer, collection: Collection) -> float:
    """NDCG@10."""
    queries, documents, relevance = texts_of(collection, "test")
    asked, found = (answer(model, tokens(minilm, texts)) for texts in (queries, documents))
    group = np.repeat(np.arange(len(queries)), len(documents))
    return float(np.nanmean(ndcg(relevance.ravel(), (asked @ found.T).ravel(), group, 10).value))


def test_an_encoder_is_compressed_as_it_comes_and_exported(minilm, scifact, library, tmp_path) -> None:
    queries, documents, _ = texts_of(scifact, "train")
    batches = [tensors(tokens(minilm, texts)) for texts in (queries, documents)]
    example = tensors(tokens(minilm, texts_of(scifact, "test")[0][:8]))
    axes = {name: AXES[name] for name in example}

    def said(model: nn.Module) -> torch.Tensor:
        return model(dict(example))["sentence_embedding"]

    given = library(minilm, batches, example, said, axes=axes, steps=STEPS, rounding=0.1)
    given.check(tmp_path, smaller=3.5)
    graph = load_graph(tmp_path / "after")
    longer = tokens(minilm, documents[:3])
    (found,) = graph.run(longer).values()
    small, _ = given.compressed()
    expected = answer(small, longer)
    np.testing.assert_allclose(found, expected, atol=0.1 * np.abs(expected).max())
    assert quality(small, minilm, scifact) > quality(minilm, minilm, scifact) - 0.03


def test_a_loop_of_ones_own_trains_what_steps_made(minilm, scifact) -> None:
    """Queries to the documents that answer them: the loss falls, through tables and layers of few bits."""
    queries, documents, relevance = texts_of(scifact, "train")
    best = torch.from_numpy(relevance.argmax(axis=1))
    given, others = (tensors(tokens(minilm, texts)) for texts in (queries, documents))
    small, _ = compress(minilm, [{"name": "quantize-tables", "bits": 4}, "quantize-dense"], [given, others])
    optimizer = torch.optim.Adam(small.parameters(), lr=1e-4)
    losses = []
    for _ in range(4):
        scores = small(dict(given))["sentence_embedding"] @ small(dict(others))["sentence_embedding"].T
        loss = nn.functional.cross_entropy(20 * scores, best)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_model_of_transformers_answers_by_name(attention: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=200, max_position_embeddings=24, **sizes)
    config._attn_implementation = attention
    model = BertModel(config).eval()
    draw = torch.Generator().manual_seed(1)
    mask = (torch.arange(12) < torch.randint(3, 13, (16, 1), generator=draw)).long()
    batch = {"input_ids": torch.randint(0, 200, (16, 12), generator=draw) * mask, "attention_mask": mask}
    small, (tables, dense) = compress(model, STEPS, [batch])
    assert tables["touched_bytes"] == 4 * 32 * (200 + 24 + 2)
    assert len(dense["touched"]) == 2 * 6 + 1
    axes = {name: {1: "length"} for name in batch}
    for name, each in (("before", model), ("after", small)):
        export(each, batch, tmp_path / name, axes=axes)
        found = load_graph(tmp_path / name).run({key: value.numpy() for key, value in batch.items()})
        assert set(found) == {"last_hidden_state", "pooler_output"}
        with torch.no_grad():
            expected = each(**batch)
        for key, value in found.items():
            np.testing.assert_allclose(value, expected[key].numpy(), atol=1e-4 if name == "before" else 0.1)
