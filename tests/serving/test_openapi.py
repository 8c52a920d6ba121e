"""The description of the service, held to what a real one does: every route, status, content and schema."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck

from slimrank.serving.access import OPEN
from slimrank.serving.app import Endpoints
from slimrank.serving.openapi import description
from slimrank.serving.service import Service
from slimrank.serving.settings import Settings, models_of

TOKEN = "a-token-of-many-letters"
EXAMPLES = 12  # of each operation, beside those that cover its schema one by one
NAMES = ("linear", "vectors", "mine", "no-such-model")
UNLOADED = "spare"  # the only one that is, so that the others answer whatever comes before


@pytest.fixture(scope="module")
def address(
    start_once: Callable[..., Any],
    write_linear_at: Callable[..., Any],
    artifacts: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """Where a model of rows, a finder and a module are served to who has the token."""
    folder = tmp_path_factory.mktemp("openapi")
    (folder / "token").write_text(TOKEN)
    models = (*artifacts.values(), write_linear_at(folder / UNLOADED).path)
    return str(start_once(*models, "--port", 0, "--token-file", folder / "token").url)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(models=models_of([tmp_path / "linear"]))


def test_what_is_described_is_what_there_is(settings: Settings) -> None:
    routes = {
        (route.path, method.lower())
        for route in Endpoints(Service(settings)).routes()
        for method in (route.methods or set()) - {"HEAD"}
    }
    described = {(path, method) for path, item in description(settings)["paths"].items() for method in item}
    assert {each for each in described if each[1] != "parameters"} == routes


def references(part: Any) -> Iterator[str]:
    """Whatever a part of a description refers to."""
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"]
        for each in part.values():
            yield from references(each)
    elif isinstance(part, list):
        for each in part:
            yield from references(each)


def test_nothing_is_said_twice_or_for_nothing(settings: Settings) -> None:
    told = description(settings)
    components = {f"#/components/{kind}/{name}" for kind, named in told["components"].items() for name in named}
    assert components - set(references(told)) <= {"#/components/responses/401"}
    assert set(references(told)) <= components
    operations = [item[method] for item in told["paths"].values() for method in ("get", "post") if method in item]
    assert max(Counter(each["operationId"] for each in operations).values()) == 1


def test_the_token_is_asked_for_where_the_description_says_so(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    told = description(settings.model_copy(update={"token_file": tmp_path / "token"}))
    free = {path for path, item in told["paths"].items() if item.get("get", {}).get("security") == []}
    assert free == set(OPEN)
    assert told["security"] == [{"bearer": []}]
    assert "security" not in description(settings)


SECURED = Settings(models=models_of([Path(name) for name in NAMES]), token_file=Path("token"))
REFUSED = {"expected-statuses": ["400", "401", "404", "405", "413"]}
CONFIG = schemathesis.Config.from_dict(
    {
        "checks": {
            "positive_data_acceptance": {"enabled": False},  # what a model takes is its own, not the description's
            "negative_data_rejection": REFUSED,
        }
    }
)
schema = schemathesis.openapi.from_dict(description(SECURED), config=CONFIG)


def test_the_description_is_one_of_openapi_and_is_served(address: str) -> None:
    schema.validate()
    bearing = {"authorization": f"Bearer {TOKEN}"}
    told = httpx.get(f"{address}/openapi.json", headers=bearing).json()
    assert told["paths"] == description(SECURED)["paths"]


@schema.parametrize()  # type: ignore[untyped-decorator]
@hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_it_answers_as_it_is_described(case: Any, address: str) -> None:
    if "name" in (case.path_parameters or {}):
        names = [UNLOADED] if case.path.endswith("unload") else NAMES
        case.path_parameters["name"] = names[len(repr(case.body)) % len(names)]
    case.call_and_validate(base_url=address, headers={"Authorization": f"Bearer {TOKEN}"})
