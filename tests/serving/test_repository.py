"""Models while they answer: replaced, damaged, divided among versions, compared with a shadow, unloaded and loaded."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimrank.config import InputError
from slimrank.runtime import load
from slimrank.serving import Settings, models_of
from slimrank.serving.repository import Model as Served
from slimrank.serving.repository import Version
from slimrank.serving.server import serve
from slimrank.serving.settings import ModelSettings

Write = Callable[..., Any]
SOON = {"poll_ms": 5}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "linear"


def answer_of(served: Any, row: dict[str, Any]) -> tuple[str, list[float]]:
    """The version that answered, and what."""
    found = served.rank(candidates=[row]).json()
    return found["model_version"], found["probability"]


def expected_of(path: Path, row: dict[str, Any]) -> tuple[str, list[float]]:
    model = load(path)
    return model.artifact.digest[:12], model.predict([row]).probability.tolist()


def index_of(served: Any, **asked: Any) -> list[dict[str, str]]:
    found: list[dict[str, str]] = served.http.post("/v2/repository/index", json=asked).json()
    return found


def test_a_new_version_takes_the_place_of_the_old_one(
    serving: Any, write_linear_at: Write, path: Path, row: dict[str, Any], eventually: Any
) -> None:
    write_linear_at(path)
    served = serving(path, **SOON)
    for seed in (1, 2, 3):
        write_linear_at(path, seed=seed)
        expected = expected_of(path, row)
        seen = []
        eventually(lambda seen=seen, expected=expected: seen.append(answer_of(served, row)) or seen[-1] == expected)
        assert len(set(map(str, seen))) <= 2  # the old one's or the new one's, and nothing between
    assert index_of(served) == [{"name": "linear", "version": expected[0], "state": "READY", "reason": ""}]
    assert served.metric("reloads_total", outcome="loaded") == 4
    assert served.http.get("/v2/models/linear").json()["versions"] == [expected[0]]


def test_a_symlink_may_point_elsewhere(
    serving: Any, write_linear_at: Write, path: Path, row: dict[str, Any], eventually: Any
) -> None:
    first, second = (write_linear_at(path.with_name(f"v{seed}"), seed=seed).path for seed in (0, 1))
    path.symlink_to(first)
    served = serving(path, **SOON)
    assert answer_of(served, row) == expected_of(first, row)
    other = path.with_name("other")
    other.symlink_to(second)
    other.replace(path)
    eventually(lambda: answer_of(served, row) == expected_of(second, row))


def test_the_old_version_answers_on_where_the_new_one_is_damaged(
    serving: Any, write_linear_at: Write, path: Path, row: dict[str, Any], eventually: Any, caplog: Any
) -> None:
    write_linear_at(path)
    expected = expected_of(path, row)
    served = serving(path, **SOON)
    damaged = write_linear_at(path.with_name("damaged"), seed=1).path
    (damaged / "model.onnx").write_bytes((damaged / "model.onnx").read_bytes()[:-1] + b"x")
    with caplog.at_level(logging.ERROR, "slimrank.serving"):
        path.rename(path.with_name("old"))
        damaged.rename(path)
        index = eventually(lambda: [each for each in index_of(served) if "damaged, sha256" in each["reason"]])
    assert (index[0]["version"], index[0]["state"]) == (expected[0], "READY")
    assert answer_of(served, row) == expected
    told = [each.getMessage() for each in caplog.records if "the old one stays" in each.getMessage()]
    assert len(told) == 1  # and is not tried again
    assert "model.onnx: damaged, sha256" in told[0]
    assert served.http.get("/v2/health/ready").status_code == 200
    shutil.rmtree(path)
    path.with_name("old").rename(path)
    eventually(lambda: index_of(served)[0]["reason"] == "")
    shutil.rmtree(path)
    eventually(lambda: "no artifact there" in index_of(served)[0]["reason"])
    assert answer_of(served, row) == expected
    write_linear_at(path, seed=2)
    eventually(lambda: answer_of(served, row) == expected_of(path, row))
    assert index_of(served)[0]["reason"] == ""


def test_what_nobody_foresaw_in_a_new_version_leaves_the_old_one(
    serving: Any, write_linear_at: Write, path: Path, row: dict[str, Any], eventually: Any
) -> None:
    write_linear_at(path)
    expected = expected_of(path, row)
    served = serving(path, **SOON)
    write_linear_at(path, seed=1, manifest={"outputs": 7})
    eventually(lambda: index_of(served)[0]["reason"] == f"{path}: cannot be loaded (TypeError)")
    assert answer_of(served, row) == expected
    status, told = call(served, "linear", "load")
    assert (status, told["error"]) == (400, f"{path}: cannot be loaded (TypeError)")


def test_reasons_of_several_paths_do_not_grow(
    serving: Any, write_linear_at: Write, path: Path, eventually: Any
) -> None:
    paths = [write_linear_at(path.with_name(f"v{seed}"), seed=seed).path for seed in (0, 1)]
    served = serving({"two": {"versions": [{"path": each} for each in paths]}}, **SOON)
    for each in paths:
        (each / "README.md").unlink()
        (each / "manifest.json").touch()
    reason = eventually(lambda: (r := index_of(served)[0]["reason"]).count("README.md: missing") == 2 and r)
    seen = served.metric("reloads_total", outcome="failed")
    looks: list[int] = []
    look = served.service.repository.look
    served.service.repository.look = lambda: (looks.append(1), look())[1]
    eventually(lambda: len(looks) > 3)
    assert index_of(served)[0]["reason"] == reason
    assert served.metric("reloads_total", outcome="failed") == seen


def golden_of(path: Path, change: float = 0.0) -> dict[str, Any]:
    """The golden rows of an artifact, as export writes them; each answer is changed."""
    from slimrank.data.golden import Golden, made_rows

    model = load(path)
    made = made_rows(model.encoding.schema, model.encoding.sizes)
    inputs = {"ids": made.ids, "numbers": made.numbers}
    return Golden.of(inputs, {"logit": model.score(made)[:, None] + np.float32(change)}).model_dump(mode="json")


def test_a_version_that_answers_its_golden_rows_otherwise_is_not_taken(
    serving: Any, write_linear_at: Write, path: Path, row: dict[str, Any], eventually: Any
) -> None:
    plain = write_linear_at(path.with_name("plain"), seed=1).path
    write_linear_at(path, seed=0)
    expected = expected_of(path, row)
    served = serving(path, **SOON)
    write_linear_at(path, seed=1, manifest={"golden": golden_of(plain, 0.01)})
    index = eventually(lambda: [each for each in index_of(served) if "golden row" in each["reason"]])
    assert "logit is" in index[0]["reason"]
    assert answer_of(served, row) == expected
    write_linear_at(path, seed=1, manifest={"golden": golden_of(plain)})
    eventually(lambda: answer_of(served, row) == expected_of(path, row))
    assert served.service.repository.version("linear").proof == "8 golden rows answered as at export"
    write_linear_at(path, seed=1, manifest={"golden": golden_of(plain, 1)})
    with pytest.raises(InputError, match="golden row"):
        serve(Settings(models=models_of([path]), port=0))


@pytest.fixture
def two(write_linear_at: Write, tmp_path: Path) -> list[Path]:
    return [write_linear_at(tmp_path / name, seed=seed).path for seed, name in enumerate(("one", "two"))]


def test_versions_divide_the_requests_by_their_shares(serving: Any, two: list[Path], row: dict[str, Any]) -> None:
    shares = [{"path": two[0], "share": 3}, {"path": two[1], "share": 1}]
    served = serving({"linear": {"versions": shares}})
    expected = dict(expected_of(each, row) for each in two)
    answers = [served.rank(candidates=[row], id=f"user {place % 100}").json() for place in range(200)]
    by_key = {each["id"]: each["model_version"] for each in answers}
    assert all(each["model_version"] == by_key[each["id"]] for each in answers)  # the same key, the same version
    assert all(each["probability"] == expected[each["model_version"]] for each in answers)
    for name in expected:
        assert served.rank(candidates=[row], version=name, id="user 1").json()["model_version"] == name
    assert served.http.get("/v2/models/linear").json()["versions"] == list(expected)


@pytest.mark.parametrize("with_keys", [True, False])
def test_shares_are_kept_within_chance(with_keys: bool) -> None:
    class Stub:
        version = "x"

    versions = tuple(Version(Stub(), Path(), lambda: None, share, "") for share in (0.7, 0.2, 0.1))  # type: ignore
    model = Served(ModelSettings(name="m", versions=({"path": "x"},)), versions)  # type: ignore[arg-type]
    count = 10_000
    found = Counter(model.choose(f"key {place}" if with_keys else None).share for place in range(count))
    for share in (0.7, 0.2, 0.1):
        spread = (count * share * (1 - share)) ** 0.5
        assert abs(found[share] - count * share) < 6 * spread


def test_a_shadow_is_compared_and_changes_no_answer(
    serving: Any, two: list[Path], row: dict[str, Any], eventually: Any
) -> None:
    served = serving({"linear": {"versions": [{"path": two[0]}], "shadow": two[1]}})
    expected = expected_of(two[0], row)
    apart = abs(expected[1][0] - expected_of(two[1], row)[1][0])
    assert answer_of(served, row) == expected
    eventually(lambda: served.metric("shadow_difference_count", model="linear") == 1)
    assert served.metric("shadow_difference_sum", model="linear") == pytest.approx(apart, rel=1e-4)
    own = {key: value for key, value in row.items() if key != "user"}
    assert served.rank(shared={"user": 7}, candidates=[own]).json()["model_version"] == expected[0]
    eventually(lambda: served.metric("shadow_difference_count", model="linear") == 2)
    ids = {"name": "ids", "shape": [1, 5], "datatype": "INT32", "data": [1, 2, 1, 0, 0]}
    numbers = {"name": "numbers", "shape": [1, 1], "datatype": "FP32", "data": [0.5]}
    assert served.infer(inputs=[ids, numbers]).status_code == 200
    eventually(lambda: served.metric("shadow_difference_count", model="linear") == 3)
    assert [each["version"] for each in index_of(served)] == [expected[0]]


def test_a_shadow_that_fails_is_told_and_harms_nobody(
    serving: Any, two: list[Path], row: dict[str, Any], eventually: Any, caplog: Any
) -> None:
    served = serving({"linear": {"versions": [{"path": two[0]}], "shadow": two[1]}})

    def fail(arrays: Any) -> Any:
        raise ZeroDivisionError("a fault")

    served.service.repository.models["linear"].shadow.call.run = fail
    with caplog.at_level(logging.WARNING, "slimrank.serving"):
        assert answer_of(served, row) == expected_of(two[0], row)
        eventually(lambda: [each for each in caplog.messages if "does not answer: a fault" in each])
    assert served.metric("shadow_difference_count") == 0


def call(served: Any, name: str, what: str, **body: Any) -> tuple[int, Any]:
    answer = served.http.post(f"/v2/repository/models/{name}/{what}", json=body)
    return answer.status_code, answer.json()


def test_models_are_unloaded_and_loaded_by_request(serving: Any, two: list[Path], row: dict[str, Any]) -> None:
    later = {"versions": [{"path": two[1]}], "load": False}
    served = serving({"linear": two[0], "later": later}, **SOON)
    assert served.rank("later", candidates=[row]).json() == {"error": "model 'later' is not loaded"}
    assert served.http.get("/v2/health/ready").status_code == 200  # what is not wanted is not waited for
    assert call(served, "later", "load") == (200, {})
    assert served.rank("later", candidates=[row]).status_code == 200
    assert call(served, "linear", "unload") == (200, {})
    answer = served.rank(candidates=[row])
    assert (answer.status_code, answer.json()) == (503, {"error": "model 'linear' is not loaded: unloaded"})
    ready = served.http.get("/v2/models/linear/ready")
    assert (ready.status_code, ready.json()) == (503, {"name": "linear", "ready": False})
    assert index_of(served, ready=True) == [each for each in index_of(served) if each["name"] == "later"]
    assert [each["state"] for each in index_of(served)] == ["UNAVAILABLE", "READY"]
    assert call(served, "linear", "load") == (200, {})
    assert answer_of(served, row) == expected_of(two[0], row)
    assert call(served, "liner", "load")[0] == 404
    status, told = call(served, "linear", "load", parameters={"config": "{}"})
    assert (status, told["error"]) == (400, "a model is loaded from its own paths: no config and no files are taken")


def test_what_is_not_there_at_load_is_told(serving: Any, two: list[Path], row: dict[str, Any]) -> None:
    served = serving({"linear": {"versions": [{"path": two[0]}], "load": False}})
    two[0].rename(two[0].with_name("away"))
    status, told = call(served, "linear", "load")
    assert (status, "no artifact there" in told["error"]) == (400, True)
    assert "no artifact there" in served.rank(candidates=[row]).json()["error"]
    two[0].with_name("away").rename(two[0])
    assert call(served, "linear", "load") == (200, {})
    assert answer_of(served, row) == expected_of(two[0], row)


def test_requests_load_nothing_where_they_may_not(serving: Any, two: list[Path]) -> None:
    """Because it is said so; or because everyone may ask, and it is not said otherwise."""
    address = {"host": "0.0.0.0"}  # of the settings: the tests' own door is on loopback
    assert call(serving({"linear": two[0]}, **address, remote_load=True), "linear", "unload") == (200, {})
    assert call(serving({"linear": two[0]}, **address), "linear", "unload")[0] == 400
    served = serving({"linear": two[0]}, remote_load=False)
    for what in ("load", "unload"):
        assert call(served, "linear", what)[1] == {"error": "this service does not load or unload models by request"}
    assert served.http.get("/v2/health/ready").status_code == 200
