"""Architectures, from their formulas with weights set by hand."""

import pytest
import torch
from torch import nn

from slimrank.config import InputError
from slimrank.models.architecture import build_model
from slimrank.models.dcnv2 import CrossNetwork
from slimrank.models.deepfm import DeepFM, factorization_machine
from slimrank.models.dlrm import DLRM
from slimrank.models.finalmlp import BilinearFusion, FinalMLP
from slimrank.models.gmf import GMF
from slimrank.models.layers import MLP, ByteDropout, InputLinear
from slimrank.models.logistic_regression import LogisticRegression
from slimrank.models.size import packed_bytes, sparse_bytes
from slimrank.tables.embedding import Layout, Row

LAYOUT = Layout(("user", "item"), (3, 4), (1, 1), numbers=2)


def test_logistic_regression_adds_weights() -> None:
    model = build_model(LogisticRegression(), LAYOUT, seed=0)
    with torch.no_grad():
        model.embedding.table.weight[:, 0] = torch.arange(7.0)
        model.sum.bias.fill_(0.5)
        model.sum.numbers.weight.copy_(torch.tensor([[1.0, -2.0]]))
    logit = model(torch.tensor([[2, 3]], dtype=torch.int32), torch.tensor([[10.0, 1.0]]))
    assert logit.item() == pytest.approx(0.5 + 2 + (3 + 3) + 10 - 2)


def test_factorisation_machine_is_the_sum_over_pairs() -> None:
    vectors = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0))
    pairs = sum((vectors[:, i] * vectors[:, j]).sum(dim=1) for i in range(4) for j in range(i))
    torch.testing.assert_close(factorization_machine(vectors), pairs)


def test_cross_layer() -> None:
    cross = CrossNetwork(2, 1)
    with torch.no_grad():
        cross.layers[0].weight.copy_(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
        cross.layers[0].bias.copy_(torch.tensor([0.5, -0.5]))
    x = torch.tensor([[3.0, 4.0]])
    # x * (W x + b) + x
    assert cross(x).tolist() == [[3 * (3 + 8 + 0.5) + 3, 4 * (4 - 0.5) + 4]]


def test_dlrm_dots_are_those_of_distinct_pairs() -> None:
    model = build_model(DLRM(embedding_dim=4, hidden=(8,), bottom=(5,)), LAYOUT, seed=0)
    assert model.pairs.tolist() == [1 * 3 + 0, 2 * 3 + 0, 2 * 3 + 1]  # 3 vectors: numbers, user, item


def test_bilinear_fusion_with_heads_is_a_sum_of_forms() -> None:
    fusion = BilinearFusion(4, 6, heads=2)
    x, y = torch.randn(3, 4), torch.randn(3, 6)
    forms = sum(
        torch.einsum("ni,ij,nj->n", x[:, 2 * h : 2 * h + 2], fusion.weight[h], y[:, 3 * h : 3 * h + 3]) for h in (0, 1)
    )
    expected = fusion.left(x).squeeze(1) + fusion.right(y).squeeze(1) + forms
    torch.testing.assert_close(fusion(x, y), expected)


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(InputError, match="heads must divide"):
        FinalMLP.parse({"heads": 3})


def test_input_linear_is_one_linear_layer_over_everything() -> None:
    layout = Layout(("user", "genres"), (3, 4), (1, 2), numbers=2, sequences=("genres",))
    layer = InputLinear(layout, 3, 5)
    row = Row(torch.randn(6, 1, 3), torch.randn(6, 1, 3), torch.randn(6, 2))
    weight = torch.cat([layer.lookups.weight, layer.others.weight], dim=1)
    whole = nn.functional.linear(row.flat, weight, layer.lookups.bias)
    torch.testing.assert_close(layer(row), whole)


def test_folding_batch_normalisation_changes_nothing() -> None:
    mlp = MLP(InputLinear(LAYOUT, 3, 5), (5, 4), batch_norm=True)
    rows = [Row(torch.randn(9, 2, 3), torch.zeros(9, 0, 3), torch.randn(9, 2)) for _ in range(3)]
    for row in rows:
        mlp(row)
    mlp.eval()
    before = mlp(rows[0])
    mlp.fold_norms()
    assert all(isinstance(norm, nn.Identity) for norm in mlp.norms)
    torch.testing.assert_close(mlp(rows[0]), before)


def test_the_same_seed_builds_the_same_model_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second = (build_model(DeepFM(hidden=(8,)), LAYOUT, seed=3) for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_packed_bytes_count_zeros_as_a_mask() -> None:
    layer = nn.Linear(100, 10, bias=False)
    assert packed_bytes(layer) == 4000
    with torch.no_grad():
        layer.weight[:, 10:] = 0.0
    assert packed_bytes(layer) == 125 + 100 * 4 == sparse_bytes(layer.weight)


def test_dropout_keeps_the_mean_and_drops_its_share() -> None:
    torch.manual_seed(0)
    dropped = ByteDropout(0.4)(torch.ones(200_000))
    cut = round(0.4 * 256)
    assert sorted(dropped.unique().tolist()) == pytest.approx([0.0, 256 / (256 - cut)])
    assert (dropped == 0).float().mean().item() == pytest.approx(cut / 256, abs=0.005)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.01)


def test_dropout_does_nothing_outside_training() -> None:
    values = torch.randn(10)
    assert ByteDropout(0.5).eval()(values) is values
    assert ByteDropout(0.0)(values) is values


def test_dlrm_refuses_rows_of_one_vector() -> None:
    with pytest.raises(InputError, match="multiplies pairs of vectors"):
        build_model(DLRM(), Layout(("user",), (3,), (1,)), seed=0)


def test_a_dropout_that_is_asked_for_is_never_none_and_never_all() -> None:
    assert (ByteDropout(0.001).cut, ByteDropout(0.999).cut) == (1, 255)


def test_gmf_is_the_weighted_product_of_two_vectors() -> None:
    model = build_model(GMF(embedding_dim=2), Layout(("user", "item"), (3, 4), (1, 1)), seed=0)
    assert model.weight.tolist() == [1.0, 1.0]
    with torch.no_grad():
        model.embedding.table.weight.copy_(torch.arange(14.0).view(7, 2))
        model.weight.copy_(torch.tensor([1.0, -2.0]))
        model.bias.fill_(0.5)
    logit = model(torch.tensor([[2, 3], [0, 1]], dtype=torch.int32))
    # user 2 is row 2 and item 3 row 3 + 3; then rows 0 and 3 + 1
    assert logit.tolist() == [0.5 + 4 * 12 - 2 * 5 * 13, 0.5 + 0 * 8 - 2 * 1 * 9]


@pytest.mark.parametrize(
    "layout",
    [
        Layout(("user",), (3,), (1,)),
        Layout(("user", "item", "city"), (3, 4, 2), (1, 1, 1)),
        Layout(("user", "item"), (3, 4), (1, 1), numbers=1),
        Layout(("user", "tags"), (3, 4), (1, 2), sequences=("tags",)),
    ],
)
def test_gmf_refuses_all_but_two_ids(layout: Layout) -> None:
    with pytest.raises(InputError, match="model gmf multiplies the vectors of two categorical fields, and these rows"):
        build_model(GMF(), layout, seed=0)
