"""SASRec against another implementation, written from the description of pmixer/SASRec.pytorch: zeros in front."""

from __future__ import annotations

from math import sqrt

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from slimrank.config import InputError
from slimrank.models.architecture import build_model
from slimrank.models.sasrec import SASRec, SASRecModel, trimmed
from slimrank.tables.embedding import Layout

ITEMS, LENGTH, DIM = 25, 9, 8
LAYOUT = Layout(("history",), (ITEMS,), (LENGTH,), 0, ("history",))
HISTORIES = [[5, 9, 3, 7, 2, 8, 4, 10, 24], [6, 2, 2], [13], [4, 21, 20, 19, 18, 17, 16, 15], [1, 3, 1]]


def made(**settings: object) -> SASRecModel:
    model = build_model(SASRec.parse({"embedding_dim": DIM, "embedding_std": 0.5, **settings}), LAYOUT, seed=0).eval()
    assert isinstance(model, SASRecModel)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():  # biases and gains as a trained model has them, and not 0 and 1
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=draw) * 0.3)
            assert torch.isfinite(parameter).all(), name
    return model


def behind(histories: list[list[int]]) -> Tensor:
    """As we take them: zeros behind."""
    rows = [each[-LENGTH:] + [0] * (LENGTH - len(each)) for each in histories]
    return torch.tensor(rows, dtype=torch.int32)


def original(model: SASRecModel, histories: list[list[int]], *, padding_keys: bool) -> Tensor:
    """States [N, LENGTH, DIM] for histories with zeros in front, by the description alone."""
    table, position = model.embedding.table.weight, model.positions.table.weight
    met = torch.tensor([[0] * (LENGTH - len(each)) + each[-LENGTH:] for each in histories])
    kept = (met != 0).float().unsqueeze(2)
    values = (table[met] * sqrt(DIM) + position[torch.arange(LENGTH)]) * kept
    hidden_from = torch.ones(LENGTH, LENGTH).triu(1).bool().expand(len(met), -1, -1)
    if not padding_keys:
        hidden_from = hidden_from | (met == 0).unsqueeze(1)
    for block in model.blocks:
        mix = block.attention
        heads = mix.heads
        queries = functional.layer_norm(values, (DIM,), block.before.weight, block.before.bias, 1e-8)
        weights = torch.cat([mix.query.weight, mix.key.weight, mix.value.weight])
        biases = torch.cat([mix.query.bias, mix.key.bias, mix.value.bias])
        taken, _ = functional.multi_head_attention_forward(
            *(each.transpose(0, 1) for each in (queries, values, values)),
            *(DIM, heads, weights, biases, None, None, False, 0.0, mix.out.weight, mix.out.bias),
            training=False,
            need_weights=False,
            attn_mask=hidden_from.float().mul(-1e9).repeat_interleave(heads, dim=0),
        )
        values = queries + taken.transpose(0, 1)
        values = functional.layer_norm(values, (DIM,), block.between.weight, block.between.bias, 1e-8)
        inner = functional.conv1d(values.transpose(1, 2), block.inner.weight.unsqueeze(2), block.inner.bias)
        outer = functional.conv1d(inner.relu(), block.outer.weight.unsqueeze(2), block.outer.bias)
        values = (values + outer.transpose(1, 2)) * kept
    return functional.layer_norm(values, (DIM,), model.norm.weight, model.norm.bias, 1e-8)


@pytest.mark.parametrize("padding_keys", [True, False])
@pytest.mark.parametrize(("heads", "blocks"), [(1, 2), (2, 1), (4, 3)])
def test_vectors_are_those_of_zeros_in_front(heads: int, blocks: int, padding_keys: bool) -> None:
    model = made(heads=heads, blocks=blocks, padding_keys=padding_keys)
    expected = original(model, HISTORIES, padding_keys=padding_keys)
    torch.testing.assert_close(model(behind(HISTORIES)), expected[:, -1], atol=1e-4, rtol=1e-4)
    states = model.states(behind(HISTORIES).long())
    for row, history in enumerate(HISTORIES):
        count = len(history)
        torch.testing.assert_close(states[row, :count], expected[row, LENGTH - count :], atol=1e-4, rtol=1e-4)


def test_zeros_in_front_are_looked_at_by_those_that_were_trained_so() -> None:
    """A full history has none, a short one is another vector."""
    with_keys, without = made(padding_keys=True), made(padding_keys=False)
    without.load_state_dict(with_keys.state_dict())
    found, other = with_keys(behind(HISTORIES)), without(behind(HISTORIES))
    torch.testing.assert_close(found[0], other[0], atol=1e-5, rtol=1e-4)
    assert (found[1:] - other[1:]).abs().amax(dim=1).min() > 1e-3


def test_dropout_is_off_where_nothing_is_trained() -> None:
    model = made(dropout=0.9)
    torch.testing.assert_close(model(behind(HISTORIES)), model(behind(HISTORIES)), atol=0, rtol=0)
    model.train()
    assert not torch.equal(model(behind(HISTORIES)), model(behind(HISTORIES)))


def test_a_batch_is_trimmed_to_its_longest_history() -> None:
    assert trimmed(behind([[3], [4, 5, 6]])).shape == (2, 3)
    assert trimmed(behind([[]])).shape == (1, 1)
    assert trimmed(behind(HISTORIES)[:0]).shape == (0, 1)


def test_heads_divide_the_width() -> None:
    with pytest.raises(InputError, match="embedding_dim 8 does not divide into 3 heads"):
        build_model(SASRec(embedding_dim=8, heads=3), LAYOUT, seed=0)


def test_two_sequences_are_one_too_many() -> None:
    layout = Layout(("a", "b"), (9, 9), (3, 3), 0, ("a", "b"))
    with pytest.raises(InputError, match="a sequence model reads one sequence field, this data has 2"):
        build_model(SASRec(), layout, seed=0)
