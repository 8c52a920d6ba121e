"""Text to token ids: WordPiece from arithmetic, the edges of texts, and smaller vocabularies."""

from __future__ import annotations

import copy
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest

from slimrank.config import InputError
from slimrank.data.text import CHARACTERS, TextCodec, word_pieces


@pytest.fixture
def codec(tokenizer: bytes) -> TextCodec:
    return TextCodec(tokenizer, max_length=8)


def tokens(codec: TextCodec, row: np.ndarray) -> list[str]:
    names = {place: token for token, place in codec.vocabulary.items()}
    return [names[each] for each in row.tolist()]


def test_the_longest_piece_comes_first(codec: TextCodec) -> None:
    ids, cut = codec.encode(["The cats", "unwell dog"])
    assert tokens(codec, ids[0]) == ["[CLS]", "the", "cats", "[SEP]", "[PAD]"]
    assert tokens(codec, ids[1]) == ["[CLS]", "un", "##well", "dog", "[SEP]"]
    assert ids.dtype == np.int32
    assert cut == 0


def test_word_pieces_are_those_of_the_library(codec: TextCodec) -> None:
    draw = random.Random(0)
    words = ["".join(draw.choice("catsdogunwelé") for _ in range(draw.randint(1, 9))) for _ in range(200)]
    ids, _ = TextCodec(codec.content, 64).encode(words)
    for word, row in zip(words, ids, strict=True):
        plain = word.replace("é", "e")  # the normaliser takes accents off
        assert row[row != 0].tolist()[1:-1] == word_pieces(plain, codec.vocabulary)


def test_a_word_of_more_than_100_letters_is_unknown(codec: TextCodec) -> None:
    wide = TextCodec(codec.content, 256)
    ids, _ = wide.encode(["a" * 100, "a" * 101])
    unknown = wide.vocabulary["[UNK]"]
    assert (ids[0] != unknown).all()
    assert ids[1].tolist()[1] == unknown == word_pieces("a" * 101, wide.vocabulary)[0]


def test_an_empty_text_is_its_two_ends(codec: TextCodec) -> None:
    ids, cut = codec.encode(["", None, b"", "   "])
    assert [tokens(codec, row) for row in ids] == [["[CLS]", "[SEP]"]] * 4
    assert cut == 0
    assert codec.encode([])[0].shape == (0, 0)


def test_a_long_text_is_cut_and_counted(codec: TextCodec) -> None:
    ids, cut = codec.encode(["the " * 6, "the " * 7, "the"])
    assert ids.shape == (3, 8)
    assert cut == 1
    assert tokens(codec, ids[1]) == ["[CLS]", *["the"] * 6, "[SEP]"]


@pytest.mark.parametrize("text", ["cat " * 2_500_000, "x" * 10_000_000, b"cat " * 2_500_000, " " * 10_000_000])
def test_of_ten_megabytes_only_the_beginning_is_read(codec: TextCodec, text: str | bytes) -> None:
    ids, cut = codec.encode([text])
    short = text[: CHARACTERS * codec.max_length]
    assert cut == 1
    np.testing.assert_array_equal(ids, codec.encode([short])[0])


def test_bytes_are_cut_between_characters(codec: TextCodec) -> None:
    text = "é" * 2000  # two bytes each, so the cut after an odd number of bytes is inside of one
    np.testing.assert_array_equal(codec.encode([text.encode()])[0], codec.encode([text])[0])
    np.testing.assert_array_equal(codec.encode([b"a" + text.encode()])[0], codec.encode(["a" + text])[0])


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (7, "holds a int, must be text"),
        (["the"], "holds a list, must be text"),
        (float("nan"), "holds a float, must be text"),
        (b"caf\xe9 x", "is not UTF-8 (byte 3)"),
        (b"\xff", "is not UTF-8 (byte 0)"),
        (b"ok" + b"a" * 4000 + b"\xc3", None),  # beyond what is read
        ("a\ud800", "is not UTF-8 (character 1)"),
    ],
)
def test_what_is_no_text_is_named_with_its_row(codec: TextCodec, value: object, fault: str | None) -> None:
    if fault is None:
        codec.encode(["the", value])
        return
    with pytest.raises(InputError, match=re.escape(f"field 'claim': row 1 {fault}")):
        codec.encode(["the", value], names=("claim", ""))
    with pytest.raises(InputError, match=re.escape(f"field 'document': row 0 {fault}")):
        codec.encode(["the"], [value], names=("claim", "document"))


def test_pairs_share_the_length(codec: TextCodec) -> None:
    ids, cut = codec.encode(["the cat", "the " * 9], ["sat", "dog " * 9])
    assert tokens(codec, ids[0]) == ["[CLS]", "the", "cat", "[SEP]", "sat", "[SEP]", "[PAD]", "[PAD]"]
    assert len(ids[1]) == 8
    assert tokens(codec, ids[1]).count("[SEP]") == 2
    assert cut == 1


def test_a_pruned_vocabulary_falls_back_to_smaller_pieces(codec: TextCodec) -> None:
    letters = [token for token in codec.vocabulary if len(token.removeprefix("##")) == 1]
    small, old = codec.pruned(["the", *letters])
    assert small.size == 4 + 1 + len(letters) == len(old)
    assert [small.vocabulary[each] for each in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "the")] == [0, 1, 2, 3, 4]
    assert old[:5].tolist() == [codec.vocabulary[each] for each in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "the")]
    ids, _ = small.encode(["the cat"])
    assert tokens(small, ids[0]) == ["[CLS]", "the", "c", "##a", "##t", "[SEP]"]
    assert len(small.content) < len(codec.content)


def test_ids_are_translated_as_the_text_would_be_encoded(codec: TextCodec) -> None:
    wide = TextCodec(codec.content, 40)
    letters = [token for token in codec.vocabulary if len(token.removeprefix("##")) == 1]
    small, _ = wide.pruned([*letters, "the", "un", "##s"])
    draw = random.Random(1)
    texts = [
        " ".join(draw.choices(["the", "cats", "unwell", "dog.", "mats", "ünx"], k=draw.randint(0, 5)))
        for _ in range(50)
    ]
    before, after = wide.encode(texts)[0], small.encode(texts)[0]
    np.testing.assert_array_equal(wide.translated(before, small), after)


def test_a_translated_text_keeps_its_end_and_its_length(codec: TextCodec) -> None:
    letters = [token for token in codec.vocabulary if len(token.removeprefix("##")) == 1]
    small, _ = codec.pruned(letters)
    translated = codec.translated(codec.encode(["cats cats cats"])[0], small)
    assert translated.shape == (1, 8)
    assert tokens(small, translated[0])[-1] == "[SEP]"


def test_what_is_no_such_tokenizer_is_refused(tokenizer: bytes, tmp_path: Path) -> None:
    record = json.loads(tokenizer)
    other = {**record, "model": {**record["model"], "type": "BPE"}}
    moved = copy.deepcopy(record)
    moved["model"]["vocab"] |= {"[PAD]": 1, "[unused0]": 0}
    moved["added_tokens"] = []
    for content, fault in (
        (b"{}", "no tokenizer"),
        (b"\xff", "no tokenizer"),
        (json.dumps(other).encode(), "no tokenizer|Allowed: WordPiece"),
        (json.dumps(moved).encode(), r"\[PAD\] has the id 1, must be 0"),
    ):
        with pytest.raises(InputError, match=fault):
            TextCodec(content, 8)
    with pytest.raises(InputError, match="max_length is 2, must leave room"):
        TextCodec(tokenizer, 2)
    with pytest.raises(InputError, match=r"none\.json: cannot be read"):
        TextCodec.read(tmp_path / "none.json", 8)
    with pytest.raises(InputError, match="no token 'zebra'"):
        TextCodec(tokenizer, 8).pruned(["zebra"])
