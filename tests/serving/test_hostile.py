"""What clients could do to others or to a service: fill its memory, its places, its graphs, or ask through a page."""

from __future__ import annotations

import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from slimrank.config import InputError
from slimrank.serving import Limits
from slimrank.serving.gate import Gate, Overloaded
from slimrank.serving.protocol import read_request
from slimrank.serving.served import open_served


def test_a_long_text_among_numbers_makes_no_large_array(linear: Any) -> None:
    served = open_served(linear.path, 1)
    data = ["x" * 20_000, *range(4999)]
    ids = {"name": "ids", "shape": [1000, 5], "datatype": "INT32", "data": data}
    tracemalloc.start()
    with pytest.raises(InputError, match="the data must be integers"):
        read_request({"inputs": [ids]}, served, 1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000  # a place of 80 KB for each of 5000 values would be 400 MB


@pytest.mark.parametrize("where", ["shared", "row", "column"])
def test_no_value_is_longer_than_is_allowed(serving: Any, linear: Any, row: dict[str, Any], where: str) -> None:
    served = serving(linear.path, limits=Limits(max_text=100))
    own = {key: value for key, value in row.items() if key != "user"}
    long = {"user": "x" * 101}
    asked = {
        "shared": {"shared": long, "candidates": [own]},
        "row": {"candidates": [row | long]},
        "column": {"candidates": {key: [value] for key, value in (row | long).items()}},
    }[where]
    answer = served.rank(**asked)
    assert (answer.status_code, "a text of 101 characters, at most 100" in answer.json()["error"]) == (413, True)
    asked = {"candidates": [row | {"user": "x" * 100}]}
    assert served.rank(**asked).status_code == 200


def test_a_body_that_came_late_waits_for_no_more_than_others_may() -> None:
    gate = Gate(Limits(max_wait_ms=10))
    gate.means["m"] = 0.02
    gate.enter("m")
    with pytest.raises(Overloaded), gate.aside("m"):  # while it is read, others come in
        gate.inside, gate.work = 5, 0.1


@pytest.mark.parametrize("what", ["unload", "load"])
def test_pages_of_others_change_nothing(serving: Any, linear: Any, row: dict[str, Any], what: str) -> None:
    served = serving(linear.path)
    path = f"/v2/repository/models/linear/{what}"
    answer = served.http.post(path, headers={"origin": "https://elsewhere.example", "content-type": "text/plain"})
    assert (answer.status_code, "elsewhere.example" in answer.json()["error"]) == (403, True)
    assert served.rank(candidates=[row]).status_code == 200
    own = f"http://127.0.0.1:{served.port}"
    assert served.http.post(path, headers={"origin": own}).status_code == 200


def test_requests_about_models_are_short(serving: Any, linear: Any) -> None:
    served = serving(linear.path)
    assert served.http.post("/v2/repository/index", content=b" " * 70_000).status_code == 413


def test_one_damaged_version_of_two_leaves_the_other(
    serving: Any, write_linear_at: Any, tmp_path: Path, row: dict[str, Any], eventually: Any
) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    write_linear_at(good)
    write_linear_at(bad, seed=1)
    versions = [{"path": good}, {"path": bad}]
    served = serving({"both": {"versions": versions, "load": False}}, poll_ms=5)
    shutil.copy(good / "schema.json", bad / "model.onnx")
    assert served.http.post("/v2/repository/models/both/load").status_code == 400
    assert {served.rank("both", candidates=[row]).status_code for _ in range(5)} == {200}
    (told,) = served.http.post("/v2/repository/index").json()
    assert (told["state"], "damaged" in told["reason"]) == ("READY", True)
    loaded = served.metric("reloads_total", outcome="loaded")
    for _ in range(100):  # looks go on meanwhile
        assert served.rank("both", candidates=[row]).status_code == 200
    assert served.metric("reloads_total", outcome="loaded") == loaded  # the good one is not opened over and over
    write_linear_at(bad, seed=1)
    eventually(lambda: len(served.http.get("/v2/models/both").json()["versions"]) == 2)


def test_rankings_and_refusals_are_in_the_statistics(serving: Any, linear: Any, row: dict[str, Any]) -> None:
    served = serving(linear.path)
    own = {key: value for key, value in row.items() if key != "user"}
    for _ in range(3):
        assert served.rank(shared={"user": 7}, candidates=[own] * 4).status_code == 200
    assert served.rank(candidates=[{}]).status_code == 400
    (told,) = served.http.get("/v2/models/linear/stats").json()["model_stats"]
    assert (told["inference_count"], told["execution_count"]) == (12, 3)
    assert (told["inference_stats"]["success"]["count"], told["inference_stats"]["fail"]["count"]) == (3, 1)


def test_a_version_that_is_gone_takes_its_series_along(
    serving: Any, write_linear_at: Any, tmp_path: Path, row: dict[str, Any], eventually: Any
) -> None:
    path = tmp_path / "linear"
    write_linear_at(path)
    served = serving(path, poll_ms=5, limits=Limits(timeout_ms=500))
    first = served.rank(candidates=[row]).json()["model_version"]
    write_linear_at(path, seed=1)
    eventually(lambda: served.rank(candidates=[row]).json()["model_version"] != first)
    eventually(lambda: f'version="{first}"' not in served.http.get("/metrics").text)
