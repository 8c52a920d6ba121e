"""What every registered model that answers with items must hold to, from its first gradient to its artifact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from slimrank.compression.steps import Context, compress
from slimrank.config import InputError, as_config, entries
from slimrank.data.rows import EncodedDataset, encode_dataset, make_dataset
from slimrank.data.schema import Field, Schema
from slimrank.exporting.artifact import export
from slimrank.models.architecture import build_model
from slimrank.models.layers import Encoder, Finder, ItemScorer, SequenceEncoder
from slimrank.models.text_encoder import TextModel
from slimrank.runtime import load_retriever
from slimrank.tables.embedding import Layout
from slimrank.training.examples import Examples
from slimrank.training.losses.loss import objective_of

NAMES = sorted(
    name
    for name, each in entries("model").items()
    if issubclass(each.run, Finder) and not issubclass(each.run, TextModel)  # a text has no catalogue
)
ITEMS, LENGTH = 30, 7
SHAPES = {"a history": ("history",), "a user and a history": ("user", "history")}
CASES = [
    (name, shape)
    for name in NAMES
    for shape in SHAPES
    if (name, shape) not in (("mf", "a history"), ("ease", "a user and a history"))
]
SMALL = {"embedding_dim": 8, "embedding_std": 0.3}
STEPS = {"floats": [], "integers": [{"name": "quantize-tables", "bits": 4}, "quantize-dense"]}


def paths(count: int, seed: int) -> pl.DataFrame:
    """Walks along a circle of items; those of more than one item long, and the one that came next."""
    draw = np.random.default_rng(seed)
    steps = draw.integers(1, 4, (count, LENGTH + 3)).cumsum(axis=1)
    walks = (draw.integers(0, ITEMS, (count, 1)) + steps) % ITEMS
    lengths = draw.integers(1, LENGTH + 2, count)
    return pl.DataFrame(
        {
            "user": draw.integers(0, 9, count),
            "history": [walk[:length].tolist() for walk, length in zip(walks, lengths, strict=True)],
            "item": walks[np.arange(count), lengths],
        }
    )


@pytest.fixture(scope="module")
def problems() -> dict[str, EncodedDataset]:
    fields = {
        "user": Field(name="user", kind="categorical"),
        "history": Field(name="history", kind="sequence", max_length=LENGTH),
    }
    found = {}
    for shape, names in SHAPES.items():
        chosen = tuple(fields[name] for name in names)
        schema = Schema(fields=chosen, label="item", answer="item", catalogue="history")
        found[shape] = encode_dataset(make_dataset(shape, schema, (paths(200, 0), paths(40, 1), paths(40, 2))))
    return found


def made(name: str, data: EncodedDataset) -> Finder:
    """A small model; weights in closed form are found at once."""
    settings = {key: value for key, value in SMALL.items() if key in entries("model")[name].config.model_fields}
    model = build_model(as_config("model", {"name": name, **settings}), Layout.of(data.encoding), seed=1)
    assert isinstance(model, Finder)
    if isinstance(model, ItemScorer):
        train = Examples.of(data.train, "cpu", "item")
        model.solve(train.ids, train.label, train.group)
    return model.eval()


def odd(data: EncodedDataset) -> tuple[Tensor, Tensor]:
    """Test rows; the second history is empty, the third of unknown items alone."""
    ids = torch.from_numpy(data.test.inputs.ids.copy())
    first = ids.shape[1] - LENGTH
    ids[1, first:] = 0
    ids[2, first:] = torch.tensor([1] * 3 + [0] * (LENGTH - 3))
    return ids, torch.zeros(len(ids), 0)


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_answers_are_finite_and_do_not_depend_on_neighbours(name, shape, problems) -> None:
    model = made(name, problems[shape])
    ids, numbers = odd(problems[shape])
    found = model(ids, numbers)
    assert len(found) == len(ids)
    assert found.isfinite().all()
    alone = torch.cat([model(ids[n : n + 1], numbers[n : n + 1]) for n in range(len(ids))])
    torch.testing.assert_close(alone, found, atol=1e-5, rtol=1e-4)
    if isinstance(model, Encoder):
        assert model.all_items().shape == (model.num_items, found.shape[1])
        assert model.all_items().isfinite().all()


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_every_parameter_learns_under_the_loss_of_items(name, shape, problems) -> None:
    model = made(name, problems[shape]).train()
    if isinstance(model, ItemScorer):
        return  # its weights are solved for
    objective_of(None, "item")(model, Examples.of(problems[shape].train, "cpu", "item")).backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


@pytest.mark.parametrize("name", [name for name, shape in CASES if shape == "a history"])
def test_padding_behind_changes_nothing(name, problems) -> None:
    model = made(name, problems["a history"])
    if not isinstance(model, SequenceEncoder | ItemScorer):
        return  # reads as many columns as its layout says
    ids, _ = odd(problems["a history"])
    ids[:, 4:] = 0
    longer = torch.cat([ids, torch.zeros(len(ids), 5, dtype=ids.dtype)], dim=1)
    for each in (ids[:, :4], longer):
        torch.testing.assert_close(model(each), model(ids), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in NAMES if issubclass(entries("model")[name].run, SequenceEncoder)])
def test_the_state_after_a_place_knows_nothing_of_what_follows(name, problems) -> None:
    model = made(name, problems["a history"])
    assert isinstance(model, SequenceEncoder)
    whole = torch.tensor([[5, 9, 3, 7, 2, 8, 4], [6, 2, 0, 0, 0, 0, 0]], dtype=torch.int64)
    states = model.states(whole)
    assert states.shape[:2] == (2, LENGTH)
    torch.testing.assert_close(model.encode(whole), states[[0, 1], [6, 1]], atol=1e-5, rtol=1e-4)
    other = whole.clone()
    other[0, 4:] = 11
    torch.testing.assert_close(model.states(other)[0, :4], states[0, :4], atol=1e-5, rtol=1e-4)
    assert model.states(whole[1:]).shape[1] == 2  # no place beyond the longest history


@pytest.mark.parametrize(
    ("name", "shape", "steps"),
    [(*case, "floats") for case in CASES]
    + [(name, shape, "integers") for name, shape in {n: (n, s) for n, s in CASES}.values()],
)
def test_the_artifact_answers_as_the_packed_model_does(name, shape, steps, problems, tmp_path: Path) -> None:
    data = problems[shape]
    train = Examples.of(data.train, "cpu", "item")
    model = made(name, data)
    small, _ = compress(model, STEPS[steps], Context(train, train, data.encoding.counts))
    assert isinstance(small.eval(), Finder)
    export(small, data.encoding, tmp_path / "artifact")
    shipped = load_retriever(tmp_path / "artifact")
    ids, numbers = odd(data)
    inputs = data.test.inputs.__class__(ids.numpy(), numbers.numpy())
    expected = small(ids, numbers).detach()
    if isinstance(small, ItemScorer):
        expected = expected[:, small.first_item :]
        found = shipped.scores(inputs)
    else:
        found = shipped.vectors(inputs)
        assert isinstance(small, Encoder)
        close(shipped.item_vectors(), small.all_items()[small.first_item :].detach(), 1e-4)
    # a number on the edge between two codes may fall to either side
    close(found, expected, 1e-4 if steps == "floats" else 0.05)
    for start, size in ((0, 1), (1, 3)):  # any number of queries, each as long as the longest of them
        part = inputs.take(slice(start, start + size))
        again = shipped.scores(part) if isinstance(small, ItemScorer) else shipped.vectors(part)
        np.testing.assert_allclose(again, found[start : start + size], atol=1e-5, rtol=1e-4)


def close(found: np.ndarray, expected: Tensor, share: float) -> None:
    """Within that share of the largest number."""
    assert np.abs(found - expected.numpy()).max() <= share * max(float(expected.abs().max()), 1.0)


@pytest.mark.parametrize("name", NAMES)
def test_rows_without_a_history_are_refused(name) -> None:
    with pytest.raises(InputError, match="sequence"):
        build_model(entries("model")[name].config(), Layout(("user",), (9,), (1,)), seed=1)
