"""Tables of graphs as codes and codebooks: exact where rows are few, never worse than the trainable kind."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from slimrank import compress_graph
from slimrank.exporting.optimized import gather_faults, optimized_graph
from slimrank.graphs import grids
from slimrank.tables.codebook import Codebook, codebook
from slimrank.tables.coding import Coding, code_bytes


def step(**settings: object) -> dict[str, object]:
    return {"name": "codebook-tables", **settings}


def normal(rows: int, dim: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


@pytest.mark.parametrize("opset", [13, 23])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_as_few_vectors_as_entries_are_exact(bits, opset, lookup, run, tmp_path) -> None:
    """Rows put together of 2**bits vectors for each of two parts, entries as floats."""
    draw = np.random.default_rng(bits)
    books = draw.normal(size=(2, 2**bits, 4)).astype(np.float32)
    picked = draw.integers(0, 2**bits, (600, 2))
    table = np.concatenate([books[0][picked[:, 0]], books[1][picked[:, 1]]], axis=1)
    steps = [step(parts=2, bits=bits, entry_bits=32)]
    compress_graph(lookup(table, opset=opset), tmp_path / "out.onnx", steps)
    ids = {"ids": draw.integers(-600, 600, (50, 1))}
    np.testing.assert_array_equal(run(tmp_path / "out.onnx", ids)[:, 0], table[ids["ids"][:, 0]])
    assert gather_faults(optimized_graph(tmp_path / "out.onnx")) == []


@pytest.mark.parametrize("entry_bits", [8, 32])
def test_bytes_from_arithmetic_and_error_as_in_training(entry_bits, lookup, run, constants, tmp_path) -> None:
    table, coding = normal(2000), Coding(parts=4, bits=4, entry_bits=entry_bits)
    told = compress_graph(lookup(table), tmp_path / "out.onnx", [step(**coding.model_dump())])
    nbytes = code_bytes(2000, 1, 8, coding)
    assert told["steps"][0]["touched"] == [f"table: {table.nbytes:,} bytes to {nbytes:,}"]
    held = constants(tmp_path / "out.onnx")
    parts = [held[f"table_{name}"].nbytes for name in ("codes", "entries", "offsets")]
    assert sum(parts) + 4 * (entry_bits == 8) == nbytes
    found = run(tmp_path / "out.onnx", {"ids": np.arange(2000).reshape(-1, 1)})[:, 0]
    other = codebook(Codebook(**coding.model_dump()), torch.from_numpy(table)).pack()
    expected = other(torch.arange(2000)).detach().numpy()
    errors = [np.square(each - table).mean() for each in (found, expected)]
    assert errors[0] == pytest.approx(errors[1], rel=0.03)


def test_fields_have_codebooks_of_their_own(lookup, run, over_noise, tmp_path) -> None:
    table = np.concatenate([normal(300), 100 * normal(300, seed=1)])
    path = lookup(table, starts=(0, 300))
    compress_graph(path, tmp_path / "out.onnx", [step(parts=8, bits=8)])
    ids = {"ids": np.random.default_rng(1).integers(0, 300, (80, 2))}
    found, true = run(tmp_path / "out.onnx", ids), run(path, ids)
    assert min(over_noise(true[:, place], found[:, place]) for place in (0, 1)) > 30


def test_ids_of_an_unknown_number_of_axes(lookup, run, tmp_path) -> None:
    model = onnx.load(lookup(normal(40)))
    model.graph.input[0].type.tensor_type.ClearField("shape")
    onnx.save(model, tmp_path / "model.onnx")
    compress_graph(tmp_path / "model.onnx", tmp_path / "out.onnx", [step(parts=2, bits=8, entry_bits=32)])
    for shape in ((3,), (2, 3), (2, 1, 3), (0, 3)):
        assert run(tmp_path / "out.onnx", {"ids": np.zeros(shape, np.int64)}).shape == (*shape, 8)


def test_what_does_not_divide_or_pay_is_told(lookup, tmp_path) -> None:
    for settings, reason in (
        ({"parts": 3}, "dimension 8 does not divide into 3 parts"),
        ({"parts": 4, "bits": 8}, "would take 2,228 bytes, and takes 1,280 as it is"),
    ):
        told = compress_graph(lookup(normal(40)), tmp_path / "out.onnx", [step(**settings)])
        assert told["steps"][0]["skipped"] == [{"name": "table", "reason": reason}]


def test_wide_tables_have_as_many_rows_for_each_entry(monkeypatch, lookup, run, tmp_path) -> None:
    """The sample is of values, and the wider the rows the fewer it would hold."""
    monkeypatch.setattr(grids, "SAMPLE", 64 * 8)
    table, coding = normal(2000), Coding(parts=4, bits=4, entry_bits=32)
    compress_graph(lookup(table), tmp_path / "out.onnx", [step(**coding.model_dump())])
    found = run(tmp_path / "out.onnx", {"ids": np.arange(2000).reshape(-1, 1)})[:, 0]
    other = codebook(Codebook(**coding.model_dump()), torch.from_numpy(table)).pack()
    expected = other(torch.arange(2000)).detach().numpy()
    assert np.square(found - table).mean() == pytest.approx(np.square(expected - table).mean(), rel=0.03)
