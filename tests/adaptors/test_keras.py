"""Keras models under the torch backend: found by their class, compressed, trained on by Keras, exported."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import torch
from keras import layers

from slimrank.adaptors.keras import Taken
from slimrank.api import compress, export
from slimrank.config import InputError
from slimrank.runtime import load_graph
from slimrank.tables.modules import Embedding

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")  # of Keras itself
USERS, ITEMS, LENGTH, DIM, ROWS = 60, 40, 5, 8, 48


def functional() -> keras.Model:
    keras.utils.set_random_seed(1)
    user = layers.Input((1,), dtype="int32", name="user")
    history = layers.Input((LENGTH,), dtype="int32", name="history")
    numbers = layers.Input((3,), name="numbers")
    seen = layers.Embedding(ITEMS, DIM, mask_zero=True, name="item")(history)
    seen = layers.GlobalAveragePooling1D()(seen)  # which minds the mask
    row = layers.Concatenate()([layers.Flatten()(layers.Embedding(USERS, DIM, name="user_table")(user)), seen, numbers])
    row = layers.BatchNormalization()(layers.Dense(16, activation="relu", name="first")(row))
    return keras.Model([user, history, numbers], layers.Dense(1, activation="sigmoid", name="last")(row))


def batch(rows: int = ROWS, seed: int = 0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    history = torch.randint(1, ITEMS, (rows, LENGTH), generator=draw)
    history[:, 3:] = 0
    user = torch.randint(0, USERS, (rows, 1), generator=draw)
    return {"user": user, "history": history, "numbers": torch.randn(rows, 3, generator=draw)}


STEPS = [{"name": "quantize-tables", "bits": 4}, "quantize-dense"]


def answers(model: keras.Model) -> np.ndarray:
    return model(batch(seed=9)).detach().numpy()


def test_without_steps_the_clone_answers_as_the_model() -> None:
    model = functional()
    clone, records = compress(model, [], [batch()])
    assert records == []
    assert clone is not model
    np.testing.assert_allclose(answers(clone), answers(model), atol=1e-6)
    assert [layer.name for layer in clone.layers] == [layer.name for layer in model.layers]


def test_its_layers_are_compressed_and_the_model_is_left_alone() -> None:
    model = functional()
    before = answers(model)
    small, records = compress(model, STEPS, [batch(seed=seed) for seed in range(3)])
    np.testing.assert_array_equal(answers(model), before)
    tables, dense = records
    assert [line.partition(":")[0] for line in tables["touched"]] == ["layers.item.table", "layers.user_table.table"]
    assert tables["touched_bytes"] == 4 * DIM * (USERS + ITEMS)
    assert set(dense["touched"]) == {"layers.first", "layers.last"}
    taken = {layer.name: layer for layer in small.layers if isinstance(layer, Taken)}
    assert isinstance(taken["item"].layer, Embedding)
    assert np.abs(answers(small) - before).max() < 0.1
    assert not np.array_equal(answers(small), before)


def test_hidden_neurons_go_and_keras_trains_those_that_stay() -> None:
    given = layers.Input((5,), name="x")
    hidden = layers.Dense(8, activation="relu", name="second")(layers.Dense(16, activation="tanh", name="first")(given))
    model = keras.Model(given, layers.Dense(1, name="last")(hidden))
    values = torch.randn(ROWS, 5)
    small, (record,) = compress(model, [{"name": "prune-neurons", "keep": 0.5}], [values])
    assert record["touched"] == ["layers.first: 16 neurons to 8", "layers.second: 8 neurons to 4"]
    small.compile(optimizer=keras.optimizers.Adam(0.02), loss="mse")
    fitted = small.fit(values.numpy(), values[:, :1].numpy(), epochs=5, verbose=0)
    assert fitted.history["loss"][-1] < fitted.history["loss"][0]
    normed = functional()  # whose normalisation says its width itself
    same, (record,) = compress(normed, [{"name": "prune-neurons", "keep": 0.5}], [batch()])
    assert "is incompatible with the layer" in record["skipped"][0]["reason"]
    np.testing.assert_allclose(answers(same), answers(normed), atol=1e-6)


def test_keras_trains_what_steps_made() -> None:
    small, _ = compress(functional(), STEPS, [batch()])
    small.compile(optimizer=keras.optimizers.Adam(0.02), loss="binary_crossentropy")
    given = {name: value.numpy() for name, value in batch().items()}
    label = (given["user"] % 2).astype(np.float32)
    rows = next(layer for layer in small.layers if layer.name == "user_table").layer.table.weight
    start = rows.detach().clone()
    losses = small.fit(given, label, epochs=12, batch_size=16, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0]
    assert not torch.equal(rows, start)


@pytest.mark.parametrize("steps", [[], STEPS])
def test_it_exports_with_the_names_of_its_inputs(steps, tmp_path) -> None:
    small, _ = compress(functional(), steps, [batch()])
    export(small, batch(), tmp_path / "artifact")
    graph = load_graph(tmp_path / "artifact")
    assert set(graph.inputs) == {"user", "history", "numbers"}
    (found,) = graph.run({name: value.numpy() for name, value in batch(seed=9).items()}).values()
    np.testing.assert_allclose(found, answers(small), atol=1e-5 if not steps else 5e-3)


def test_a_sequential_model_and_weights_from_a_file(tmp_path) -> None:
    def made() -> keras.Model:
        table = layers.Embedding(ITEMS, DIM)
        return keras.Sequential([layers.Input((LENGTH,)), table, layers.Flatten(), layers.Dense(2)])

    model = made()
    model.save_weights(tmp_path / "some.weights.h5")
    again = made()
    again.load_weights(tmp_path / "some.weights.h5")
    history = batch()["history"]
    small, (record,) = compress(again, ["quantize-tables"], [history])
    assert record["touched_bytes"] == 4 * DIM * ITEMS
    np.testing.assert_allclose(small(history).detach(), model(history).detach(), atol=0.01)


class Own(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.table = layers.Embedding(ITEMS, DIM)

    def call(self, ids: torch.Tensor) -> torch.Tensor:
        return self.table(ids).sum(dim=1)


def test_a_model_with_a_call_of_its_own_is_refused() -> None:
    model = Own()
    model(batch()["history"])
    with pytest.raises(InputError, match="keras cannot clone the model"):
        compress(model, [], [batch()["history"]])
    with pytest.raises(InputError, match="a Dense of keras cannot be compressed"):
        compress(layers.Dense(2), [], [torch.zeros(2, 2)])
