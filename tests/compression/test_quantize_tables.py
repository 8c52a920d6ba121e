"""Tables to integers: the record, the scales, and what is skipped."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slimrank.compression.quantize_tables import QuantizeTables
from slimrank.compression.steps import compress
from slimrank.config import InputError
from slimrank.models.deepfm import DeepFM
from slimrank.models.dnn import DNN
from slimrank.models.size import packed_bytes
from slimrank.tables.scaled import ScaledTable


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("scale", ["field", "table"])
def test_the_record_says_what_was_done(bits, scale, make_model, context) -> None:
    model = make_model()
    settings = {"bits": bits, "scale": scale, "range": "squared-error", "only": [], "skip": [], "tied": False}
    small, (record,) = compress(model, [{"name": "quantize-tables", "bits": bits, "scale": scale}], context)
    rows, dim, groups = 9 + 12 + 6, 4, 3 if scale == "field" else 1
    other = packed_bytes(model) - rows * dim * 4
    assert record["name"] == "quantize-tables"
    assert settings.items() <= record["settings"].items()
    sizes = f"{record['bytes_before'] - other:,} bytes to {record['bytes_after'] - other:,}"
    assert record["touched"] == [f"embedding.table: {sizes}"]
    assert record["skipped"] == []
    assert record["bytes_before"] - record["bytes_after"] == rows * dim * 4 - (rows * dim * bits // 8 + 4 * groups)
    assert isinstance(small.embedding.table, ScaledTable)
    assert small.embedding.table.scale.shape == (groups,)


def test_every_field_has_the_scale_of_its_own_rows(make_model, context) -> None:
    """Range `max` at 8 bits: codes 0 to 255 with zero at 128, so the largest of max / 127 and -min / 128."""
    model = make_model()
    weight = model.embedding.table.weight.data
    weight.uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    for start, size, top, bottom in ((0, 9, 12.7, -1.0), (9, 12, 1.0, -256.0), (21, 6, 0.0, 0.0)):
        field = weight[start : start + size]
        field.clamp_(-0.5, 0.5) if top else field.zero_()
        field[0, 0], field[1, 1] = top, bottom
    small, _ = compress(model, [{"name": "quantize-tables", "range": "max"}], context)
    torch.testing.assert_close(small.embedding.table.scale, torch.tensor([0.1, 2.0, 1.0]))
    whole, _ = compress(model, [{"name": "quantize-tables", "range": "max", "scale": "table"}], context)
    torch.testing.assert_close(whole.embedding.table.scale, torch.tensor([2.0]))


def test_a_dimension_that_is_too_short_is_skipped_with_the_reason(make_model, context) -> None:
    model = make_model(DeepFM(embedding_dim=2, hidden=(4,)))
    small, (record,) = compress(model, [{"name": "quantize-tables", "bits": 2}], context)
    assert record["touched"] == []
    assert record["skipped"] == [
        {"name": "embedding.table", "reason": "dimension 2 does not pack at 2 bits: 4 bits take as few bytes"},
        {"name": "weights.table", "reason": "dimension 1 does not pack at 2 bits: 4 bits take as few bytes"},
    ]
    assert record["bytes_before"] == record["bytes_after"]
    given = (context.train.ids, context.train.numbers)
    assert torch.equal(small(*given), model(*given))


def test_a_field_that_holds_nan_is_skipped_by_name_and_the_others_are_not(make_model, context) -> None:
    model = make_model()
    model.embedding.table.weight.data[10, 1] = float("nan")
    _, (record,) = compress(model, ["quantize-tables"], context)
    assert record["skipped"] == [{"name": "embedding.item", "reason": "holds NaN or infinite values"}]
    assert [each.split(":")[0] for each in record["touched"]] == ["embedding.user", "embedding.tags"]


def test_with_a_budget_a_dimension_that_packs_at_no_width_is_skipped_for_that_reason(make_model, context) -> None:
    model = make_model(DNN(embedding_dim=4, hidden=(6, 5)))
    settings = {"name": "quantize-tables", "bits": 1, "budget": packed_bytes(model)}
    _, (record,) = compress(model, [settings], context)
    assert record["skipped"] == [
        {"name": "embedding.table", "reason": "dimension 4 does not pack at 1 bit: 2 bits take as few bytes"}
    ]


def test_a_field_that_training_never_met_gets_the_bits_that_are_left(make_model, context) -> None:
    model = make_model(DNN(embedding_dim=8, hidden=(6, 5), embedding_std=0.5))
    whole, _ = compress(model, [{"name": "quantize-tables", "bits": 8}], context)
    context.counts = {**context.counts, "item": np.zeros(12, np.int64)}
    _, (record,) = compress(model, [{"name": "quantize-tables", "budget": packed_bytes(whole)}], context)
    assert record["facts"]["bits of item"] == 8


def test_quantising_twice_changes_nothing(make_model, context) -> None:
    once, _ = compress(make_model(), ["quantize-tables"], context)
    twice, (record,) = compress(once, ["quantize-tables"], context)
    assert record["skipped"] == [{"name": "embedding.table", "reason": "is no dense table: ScaledTable"}]
    given = (context.train.ids, context.train.numbers)
    assert torch.equal(once(*given), twice(*given))


def test_a_model_with_two_tables_has_both_quantised(make_model, context) -> None:
    _, (record,) = compress(make_model(DeepFM(embedding_dim=4, hidden=(4,))), ["quantize-tables"], context)
    assert [each.split(":")[0] for each in record["touched"]] == ["embedding.table", "weights.table"]


def test_columns_clipping_and_sparse_gradients_stay(make_model, context, layout) -> None:
    model = make_model(DNN(embedding_dim=4, hidden=(3,)), layout.only({"item"}))
    model.embedding.reads, model.embedding.clip = layout.columns_of({"item"}), True
    model.embedding.table.sparse = True
    small, _ = compress(model, ["quantize-tables"], context)
    assert torch.equal(small.embedding.reads, torch.tensor([1]))
    assert small.embedding.clip
    assert small.embedding.table.sparse


@pytest.mark.parametrize("bits", [3, 0, 16, "four"])
def test_bits_that_do_not_exist(bits) -> None:
    with pytest.raises(InputError, match=f"bits: Input should be 1, 2, 4, 8 or 32, got {bits!r}"):
        QuantizeTables.parse({"bits": bits}, "step quantize-tables")
