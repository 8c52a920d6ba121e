"""The model repository for Triton: parsed by the official protobuf, held to the graph, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from google.protobuf import text_format
from torch import nn
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import np_to_triton_dtype

from slimrank.api import export
from slimrank.artifact import SEALED_KEYS, open_artifact, write_artifact
from slimrank.config import InputError
from slimrank.deploying.deploy import deploy
from slimrank.deploying.triton import Triton
from slimrank.serving import models_of


def parsed(folder: Path) -> Any:
    return text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


def held_to(config: Any, folder: Path) -> None:
    """Names, types and shapes are those of the graph, batch axis and reshapes applied as Triton does."""
    graph = onnx.load(folder / "1" / "model.onnx", load_external_data=False).graph
    for ends, said in ((graph.input, config.input), (graph.output, config.output)):
        assert [each.name for each in said] == [each.name for each in ends]
        for node, tensor in zip(ends, said, strict=True):
            kind = onnx.helper.tensor_dtype_to_np_dtype(node.type.tensor_type.elem_type)
            name = model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_")
            assert name == np_to_triton_dtype(kind)
            shape = [axis.dim_value or -1 for axis in node.type.tensor_type.shape.dim]
            dims = list(tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims)
            assert len(tensor.dims) >= 1
            assert ([-1] if config.max_batch_size else []) + dims == shape


def test_a_ranker_is_batched_by_rows(linear: Any, tmp_path: Path) -> None:
    folder = deploy(linear.path, tmp_path / "models", "triton")
    assert folder == tmp_path / "models" / "linear"
    config = parsed(folder)
    assert (config.name, config.backend, config.platform) == ("linear", "onnxruntime", "onnxruntime_onnx")
    assert config.max_batch_size == 4096
    assert config.HasField("dynamic_batching")
    (group,) = config.instance_group
    assert (group.count, group.kind) == (1, model_config_pb2.ModelInstanceGroup.KIND_CPU)
    assert {each.name: list(each.dims) for each in config.input} == {"ids": [5], "numbers": [1]}
    (logit,) = config.output  # [N] has no dimension behind the rows
    assert (list(logit.dims), list(logit.reshape.shape), logit.label_filename) == ([1], [], "")
    assert config.parameters["slimrank_digest"].string_value == open_artifact(linear.path).digest
    held_to(config, folder)


def test_the_graph_is_that_of_the_artifact_to_the_byte(make_linear: Callable[..., Any], tmp_path: Path) -> None:
    linear = make_linear(external=True)
    folder = deploy(linear.path, tmp_path / "models", "triton")
    artifact = open_artifact(linear.path)
    for name in ("model.onnx", "model.onnx.data"):
        assert (folder / "1" / name).read_bytes() == artifact.files[name].read_bytes()
    session = onnxruntime.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    assert session.get_outputs()[0].name == "logit"
    record = json.loads((folder / "slimrank.json").read_text())
    assert record["artifact"] == artifact.digest
    written = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert set(record["files"]) == written - {"slimrank.json"}
    assert all(hashlib.sha256((folder / n).read_bytes()).hexdigest() == seal for n, seal in record["files"].items())


@pytest.mark.parametrize("kind", ["vectors", "codes", "scores"])
def test_a_finder_with_items_beside_queries_is_no_batch(
    kind: str, finder: Callable[[str], Any], tmp_path: Path
) -> None:
    """Queries and items are counted apart; where there are scores alone, rows are all there is."""
    folder = deploy(finder(kind).path, tmp_path, "triton")
    config = parsed(folder)
    assert (config.max_batch_size > 0) == (kind == "scores")
    assert config.HasField("dynamic_batching") == (kind == "scores")
    held_to(config, folder)


class OfRows(nn.Module):
    """A score for each row; `mixed` takes the mean of the batch off, so that rows see each other."""

    def __init__(self, mixed: bool = False) -> None:
        super().__init__()
        self.last, self.mixed = nn.Linear(3, 2), mixed

    def forward(self, numbers: torch.Tensor, flags: torch.Tensor) -> dict[str, torch.Tensor]:
        found = self.last(numbers) * flags.unsqueeze(1)
        return {"score": found - found.mean(dim=0) if self.mixed else found, "first": found[:, 0]}


class Pairs(nn.Module):
    """Every row with every other: rows are the second axis too."""

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return numbers @ numbers.T


class Whole(nn.Module):
    """One number of all rows."""

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return numbers.sum()


MODULES: dict[str, tuple[nn.Module, dict[str, torch.Tensor], bool]] = {
    "rows": (OfRows(), {"numbers": torch.randn(4, 3), "flags": torch.ones(4, dtype=torch.bool)}, True),
    "rows that see each other": (
        OfRows(mixed=True),
        {"numbers": torch.randn(4, 3), "flags": torch.ones(4, dtype=torch.bool)},
        True,
    ),
    "pairs of rows": (Pairs(), {"numbers": torch.randn(4, 3)}, False),
    "one for all": (Whole(), {"numbers": torch.randn(4, 3)}, False),
}


@pytest.mark.parametrize("case", MODULES)
def test_a_module_is_batched_where_it_is_said_to_be(case: str, tmp_path: Path) -> None:
    """Its golden rows may be apart by chance, so that nothing but its owner says that rows are."""
    module, batch, may_be = MODULES[case]
    export(module.eval(), batch, tmp_path / "mine")
    for batching in (None, False, True):
        target = Triton(batching=batching, max_batch_size=16, instances=2)
        if batching and not may_be:
            with pytest.raises(InputError, match="batching: rows are not the first axis of all tensors and no other"):
                deploy(tmp_path / "mine", tmp_path / "models", target)
            continue
        folder = deploy(tmp_path / "mine", tmp_path / "models", target)
        config = parsed(folder)
        assert config.max_batch_size == (16 if batching else 0)
        assert config.HasField("dynamic_batching") == bool(batching)
        assert config.instance_group[0].count == 2
        held_to(config, folder)


def test_a_ranker_is_not_batched_where_that_is_said(linear: Any, tmp_path: Path) -> None:
    folder = deploy(linear.path, tmp_path / "models", Triton(batching=False))
    assert parsed(folder).max_batch_size == 0
    held_to(parsed(folder), folder)


def test_the_version_is_the_next_where_that_is_said(linear: Any, tmp_path: Path) -> None:
    folder = deploy(linear.path, tmp_path / "models", "triton")
    deploy(linear.path, tmp_path / "models", Triton(version=2))
    assert sorted(each.name for each in folder.iterdir()) == ["2", "config.pbtxt", "slimrank.json"]


def test_a_damaged_artifact_is_not_deployed(linear: Any, tmp_path: Path) -> None:
    (linear.path / "model.onnx").write_bytes(b"x")
    with pytest.raises(InputError, match="damaged"):
        deploy(linear.path, tmp_path / "models", "triton")
    assert not (tmp_path / "models").exists()


def test_one_that_answers_otherwise_is_not_deployed(asked_by_tensors: Path, tmp_path: Path) -> None:
    found = open_artifact(asked_by_tensors)
    manifest = {key: value for key, value in found.manifest.items() if key not in SEALED_KEYS}
    score = {**manifest["golden"]["outputs"]["score"], "values": "9 9 9 9"}
    manifest["golden"] = {**manifest["golden"], "outputs": {"score": score}}
    write_artifact(tmp_path / "wrong", dict(found.files), manifest)
    with pytest.raises(InputError, match="golden row 0: score is"):
        deploy(tmp_path / "wrong", tmp_path / "models", "triton")
    assert not (tmp_path / "models").exists()


def test_unknown_targets_and_settings_are_told(linear: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown deployment target 'tritn'. Did you mean 'triton'\?"):
        deploy(linear.path, tmp_path, "tritn")
    with pytest.raises(InputError, match="max_batch_size"):
        deploy(linear.path, tmp_path, {"name": "triton", "max_batch_size": 0})  # type: ignore[arg-type]


def test_ours_is_replaced_and_nothing_else(linear: Any, tmp_path: Path) -> None:
    out = tmp_path / "models"
    folder = deploy(linear.path, out, "triton")
    deploy(linear.path, out, Triton(threads=2))
    assert parsed(folder).parameters["intra_op_thread_count"].string_value == "2"
    (folder / "notes.txt").write_text("mine")
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    with pytest.raises(InputError, match=r"linear: holds 'notes.txt', which is not of a deployment; not replaced"):
        deploy(linear.path, out, "triton")
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before
    assert [each.name for each in out.iterdir()] == ["linear"]


def test_what_was_changed_by_hand_is_not_replaced(linear: Any, tmp_path: Path) -> None:
    folder = deploy(linear.path, tmp_path / "models", "triton")
    config = folder / "config.pbtxt"
    config.write_text(config.read_text() + "# ours\n")
    with pytest.raises(
        InputError, match=r"linear: 'config.pbtxt' was changed since it was deployed; not replaced, move"
    ):
        deploy(linear.path, tmp_path / "models", "triton")
    assert config.read_text().endswith("# ours\n")
    config.unlink()  # what is gone is no loss
    deploy(linear.path, tmp_path / "models", "triton")
    assert config.exists()


def test_a_model_is_not_replaced_by_another_of_its_name(
    linear: Any, write_linear_at: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = write_linear_at(tmp_path / "other" / "linear", manifest={"more": 1}).path
    folder = deploy(linear.path, tmp_path / "models", "triton")
    before = (folder / "slimrank.json").read_bytes()
    with pytest.raises(InputError, match=rf"was deployed from {linear.path}; not replaced, say linear={other} if"):
        deploy(other, tmp_path / "models", "triton")
    assert (folder / "slimrank.json").read_bytes() == before
    assert deploy(f"linear={other}", tmp_path / "models", "triton") == folder
    assert json.loads((folder / "slimrank.json").read_text())["artifact"] == open_artifact(other).digest


def test_it_is_written_outside_of_the_repository(linear: Any, tmp_path: Path) -> None:
    """Whose poll takes every directory for a model; also what a writer that was killed left."""
    seen: list[list[str]] = []
    out = tmp_path / "models"
    deploy(linear.path, out, "triton")
    (tmp_path / ".models.linear.partial-1").mkdir()

    def look(event: str, words: tuple[Any, ...]) -> None:
        if active and event == "open" and str(tmp_path) in str(words[0]):
            seen.append(sorted(os.listdir(out)))

    active = True
    sys.addaudithook(look)
    deploy(linear.path, out, "triton")
    active = False
    assert len(seen) > 3
    assert all(each == ["linear"] for each in seen)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["linear", "models"]


def test_a_directory_of_others_is_left_alone(linear: Any, tmp_path: Path) -> None:
    for name, content in (("slimrank.json", "[]"), ("config.pbtxt", "name: 'theirs'")):
        out = tmp_path / name
        (out / "linear").mkdir(parents=True)
        (out / "linear" / name).write_text(content)
        with pytest.raises(InputError, match="not of a deployment; not replaced"):
            deploy(linear.path, out, "triton")
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "linear").write_text("")
    with pytest.raises(InputError, match="exists and is no directory"):
        deploy(linear.path, tmp_path / "file", "triton")
    with pytest.raises(InputError, match=r"linear: is no directory"):
        deploy(linear.path, tmp_path / "file" / "linear", "triton")


def test_the_name_is_the_one_that_is_served(linear: Any, tmp_path: Path) -> None:
    run = tmp_path / "clicks" / "artifact"
    run.parent.mkdir()
    linear.path.rename(run)
    for given, name in ((run, "clicks"), (str(run), "clicks"), (f"mine={run}", "mine"), (f"={run}", "clicks")):
        assert models_of([given])[0].name == name
        folder = deploy(given, tmp_path / f"to-{name}", "triton")
        assert (folder.name, parsed(folder).name) == (name, name)
    with pytest.raises(InputError, match=r"'a b': no name of a model, which has letters, digits and ._-; say NAME="):
        deploy(f"a b={run}", tmp_path, "triton")


def test_the_verb_export_takes_an_artifact_too(linear: Any, tmp_path: Path) -> None:
    done = slimrank("export", linear.path, "--target", "triton", "--out", tmp_path / "models")
    assert done.stdout.strip() == str(tmp_path / "models" / "linear")
    named = slimrank("export", f"clicks={linear.path}", "--target", "triton", "--out", tmp_path / "models")
    assert named.stdout.strip() == str(tmp_path / "models" / "clicks")
    held_to(parsed(tmp_path / "models" / "linear"), tmp_path / "models" / "linear")
    for words, message in (
        ((linear.path, "--target", "tritn", "--out", tmp_path), "unknown deployment target 'tritn'. Did you mean"),
        ((linear.path, "--out", tmp_path), "is an artifact: it needs --target and --out, and takes nothing else"),
        ((linear.path, "--target", "triton"), "is an artifact: it needs --target and --out"),
        (("recipe.toml", "--target", "triton"), "--target is of an artifact, and recipe.toml is none"),
    ):
        refused = slimrank("export", *words)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert message in refused.stderr


def test_no_torch_is_loaded(linear: Any, tmp_path: Path) -> None:
    program = (
        "import sys\nfrom slimrank.deploying.deploy import deploy\n"
        f"deploy({str(linear.path)!r}, __import__('pathlib').Path({str(tmp_path)!r}) / 'models', 'triton')\n"
        "print(*{'torch', 'onnx', 'tritonclient', 'google.protobuf'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def slimrank(*words: str | Path) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", "from slimrank.cli import main; main()", *map(str, words)]
    return subprocess.run(program, capture_output=True, text=True, check=False)
