"""A recurrent layer against `nn.GRU`, its form in bytes, and GRU4Rec's projection."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slimrank.compression.steps import Context, compress
from slimrank.exporting.pack import pack
from slimrank.models.architecture import build_model
from slimrank.models.gru4rec import GRU4Rec, GRU4RecModel
from slimrank.models.recurrent import PackedRecurrence, QuantizedRecurrence, Recurrence, scales
from slimrank.models.size import packed_bytes
from slimrank.tables.embedding import Layout
from slimrank.training.examples import Examples

LAYOUT = Layout(("history",), (12,), (5,), 0, ("history",))
MET = torch.tensor([[3, 4, 5, 6, 7], [8, 9, 0, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.int32)


@pytest.fixture
def layer() -> Recurrence:
    torch.manual_seed(0)
    return Recurrence(6, 4)


@pytest.fixture
def values() -> torch.Tensor:
    return torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(1))


def test_states_are_those_of_the_layer_of_torch(layer: Recurrence, values: torch.Tensor) -> None:
    other = nn.GRU(6, 4, batch_first=True)
    other.load_state_dict(
        {
            "weight_ih_l0": layer.input_weight,
            "weight_hh_l0": layer.state_weight,
            "bias_ih_l0": layer.input_bias,
            "bias_hh_l0": layer.state_bias,
        }
    )
    torch.testing.assert_close(layer(values), other(values)[0])


def test_one_step_by_hand(layer: Recurrence) -> None:
    x, before = torch.randn(6), torch.zeros(4)
    read, kept = layer.input_weight @ x + layer.input_bias, layer.state_weight @ before + layer.state_bias
    reset, update = torch.sigmoid(read[:4] + kept[:4]), torch.sigmoid(read[4:8] + kept[4:8])
    new = torch.tanh(read[8:] + reset * kept[8:])
    torch.testing.assert_close(layer(x.view(1, 1, 6)).flatten(), (1 - update) * new + update * before)


@pytest.mark.parametrize("kind", [Recurrence, QuantizedRecurrence])
def test_the_packed_form_agrees(kind: type[Recurrence], layer: Recurrence, values: torch.Tensor) -> None:
    whole = layer if kind is Recurrence else QuantizedRecurrence(layer)
    packed = whole.pack()
    count = torch.tensor([5, 2, 0])
    torch.testing.assert_close(packed(values), whole(values), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(packed.last(values, count), whole.last(values, count), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(whole.last(values, count), whole(values)[[0, 1, 2], [4, 1, 0]])
    assert packed.pack() is packed


def test_bytes_hold_what_they_say(layer: Recurrence) -> None:
    quantized = QuantizedRecurrence(layer)
    packed = quantized.pack()
    assert packed.input_weight.dtype == packed.state_weight.dtype == torch.int8
    assert quantized.nbytes == packed.nbytes == 12 * (6 + 4) + 2 * 12 * 4 + 2 * 12 * 4  # codes, steps, biases
    assert layer.pack().nbytes == 4 * (12 * (6 + 4) + 2 * 12)
    for exact, rounded in zip(layer.rounded(), quantized.rounded(), strict=True):
        assert ((exact - rounded).abs() <= scales(exact) / 2 + 1e-7).all()
    quantized(torch.randn(2, 3, 6)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in quantized.parameters())


def test_outputs_without_weights_keep_a_scale() -> None:
    assert scales(torch.tensor([[0.0, 0.0], [-127.0, 2.0]])).tolist() == [[1.0], [1.0]]


@pytest.mark.parametrize("hidden", [None, 8, 3])
def test_a_projection_stands_where_widths_differ(hidden: int | None) -> None:
    model = build_model(GRU4Rec(embedding_dim=8, hidden=hidden), LAYOUT, seed=0).eval()
    assert isinstance(model, GRU4RecModel)
    assert (model.project is None) == (hidden in (None, 8))
    assert model(MET).shape == (3, 8)
    torch.testing.assert_close(model(MET)[:2], model.states(MET.long())[[0, 1], [4, 1]])


def test_steps_make_all_of_it_small_and_say_how() -> None:
    model = build_model(GRU4Rec(embedding_dim=8, hidden=16), LAYOUT, seed=0)
    rows = Examples(MET, torch.zeros(3, 0), torch.tensor([2, 3, 4]), answer="item")
    small, (record,) = compress(model, ["quantize-dense"], Context(rows, rows))
    assert record["touched"] == ["project", "recurrence: stored as bytes, multiplied as floats"]
    assert not record["skipped"]
    assert packed_bytes(small) < packed_bytes(model) / 2
    packed = pack(small)
    assert isinstance(packed, GRU4RecModel)
    assert isinstance(packed.recurrence, PackedRecurrence)
    torch.testing.assert_close(packed(MET), small.eval()(MET), atol=1e-2, rtol=1e-2)
