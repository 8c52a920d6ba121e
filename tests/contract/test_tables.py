"""What every registered table kind must hold to, in its trainable and in its packed form, and in the exported graph."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from slimrank.config import InputError, as_config, entries, runner
from slimrank.exporting.checks import check_graph
from slimrank.exporting.graph import build_graph, write_graph
from slimrank.tables.integer import OPSET
from slimrank.tables.modules import Embedding, EmbeddingBag
from slimrank.tables.table import Table
from slimrank.training.optimizers import optimizers

ROWS, DIM = 400, 16
STARTS = torch.tensor([0, 5, 300])
BANDS = [[(5, 8)], [(15, 8), (80, 4), (100, 2), (100, 1)], [(40, 4), (60, 0)]]
FLOATS = [[(5, 32)], [(100, 32), (195, 16)], [(100, 8)]]
VARIANTS: list[tuple[str, dict[str, Any], float]] = [  # settings, and the least signal-to-noise ratio in dB
    ("dense", {}, 300.0),
    ("scaled", {"bits": 8}, 38.0),
    ("scaled", {"bits": 4}, 17.0),
    ("scaled", {"bits": 2}, 6.0),
    ("scaled", {"bits": 1}, 4.3),
    ("scaled", {"bits": 8, "scale": "table"}, 38.0),
    ("scaled", {"bits": 8, "range": "max"}, 36.0),
    ("scaled", {"bits": 8, "scale": "row"}, 40.0),
    ("scaled", {"bits": 4, "scale": "row", "rows_per_scale": 8}, 17.0),
    ("scaled", {"bits": 4, "symmetric": False}, 17.0),
    ("scaled", {"bits": 4, "symmetric": False, "scale": "row", "range": "max"}, 19.0),
    ("scaled", {"bits": 2, "levels": "midrise", "learned": False}, 9.0),
    ("mixed", {}, 38.0),
    ("mixed", {"bands": BANDS}, 4.0),
    ("mixed", {"bands": FLOATS}, 40.0),
    ("codebook", {"parts": 4, "bits": 8}, 20.0),
    ("codebook", {"parts": 4, "bits": 8, "entry_bits": 32}, 20.0),
    ("codebook", {"parts": 8, "bits": 4}, 10.0),
    ("codebook", {"parts": 16, "bits": 2}, 9.0),
    ("low-rank", {"rank": 12}, 6.0),
    ("low-rank", {"rank": 12, "projection": "table", "centred": True, "inner": {"name": "scaled", "bits": 8}}, 6.0),
    ("low-rank", {"rank": 2, "bands": [(50, 12), (100, 6)]}, 1.5),
    ("hashed", {"buckets": 64}, 2.5),
    ("hashed", {"buckets": 64, "weight_bits": 16, "bias": True}, 2.5),
    ("hashed", {"buckets": 64, "method": "plain", "inner": {"name": "scaled", "bits": 8}}, 1.5),
    ("hashed", {"buckets": 64, "method": "clustered", "chunks": 4}, 11.0),
    ("sparse", {"keep": 0.5}, 8.0),
    ("sparse", {"keep": 1.0}, 36.0),
    ("remapped", {"keep": 0.5}, 3.0),
    ("remapped", {"keep": 0.5, "inner": {"name": "scaled", "bits": 4}}, 2.8),
    ("remapped", {"keep": 0.8, "to": "row", "inner": {"name": "codebook", "parts": 4, "bits": 4}}, 2.0),
]
NO_OPS: dict[str, dict[str, Any]] = {  # settings with which the packed form gives the rows as they are
    "dense": {},
    "scaled": {"bits": 32},
    "mixed": {"bands": [[(5, 32)], [(295, 32)], [(100, 32)]]},
    "codebook": {"parts": 16, "bits": 8, "entry_bits": 32},  # exact where a part has no more than 256 distinct values
    "low-rank": {"rank": DIM},
    "hashed": {"buckets": 300},
    "sparse": {"keep": 1.0, "bits": 32},
    "remapped": {"keep": 1.0},
}


def weight(rows: int = ROWS) -> Tensor:
    return torch.randn(rows, DIM, generator=torch.Generator().manual_seed(3))


def make(kind: str, settings: dict[str, Any], rows: Tensor | None = None, starts: Tensor | None = STARTS) -> Table:
    config = as_config("table", {"name": kind, **settings})
    table: Table = runner("table", config)(config, weight() if rows is None else rows, starts)
    return table


@pytest.fixture(params=VARIANTS, ids=lambda v: f"{v[0]}-{v[1]}")
def made(request: pytest.FixtureRequest) -> tuple[Table, float]:
    kind, settings, floor = request.param
    return make(kind, settings), floor


class Lookup(nn.Module):
    """Nothing but the lookup of a row's columns, for an exported graph."""

    def __init__(self, table: Table, fields: tuple[int, ...]):
        super().__init__()
        self.table, self.fields = table, fields

    def forward(self, ids: Tensor) -> Tensor:
        vectors: Tensor = self.table(ids, self.fields)
        return vectors.sum(dim=(1, 2))


def exported(table: Table, folder: Path, fields: tuple[int, ...] = (0, 1, 2), limit: int = 1 << 26) -> list[Path]:
    graph = build_graph(Lookup(table.pack(), fields), len(fields), sparse=False, unpack_limit=limit)
    return write_graph(graph, folder / "model.onnx")


def test_every_kind_has_a_variant_and_a_setting_without_effect() -> None:
    assert {name for name, _, _ in VARIANTS} == set(entries("table")) == set(NO_OPS)


def test_trainable_and_packed_agree(made: tuple[Table, float]) -> None:
    ids = torch.arange(ROWS).reshape(40, 10)
    torch.testing.assert_close(made[0].pack()(ids).detach(), made[0](ids).detach(), atol=1e-5, rtol=1e-4)


def test_noise_is_below_the_floor_of_its_settings(made: tuple[Table, float]) -> None:
    signal = weight()
    noise = made[0].pack()(torch.arange(ROWS)).detach() - signal
    assert 10 * torch.log10(signal.square().sum() / noise.square().sum().clamp(min=1e-30)) >= made[1]


@pytest.mark.parametrize("kind", sorted(NO_OPS))
def test_a_setting_without_effect_gives_the_rows_as_they_are(kind: str) -> None:
    rows = weight()
    if kind == "codebook":
        rows = (rows * 8).round() / 8
    near = {"codebook": 1e-6, "hashed": 1e-6}.get(kind, 0.0)
    torch.testing.assert_close(make(kind, NO_OPS[kind], rows).pack()(torch.arange(ROWS)), rows, atol=near, rtol=0)


def test_known_fields_give_what_unknown_ones_do(made: tuple[Table, float]) -> None:
    ids = torch.tensor([[0, 7, 399], [4, 299, 300]])
    for table in (made[0], made[0].pack()):
        torch.testing.assert_close(table(ids, (0, 1, 2)), table(ids))
        torch.testing.assert_close(table(ids.T), table(ids).transpose(0, 1))  # ids that do not lie row by row
        backwards = ids.flip(1)
        torch.testing.assert_close(table(backwards, (2, 1, 0)), table(backwards))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("shape", [(0,), (1,), (3, 2), (2, 0, 4)])
def test_ids_of_any_shape_and_width(made: tuple[Table, float], dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    ids = torch.randint(0, ROWS, shape, dtype=dtype)
    for table in (made[0], made[0].pack()):
        vectors = table(ids)
        assert vectors.shape == (*shape, DIM)
        assert vectors.dtype == torch.float32


def test_repeated_ids_give_the_same_vector(made: tuple[Table, float]) -> None:
    vectors = made[0].pack()(torch.tensor([7, 7]))
    assert torch.equal(vectors[0], vectors[1])


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_pad_weigh_repeat_and_may_be_empty(made: tuple[Table, float], mode: str) -> None:
    ids, offsets = torch.tensor([7, 7, 3, 0, 399, 3]), torch.tensor([0, 3, 3, 5])
    for table in (made[0], made[0].pack()):
        rows = table(torch.arange(ROWS)).detach()
        bag = EmbeddingBag(table, mode=mode, padding_idx=3)
        plain = nn.EmbeddingBag.from_pretrained(rows, mode=mode, padding_idx=3)
        torch.testing.assert_close(bag(ids, offsets), plain(ids, offsets), atol=1e-5, rtol=1e-4)
        if mode == "sum":
            shares = torch.linspace(-1, 1, len(ids))
            expected = plain(ids, offsets, per_sample_weights=shares)
            torch.testing.assert_close(bag(ids, offsets, per_sample_weights=shares), expected, atol=1e-5, rtol=1e-4)


def test_saving_and_loading_is_exact(made: tuple[Table, float]) -> None:
    for table in (made[0], made[0].pack()):
        before = table(torch.arange(ROWS))
        stored = load(save({name: tensor.contiguous() for name, tensor in table.state_dict().items()}))
        with torch.no_grad():
            for tensor in table.state_dict().values():
                tensor.zero_()
        table.load_state_dict(stored)
        assert torch.equal(table(torch.arange(ROWS)), before)


def test_packing_twice_changes_nothing(made: tuple[Table, float]) -> None:
    packed = made[0].pack()
    assert packed.pack() is packed
    assert packed.nbytes == made[0].nbytes
    torch.testing.assert_close(packed.rows(3, 9), packed(torch.arange(3, 9)).detach())


def test_gradients_reach_the_rows_of_the_batch_only(made: tuple[Table, float]) -> None:
    """Parameters with a row for every id. Those that ids share have gradients wherever the batch's ids do."""
    table = made[0]
    table(torch.tensor([4, 4, 310])).sum().backward()
    assert all(p.grad is not None for p in table.parameters() if p.requires_grad)
    for parameter in table.parameters():
        by_block = parameter is getattr(table, "values", None)  # of a sparse table, by chance as many as rows
        if parameter.dim() == 2 and len(parameter) == ROWS and not by_block:
            assert parameter.grad is not None
            assert parameter.grad.abs().sum(dim=1).nonzero().flatten().tolist() == [4, 310]


@pytest.mark.parametrize("limit", [0, 1 << 26])
def test_the_graph_gathers_first_and_scores_as_the_packed_form(
    made: tuple[Table, float], limit: int, tmp_path: Path
) -> None:
    files = exported(made[0], tmp_path, limit=limit)
    check_graph(files[0])
    draws = torch.Generator().manual_seed(0)
    bounds = made[0].bounds()
    ids = torch.stack([torch.randint(*bound, (50,), generator=draws) for bound in bounds], dim=1).to(torch.int32)
    session = onnxruntime.InferenceSession(files[0], providers=["CPUExecutionProvider"])
    expected = made[0].pack()(ids, (0, 1, 2)).detach().sum(dim=(1, 2)).numpy()
    np.testing.assert_allclose(session.run(None, {"ids": ids.numpy()})[0], expected, atol=2e-4)


@pytest.mark.parametrize(
    ("kind", "settings", "dim", "row"),
    [
        ("scaled", {"bits": 4}, 5, 3),
        ("scaled", {"bits": 2}, 50, 13),
        ("scaled", {"bits": 1}, 9, 2),
        ("scaled", {"bits": 4, "scale": "row", "symmetric": False}, 7, 4),
        ("codebook", {"parts": 5, "bits": 4}, 10, 3),
        ("codebook", {"parts": 5, "bits": 2, "entry_bits": 32}, 5, 2),
        ("mixed", {"bands": [[(5, 8)], [(100, 4), (195, 2)], [(100, 1)]]}, 10, None),
    ],
)
@pytest.mark.parametrize("limit", [0, 1 << 26])
def test_the_last_byte_of_a_row_may_have_room(
    kind: str, settings: dict[str, Any], dim: int, row: int | None, limit: int, tmp_path: Path
) -> None:
    table = make(kind, settings, torch.randn(ROWS, dim, generator=torch.Generator().manual_seed(3)))
    packed, ids = table.pack(), torch.stack([torch.tensor([0, 4]), torch.tensor([5, 299]), torch.tensor([300, 399])], 1)
    torch.testing.assert_close(packed(torch.arange(ROWS)), table(torch.arange(ROWS)).detach(), atol=1e-5, rtol=1e-4)
    assert table.nbytes == packed.nbytes
    if row is not None:
        assert packed.packed.shape == (ROWS, row)
    else:
        assert {bits: getattr(packed, f"packed_{bits}").shape[1] for bits in (8, 4, 2, 1)} == {8: 10, 4: 5, 2: 3, 1: 2}
    files = exported(table, tmp_path, limit=limit)
    check_graph(files[0])
    if limit and settings.get("scale") != "row":  # a lookup finds vectors of the right length, and cuts none
        operators = [node.op_type for node in onnx.load(files[0], load_external_data=False).graph.node]
        assert "Slice" not in operators[operators.index("Gather") :]
    session = onnxruntime.InferenceSession(files[0], providers=["CPUExecutionProvider"])
    found = session.run(None, {"ids": ids.to(torch.int32).numpy()})[0]
    np.testing.assert_allclose(found, packed(ids, (0, 1, 2)).detach().sum(dim=(1, 2)).numpy(), atol=2e-4)


@pytest.mark.filterwarnings("ignore")  # the exporter's notes on itself
def test_the_packed_form_exports_by_itself(made: tuple[Table, float], tmp_path: Path) -> None:
    """As a user exports a model of their own: by torch, without what `build_graph` does to a graph."""
    module = Embedding(made[0]).pack().eval()
    sizes = ({0: torch.export.Dim("N")},)
    path = tmp_path / "model.onnx"
    ids = torch.tensor([[0, 7, 399], [4, 299, 300], [6, 5, 301]])
    torch.onnx.export(
        module,
        (ids[:2],),
        path,
        input_names=["ids"],
        dynamo=True,
        opset_version=OPSET,
        dynamic_shapes=sizes,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(None, {"ids": ids.numpy()})[0]
    np.testing.assert_allclose(found, module(ids).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: f"{v[0]}-{v[1]}")
def test_bytes_are_those_by_which_the_artifact_grows(
    variant: tuple[str, dict[str, Any], float], tmp_path: Path
) -> None:
    kind, settings, _ = variant
    if "bands" in settings and kind == "mixed":
        settings = {**settings, "bands": [[(40 * rows, bits) for rows, bits in field] for field in settings["bands"]]}
    if kind == "hashed":
        settings = {**settings, "buckets": 2048}
    large = make(kind, settings, weight(40 * ROWS), STARTS * 40)
    small = make(*variant[:2])
    grown = []
    for name, table in (("large", large), ("small", small)):
        (tmp_path / name).mkdir()
        grown.append(sum(file.stat().st_size for file in exported(table, tmp_path / name)))
    assert grown[0] - grown[1] == pytest.approx(large.nbytes - small.nbytes, rel=0.02)


@pytest.mark.parametrize("kind", sorted(set(entries("table")) - {"dense"}))
def test_values_without_a_number_are_refused(kind: str) -> None:
    rows = weight()
    rows[3, 3] = torch.nan
    settings = next(settings for name, settings, _ in VARIANTS if name == kind)
    with pytest.raises(InputError, match="NaN or infinite"):
        make(kind, settings, rows)


@pytest.mark.parametrize("kind", sorted(set(entries("table")) - {"dense"}))
def test_values_whose_squares_overflow_are_refused(kind: str) -> None:
    rows = weight()
    rows[3, 3] = -1e25
    settings = next(settings for name, settings, _ in VARIANTS if name == kind)
    with pytest.raises(InputError, match=r"values up to 1e\+25 in size; allowed are at most 1e\+18"):
        make(kind, settings, rows)


@pytest.mark.parametrize("starts", [[0, 40, 40], [0, 0, 40], [0, 40, 400]], ids=str)
@pytest.mark.parametrize("variant", [v for v in VARIANTS if v[0] != "mixed"] + VARIANTS[12:13], ids=str)
def test_a_field_may_have_no_rows(variant: tuple[str, dict[str, Any], float], starts: list[int]) -> None:
    table = make(variant[0], variant[1], starts=torch.tensor(starts))
    ids, shape = torch.arange(ROWS), (ROWS, DIM)
    for form in (table, table.pack()):
        assert form(ids).shape == shape
    torch.testing.assert_close(table.pack()(ids).detach(), table(ids).detach(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", sorted(entries("table")))
def test_weights_of_any_float_become_float32(kind: str, dtype: torch.dtype) -> None:
    settings = next(settings for name, settings, _ in VARIANTS if name == kind)
    rows = weight().to(dtype)
    table, expected = make(kind, settings, rows), make(kind, settings, rows.to(torch.float32))
    ids = torch.arange(ROWS)
    for form, other in ((table, expected), (table.pack(), expected.pack())):
        assert torch.equal(form(ids), other(ids))
        assert form(ids).dtype == torch.float32


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_one_id_gives_one_vector(variant: tuple[str, dict[str, Any], float]) -> None:
    kind, settings, _ = variant
    if kind == "mixed" and settings:
        settings = {"bands": [[band for field in settings["bands"] for band in field]]}
    table = make(kind, settings, starts=None)
    for form in (table, table.pack()):
        vector = form(torch.tensor(7))
        assert vector.shape == (DIM,)
        torch.testing.assert_close(vector, form(torch.tensor([7]))[0])


@pytest.mark.parametrize("kind", sorted(entries("table")))
def test_a_table_of_one_row(kind: str) -> None:
    settings = {"mixed": {}, "low-rank": {"rank": 4}}.get(kind) or next(s for name, s, _ in VARIANTS if name == kind)
    table = make(kind, settings, weight(1), None)
    for form in (table, table.pack()):
        assert form(torch.zeros(3, dtype=torch.int32)).shape == (3, DIM)
        assert form(torch.zeros(3, dtype=torch.int64)).isfinite().all()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("scaled", {"bits": 1}),
        ("mixed", {"bands": [[(ROWS, 1)]]}),
        ("codebook", {"parts": 5}),
        ("hashed", {"method": "clustered", "chunks": 5}),
    ],
)
def test_widths_that_do_not_divide_are_refused(kind: str, settings: dict[str, Any]) -> None:
    rows = weight()[:, :4].contiguous()
    with pytest.raises(InputError, match="dimension 4 does not"):
        make(kind, settings, rows, None)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_gpu_gives_what_the_processor_does(variant: tuple[str, dict[str, Any], float]) -> None:
    """A table made on the device, and one moved there: vectors and gradients, trainable and packed."""
    ids, toward = torch.tensor([4, 4, 310, 7, 399]), torch.linspace(-1, 1, 5 * DIM).view(5, DIM)
    here, moved = make(*variant[:2]), make(*variant[:2]).to("cuda")
    made_there = make(*variant[:2], weight().to("cuda"), STARTS.to("cuda"))
    for table in (here, moved, made_there):
        at = table.starts.device
        (table(ids.to(at)) * toward.to(at)).sum().backward()
    close = {"atol": 1e-5, "rtol": 1e-4}
    for form, same in ((here, moved), (here.pack(), moved.pack()), (made_there, made_there.pack())):
        vectors, others = (each(torch.arange(ROWS, device=each.starts.device)).cpu() for each in (form, same))
        torch.testing.assert_close(others, vectors, **close)
    for (name, one), (_, other) in zip(here.named_parameters(), moved.named_parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(other.grad.to_dense().cpu(), one.grad.to_dense(), **close, msg=name)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["dense", "scaled", "mixed", "low-rank", "hashed", "remapped"])
def test_sparse_gradients_train_ten_million_rows(kind: str) -> None:
    count = 10_000_000
    settings: dict[str, dict[str, Any]] = {
        "hashed": {"buckets": 100_000},
        "low-rank": {"rank": 4},
        "remapped": {"keep": 0.9},
    }
    table = make(kind, settings.get(kind, {}), torch.randn(count, 8), None).with_sparse(True)
    chosen = optimizers(table, learning_rate=0.1, sparse_learning_rate=0.1, sparse="adagrad", weight_decay=0.0)
    ids = torch.tensor([5, 123_456, 5, 8_999_999])
    untouched = table(torch.tensor([6, 7_000_000])).detach()
    before = table(ids).detach()
    table(ids).square().sum().backward()
    large = [p for p in table.parameters() if len(p) >= count * 0.9]
    assert all(p.grad is not None and p.grad.is_sparse for p in large)
    for optimizer in chosen:
        optimizer.step()
    assert not torch.equal(table(ids).detach(), before)
    if kind in ("dense", "remapped"):
        assert torch.equal(table(torch.tensor([6, 7_000_000])).detach(), untouched)
