"""What every registered table kind must hold to, in its trainable and in its packed form."""

import io
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from slimrank.config import entries
from slimrank.tables.table import Table

STARTS = torch.tensor([0, 5, 300])
VARIANTS: list[tuple[str, dict[str, Any], float]] = [  # settings, and the least signal-to-noise ratio in dB
    ("dense", {}, 300.0),
    ("scaled", {"bits": 8}, 38.0),
    ("scaled", {"bits": 4}, 17.0),
    ("scaled", {"bits": 2}, 6.0),
    ("scaled", {"bits": 8, "scale": "table"}, 38.0),
    ("scaled", {"bits": 8, "range": "max"}, 36.0),
]


def weight() -> torch.Tensor:
    return torch.randn(400, 16, generator=torch.Generator().manual_seed(3))


@pytest.fixture(params=VARIANTS, ids=lambda v: f"{v[0]}-{v[1]}")
def made(request: pytest.FixtureRequest) -> tuple[Table, float]:
    kind, settings, floor = request.param
    entry = entries("table")[kind]
    return entry.run(entry.config(**settings), weight(), STARTS), floor


def test_every_kind_has_a_variant() -> None:
    assert {name for name, _, _ in VARIANTS} == set(entries("table"))


def test_trainable_and_packed_agree(made: tuple[Table, float]) -> None:
    ids = torch.arange(400).reshape(40, 10)
    torch.testing.assert_close(made[0].pack()(ids), made[0](ids).detach(), atol=1e-6, rtol=1e-5)


def test_noise_is_below_the_floor_of_its_width(made: tuple[Table, float]) -> None:
    signal = weight()
    noise = made[0].pack()(torch.arange(400)) - signal
    assert 10 * torch.log10(signal.square().sum() / noise.square().sum().clamp(min=1e-30)) >= made[1]


def test_bytes_are_those_of_the_packed_tensors(made: tuple[Table, float]) -> None:
    table, packed = made[0], made[0].pack()
    stored = sum(t.numel() * t.element_size() for t in packed.state_dict().values())
    assert table.nbytes == packed.nbytes
    assert abs(stored - table.nbytes) <= 0.02 * table.nbytes


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("shape", [(0,), (1,), (3, 2), (2, 0, 4)])
def test_ids_of_any_shape_and_width(made: tuple[Table, float], dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    ids = torch.randint(0, 400, shape, dtype=dtype)
    for table in (made[0], made[0].pack()):
        vectors = table(ids)
        assert vectors.shape == (*shape, 16)
        assert vectors.dtype == torch.float32


def test_repeated_ids_give_the_same_vector(made: tuple[Table, float]) -> None:
    vectors = made[0].pack()(torch.tensor([7, 7]))
    assert torch.equal(vectors[0], vectors[1])


def test_saving_and_loading_is_exact(made: tuple[Table, float]) -> None:
    for table in (made[0], made[0].pack()):
        before = table(torch.arange(400))
        stored = load(io.BytesIO(save(table.state_dict())).read())
        with torch.no_grad():
            for tensor in table.state_dict().values():
                tensor.zero_()
        table.load_state_dict(stored)
        assert torch.equal(table(torch.arange(400)), before)


def test_packing_twice_changes_nothing(made: tuple[Table, float]) -> None:
    packed = made[0].pack()
    assert packed.pack() is packed
    assert torch.equal(packed.rows(3, 9), packed(torch.arange(3, 9)))


def test_gradients_reach_the_rows_of_the_batch_only(made: tuple[Table, float]) -> None:
    made[0](torch.tensor([4, 4, 310])).sum().backward()
    gradients = [p.grad for p in made[0].parameters() if p.grad is not None and p.dim() == 2]
    touched = gradients[0].abs().sum(dim=1).nonzero().flatten().tolist()
    assert touched == [4, 310]
