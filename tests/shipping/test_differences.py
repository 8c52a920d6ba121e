"""The numbers of a constant against the old ones: from arithmetic, the edges, and whatever hypothesis thinks of."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimrank.config import InputError
from slimrank.shipping.codec import compressed
from slimrank.shipping.differences import SAMPLE, WAYS, Reader, Streams, Way, read, smallest, ways_of, write


def there_and_back(way: Way, new: bytes, old: bytes | None) -> dict[str, bytes]:
    """The streams of `new`, which was read from them again."""
    streams: Streams = defaultdict(list)
    distances = write(way, new, old, streams)
    joined = {name: b"".join(parts) for name, parts in streams.items()}
    readers = {name: Reader(content) for name, content in joined.items()}
    assert read(way, len(new), distances, old, readers) == new
    assert [reader.left for reader in readers.values()] == [0] * len(readers)
    return joined


def test_four_bit_codes_that_moved_by_one_step() -> None:
    old = bytes([0x21, 0x0F, 0x00])  # codes 1 2, 15 0, 0 0: the lower half of a byte is the first
    new = bytes([0x22, 0xF0, 0x00])  # codes 2 2, 0 15, 0 0: one step up, up and round, down and round
    assert there_and_back(Way.of("4+~"), new, old) == {"4+~ at": bytes([0, 1, 0]), "4+~ 0": bytes([1, 1, 15])}


def test_words_are_a_stream_a_byte_with_their_sign_in_the_lowest_bit() -> None:
    old = np.array([10, 500, 7], "<u2").tobytes()
    new = np.array([9, 800, 7], "<u2").tobytes()
    # -1 is folded to 1, +300 to 600 = 0x0258, 0 stays
    assert there_and_back(Way.of("16+"), new, old) == {"16+ 0": bytes([1, 0x58, 0]), "16+ 1": bytes([0, 2, 0])}
    assert there_and_back(Way.of("16"), new, None) == {"16 0": bytes([9, 0x20, 7]), "16 1": bytes([0, 3, 0])}


@pytest.mark.parametrize("stay", [0, 1, 254, 255, 256, 509, 510, 511, 1020])
def test_a_change_after_many_that_stayed(stay: int) -> None:
    old = bytes(stay + 3)
    new = bytes(stay) + b"\x01\x00\x02"
    found = there_and_back(Way.of("8+~"), new, old)
    assert found["8+~ at"] == bytes([255] * (stay // 255) + [stay % 255, 1])


@pytest.mark.parametrize("word", sorted(WAYS))
def test_extremes_of_every_way(word: str) -> None:
    way = WAYS[word]
    for new, old in (
        (b"", b""),
        (b"\xff" * 64, b"\x00" * 64),
        (b"\x00" * 64, b"\xff" * 64),
        (b"\x80" * 64, b"\x7f" * 64),
    ):
        there_and_back(way, new, old)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(sorted(WAYS)),
    st.binary(min_size=0, max_size=40),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.01, 0.3, 1.0]),
)
def test_whatever_changed_comes_back(word: str, start: bytes, seed: int, share: float) -> None:
    draw = np.random.default_rng(seed)
    old = (start * 40)[: len(start) * 40 // 8 * 8]
    moved = np.where(draw.random(len(old)) < share, draw.integers(0, 256, len(old)), np.frombuffer(old, np.uint8))
    there_and_back(WAYS[word], moved.astype(np.uint8).tobytes(), old)


def test_few_changes_of_codes_cost_about_their_entropy() -> None:
    draw = np.random.default_rng(0)
    old = draw.integers(0, 256, 25_000, np.uint8)
    codes = np.stack([old & 15, old >> 4], axis=1)
    step = np.where(draw.random(codes.shape) < 0.04, draw.choice([1, -1], codes.shape), 0)
    codes = (codes + step) % 16
    new = (codes[:, 0] | codes[:, 1] << 4).astype(np.uint8).tobytes()
    way, cost = smallest(new, old.tobytes(), 1)
    assert way == Way.of("4+~")
    entropy = 50_000 / 8 * -(0.96 * np.log2(0.96) + 0.04 * np.log2(0.02))
    streams: Streams = defaultdict(list)
    write(way, new, old.tobytes(), streams)
    assert entropy < sum(len(compressed(parts)) for parts in streams.values()) < 1.1 * entropy
    assert cost < 1.2 * entropy


def test_what_has_no_likeness_to_the_old_is_written_as_it_is() -> None:
    draw = np.random.default_rng(0)
    old = draw.integers(0, 256, 4000, np.uint8).tobytes()
    new = bytes(np.repeat(draw.integers(0, 256, 40, np.uint8), 100))
    assert smallest(new, old, 1)[0] == Way.of("8")
    assert smallest(new, None, 1)[0] == Way.of("8")
    assert {way.since for way in ways_of(4)} == {True, False}


def test_floats_that_moved_a_little_take_less_than_the_floats() -> None:
    draw = np.random.default_rng(0)
    old = draw.normal(size=2000).astype("<f4")
    new = (old * (1 + 1e-4 * draw.normal(size=2000))).astype("<f4")
    way, cost = smallest(new.tobytes(), old.tobytes(), 4)
    assert way == Way.of("32+")
    assert cost < 0.6 * new.nbytes


def test_a_large_constant_is_judged_by_stretches_of_it() -> None:
    old = np.random.default_rng(0).integers(0, 256, 4 * SAMPLE, np.uint8)
    new = old.copy()
    new[:: 1 << 12] += 1
    way, cost = smallest(new.tobytes(), old.tobytes(), 1)
    assert way.since
    assert way.sparse
    assert cost < 20_000  # about 4096 changes, each after a distance of 16 times 255 and a rest


def test_hostile_streams_are_refused() -> None:
    way, old = Way.of("8+~"), bytes(16)
    for at, values in ((b"\x10", b"\x01"), (b"\xff\x00", b"\x01"), (b"\x00", b""), (b"", b"")):
        with pytest.raises(InputError):
            read(way, 16, max(1, len(at)), old, {"8+~ at": Reader(at), "8+~ 0": Reader(values)})
    with pytest.raises(InputError, match="a stream ends too early"):
        read(way, 16, -1, old, {"8+~ at": Reader(b"\x00")})
    with pytest.raises(InputError, match="is missing"):
        read(Way.of("8"), 16, 0, None, {})
    with pytest.raises(InputError, match="that the old artifact has not"):
        read(way, 16, 0, None, {})
    with pytest.raises(InputError, match="unknown way"):
        Way.of("7+")
