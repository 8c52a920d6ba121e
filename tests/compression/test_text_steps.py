"""Steps on text models: layers, heads and neurons, vocabulary, vectors; from models whose right answer is known."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from torch import nn

from slimrank.compression.drop_layers import least_harmful
from slimrank.compression.prune_heads import keep_heads, keep_neurons
from slimrank.compression.shorten_vectors import components
from slimrank.compression.steps import Context, compress
from slimrank.config import InputError
from slimrank.data.text import TextCodec
from slimrank.exporting.pack import pack
from slimrank.models.architecture import build_model
from slimrank.models.cross_encoder import CrossEncoder
from slimrank.models.quantized import QuantizedLinear
from slimrank.models.text_encoder import Block, TextEncoder, TextEncoderModel, TextModel, outputs_of
from slimrank.tables.embedding import Layout
from slimrank.training.examples import Examples

SMALL = {"embedding_dim": 16, "layers": 3, "heads": 4, "hidden": 24, "embedding_std": 0.5}
WORDS = ["the", "cat", "cats", "sat", "unwell", "on", "mat", "dog", "dogs", "zebra"]


@pytest.fixture
def codec(tokenizer: bytes) -> TextCodec:
    return TextCodec(tokenizer, 16)


def made(codec: TextCodec, kind: type[TextEncoder] | type[CrossEncoder] = TextEncoder, **more: object) -> TextModel:
    layout = Layout(("text",), (codec.size,), (codec.max_length,), 0, ("text",))
    model = build_model(kind.parse({**SMALL, "separator": codec.vocabulary["[SEP]"], **more}), layout, seed=1)
    assert isinstance(model, TextModel)
    model.codec = codec
    return model.eval()


def some_texts(count: int, seed: int, words: list[str] = WORDS) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(words, k=draw.randint(1, 6))) for _ in range(count)]


def context(codec: TextCodec, words: list[str] = WORDS) -> Context:
    ids = torch.from_numpy(codec.encode(some_texts(120, 0, words))[0])
    rows = Examples(ids, torch.zeros(len(ids), 0), torch.zeros(len(ids)))
    return Context(rows, rows)


def silent(block: Block) -> None:
    """A layer that adds nothing, and whose norms leave normed states as they are."""
    with torch.no_grad():
        for part in (block.output, block.down):
            part.weight.zero_()
            part.bias.zero_()  # type: ignore[union-attr]


def test_named_layers_stay_and_every_second_one(codec: TextCodec) -> None:
    model, rows = made(codec), context(codec)
    kept, (record,) = compress(model, [{"name": "drop-layers", "keep": [0, 2]}], rows)
    assert isinstance(kept, TextModel)
    assert len(model.blocks) == 3
    assert torch.equal(kept.blocks[1].up.weight, model.blocks[2].up.weight)  # type: ignore[union-attr]
    assert record["touched"] == ["layers: 3 to 2, kept 0, 2"]
    assert record["bytes_after"] < record["bytes_before"]
    every, _ = compress(model, [{"name": "drop-layers", "every": 2}], rows)
    assert torch.equal(outputs_of(every, rows.train.ids), outputs_of(kept, rows.train.ids))  # type: ignore[arg-type]


def test_the_layer_that_does_nothing_is_the_least_harmful(codec: TextCodec) -> None:
    for idle in range(3):
        model = made(codec)
        silent(model.blocks[idle])  # type: ignore[arg-type]
        rows = context(codec)
        assert least_harmful(model, 2, rows.train.ids) == [place for place in range(3) if place != idle]
        less, _ = compress(model, [{"name": "drop-layers", "layers": 2}], rows)
        expected = outputs_of(model, rows.train.ids)
        torch.testing.assert_close(outputs_of(less, rows.train.ids), expected, atol=1e-4, rtol=1e-4)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({}, "give exactly one of keep, every and layers, got none"),
        ({"keep": [0], "layers": 1}, r"got \['keep', 'layers'\]"),
        ({"keep": [1, 0]}, r"keep is \[1, 0\], must be rising"),
        ({"keep": []}, "must be rising"),
        ({"keep": [0, 3]}, r"keep names layer 3. Allowed: 0..2."),
    ],
)
def test_layers_that_are_not_there_are_refused(codec: TextCodec, settings: dict[str, object], fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        compress(made(codec), [{"name": "drop-layers", **settings}], context(codec))


def test_heads_and_neurons_that_add_nothing_go_and_change_nothing(codec: TextCodec) -> None:
    model, rows = made(codec), context(codec)
    with torch.no_grad():
        for block in model.blocks:
            assert isinstance(block, Block)
            block.output.weight[:, 4:8] = 0.0  # the second of four heads
            block.down.weight[:, ::3] = 0.0  # 8 of 24 neurons
    steps = [{"name": "prune-heads", "heads": 0.75, "neurons": 2 / 3}]
    less, (record,) = compress(model, steps, rows)
    assert record["touched"][0] == "blocks.0: 4 heads to 3, 24 neurons to 16"
    block = less.blocks[0]  # type: ignore[union-attr,index]
    assert isinstance(block, Block)
    assert (block.heads, block.head_width, block.mix.out_features, block.output.in_features) == (3, 4, 36, 12)
    expected = outputs_of(model, rows.train.ids)
    torch.testing.assert_close(outputs_of(less, rows.train.ids), expected, atol=1e-5, rtol=1e-4)  # type: ignore[arg-type]


def test_what_a_neuron_adds_on_average_stays_in_the_bias() -> None:
    block = Block(4, 2, 3, 1e-12)
    with torch.no_grad():
        block.down.weight.copy_(torch.tensor([[1.0, 2.0, 3.0]] * 4))
        block.down.bias.zero_()
    given = torch.tensor([[0.1, 5.0, 5.0], [0.3, -5.0, 5.0]])
    keep_neurons(block, given, 2)
    assert block.down.weight.tolist() == [[2.0, 3.0]] * 4
    torch.testing.assert_close(block.down.bias, torch.full((4,), 0.2))  # 1 * (0.1 + 0.3) / 2
    with torch.no_grad():
        block.output.weight.copy_(torch.tensor([[1.0, 1.0, 2.0, 2.0]] * 4))
        block.output.bias.zero_()
    keep_heads(block, torch.tensor([[1.0, 2.0, 5.0, 5.0], [3.0, 4.0, -5.0, 5.0]]), 1)
    assert block.heads == 1
    torch.testing.assert_close(block.output.bias, torch.full((4,), 5.0))  # (1 + 3) / 2 + (2 + 4) / 2


def test_a_pruned_vocabulary_gives_the_same_vectors_for_what_it_holds(codec: TextCodec) -> None:
    words = ["the", "cat", "mat", "dog"]
    model, rows = made(codec), context(codec, words)
    less, (record,) = compress(model, ["prune-vocabulary"], rows)
    assert isinstance(less, TextModel)
    assert less.codec is not None
    assert less.codec.size == less.embedding.table.num_rows < codec.size
    assert model.codec is codec
    assert record["touched"][0].startswith(f"vocabulary: {codec.size} tokens to {less.codec.size}, tokenizer of")
    texts = some_texts(30, 5, words)
    before, after = (outputs_of(one, torch.from_numpy(one.codec.encode(texts)[0])) for one in (model, less))  # type: ignore[union-attr]
    torch.testing.assert_close(after, before)


def test_words_whose_token_went_are_read_by_letters_and_none_becomes_unknown(codec: TextCodec) -> None:
    less, _ = compress(made(codec), [{"name": "prune-vocabulary", "min_count": 2}], context(codec, ["the", "cat"]))
    assert isinstance(less, TextModel)
    assert less.codec is not None
    ids, _ = less.codec.encode(["unwell mat the"])
    assert less.codec.vocabulary["[UNK]"] not in ids
    assert less.codec.vocabulary["the"] in ids
    assert "##well" not in less.codec.vocabulary
    assert less.separator == less.codec.vocabulary["[SEP]"] == 3


def test_tokens_of_an_extra_file_stay(codec: TextCodec, tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("unwell\nmat\n")
    step = {"name": "prune-vocabulary", "extra": str(tmp_path / "more.txt")}
    less, _ = compress(made(codec), [step], context(codec, ["the"]))
    assert {"un", "##well", "mat", "the"} <= set(less.codec.vocabulary)  # type: ignore[union-attr]
    assert "dog" not in less.codec.vocabulary  # type: ignore[union-attr]
    with pytest.raises(InputError, match=r"none\.txt: cannot be read"):
        compress(made(codec), [{**step, "extra": str(tmp_path / "none.txt")}], context(codec))


def test_steps_after_the_vocabulary_see_the_new_ids(codec: TextCodec) -> None:
    """With the old ids, calibration would read the rows of other tokens, or beyond the table."""
    steps = ["prune-vocabulary", {"name": "quantize-tables", "bits": 8}, "quantize-dense"]
    less, records = compress(made(codec), steps, context(codec, ["the", "cat"]))
    assert isinstance(less, TextModel)
    assert sum(isinstance(each, QuantizedLinear) for each in less.modules()) == 12
    assert records[-1]["skipped"] == []
    ids = torch.from_numpy(less.codec.encode(some_texts(40, 3, ["the", "cat"]))[0])  # type: ignore[union-attr]
    whole, _ = compress(made(codec), ["prune-vocabulary"], context(codec, ["the", "cat"]))
    cosine = (outputs_of(less, ids) * outputs_of(whole, ids)).sum(dim=1)  # type: ignore[arg-type]
    assert cosine.min() > 0.99
    torch.testing.assert_close(outputs_of(pack(less), ids), outputs_of(less, ids), atol=2e-2, rtol=0)


def test_shorter_vectors_keep_the_products_that_lie_in_a_plane(codec: TextCodec) -> None:
    model, rows = made(codec), context(codec)
    assert isinstance(model, TextEncoderModel)
    with torch.no_grad():  # token states of the last layer lie in a plane
        last = model.blocks[-1]
        assert isinstance(last, Block)
        last.norm.weight[2:] = 0.0
        last.norm.bias[2:] = 0.0
    less, (record,) = compress(model, [{"name": "shorten-vectors", "outputs": 2}], rows)
    before, after = outputs_of(model, rows.train.ids), outputs_of(less, rows.train.ids)  # type: ignore[arg-type]
    assert after.shape[1] == 2
    torch.testing.assert_close(after @ after.T, before @ before.T, atol=1e-5, rtol=1e-4)
    assert record["facts"]["energy"] == pytest.approx(1.0)
    again, _ = compress(less, [{"name": "shorten-vectors", "outputs": 1}], rows)
    assert outputs_of(again, rows.train.ids).shape[1] == 1  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"outputs is 17. Allowed: 1..16, what a vector has"):
        compress(model, [{"name": "shorten-vectors", "outputs": 17}], rows)


def test_components_are_those_of_the_second_moment() -> None:
    vectors = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0]])
    basis, share = components(vectors, 1)
    assert basis.tolist() == [[1.0, 0.0]]
    assert share == pytest.approx(18 / 19)


def test_what_is_quantised_already_is_left_alone_with_the_reason(codec: TextCodec) -> None:
    rows = context(codec)
    first, _ = compress(made(codec), ["quantize-tables", "quantize-dense"], rows)
    steps = ["prune-vocabulary", {"name": "prune-heads", "neurons": 0.5}, {"name": "drop-layers", "layers": 5}]
    _, records = compress(first, steps, rows)
    assert [record["touched"] for record in records] == [[], [], []]
    reasons = [record["skipped"][0]["reason"] for record in records]
    assert reasons == [
        "is quantised already: prune the vocabulary before quantising",
        "is quantised already: prune heads before quantising",
        "all 3 are kept",
    ]


def test_a_cross_encoder_takes_the_same_steps(codec: TextCodec) -> None:
    pairs = codec.encode(some_texts(60, 0), some_texts(60, 1))[0]
    rows = Examples(torch.from_numpy(pairs), torch.zeros(60, 0), torch.zeros(60))
    steps = [
        {"name": "drop-layers", "layers": 2},
        "prune-vocabulary",
        {"name": "prune-heads", "neurons": 0.5},
        "shorten-vectors",
        "quantize-tables",
        "quantize-dense",
    ]
    less, records = compress(made(codec, CrossEncoder), steps, Context(rows, rows))
    assert records[3]["skipped"] == [{"name": "vectors", "reason": "the model gives no vectors of texts"}]
    assert all(record["touched"] for place, record in enumerate(records) if place != 3)
    assert isinstance(less, TextModel)
    assert outputs_of(less, torch.from_numpy(codec.translated(pairs, less.codec))).isfinite().all()  # type: ignore[arg-type]


def test_pruned_weights_and_codebooks_work_on_texts(codec: TextCodec) -> None:
    steps = [{"name": "prune-weights", "sparsity": 0.5}, {"name": "codebook-tables", "parts": 4, "bits": 4}]
    less, records = compress(made(codec), steps, context(codec))
    assert all(record["touched"] for record in records)
    linears = [each for each in less.modules() if isinstance(each, nn.Linear)]
    assert sum(int((each.weight == 0).sum()) for each in linears) >= sum(each.weight.numel() for each in linears) // 2
