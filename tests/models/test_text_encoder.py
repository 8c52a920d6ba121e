"""Text encoder and cross-encoder: torch's own layers give the same states, pooling is arithmetic, padding adds 0."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from slimrank.config import InputError
from slimrank.models.architecture import build_model
from slimrank.models.cross_encoder import CrossEncoder, CrossEncoderModel
from slimrank.models.text_encoder import Block, TextEncoder, TextEncoderModel, TextModel, outputs_of, trimmed
from slimrank.tables.embedding import Layout

LAYOUT = Layout(("text",), (40,), (12,), 0, ("text",))
SMALL = {"embedding_dim": 16, "layers": 2, "heads": 4, "hidden": 24, "separator": 3, "embedding_std": 0.5}


def encoder(**more: object) -> TextEncoderModel:
    model = build_model(TextEncoder.parse({**SMALL, **more}), LAYOUT, seed=1)
    assert isinstance(model, TextEncoderModel)
    return model.eval()


def texts(lengths: list[int], seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, 40, (len(lengths), max(lengths)), generator=generator, dtype=torch.int32)
    return torch.where(torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1), ids, 0).to(torch.int32)


def torch_layer(block: Block, width: int, hidden: int) -> nn.TransformerEncoderLayer:
    """torch's layer with the weights of `block`."""
    layer = nn.TransformerEncoderLayer(
        width, block.heads, hidden, dropout=0.0, activation="gelu", layer_norm_eps=1e-12, batch_first=True
    ).eval()
    with torch.no_grad():
        layer.self_attn.in_proj_weight.copy_(block.mix.weight)
        layer.self_attn.in_proj_bias.copy_(block.mix.bias)
        pairs = {
            layer.self_attn.out_proj: block.output,
            layer.linear1: block.up,
            layer.linear2: block.down,
            layer.norm1: block.attention_norm,
            layer.norm2: block.norm,
        }
        for theirs, own in pairs.items():
            theirs.weight.copy_(own.weight)
            theirs.bias.copy_(own.bias)
    return layer


def test_states_are_those_of_torchs_own_layers() -> None:
    model = encoder()
    ids = texts([12, 5, 1, 9])
    expected = model.norm(model.tokens(ids))
    for block in model.blocks:
        assert isinstance(block, Block)
        expected = torch_layer(block, 16, 24)(expected, src_key_padding_mask=ids == 0)
    kept = ids != 0
    torch.testing.assert_close(model.states(ids)[kept], expected[kept], atol=1e-5, rtol=1e-5)


def test_vectors_are_normed_means_of_states() -> None:
    model, ids = encoder(), texts([3, 2])
    states = model.states(ids)
    means = torch.stack([(states[0, 0] + states[0, 1] + states[0, 2]) / 3, (states[1, 0] + states[1, 1]) / 2])
    torch.testing.assert_close(model(ids), means / means.norm(dim=1, keepdim=True))
    first = encoder(pooling="first")
    chosen = first.states(ids)[:, 0]
    torch.testing.assert_close(first(ids), chosen / chosen.norm(dim=1, keepdim=True))


def test_shortened_vectors_are_products_of_the_pooled_states() -> None:
    model, ids = encoder(outputs=3), texts([3, 2])
    assert model.shorten is not None
    pooled = torch.stack([model.states(ids)[0].mean(0), model.states(ids)[1, :2].mean(0)]) @ model.shorten.weight.T
    torch.testing.assert_close(model(ids), pooled / pooled.norm(dim=1, keepdim=True))


@pytest.mark.parametrize("kind", ["text-encoder", "cross-encoder"])
def test_neither_padding_nor_neighbours_change_a_text(kind: str) -> None:
    config = {"text-encoder": TextEncoder, "cross-encoder": CrossEncoder}[kind]
    model = build_model(config.parse(SMALL), LAYOUT, seed=1).eval()
    ids = texts([12, 2, 7])
    together = model(ids)
    for row, length in enumerate([12, 2, 7]):
        torch.testing.assert_close(model(ids[row : row + 1, :length])[0], together[row], atol=1e-6, rtol=1e-5)


def test_all_padding_gives_numbers() -> None:
    assert encoder()(torch.zeros(2, 3, dtype=torch.int32)).isfinite().all()


def test_segments_change_behind_the_first_separator() -> None:
    model = build_model(CrossEncoder.parse(SMALL), LAYOUT, seed=1).eval()
    assert isinstance(model, CrossEncoderModel)
    assert model.segments is not None
    with torch.no_grad():
        model.segments.copy_(torch.stack([torch.full((16,), 10.0), torch.full((16,), 20.0)]))
    ids = torch.tensor([[2, 7, 3, 8, 9, 3, 0]], dtype=torch.int32)
    added = model.tokens(ids)
    with torch.no_grad():
        model.segments.zero_()
    assert (added - model.tokens(ids)).mean(dim=2).round().tolist() == [[10.0, 10.0, 10.0, 20.0, 20.0, 20.0, 20.0]]


def test_every_parameter_of_a_cross_encoder_learns() -> None:
    model = build_model(CrossEncoder.parse(SMALL), LAYOUT, seed=1).train()
    ids = texts([12, 4])
    ids[:, 2] = 3
    model(ids).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_outputs_in_pieces_are_those_of_all_rows() -> None:
    model, ids = encoder().train(), texts([12, 2, 3, 7, 1])
    pieces = list(trimmed(ids, at_once=2))
    assert [tuple(piece.shape) for piece in pieces] == [(2, 12), (2, 7), (1, 1)]
    torch.testing.assert_close(outputs_of(model, ids, at_once=2), model.eval()(ids), atol=1e-6, rtol=1e-5)
    assert outputs_of(model.train(), ids).shape == (5, 16)
    assert model.training


def test_rows_of_another_form_are_refused() -> None:
    for layout in (
        Layout(("user",), (11,), (1,)),
        Layout((), (), (), 4),
        Layout(("a", "b"), (9, 9), (3, 3), 0, ("a", "b")),
        Layout(("a",), (9,), (3,), 2, ("a",)),
    ):
        with pytest.raises(InputError, match="model text-encoder reads one text field"):
            build_model(TextEncoder.parse(SMALL), layout, seed=1)
    with pytest.raises(InputError, match="embedding_dim 16 is no multiple of 3 heads"):
        TextEncoder.parse({**SMALL, "heads": 3})


def test_positions_are_as_many_as_the_longest_text() -> None:
    model = encoder()
    assert isinstance(model, TextModel)
    assert model.positions.table.num_rows == 12
    assert encoder(positions=20).positions.table.num_rows == 20
