"""TorchRec's collections and its DLRM on rows of Frappe: compressed on jagged batches, exported by feature."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

pytest.importorskip("torchrec", reason="test_elsewhere.py runs this where it is")

from bench.peers.torchrec import dlrm
from torchrec.modules.embedding_configs import EmbeddingBagConfig, PoolingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import JaggedTensor, KeyedJaggedTensor

from slimrank.adaptors.torchrec import keyed
from slimrank.api import compress, export
from slimrank.runtime import load_graph

STEPS: list[Any] = [{"name": "quantize-tables", "bits": 4}, "quantize-dense"]


def jagged(columns: dict[str, torch.Tensor]) -> KeyedJaggedTensor:
    ids = torch.cat(list(columns.values()))
    return KeyedJaggedTensor(list(columns), ids, lengths=torch.ones(len(ids), dtype=torch.int64))


def numbers(columns: dict[str, torch.Tensor]) -> torch.Tensor:
    """Three of the fields once more, as numbers."""
    return torch.stack([columns[name].float() for name in ("weekday", "isweekend", "homework")], dim=1)


def batches(frappe, part: str) -> list[Any]:
    return [(numbers(columns), jagged(columns)) for columns in frappe.columns(part)]


def train(model: nn.Module, frappe, epochs: int, rate: float) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    model.train()
    for _ in range(epochs):
        for columns, label in frappe.batches("train", 512):
            logit = model(numbers(columns), jagged(columns)).squeeze(1)
            loss = functional.binary_cross_entropy_with_logits(logit, label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()


@torch.no_grad()
def scores(model: nn.Module, frappe) -> np.ndarray:
    return torch.cat([model.eval()(*batch) for batch in batches(frappe, "test")]).numpy()


@pytest.fixture(scope="module")
def trained(frappe) -> nn.Module:
    model = dlrm(frappe.sizes)
    train(model, frappe, epochs=2, rate=3e-3)
    return model


def test_a_dlrm_is_compressed_as_it_comes_and_exported_by_feature(trained, frappe, library, tmp_path) -> None:
    columns = {name: column[:256] for name, column in frappe.parts["test"][0].items()}
    example = {"dense_features": numbers(columns), "sparse_features": columns}
    given = library(
        trained, batches(frappe, "train")[:4], example, lambda model: model(numbers(columns), jagged(columns))
    )
    given.check(tmp_path, smaller=4)
    bounds = load_graph(tmp_path / "after").bounds
    assert {name: each[0][2] for name, each in bounds.items()} == {
        f"sparse_features_{name}": size for name, size in frappe.sizes.items()
    }
    small, _ = given.compressed()
    before = frappe.auc(scores(trained, frappe))
    assert before > 0.9
    assert frappe.auc(scores(small, frappe)) > before - 0.01


def test_a_loop_of_ones_own_trains_what_steps_made(trained, frappe) -> None:
    steps = [{"name": "quantize-tables", "bits": 2}, "quantize-dense"]
    small, _ = compress(trained, steps, batches(frappe, "train")[:4])
    before = frappe.auc(scores(small, frappe))
    train(small, frappe, epochs=1, rate=1e-3)
    assert frappe.auc(scores(small, frappe)) > before


def collection(pooling: PoolingType) -> EmbeddingBagCollection:
    """Two tables, the first read by two features."""
    torch.manual_seed(2)
    tables = [
        EmbeddingBagConfig(
            name="film", embedding_dim=8, num_embeddings=40, feature_names=["seen", "film"], pooling=pooling
        ),
        EmbeddingBagConfig(name="user", embedding_dim=4, num_embeddings=30, feature_names=["user"], pooling=pooling),
    ]
    return EmbeddingBagCollection(tables=tables)


def bags(rows: int, seed: int) -> tuple[dict[str, Any], KeyedJaggedTensor]:
    """Histories of 0 to 3 films, pairs of films and a user, by feature and as the library has them."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 4, (rows,), generator=draw)
    seen = torch.randint(0, 40, (int(lengths.sum()),), generator=draw)
    film, user = (torch.randint(0, most, shape, generator=draw) for most, shape in ((40, (rows, 2)), (30, (rows,))))
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    all_lengths = torch.cat([lengths, torch.full((rows,), 2), torch.ones(rows, dtype=torch.int64)])
    values = torch.cat([seen, film.flatten(), user])
    features = {"seen": JaggedTensor(seen, offsets=offsets), "film": film, "user": user}
    return features, KeyedJaggedTensor(["seen", "film", "user"], values, lengths=all_lengths)


@pytest.mark.parametrize("pooling", [PoolingType.SUM, PoolingType.MEAN])
def test_a_collection_answers_the_same_to_bags_by_feature(pooling: PoolingType) -> None:
    model = collection(pooling)
    features, library_form = bags(12, seed=0)
    small, (record,) = compress(model, ["quantize-tables"], [library_form, library_form])
    assert record["touched_bytes"] == 4 * (40 * 8 + 30 * 4)
    expected = small(library_form)
    found = small(keyed(features))
    assert found.keys() == expected.keys() == ["seen", "film", "user"]
    torch.testing.assert_close(found.values(), expected.values())


@pytest.mark.parametrize("steps", [[], ["quantize-tables"]])
def test_bags_of_any_length_are_exported_with_their_offsets(steps: list[Any], tmp_path) -> None:
    model, _ = compress(collection(PoolingType.SUM), steps, [bags(12, seed=0)[1]])
    export(
        model,
        bags(6, seed=1)[0],
        tmp_path / "artifact",
        axes={
            "seen__values": {0: "seen"},
            "seen__offsets": {0: "rows + 1"},
            "film": {0: "rows"},
            "user": {0: "rows"},
        },
    )
    graph = load_graph(tmp_path / "artifact")
    features, library_form = bags(9, seed=2)
    rows = {"seen__values": features["seen"].values(), "seen__offsets": features["seen"].offsets()}
    rows |= {"film": features["film"], "user": features["user"]}
    found = graph.run({name: each.numpy() for name, each in rows.items()})
    with torch.no_grad():
        expected = model(library_form).values().numpy()
    np.testing.assert_allclose(np.concatenate(list(found.values()), axis=1), expected, atol=1e-5)
