"""A small real artifact: a linear model over two ids, a history and a number, as a real ONNX graph."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import polars
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from slimrank.artifact import write_artifact
from slimrank.data.encoding import Encoding, Inputs
from slimrank.data.schema import Field, Schema

os.environ.setdefault("KERAS_BACKEND", "torch")  # its models are modules of torch, which is here anyway
os.environ.setdefault("NUMBA_DISABLE_JIT", "1")  # ranx would compile for a minute what a few tests ask of it


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The README's blocks take the longest: they go first, so that no worker waits for them at the end."""
    items.sort(key=lambda item: item.path.name != "test_readme.py")


LINEAR_ROWS = polars.DataFrame(
    {
        "user": [7, 7, 9, 11, 7, 9],
        "price": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        "item": ["tea", "jam", "tea", "rye", "tea", "jam"],
        "history": [["tea"], ["tea", "jam"], [], ["rye", "tea", "jam", "tea"], ["jam"], ["tea"]],
        "label": [1, 0, 1, 0, 1, 0],
    }
)


@dataclass(frozen=True)
class Linear:
    """An artifact and the arithmetic behind it: logit = sum of weights[ids + offsets] + numbers @ slope."""

    path: Path
    encoding: Encoding
    weights: NDArray[np.float32]
    slope: NDArray[np.float32]

    def logits(self, inputs: Inputs) -> NDArray[np.float32]:
        """What the graph must give, from arithmetic."""
        sizes = self.encoding.sizes
        starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
        offsets = np.array([starts[name] for name in self.encoding.schema.columns])
        return self.weights[inputs.ids + offsets].sum(axis=(1, 2)) + (inputs.numbers @ self.slope)[:, 0]


def linear_graph(encoding: Encoding, weights: NDArray[np.float32], slope: NDArray[np.float32]) -> onnx.ModelProto:
    """ids -> Add offsets -> Gather -> ReduceSum, plus numbers @ slope: standard operators, opset 21, IR 10."""
    starts = dict(zip(encoding.sizes, np.cumsum([0, *encoding.sizes.values()]).tolist(), strict=False))
    columns = encoding.schema.columns
    constants = {
        "offsets": np.array([starts[name] for name in columns], np.int32),
        "weights": weights,
        "slope": slope,
        "axes": np.array([1, 2], np.int64),
        "last": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Add", ["ids", "offsets"], ["rows"]),
        helper.make_node("Gather", ["weights", "rows"], ["looked_up"]),
        helper.make_node("ReduceSum", ["looked_up", "axes"], ["wide"], keepdims=0),
        helper.make_node("MatMul", ["numbers", "slope"], ["product"]),
        helper.make_node("Squeeze", ["product", "last"], ["dense"]),
        helper.make_node("Add", ["wide", "dense"], ["logit"]),
    ]
    inputs = [
        helper.make_tensor_value_info("ids", TensorProto.INT32, ["N", len(columns)]),
        helper.make_tensor_value_info("numbers", TensorProto.FLOAT, ["N", len(slope)]),
    ]
    output = helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["N"])
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "linear", inputs, [output], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def graph_facts(graph: onnx.GraphProto) -> dict[str, object]:
    """What export writes into the manifest about a graph."""
    tensors = [(tensor, numpy_helper.to_array(tensor)) for tensor in graph.initializer]
    operators: dict[str, int] = {}
    for node in graph.node:
        name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        operators[name] = operators.get(name, 0) + 1
    return {
        "tensors": [
            {
                "name": tensor.name,
                "dtype": str(value.dtype),
                "shape": list(value.shape),
                "bytes": value.nbytes,
                "nonzero": int(np.count_nonzero(value)),
            }
            for tensor, value in tensors
        ],
        "operators": operators,
    }


def write_linear(
    folder: Path,
    encoding: Encoding,
    model: onnx.ModelProto,
    external: bool = False,
    more: Mapping[str, Any] | None = None,
) -> None:
    """An artifact around a graph, with `more` in its manifest; with `external`, its weights stand in model.onnx.data.

    Small tensors stay inside: shape inference of ONNX Runtime cannot read axes from external data.
    """
    facts = graph_facts(model.graph)
    where = {"save_as_external_data": True, "location": "model.onnx.data", "size_threshold": 128} if external else {}
    manifest = {"graph": facts, "metrics": {"auc": 0.75}, "seeds": [0], "recipe": {"name": "linear"}, **(more or {})}
    with TemporaryDirectory() as work:
        encoding.save(Path(work))
        onnx.save(model, Path(work) / "model.onnx", **where)
        files: dict[str, Path | bytes] = {path.name: path for path in Path(work).iterdir()}
        write_artifact(folder, {**files, "README.md": b"# Linear\n"}, manifest)


@pytest.fixture(scope="session")
def linear_encoding() -> Encoding:
    fields = (
        Field(name="user", kind="categorical"),
        Field(name="item", kind="categorical"),
        Field(name="price", kind="numeric"),
        Field(name="history", kind="sequence", max_length=3),
    )
    return Encoding.fit(Schema(fields=fields), LINEAR_ROWS)


@pytest.fixture(scope="session")
def write_linear_at(linear_encoding: Encoding) -> Callable[..., Linear]:
    """Writes one to a path, in the place of what stands there; a `seed` has its own weights."""

    def write(
        path: Path,
        change: Callable[[onnx.ModelProto], object] = id,
        *,
        external: bool = False,
        seed: int = 0,
        manifest: Mapping[str, Any] | None = None,
    ) -> Linear:
        generator = np.random.default_rng(seed)
        weights = generator.normal(size=(sum(linear_encoding.sizes.values()), 4)).astype(np.float32)
        slope = np.array([[0.5]], np.float32)
        model = linear_graph(linear_encoding, weights, slope)
        change(model)
        write_linear(path, linear_encoding, model, external, manifest)
        return Linear(path, linear_encoding, weights, slope)

    return write


@pytest.fixture
def make_linear(tmp_path: Path, write_linear_at: Callable[..., Linear]) -> Callable[..., Linear]:
    """Writes one; `change(model)` may alter the graph first."""

    def make(change: Callable[[onnx.ModelProto], object] = id, external: bool = False, name: str = "linear") -> Linear:
        return write_linear_at(tmp_path / name, change, external=external)

    return make


@pytest.fixture
def linear(make_linear: Callable[..., Linear]) -> Linear:
    return make_linear()


@pytest.fixture(scope="session")
def linear_rows() -> polars.DataFrame:
    return LINEAR_ROWS


@pytest.fixture(scope="session")
def asked_by_tensors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of a module of one's own: user int64 [rows] and numbers [rows, 2] to a score and a pair."""
    import torch
    from torch import nn

    from slimrank.api import export

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.user = nn.Embedding(20, 2)
            self.last = nn.Linear(2, 1)

        def forward(self, user: torch.Tensor, numbers: torch.Tensor) -> dict[str, torch.Tensor]:
            pair = self.user(user) * numbers
            return {"score": self.last(pair), "pair": pair}

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("module") / "mine"
    export(Module().eval(), {"user": torch.arange(4), "numbers": torch.randn(4, 2)}, path)
    return path


def tiny_rows(count: int, seed: int = 0) -> polars.DataFrame:
    """Clicks of 60 users on 90 items with tags and a price; the label hangs on all of them."""
    draw = np.random.default_rng(seed)
    user, item = np.minimum(draw.zipf(1.3, count), 60), np.minimum(draw.zipf(1.2, count), 90)
    tags = [" ".join("abcd"[:one]) for one in draw.integers(1, 5, count)]
    price = np.exp(draw.normal(0, 1, count))
    logit = 1.5 * (user % 3 - 1) + 1.5 * (item % 2) - 1 + 0.4 * np.array([len(one) - 4 for one in tags]) + np.log(price)
    label = (draw.random(count) < 1 / (1 + np.exp(-logit))).astype(np.int8)
    return polars.DataFrame({"user": user, "item": item, "tags": tags, "price": price, "label": label})


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """A recipe of seconds as plain data, over rows in a Parquet file; keys may be changed."""
    rows = tmp_path_factory.mktemp("tiny") / "rows.parquet"
    tiny_rows(2500).write_parquet(rows)

    def recipe(**changes: Any) -> dict[str, Any]:
        training = {"epochs": 2, "batch_size": 256, "learning_rate": 0.02, "patience": 0}
        tags = {"kind": "sequence", "separator": " ", "max_length": 3}
        return {
            "name": "tiny",
            "data": {"name": "parquet", "path": str(rows), "group": "user", "fields": {"tags": tags}},
            "teacher": {
                "model": {"name": "dcnv2", "embedding_dim": 8, "hidden": [16, 16], "cross_layers": 1},
                "training": training,
            },
            "student": {"model": {"name": "dnn", "embedding_dim": 4, "hidden": [8, 8]}, "training": training},
            "steps": [
                {"name": "threshold-rows", "min_count": 5},
                {"name": "prune-weights", "sparsity": 0.3},
                {"name": "prune-neurons", "keep": 0.5},
                {"name": "quantize-tables", "bits": 4},
                {"name": "quantize-dense"},
            ],
            "retraining": training,
            **changes,
        }

    return recipe


def walks(users: int, seed: int = 0, items: int = 60) -> polars.DataFrame:
    """What users met on their way round a circle of items, in order: steps of 1, now and then of 2."""
    draw = np.random.default_rng(seed)
    steps = draw.choice([1, 2], (users, 12), p=[0.8, 0.2]).cumsum(axis=1)
    places = (draw.integers(0, items, (users, 1)) + steps) % items
    kept = np.arange(12) < draw.integers(5, 13, (users, 1))
    user, place = np.nonzero(kept)
    return polars.DataFrame({"user": user, "item": [f"item {each}" for each in places[user, place]]})


@pytest.fixture(scope="session")
def next_item(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """A recipe of seconds for the next item as plain data, over walks in a CSV file; keys may be changed."""
    rows = tmp_path_factory.mktemp("next") / "walks.csv"
    walks(300).write_csv(rows)

    def recipe(**changes: Any) -> dict[str, Any]:
        training = {"epochs": 2, "batch_size": 32, "learning_rate": 0.02, "patience": 0}
        return {
            "name": "next",
            "data": {"name": "interactions", "path": str(rows), "max_length": 6},
            "teacher": {
                "model": {"name": "sasrec", "embedding_dim": 16, "blocks": 1, "dropout": 0.0},
                "training": training,
            },
            "student": None,
            "distillation": None,
            "steps": [{"name": "quantize-tables", "bits": 4}, {"name": "quantize-dense"}],
            "retraining": training,
            **changes,
        }

    return recipe


@dataclass(frozen=True)
class FinderOfWalks:
    """An artifact that answers with items, the model behind it, and the rows that both were made for."""

    path: Path
    model: Any
    dataset: Any
    encoded: Any


@pytest.fixture(scope="session")
def finder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., FinderOfWalks]:
    """Makes each once: `vectors` of GRU4Rec trained a little, `worse` ones of less, `codes`, and `scores` of EASE."""
    folder = tmp_path_factory.mktemp("finders")
    walks(400).write_csv(folder / "walks.csv")
    made: dict[str, FinderOfWalks] = {}

    def make(kind: str) -> FinderOfWalks:
        if kind not in made:
            made[kind] = _finder_of_walks(kind, folder)
        return made[kind]

    return make


def _finder_of_walks(kind: str, folder: Path) -> FinderOfWalks:
    from slimrank.compression.steps import Context, compress
    from slimrank.config import as_config
    from slimrank.data import load_dataset
    from slimrank.data.rows import encode_dataset
    from slimrank.exporting.artifact import export
    from slimrank.models.architecture import build_model
    from slimrank.tables.embedding import Layout
    from slimrank.training.examples import Examples
    from slimrank.training.loop import Training, fit

    dataset = load_dataset({"name": "interactions", "path": str(folder / "walks.csv"), "max_length": 4})
    encoded = encode_dataset(dataset)
    train, valid = (Examples.of(rows, "cpu", "item") for rows in (encoded.train, encoded.valid))
    small = {"name": "gru4rec", "embedding_dim": 8, "dropout": 0.0}
    config = as_config("model", {"name": "ease", "l2": 5.0} if kind == "scores" else small)
    model = build_model(config, Layout.of(encoded.encoding), seed=0)
    epochs = {"worse": 1}.get(kind, 4)
    fit(model, train, valid, Training(epochs=epochs, batch_size=32, learning_rate=0.02, patience=0), seed=0)
    steps = [{"name": "codebook-tables", "parts": 2, "bits": 4}] if kind == "codes" else []
    model, _ = compress(model, steps, Context(train, valid, encoded.encoding.counts))
    export(model, encoded.encoding, folder / kind)
    return FinderOfWalks(folder / kind, model.eval(), dataset, encoded)


def word_piece_tokenizer(words: str, *, lowercase: bool = True) -> bytes:
    """A `tokenizer.json` of BERT's form with these tokens behind the special ones."""
    tokens = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words.split()]
    ids = {token: place for place, token in enumerate(tokens)}
    special = [token for token in tokens if token.startswith("[")]
    return json.dumps(
        {
            "version": "1.0",
            "truncation": {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
            "padding": {
                "strategy": {"Fixed": 4},
                "direction": "Right",
                "pad_to_multiple_of": None,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "[PAD]",
            },
            "added_tokens": [
                {
                    "id": ids[token],
                    "content": token,
                    "special": True,
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": False,
                    "normalized": False,
                }
                for token in special
                if token != "[unused0]"
            ],
            "normalizer": {
                "type": "BertNormalizer",
                "clean_text": True,
                "handle_chinese_chars": True,
                "strip_accents": None,
                "lowercase": lowercase,
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [
                    {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                    {"Sequence": {"id": "A", "type_id": 0}},
                    {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
                ],
                "pair": [
                    {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                    {"Sequence": {"id": "A", "type_id": 0}},
                    {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
                    {"Sequence": {"id": "B", "type_id": 1}},
                    {"SpecialToken": {"id": "[SEP]", "type_id": 1}},
                ],
                "special_tokens": {
                    token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in ("[CLS]", "[SEP]")
                },
            },
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
            "model": {
                "type": "WordPiece",
                "unk_token": "[UNK]",
                "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100,
                "vocab": ids,
            },
        }
    ).encode()


LETTERS = " ".join("abcdefghijklmnopqrstuvwxyz.")
WORDS = f"{LETTERS} {' '.join('##' + letter for letter in LETTERS.split())} the cat cats sat un ##well on mat dog"


@pytest.fixture(scope="session")
def tokenizer() -> bytes:
    """A small `tokenizer.json`: some words, and all letters."""
    return word_piece_tokenizer(WORDS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium that keeps a log of its console and of every request.

    Chromium and its driver are the system's (Debian: chromium, chromium-driver); without them the test is skipped.
    """
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs chromium and chromedriver")
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = chromium
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(driver))
    yield found
    found.quit()


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest, browser: Any) -> str:
    """The colours that the browser asks for."""
    media = [{"name": "prefers-color-scheme", "value": request.param}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    return str(request.param)


@pytest.fixture(params=["desktop", "phone"])
def size(request: pytest.FixtureRequest, browser: Any) -> str:
    """The size of the browser's window."""
    width, height = {"desktop": (1280, 900), "phone": (390, 844)}[request.param]
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": request.param == "phone"}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    return str(request.param)
