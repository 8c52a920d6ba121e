"""What the target `web` writes, what it refuses, and what its folder answers in Node."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import brotli
import numpy as np
import polars
import pytest

from slimrank.config import InputError, as_config
from slimrank.data.golden import made_rows
from slimrank.deploying.deploy import RECORD, deploy
from slimrank.deploying.web import MANIFEST, MODULES, Web, _bare, package, run_web
from slimrank.runtime import load

MOST_BYTES = 13_000  # of the module that ranks, as it travels


def test_the_folder_holds_what_its_manifest_says(site) -> None:
    manifest = json.loads((site.folder / MANIFEST).read_bytes())
    assert {"model.onnx", "model.onnx.data", "encoding.json", "slimrank.js"} <= set(manifest["files"])
    for name, record in manifest["files"].items():
        assert (site.folder / name).stat().st_size == record["bytes"]
    packed = sorted(site.folder.glob("*.br"))
    assert site.folder / "encoding.json.br" in packed
    for path in packed:
        assert brotli.decompress(path.read_bytes()) == path.with_suffix("").read_bytes()
    assert not list((site.folder / "ort").glob("*.br"))


def test_a_record_tells_nothing_of_the_machine_but_the_artifact(site) -> None:
    record = json.loads((site.folder / RECORD).read_text())
    assert (record["target"]["runtime"], record["target"]["examples"]) == ("dist", "examples.parquet")
    del record["source"]
    assert str(site.root.parent) not in json.dumps(record)
    for name in ("page.json", MANIFEST, "index.html"):
        assert str(site.root.parent) not in (site.folder / name).read_text()


def test_the_module_is_small() -> None:
    files = package()
    ranks = [name for name in MODULES if name != "finder.js"]
    assert sum(len(brotli.compress(files[name])) for name in ranks) < MOST_BYTES


def test_its_pages_scripts_are_those_that_are_there(site) -> None:
    page = (site.folder / "index.html").read_text()
    assert "{{" not in page
    found = dict(re.findall(r'(?:href|src|name)="([\w.]+)" (?:integrity|content)="sha384-([^"]+)"', page))
    assert set(found) == {"demo.js", "remote.js", "values.js", "page.json"}
    for name, told in found.items():
        assert base64.b64decode(told) == hashlib.sha384((site.folder / name).read_bytes()).digest()


def test_only_comments_are_left_out() -> None:
    source = "/** a */ const x = 1;\n  /** b\n   *  c */\n  // d\nconst y = '// e';\n/** f */\n"
    assert _bare(source) == "/** a */ const x = 1;\nconst y = '// e';\n"


def test_candidates_without_examples(linear, tmp_path: Path) -> None:
    target = {"name": "web", "candidates": ["history"]}
    folder = deploy(f"model={linear.path}", tmp_path, target)
    (user,) = json.loads((folder / "page.json").read_bytes())["users"]
    rows = [each["row"] for each in user["candidates"]]
    assert len(rows) > 1
    assert all(isinstance(row["history"], list) and len(row["history"]) == 1 for row in rows)
    assert "'price' is a number, of which no values are known" in refused(linear.path, tmp_path, candidates=["price"])


def test_the_runtime_may_be_elsewhere_or_put_there_later(linear, tmp_path: Path) -> None:
    away = deploy(f"away={linear.path}", tmp_path, {"name": "web", "runtime": "https://cdn.example/ort/"})
    manifest = json.loads((away / MANIFEST).read_bytes())
    assert manifest["runtime"]["wasm"]["module"] == "https://cdn.example/ort/ort.wasm.min.mjs"
    assert "connect-src 'self' https://cdn.example" in (away / "index.html").read_text()
    assert not (away / "ort").exists()
    later = json.loads((deploy(f"later={linear.path}", tmp_path, "web") / MANIFEST).read_bytes())
    assert later["runtime"]["webgpu"]["module"] == "ort/ort.webgpu.min.mjs"


def refused(artifact: Path, tmp_path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as told:
        deploy(f"model={artifact}", tmp_path / "out", {"name": "web", **options})
    assert not (tmp_path / "out" / "model").exists()
    return str(told.value)


def test_what_cannot_be_is_refused_and_nothing_is_written(linear, asked_by_tensors: Path, tmp_path: Path) -> None:
    assert "is asked by tensors, and a page has rows" in refused(asked_by_tensors, tmp_path)
    assert "npm install onnxruntime-web" in refused(linear.path, tmp_path, runtime=str(tmp_path))
    assert "nowhere.parquet" in refused(linear.path, tmp_path, examples=str(tmp_path / "nowhere.parquet"))
    with pytest.raises(InputError, match=r"a \.parquet or \.csv file, got 'rows\.xlsx'"):
        as_config("deployment target", {"name": "web", "examples": "rows.xlsx"})
    polars.DataFrame({"user": [7], "item": ["tea"], "prize": [1.0]}).write_csv(tmp_path / "rows.csv")
    told = refused(linear.path, tmp_path, examples=str(tmp_path / "rows.csv"))
    assert "rows.csv: no column 'price'. Did you mean 'prize'?" in told
    polars.DataFrame({"user": [7], "item": ["tea"], "price": [1.0], "history": ["tea"]}).write_csv(
        tmp_path / "rows.csv"
    )
    told = refused(linear.path, tmp_path, examples=str(tmp_path / "rows.csv"), candidates=["itm"])
    assert "candidates: no field 'itm'. Did you mean 'item'?" in told


def test_a_folder_answers_tensors_in_node(node: str, site) -> None:
    model = load(site.linear.path)
    rows = made_rows(model.encoding.schema, model.encoding.sizes, seed=3)
    found = run_web(Web(), site.folder, {"ids": rows.ids, "numbers": rows.numbers})
    assert found["logit"].dtype == np.float32
    np.testing.assert_allclose(found["logit"], model.score(rows), rtol=1e-5, atol=1e-6)


def test_a_folder_answers_rows_in_node(ask_node: Callable[..., Any], site, linear_rows) -> None:
    rows = linear_rows.drop("label").to_dicts()
    script = site.folder / "ask.mjs"
    expected = load(site.linear.path).predict(rows)
    found = ask_node(script, rows)
    np.testing.assert_allclose(found["scores"], expected.probability, rtol=1e-6)
    assert (found["unknown"], found["shortened"]) == (expected.unknown, expected.shortened)
    top = ask_node(script, rows, "--top", "2")
    order = np.argsort(-expected.probability, kind="stable")[:2]
    assert [each["index"] for each in top["ranked"]] == order.tolist()
    inputs = load(site.linear.path).encoder(rows)[0]
    assert ask_node(script, rows, "--encode")["ids"] == inputs.ids.ravel().tolist()


def test_what_is_damaged_or_missing_in_node_is_told(
    node: str, site, linear, tmp_path: Path, dist: Path, monkeypatch
) -> None:
    without = deploy(f"without={linear.path}", tmp_path, "web")
    feeds = {"ids": np.zeros((1, 5), np.int32), "numbers": np.zeros((1, 1), np.float32)}
    with pytest.raises(InputError, match="onnxruntime-web is not installed"):
        run_web(Web(), without, feeds)
    monkeypatch.setenv("ONNXRUNTIME_WEB", str(dist))
    assert run_web(Web(), without, feeds)["logit"].shape == (1,)
    damaged = tmp_path / "damaged"
    shutil.copytree(without, damaged)
    (damaged / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"model\.onnx: truncated"):
        run_web(Web(), damaged, feeds)
    done = subprocess.run([node, without / "ask.mjs"], input="[{", capture_output=True, text=True)
    assert (done.returncode, done.stderr.split(":")[0]) == (2, "not JSON")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="Node, which is not installed"):
        run_web(Web(), without, feeds)


def test_models_of_texts_are_refused(tmp_path: Path, linear_encoding, tokenizer: bytes) -> None:
    from slimrank.data.encoding import Encoding
    from slimrank.data.schema import Field, Schema
    from slimrank.deploying.encoding import encoding_json

    (tmp_path / "tokenizer.json").write_bytes(tokenizer)
    field = Field(name="query", kind="text", tokenizer=tmp_path / "tokenizer.json", max_length=8)
    frame = polars.DataFrame({"query": ["the cat", "dog"], "label": [0, 1]})
    encoding = Encoding.fit(Schema(fields=(field,)), frame)
    with pytest.raises(InputError, match="field 'query' is text"):
        encoding_json(encoding, "digest")


def test_the_packages_own_tests_pass(node: str, packages: Path) -> None:
    done = subprocess.run([node, "--test"], cwd=packages.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]


def test_its_types_hold(node: str, packages: Path) -> None:
    done = subprocess.run(
        [node, packages / "typescript" / "bin" / "tsc"], cwd=packages.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:]


def test_it_packs_for_npm_as_it_stands(site, packages: Path) -> None:
    command = ["npm", "pack", "--dry-run", "--json", "--offline"]
    done = subprocess.run(command, cwd=site.folder, capture_output=True, text=True, check=True)
    (told,) = json.loads(done.stdout) if done.stdout.startswith("[") else json.loads(done.stdout).values()
    names = {each["path"] for each in told["files"]}
    assert {"slimrank.js", "slimrank.d.ts", "remote.js", "worker.js", "package.json"} <= names
    assert not [name for name in names if name.startswith(("model", "ort/", "page", "encoding.json"))]
