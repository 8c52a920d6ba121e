"""Modules of the user's own as artifacts: the same answers, their own names, ids that are checked, few bytes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimrank.api import compress, export
from slimrank.artifact import open_artifact
from slimrank.config import InputError
from slimrank.exporting.optimized import INTEGER, optimized_graph
from slimrank.runtime import Graph, load, load_graph
from slimrank.runtime.inspect import inspect

USERS, ITEMS, TAGS, LENGTH, DIM, ROWS = 300, 200, 20, 6, 8, 32
STEPS: list[Any] = [{"name": "quantize-tables", "bits": 4}, "quantize-dense"]


class Ranker(nn.Module):
    """Users, histories, tags and numbers to a score, and to scores of all items by a tied table."""

    def __init__(self) -> None:
        super().__init__()
        self.user = nn.Embedding(USERS, DIM)
        self.item = nn.Embedding(ITEMS, DIM, padding_idx=0)
        self.tags = nn.EmbeddingBag(TAGS, DIM, mode="mean")
        layer = nn.TransformerEncoderLayer(DIM, 2, 16, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.mlp = nn.Sequential(nn.Linear(3 * DIM + 2, 16), nn.ReLU(), nn.Linear(16, DIM))
        self.last = nn.Linear(DIM, 1)
        self.every = nn.Linear(DIM, ITEMS, bias=False)
        self.every.weight = self.item.weight

    def forward(self, user: Tensor, items: Tensor, tags: Tensor, numbers: Tensor) -> dict[str, Tensor]:
        states = self.encoder(self.item(items)).mean(dim=1)
        row = self.mlp(torch.cat([self.user(user), states, self.tags(tags), numbers], dim=1))
        return {"score": self.last(row).squeeze(1), "every": self.every(row)}


def batch(rows: int = ROWS, length: int = LENGTH, seed: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        "user": torch.randint(0, USERS, (rows,), generator=draw),
        "items": torch.randint(1, ITEMS, (rows, length), generator=draw),
        "tags": torch.randint(0, TAGS, (rows, 3), generator=draw),
        "numbers": torch.randn(rows, 2, generator=draw),
    }


def arrays(given: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in given.items()}


@pytest.fixture(scope="module")
def models() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    model = Ranker().eval()
    return {"whole": model, "small": compress(model, STEPS, [batch(seed=seed) for seed in range(4)])[0].eval()}


@pytest.fixture(scope="module")
def folder(models, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("artifacts")
    for name, model in models.items():
        export(model, batch(), root / name, axes={"items": {1: "length"}})
    return root


@pytest.mark.parametrize("name", ["whole", "small"])
@pytest.mark.parametrize(("rows", "length"), [(1, 1), (2, 6), (77, 9)])
def test_the_artifact_answers_as_the_module(name: str, rows: int, length: int, models, folder) -> None:
    given = batch(rows, length, seed=9)
    with torch.no_grad():
        expected = models[name](**given)
    found = load_graph(folder / name).run(arrays(given))
    assert list(found) == ["score", "every"]
    for each, values in found.items():
        tolerance = 1e-5 if name == "whole" else 0.02 * float(expected[each].abs().max())
        np.testing.assert_allclose(values, expected[each], atol=tolerance, rtol=1e-4)


def test_the_small_one_is_small(folder) -> None:
    """4 bits a number of every table, the one that is tied stored once."""
    sizes = {name: (folder / name / "model.onnx").stat().st_size for name in ("whole", "small")}
    numbers = (USERS + ITEMS + TAGS) * DIM
    assert sizes["whole"] > 4 * numbers
    tensors = {each["name"]: each for each in open_artifact(folder / "small").manifest["graph"]["tensors"]}
    tables = [each for name, each in tensors.items() if ".table." in name and each["dtype"] == "uint8"]
    assert sorted(each["bytes"] for each in tables) == sorted(rows * DIM // 2 for rows in (USERS, ITEMS, TAGS))
    layers = [each for each in Ranker().modules() if isinstance(each, nn.Linear) and each.out_features < ITEMS]
    weights = sum(each.weight.numel() for each in layers) + 3 * DIM * DIM  # of attention, three in one
    outputs = sum(each.out_features for each in layers) + 3 * DIM
    rest = 200  # norms, scales of tables, axes
    assert sum(each["bytes"] for each in tensors.values()) < numbers / 2 + weights + 10 * outputs + rest
    assert sizes["small"] < 0.55 * sizes["whole"]  # what is left of a graph so small is its nodes


def test_names_types_and_sizes_are_the_users(folder) -> None:
    graph = load_graph(folder / "small")
    assert {name: (spec.dtype.name, spec.shape) for name, spec in graph.inputs.items()} == {
        "user": ("int64", ("N",)),
        "items": ("int64", ("N", "length")),
        "tags": ("int64", ("N", 3)),
        "numbers": ("float32", ("N", 2)),
    }
    assert graph.outputs["every"].shape == ("N", ITEMS)
    card = (folder / "small" / "README.md").read_text()
    assert "| items | inputs | int64 |" in card
    found = inspect(folder / "small")
    assert found["schema"] is None
    assert found["asked_by"] == "tensors"


def test_layers_run_on_integers(folder) -> None:
    nodes = [node.op_type for node in optimized_graph(folder / "small" / "model.onnx").graph.node]
    assert sum(node in INTEGER for node in nodes) == 4 + 2 + 2 + 1  # attention, its block, the MLP, the last
    assert "Loop" not in nodes


BAD: dict[str, tuple[Any, str]] = {
    "id too large": (
        {"user": np.full(ROWS, USERS)},
        f"id {USERS} in row 0 is out of range, allowed 0..{USERS - 1}; 32 of",
    ),
    "id below 0": ({"items": np.where(np.arange(LENGTH) == 2, -1, 1) * np.ones((ROWS, 1), np.int64)}, "id -1 in row 0"),
    "tag too large": ({"tags": np.full((ROWS, 3), TAGS)}, f"'tags': id {TAGS}"),
    "not finite": ({"numbers": np.full((ROWS, 2), np.nan, np.float32)}, "64 of 64 values are NaN or infinite"),
    "another type": ({"user": np.zeros(ROWS)}, "'user': type float64, must be int64"),
    "too fine": ({"numbers": np.zeros((ROWS, 2))}, "'numbers': type float64, must be float32"),
    "another rank": ({"user": np.zeros((ROWS, 1), np.int64)}, r"'user': shape \[32, 1\], must be \[N\]"),
    "another width": ({"numbers": np.zeros((ROWS, 3), np.float32)}, r"must be \[N, 2\] with N = 32"),
    "other rows": (
        {"tags": np.zeros((ROWS + 1, 3), np.int64)},
        r"'tags': shape \[33, 3\], must be \[N, 3\] with N = 32",
    ),
    "unknown": ({"usr": np.zeros(ROWS, np.int64)}, "unknown input 'usr'. Did you mean 'user'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_before_it_runs(name: str, folder) -> None:
    graph = load_graph(folder / "small")
    given, message = BAD[name]
    with pytest.raises(InputError, match=message):
        graph.run({**arrays(batch()), **given})


def test_what_is_missing_is_named_and_smaller_types_are_taken(folder) -> None:
    graph: Graph = load_graph(folder / "small")
    with pytest.raises(InputError, match="inputs are missing: tags, numbers"):
        graph.run({name: value for name, value in arrays(batch()).items() if name in ("user", "items")})
    given = arrays(batch())
    expected = graph.run(given)["score"]
    found = graph.run({**given, "user": given["user"].astype(np.int16), "items": given["items"].astype(np.uint8)})
    np.testing.assert_array_equal(found["score"], expected)


def test_an_artifact_is_opened_by_what_asks_it(folder) -> None:
    with pytest.raises(InputError, match="`load_graph` opens it"):
        load(folder / "small")


class Matrix(nn.Module):
    """One matrix of floats for all fields, as some libraries have it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.free = nn.Embedding(50, DIM), nn.Embedding(7, DIM), nn.Embedding(11, DIM)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.first(x[:, -1].long()) + self.second(x[:, 1:2].long()).squeeze(1) + self.free(x[:, 2].long() % 11)
        return rows.sum(dim=1) + x[:, 0]


def test_columns_of_a_matrix_have_bounds_of_their_own(tmp_path) -> None:
    export(Matrix(), torch.zeros(4, 4), tmp_path / "matrix")
    graph = load_graph(tmp_path / "matrix")
    assert graph.bounds == {"x": [(1, 2, 7), (3, 4, 50)]}
    assert list(graph.outputs) == ["output"]
    row = np.array([[0.5, 6, 4000, 49]], np.float32)
    assert graph.run({"x": row})["output"].shape == (1,)
    for column, rows in ((3, 50), (1, 7)):
        wrong = row.copy()
        wrong[0, column] = rows
        with pytest.raises(
            InputError, match=rf"\(columns {column} to {column}\): id {rows}.0 in row 0 is out of range"
        ):
            graph.run({"x": wrong})


class Sized(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum(dim=1) + torch.zeros(len(x.tolist()))


class Halved(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.to(torch.bfloat16)


class Bags(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tags = nn.EmbeddingBag(TAGS, DIM, mode="sum", include_last_offset=True)
        self.user = nn.Embedding(USERS, DIM)

    def forward(self, tags: Tensor, ends: Tensor, user: Tensor) -> Tensor:
        return (self.tags(tags, ends) * self.user(user)).sum(dim=1)


def test_offsets_are_one_more_than_rows(tmp_path) -> None:
    model = Bags().eval()
    example = {"tags": torch.arange(7), "ends": torch.tensor([0, 2, 2, 7]), "user": torch.arange(3)}
    axes = {"tags": {0: "tags"}, "ends": {0: "rows + 1"}, "user": {0: "rows"}}
    export(model, example, tmp_path / "bags", axes=axes)
    graph = load_graph(tmp_path / "bags")
    given = {"tags": torch.arange(5), "ends": torch.tensor([0, 1, 1, 2, 5]), "user": torch.arange(4)}
    with torch.no_grad():
        np.testing.assert_allclose(graph.run(arrays(given))["output"], model(**given), rtol=1e-5)
    for order in (("tags", "ends", "user"), ("user", "ends", "tags")):
        wrong = {name: given[name].numpy() for name in order} | {"ends": np.array([0, 5])}
        with pytest.raises(InputError, match=r"shape \[4\], must be \[rows\] with .*rows = 1"):
            graph.run(wrong)


class Silent(nn.Module):
    def forward(self, x: Tensor) -> str:
        return "nothing"


def test_what_cannot_be_exported_is_told(tmp_path) -> None:
    path = tmp_path / "none"
    for model, given, message in (
        (Matrix(), torch.zeros(1, 4), "fewer than 2 rows"),
        (Matrix(), {}, "fewer than 2 rows"),
        (Silent(), torch.zeros(2, 2), "answers with a str, which holds no tensor"),
        (Sized(), torch.zeros(2, 2), "torch cannot trace the module"),
        (
            Matrix(),
            torch.zeros(2, 2),
            r"module failed on the example batch: IndexError: .*\(.*:\d+\)",
        ),
    ):
        with pytest.raises(InputError, match=message):
            export(model, given, path)
    with pytest.raises(InputError, match="axes: unknown input 'y'"):
        export(Matrix(), torch.zeros(2, 4), path, axes={"y": {1: "L"}})
    with pytest.raises(InputError, match="has 2 dimensions, and no dimension 2"):
        export(Matrix(), torch.zeros(2, 4), path, axes={"x": {2: "L"}})
    for label in ("N + 1", "rows +", "a b"):
        with pytest.raises(InputError, match=f"axes: {re.escape(repr(label))} is no name"):
            export(Matrix(), torch.zeros(2, 4), path, axes={"x": {1: label}})
    with pytest.raises(InputError, match="output is of type bfloat16; allowed: bool, "):
        export(Halved(), torch.zeros(2, 4), path)
    assert not path.exists()


@pytest.mark.filterwarnings("ignore")
def test_parts_that_torch_cannot_follow_are_named(tmp_path) -> None:
    layers = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    quantised = torch.ao.quantization.quantize_dynamic(layers)
    fused = torch.ao.quantization.fuse_modules(nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval(), [["0", "1"]])
    export(fused, torch.zeros(2, 4), tmp_path / "fused")  # in floats as before
    scripted = nn.Sequential(torch.jit.script(layers))
    for model, message in (
        (quantised, "0 is quantised by torch, and has no ONNX"),
        (scripted, "0 is scripted, and cannot be traced"),
        (torch.jit.script(layers), "the module is scripted, and cannot be traced"),
        (torch.compile(layers), "the module is compiled"),
    ):
        with pytest.raises(InputError, match=message):
            export(model, torch.zeros(2, 4), tmp_path / "none")


ACTIVATIONS = (
    *("ELU", "GELU", "Hardsigmoid", "LeakyReLU", "ReLU", "SELU"),
    *("Sigmoid", "SiLU", "Softplus", "Softsign", "Tanh"),
)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_layers_run_on_integers_before_any_activation(name: str, tmp_path) -> None:
    """`export` refuses one that does not: ONNX Runtime joins some with their activation, and then they are floats."""
    torch.manual_seed(0)
    activation = getattr(nn, name)()
    model = nn.Sequential(nn.Linear(6, 8), activation, nn.LayerNorm(8), nn.Linear(8, 3), activation).eval()
    rows = torch.randn(64, 6)
    small, _ = compress(model, ["quantize-dense"], [rows])
    export(small, rows, tmp_path / "artifact")
    found = load_graph(tmp_path / "artifact").run({"input": rows.numpy()})["output"]
    np.testing.assert_allclose(found, small(rows).detach(), atol=0.02)


def test_a_layer_that_is_part_of_nothing(tmp_path) -> None:
    ids = torch.arange(USERS)
    small, _ = compress(nn.Embedding(USERS, DIM), ["quantize-tables"], [ids])
    export(small, ids, tmp_path / "table")
    assert {each["dtype"] for each in open_artifact(tmp_path / "table").manifest["graph"]["tensors"]} >= {"uint8"}
    found = load_graph(tmp_path / "table").run({"input": ids.numpy()})["output"]
    np.testing.assert_allclose(found, small(ids).detach(), atol=1e-6)
