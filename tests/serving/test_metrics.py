"""What a service tells of itself: counts, stages, unknown values, drift of scores, log lines, statistics."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from slimrank.artifact import open_artifact
from slimrank.metrics.drift import histogram, population_stability_index
from slimrank.runtime import load

OWN = {"item": "tea", "price": 1.0, "history": []}


def test_requests_are_counted_by_how_they_ended(serving: Any, linear: Any, row: dict[str, Any]) -> None:
    served = serving({"linear": linear.path, "away": {"versions": [{"path": linear.path}], "load": False}})
    version = open_artifact(linear.path).digest[:12]
    for _ in range(3):
        assert served.rank(candidates=[row, row]).status_code == 200
    assert served.rank(shared={"user": 7}, candidates=[OWN] * 4).status_code == 200
    assert served.rank(candidates=[{}]).status_code == 400
    assert served.infer(inputs=[]).status_code == 400
    assert served.rank("away", candidates=[row]).status_code == 503
    assert served.rank("nothing", candidates=[row]).status_code == 404
    for labels, count in [
        ({"model": "linear", "version": version, "kind": "rank", "code": "ok"}, 4),
        ({"model": "linear", "kind": "rank", "code": "refused"}, 1),
        ({"model": "linear", "version": version, "kind": "infer", "code": "refused"}, 1),
        ({"model": "away", "code": "unavailable"}, 1),
        ({"model": "", "code": "refused"}, 1),  # what clients make up is no label
    ]:
        assert served.metric("requests_total", **labels) == count, labels
    assert served.metric("request_seconds_count", model="linear") == 4
    assert served.metric("request_rows_sum", model="linear") == 3 * 2 + 4
    assert served.metric("batch_rows_sum", model="linear", version=version) == 3 * 2 + 4
    assert served.metric("values_total", model="linear") == 3 * 2 + 4
    assert served.metric("scores_total", model="linear") == 3 * 2 + 4


def test_all_of_the_time_of_a_request_is_in_its_stages(serving: Any, linear: Any, row: dict[str, Any]) -> None:
    served = serving(linear.path)
    for _ in range(5):
        served.rank(candidates=[row])
    inputs = [
        {"name": "ids", "shape": [1, 5], "datatype": "INT32", "data": [1, 2, 1, 0, 0]},
        {"name": "numbers", "shape": [1, 1], "datatype": "FP32", "data": [0.5]},
    ]
    served.infer(inputs=inputs)
    for stage in ("wait", "read", "parse", "queue", "run", "reply"):
        assert served.metric("stage_seconds_count", model="linear", stage=stage) == 6, stage
    assert served.metric("stage_seconds_count", model="linear", stage="encode") == 5
    whole = served.metric("request_seconds_sum", model="linear")
    assert served.metric("stage_seconds_sum", model="linear") == pytest.approx(whole)


def test_unknown_values_are_counted_by_field(serving: Any, linear: Any, row: dict[str, Any]) -> None:
    served = serving(linear.path)
    served.rank(candidates=[{**row, "user": "?", "history": ["?", "!", "tea"]}, {**row, "user": "?"}])
    served.rank(shared={"user": "?"}, candidates=[OWN, OWN])  # as often as if each candidate had it
    assert served.metric("unknown_values_total", model="linear", field="user") == 4
    assert served.metric("values_total", model="linear") == 4
    assert served.metric("unknown_values_total", model="linear", field="history") == 2
    assert served.metric("unknown_values_total", model="linear", field="item") == 0


def test_histories_that_are_cut_are_counted(serving: Any, linear: Any, row: dict[str, Any]) -> None:
    served = serving(linear.path)
    long = ["tea"] * 4
    assert served.rank(candidates=[row, {**row, "history": long}]).json()["shortened"] == {"history": 1}
    own = {"item": "tea", "price": 1.0}
    answer = served.rank(shared={"user": 7, "history": long}, candidates=[own, own]).json()
    assert answer["shortened"] == {"history": 1}
    assert served.metric("shortened_values_total", model="linear", field="history") == 3


def test_what_the_artifact_says_of_unknown_values_is_told(
    serving: Any, write_linear_at: Callable[..., Any], tmp_path: Path
) -> None:
    """Beside those of now, once a version is loaded."""
    reference = {"rows": 4, "unknown": {"user": 0.5, "item": "many"}, "shortened": {"history": 0.25}}
    path = write_linear_at(tmp_path / "linear", manifest={"reference": reference}).path
    served = serving(path)
    version = open_artifact(path).digest[:12]
    asked = {"model": "linear", "version": version}
    assert served.metric("unknown_values_reference", field="user", **asked) == 0.5
    assert served.metric("unknown_values_reference", **asked) == 0.5
    assert served.metric("shortened_values_reference", field="history", **asked) == 0.25


def test_drift_rises_when_scores_move(
    serving: Any, write_linear_at: Callable[..., Any], tmp_path: Path, row: dict[str, Any]
) -> None:
    plain = write_linear_at(tmp_path / "plain").path
    prices = np.linspace(-4, 4, 200).tolist()
    usual = [{**row, "price": price} for price in prices]
    scores = load(plain).predict(usual).probability
    reference = {"rows": len(usual), "scores": histogram(scores).tolist(), "unknown": {}}
    path = write_linear_at(tmp_path / "linear", manifest={"reference": reference}).path
    served = serving(path)
    served.rank(candidates=usual)
    assert served.metric("score_drift", model="linear") == pytest.approx(0.0, abs=1e-9)
    moved = [{**row, "price": price + 3} for price in prices]
    served.rank(candidates=moved)
    seen = histogram(scores) * np.exp(-200 / 1e5) + histogram(load(path).predict(moved).probability)
    expected = population_stability_index(reference["scores"], seen)
    assert expected > 0.01
    assert served.metric("score_drift", model="linear") == pytest.approx(expected)


@pytest.mark.parametrize(
    "reference", [{"scores": [1, 2]}, {"scores": "many"}, {"scores": [-1] * 40}, {"unknown": 7}, [7], {"rows": 1}]
)
def test_a_reference_that_is_none_harms_no_answer(
    serving: Any, write_linear_at: Callable[..., Any], tmp_path: Path, row: dict[str, Any], reference: Any
) -> None:
    served = serving(write_linear_at(tmp_path / "linear", manifest={"reference": reference}).path)
    assert served.rank(candidates=[row]).status_code == 200
    assert served.metric("score_drift", model="linear") == 0.0


def test_prometheus_reads_it(serving: Any, linear: Any, row: dict[str, Any]) -> None:
    served = serving(linear.path)
    served.rank(candidates=[row])
    answer = served.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = {each.name: each for each in text_string_to_metric_families(answer.text)}
    assert {name for name in families if not name.startswith("slimrank_")} == set()
    assert sum(s.value for s in families["slimrank_requests"].samples if s.name.endswith("_total")) == 1


def test_statistics_add_up(serving: Any, linear: Any, row: dict[str, Any]) -> None:
    served = serving({"one": linear.path, "two": linear.path})
    version = open_artifact(linear.path).digest[:12]
    for _ in range(3):
        served.rank("one", candidates=[row, row])
    served.infer("one", inputs=[])
    found = served.http.get("/v2/models/one/stats").json()["model_stats"]
    assert [(each["name"], each["version"]) for each in found] == [("one", version)]
    stats = found[0]["inference_stats"]
    assert (stats["success"]["count"], stats["fail"]["count"]) == (3, 1)
    assert (found[0]["inference_count"], found[0]["execution_count"]) == (6, 3)
    parts = ("queue", "compute_input", "compute_infer", "compute_output")
    assert all(stats[part]["count"] == 3 for part in parts)
    assert sum(stats[part]["ns"] for part in parts) <= stats["success"]["ns"]
    every = served.http.get("/v2/models/stats").json()["model_stats"]
    assert [(each["name"], each["inference_count"]) for each in every] == [("one", 6), ("two", 0)]
    assert served.http.get(f"/v2/models/one/versions/{version}/stats").json()["model_stats"] == found
    assert served.http.get("/v2/models/three/stats").status_code == 404


def test_log_lines_are_one_object_each(start: Any, linear: Any, row: dict[str, Any]) -> None:
    started = start(linear.path, "--port", 0, "--set", "log=json")
    url = started.address("serving linear on http").rstrip('"}')
    assert httpx.post(f"{url}/v2/models/linear/rank", json={"candidates": [row]}, verify=False).status_code == 200
    started.stop()
    started.reader.join()
    lines = [json.loads(line) for line in started.lines]
    assert all(list(each)[:5] == ["time", "level", "logger", "process", "message"] for each in lines)
    assert [each["message"] for each in lines if each["message"].startswith("loaded linear, version")]
    assert {each["level"] for each in lines} == {"info"}


def test_a_traceback_is_in_its_line() -> None:
    import logging
    import sys

    from slimrank.serving.logs import JsonLines

    try:
        raise ValueError("of two\nlines")
    except ValueError:
        record = logging.LogRecord("a", logging.ERROR, "", 1, "%s failed", ("it\n",), sys.exc_info())
    line = JsonLines().format(record)
    assert "\n" not in line
    told = json.loads(line)
    assert (told["level"], told["message"]) == ("error", "it\n failed")
    assert "ValueError: of two\nlines" in told["traceback"]


def test_what_nobody_foresaw_is_logged_and_tells_a_client_nothing(
    serving: Any, linear: Any, row: dict[str, Any], caplog: Any
) -> None:
    served = serving(linear.path)

    def fail(arrays: Any) -> Any:
        raise ZeroDivisionError("our secret")

    served.service.repository.version("linear").call.run = fail
    answer = served.rank(candidates=[row])
    assert (answer.status_code, answer.json()) == (500, {"error": "internal error"})
    assert "our secret" in caplog.text
    assert served.metric("requests_total", model="linear", code="failed") == 1
    assert served.service.gate.inside == 0


def test_scores_that_are_no_numbers_are_told_as_the_models_fault(
    serving: Any, linear: Any, row: dict[str, Any]
) -> None:
    served = serving(linear.path)
    call = served.service.repository.version("linear").call
    call.run = lambda arrays: {"logit": np.full(len(arrays["ids"]), np.nan, np.float32)}
    answer = served.rank(candidates=[row])
    assert (answer.status_code, answer.json()) == (422, {"error": "a probability is NaN, which JSON cannot say"})
    inputs = [
        {"name": "ids", "shape": [1, 5], "datatype": "INT32", "data": [1, 2, 1, 0, 0]},
        {"name": "numbers", "shape": [1, 1], "datatype": "FP32", "data": [0.5]},
    ]
    answer = served.infer(inputs=inputs)
    assert (answer.status_code, "NaN or infinite" in answer.json()["error"]) == (422, True)
