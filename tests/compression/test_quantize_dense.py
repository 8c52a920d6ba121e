"""Dense layers to 8-bit integers: calibration, codes read directly, batch normalisation folded first."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from slimrank.compression import calibration
from slimrank.compression.calibration import calibration_inputs
from slimrank.compression.steps import compress
from slimrank.config import InputError, as_config, entries
from slimrank.exporting.pack import pack
from slimrank.models.dnn import DNN
from slimrank.models.layers import Ranker
from slimrank.models.quantized import ActivationQuantizer, QuantizedLinear, TableQuantizer

RANKERS = {n for n, each in entries("model").items() if issubclass(each.run, Ranker) and n != "cross-encoder"}


def decibels(signal: Tensor, other: Tensor) -> float:
    return float(10 * torch.log10(signal.square().mean() / (signal - other).square().mean().clamp(min=1e-30)))


def test_every_linear_layer_is_replaced_and_named(make_model, context) -> None:
    small, (record,) = compress(make_model(), ["quantize-dense"], context)
    kinds = {name: type(m) for name, m in small.named_modules() if isinstance(m, QuantizedLinear | torch.nn.Linear)}
    assert set(kinds.values()) == {QuantizedLinear}
    assert record["touched"] == list(kinds)
    assert record["skipped"] == []


@pytest.mark.parametrize("name", sorted(RANKERS - {"gmf"}))
@pytest.mark.parametrize("steps", [["quantize-dense"], [{"name": "quantize-tables", "bits": 8}, "quantize-dense"]])
def test_scores_stay_close_in_every_architecture(name, steps, make_model, context) -> None:
    settings = {} if name == "logistic-regression" else {"embedding_dim": 8, "hidden": (32, 16)}
    model = make_model(as_config("model", {"name": name, "embedding_std": 0.3, **settings}))
    small, _ = compress(model, steps, context)
    given = (context.valid.ids, context.valid.numbers)
    with torch.no_grad():
        assert decibels(model(*given), small.eval()(*given)) > 25
        assert decibels(small(*given), pack(small)(*given)) > 60


def test_calibration_sees_a_sample_of_train_rows_that_the_seed_decides(make_model, context) -> None:
    model = make_model()
    first = calibration_inputs(model, 50, context)
    assert {len(values) for values in first.values()} == {50}
    again = calibration_inputs(model, 50, context)
    assert all(torch.equal(first[name], again[name]) for name in first)
    context.seed = 1
    assert not torch.equal(first["out"], calibration_inputs(model, 50, context)["out"])
    assert {len(values) for values in calibration_inputs(model, 10**6, context).values()} == {len(context.train)}
    assert not any(layer._forward_pre_hooks for layer in model.modules())


@pytest.mark.parametrize("sizes", [[70], [7] * 10, [1] * 70, [25, 1, 44], [3, 64, 3]])
def test_a_sample_is_even_and_no_larger_than_it_may_be(sizes: list[int], monkeypatch) -> None:
    monkeypatch.setattr(calibration, "MOST", 16)
    sample, values = calibration.Sample(), torch.arange(70.0).unsqueeze(1)
    for part in values.split(sizes):
        sample.add(part)
    found = torch.cat(sample.parts)[:, 0]
    assert 8 <= len(found) <= 16
    assert torch.equal(found, torch.arange(0.0, 70.0, sample.stride))


def test_the_range_is_that_of_the_calibration_rows(make_model, context) -> None:
    model = make_model(DNN(embedding_dim=4, hidden=(6,), embedding_std=0.5))
    values = calibration_inputs(model, 4096, context)["out"]
    small, _ = compress(model, ["quantize-dense"], context)
    expected = ActivationQuantizer.calibrated(values)
    assert expected.zero_point == 0  # behind a ReLU
    torch.testing.assert_close(small.out.inputs.steps(), expected.steps())
    assert expected.steps().item() <= float(values.max()) / 255 * (1 + 1e-6)


def test_numbers_have_a_scale_each(make_model, context) -> None:
    context.train.numbers.mul_(torch.tensor([100.0, 0.01]))
    small, _ = compress(make_model(), ["quantize-dense"], context)
    steps = small.mlp.linears[0].others.inputs.steps()
    assert steps.shape == (4 + 2,)  # one averaged history of 4, two numbers
    assert steps[4] / steps[5] > 1000


def test_codes_of_a_quantised_table_feed_the_first_layer_as_they_are(make_model, context) -> None:
    small, _ = compress(make_model(), [{"name": "quantize-tables", "bits": 4}, "quantize-dense"], context)
    first = small.mlp.linears[0]
    assert isinstance(first.lookups.inputs, TableQuantizer)
    assert isinstance(first.others.inputs, ActivationQuantizer)  # averages lie on no grid
    scale = small.embedding.table.scale.detach()
    expected = torch.cat([scale[0].repeat(4), scale[1].repeat(4)]) / 2**4  # codes stand in the high bits of a byte
    torch.testing.assert_close(first.lookups.inputs.steps().detach(), expected)
    assert first.lookups.inputs.source[0] is small.embedding.table


def test_codes_are_read_from_the_copy_not_the_original(make_model, context) -> None:
    first, _ = compress(make_model(), ["quantize-tables", "quantize-dense"], context)
    second, _ = compress(first, [{"name": "prune-weights", "tau": 0.0}], context)
    assert second.mlp.linears[0].lookups.inputs.source[0] is second.embedding.table
    assert second.embedding.table is not first.embedding.table


def test_batch_normalisation_is_folded_first(make_model, context) -> None:
    model = make_model(DNN(embedding_dim=4, hidden=(6, 5), embedding_std=0.5, batch_norm=True))
    for norm in model.mlp.norms:
        for values in (norm.weight.data, norm.running_var):
            values.uniform_(0.5, 1.5)
        for values in (norm.bias.data, norm.running_mean):
            values.uniform_(-0.5, 0.5)
    small, _ = compress(model, ["quantize-dense"], context)
    assert not any(isinstance(module, torch.nn.BatchNorm1d) for module in small.modules())
    given = (context.valid.ids, context.valid.numbers)
    with torch.no_grad():
        assert decibels(model(*given), small.eval()(*given)) > 25
    assert any(isinstance(module, torch.nn.BatchNorm1d) for module in model.modules())


def test_the_zero_point_is_saved_with_the_model(make_model, context) -> None:
    """It is no parameter, and calibration on another machine might find another one."""
    small, _ = compress(make_model(), ["quantize-dense"], context)
    saved = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    given = (context.valid.ids, context.valid.numbers)
    before = small(*given)
    others = small.mlp.linears[0].others.inputs
    assert others.zero_point == 128
    others.set_extra_state(torch.tensor(3))
    assert not torch.equal(small(*given), before)
    small.load_state_dict(saved)
    assert torch.equal(small(*given), before)
    assert pack(small).mlp.linears[0].others.step_zero.tolist() == [128] * 6


def test_rows_that_are_not_finite_cannot_calibrate(make_model, context) -> None:
    context.train.numbers[:, 0] = float("inf")
    with pytest.raises(InputError, match="without NaN or infinity"):
        compress(make_model(), ["quantize-dense"], context)
