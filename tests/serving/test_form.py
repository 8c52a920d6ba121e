"""The fields of a ranking request: every kind has values that the model takes, and none of them is anybody's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars
import pytest

from slimrank.config import as_config
from slimrank.data.encoding import Encoding
from slimrank.data.schema import Field, Schema
from slimrank.data.text import TextCodec
from slimrank.exporting.artifact import export
from slimrank.models.architecture import build_model
from slimrank.tables.embedding import Layout

ROWS = polars.DataFrame(
    {
        "user": [1001, 1777, 2001, 1500],
        "name": ["ann", "bob", "cyd", "dan"],
        "place": [0, 1, 2, 3],
        "bucket": ["a", "b", "c", "d"],
        "price": [1.0, 10.0, 100.0, 1000.0],
        "age": [20.0, 30.0, 40.0, 50.0],
        "met": [["ann"], [], ["bob", "ann"], ["cyd"]],
        "tags": ["x|y", "x", "", "y|z"],
        "label": [0, 1, 0, 1],
    }
)
FIELDS = (
    Field(name="user", kind="categorical"),
    Field(name="name", kind="categorical"),
    Field(name="place", kind="categorical", encoding="identity", num_ids=4),
    Field(name="bucket", kind="categorical", encoding="hash", num_ids=100),
    Field(name="price", kind="numeric", log=True),
    Field(name="age", kind="numeric"),
    Field(name="met", kind="sequence", max_length=3),
    Field(name="tags", kind="sequence", max_length=3, separator="|"),
)


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was never trained, over fields of every kind but text."""
    encoding = Encoding.fit(Schema(fields=FIELDS, group="user"), ROWS)
    model = build_model(as_config("model", {"name": "dnn", "hidden": [4]}), Layout.of(encoding), seed=0)
    path = tmp_path_factory.mktemp("form") / "kinds"
    export(model, encoding, path)
    return path


def texts(tokenizer: bytes, path: Path, name: str, pair: str | None) -> Path:
    """A text model that was never trained."""
    codec = TextCodec(tokenizer, 8)
    layout = Layout(("claim",), (codec.size,), (8,), 0, ("claim",))
    small = {"embedding_dim": 8, "layers": 1, "heads": 2, "hidden": 8, "name": name}
    export(build_model(as_config("model", small), layout, seed=0), Encoding.of_text(codec, "claim", pair), path)
    return path


@pytest.fixture(scope="module")
def kinds(every_kind: Path, serve_once: Callable[..., Any]) -> Any:
    return serve_once({"kinds": every_kind})


@pytest.fixture(scope="module")
def reading(tokenizer: bytes, tmp_path_factory: pytest.TempPathFactory, serve_once: Callable[..., Any]) -> Any:
    """A service of a model of pairs of texts, and of one that gives their vectors."""
    folder = tmp_path_factory.mktemp("texts")
    pairs = texts(tokenizer, folder / "pairs", "cross-encoder", "document")
    return serve_once({"pairs": pairs, "vectors": texts(tokenizer, folder / "vectors", "text-encoder", None)})


def test_every_kind_of_field_has_values_that_are_taken(kinds: Any) -> None:
    told = kinds.http.get("/v2/models/kinds/schema").json()
    assert (told["answers"], told["group"]) == ("scores", "user")
    assert "golden" in told["golden"]
    assert [(each["name"], each["kind"]) for each in told["fields"]] == [(each.name, each.kind) for each in FIELDS]
    examples = {each["name"]: each["examples"] for each in told["fields"]}
    assert {name: examples[name] for name in ("user", "place", "name", "met", "tags")} == {
        "user": [1251, 1501, 1751],  # a quarter of the way from 1001 to 2001, half, three quarters
        "place": [0, 1, 2],
        "name": ["name 1", "name 2", "name 3"],
        "met": [["met 1"], ["met 1", "met 2"]],
        "tags": ["tags 1|tags 2"],
    }
    assert examples["age"] == [35.0, 23.8, 46.2]  # the mean, and the standard deviation of 11.18 to both sides
    longest = max(map(len, examples.values()))
    rows = [{name: values[place % len(values)] for name, values in examples.items()} for place in range(longest)]
    assert len(kinds.rank("kinds", candidates=rows).json()["probability"]) == longest
    shared = {name: rows[0][name] for name in ("user", "met")}
    own = [{name: value for name, value in row.items() if name not in shared} for row in rows]
    assert kinds.rank("kinds", shared=shared, candidates=own).status_code == 200


def test_a_logarithm_is_undone(kinds: Any) -> None:
    fields = kinds.http.get("/v2/models/kinds/schema").json()["fields"]
    (mean, *_) = next(each["examples"] for each in fields if each["name"] == "price")
    assert mean == pytest.approx((2 * 11 * 101 * 1001) ** 0.25 - 1, rel=0.01)  # of log(1 + price)


def test_what_a_text_model_reads(reading: Any) -> None:
    told = reading.http.get("/v2/models/pairs/schema").json()
    assert [(each["name"], each["kind"]) for each in told["fields"]] == [("claim", "text"), ("document", "text")]
    row = {each["name"]: each["examples"][0] for each in told["fields"]}
    assert reading.rank("pairs", candidates=[row]).status_code == 200
    assert reading.http.get("/v2/models/vectors/schema").json()["answers"] == "vectors"


@pytest.mark.parametrize("candidates", [None, [], [{"label": "an item"}], {"label": [1]}])
def test_a_model_without_a_catalogue_ranks_nothing(reading: Any, candidates: Any) -> None:
    answer = reading.rank("vectors", shared={"claim": "a text"}, candidates=candidates)
    assert (answer.status_code, answer.json()) == (
        400,
        {"error": "the model has no catalogue: it gives vectors, and is asked by tensors (infer)"},
    )


def test_a_catalogue_is_told_and_a_module_has_no_fields(
    finder: Callable[[str], Any], asked_by_tensors: Path, serving: Callable[..., Any]
) -> None:
    service = serving({"finder": finder("vectors").path, "module": asked_by_tensors})
    told = service.http.get("/v2/models/finder/schema").json()
    assert told["answers"] == "items"
    shared = {each["name"]: each["examples"][-1] for each in told["fields"]}
    assert service.rank("finder", shared=shared).json()["unknown"] == {"history": 0}
    told = service.http.get("/v2/models/module/schema").json()
    assert (told["answers"], told["fields"]) == ("tensors", [])
    assert service.http.get("/v2/models/other/schema").status_code == 404
