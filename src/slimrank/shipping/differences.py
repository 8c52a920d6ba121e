"""The numbers of a constant as what changed since the old one, in streams that compress.

A number of some bits is taken from the new one, modulo 2^bits, so that a code that moved by one step is 1 or 2^bits - 1
wherever it moved from. Where few changed, the distances from one change to the next and the changes are two streams:
zstd spends at least one bit a symbol, and on the differences themselves that is a bit for every number that stayed.
(Four-bit codes of a table of which 4% moved: 1,878 bytes so, 2,446 as differences, 1,760 by their entropy.) Numbers of
several bytes are one stream a byte, low to high, since the low ones of floats are noise.

Which way is the smallest is tried on the numbers themselves, of large constants on stretches of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slimrank.config import InputError
from slimrank.shipping.codec import compressed

FAR = 255  # in the distances: no change within so many, and go on
QUICK = 3  # level of zstd by which ways are compared
SAMPLE, STRETCHES = 1 << 20, 16  # bytes on which they are, and in how many stretches
SAME = "="
STRETCH = 8 << 20  # bytes of a constant that are written at a time, as some 80 MB of numbers and places
Streams = defaultdict[str, list[bytes]]
Units = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.uint32] | NDArray[np.uint64]


@dataclass(frozen=True)
class Way:
    """How the numbers are written down.

    Attributes:
        bits: of a number; below 8, several of them share a byte.
        since: whether they are differences to the old ones, or the new ones themselves.
        sparse: whether only those that are not 0 are there, behind their distances.
    """

    bits: int
    since: bool
    sparse: bool

    @property
    def word(self) -> str:
        """Its name in a delta."""
        return f"{self.bits}{'+' if self.since else ''}{'~' if self.sparse else ''}"

    @classmethod
    def of(cls, word: str) -> Way:
        """The way of that name.

        Raises:
            InputError: there is none.
        """
        if word not in WAYS:
            raise InputError(f"an unknown way to write numbers: {word!r:.40}")
        return WAYS[word]


WAYS = {
    way.word: way
    for bits in (2, 4, 8, 16, 32, 64)
    for since, sparse in ((False, False), (True, False), (True, True))
    for way in [Way(bits, since, sparse)]
}


def ways_of(item_bytes: int) -> Iterator[Way]:
    """The ways for numbers of so many bytes, of which those of one byte may hold several of fewer bits."""
    for way in WAYS.values():
        if way.bits == 8 * item_bytes or (item_bytes == 1 and way.bits < 8 and way.sparse):
            yield way


def smallest(new: bytes, old: bytes | None, item_bytes: int) -> tuple[Way, int]:
    """The way that makes `new` smallest, and about how many bytes it takes; `old` is of the same length."""
    ways = [way for way in ways_of(item_bytes) if old is not None or not way.since]
    sampled_new, sampled_old = _sampled(new), None if old is None else _sampled(old)
    costs = {way: _cost(way, sampled_new, sampled_old) for way in ways}
    best = min(ways, key=lambda way: costs[way])
    return best, costs[best] * len(new) // max(1, len(sampled_new))


def stretches(length: int) -> list[slice]:
    """Where a constant of so many bytes is cut to be written and read."""
    return [slice(start, min(start + STRETCH, length)) for start in range(0, length, STRETCH)]


def _sampled(content: bytes) -> bytes:
    if len(content) <= SAMPLE:
        return content
    length = SAMPLE // STRETCHES
    starts = np.linspace(0, len(content) - length, STRETCHES).astype(np.int64) // 8 * 8  # at whole numbers
    return b"".join(content[start : start + length] for start in starts.tolist())


def _cost(way: Way, new: bytes, old: bytes | None) -> int:
    streams: Streams = defaultdict(list)
    write(way, new, old, streams)
    return sum(len(compressed(parts, level=QUICK)) for parts in streams.values())


def write(way: Way, new: bytes, old: bytes | None, streams: Streams) -> int:
    """Append `new` to the streams; returns how many distances there are (0 where there are none)."""
    numbers, distances = _units(new, way.bits), 0
    if way.since:
        assert old is not None
        numbers = _folded(numbers - _units(old, way.bits), way.bits)
    if way.sparse:
        places = np.flatnonzero(numbers)
        gaps = _gaps(places)
        streams[f"{way.word} at"].append(gaps)
        numbers, distances = numbers[places], len(gaps)
    for byte in range(numbers.itemsize):
        plane = (numbers >> numbers.dtype.type(8 * byte)).astype(np.uint8)
        streams[f"{way.word} {byte}"].append(plane.tobytes())
    return distances


def read(way: Way, length: int, distances: int, old: bytes | None, streams: Mapping[str, Reader]) -> bytes:
    """The `length` bytes that `write` was given.

    Raises:
        InputError: the streams hold something else.
    """
    count = length * 8 // way.bits
    places: NDArray[np.int64] | None = None
    if way.sparse:
        places = _places(streams, f"{way.word} at", distances, count)
    kind = np.dtype(f"u{max(1, way.bits // 8)}")
    found = np.zeros(count if places is None else len(places), kind)
    for byte in range(kind.itemsize):
        plane = np.frombuffer(_taken(streams, f"{way.word} {byte}", len(found)), np.uint8)
        found |= plane.astype(kind) << kind.type(8 * byte)
    numbers = found
    if places is not None:
        numbers = np.zeros(count, kind)
        numbers[places] = found
    if way.since:
        if old is None or len(old) != length:
            raise InputError("a difference to a constant that the old artifact has not")
        numbers = _units(old, way.bits) + _unfolded(numbers, way.bits)
    return _bytes(numbers, way.bits)


class Reader:
    """A stream, read from its start on."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def take(self, count: int) -> bytes:
        """The next `count` bytes.

        Raises:
            InputError: there are fewer.
        """
        if count < 0 or self._at + count > len(self._content):
            raise InputError("a stream ends too early")
        self._at += count
        return self._content[self._at - count : self._at]

    @property
    def left(self) -> int:
        """How many bytes were not taken."""
        return len(self._content) - self._at


def _taken(streams: Mapping[str, Reader], name: str, count: int) -> bytes:
    if not count:
        return b""
    if name not in streams:
        raise InputError(f"the stream {name!r} is missing")
    return streams[name].take(count)


def _units(content: bytes, bits: int) -> Units:
    """Numbers of so many bits, without a sign, little-endian."""
    if bits >= 8:
        return np.frombuffer(content, f"<u{bits // 8}")
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    whole = np.frombuffer(content, np.uint8)
    return ((whole[:, None] >> shifts) & np.uint8((1 << bits) - 1)).ravel()


def _bytes(numbers: Units, bits: int) -> bytes:
    """What `_units` was given."""
    if bits >= 8:
        return numbers.astype(f"<u{bits // 8}", copy=False).tobytes()
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    within = (numbers & np.uint8((1 << bits) - 1)).reshape(-1, len(shifts))
    whole: NDArray[np.uint8] = np.bitwise_or.reduce(within << shifts, axis=1).astype(np.uint8)
    return whole.tobytes()


def _folded(difference: Units, bits: int) -> Units:
    """Differences with their sign in the lowest bit, so that the high bytes of small ones are all 0; below 16 bits not.

    0, -1, 1, -2, 2 become 0, 1, 2, 3, 4.
    """
    if bits < 8:
        return difference & np.uint8((1 << bits) - 1)
    if bits == 8:
        return difference
    signed = difference.view(difference.dtype.str.replace("u", "i"))
    return ((signed << 1) ^ (signed >> (bits - 1))).view(difference.dtype)


def _unfolded(folded: Units, bits: int) -> Units:
    """What `_folded` was given."""
    if bits <= 8:
        return folded
    one = folded.dtype.type(1)
    return (folded >> one) ^ (folded.dtype.type(0) - (folded & one))


def _gaps(places: NDArray[np.int64]) -> bytes:
    """Distances between ascending places, a byte each: so many stay and then one changes; of `FAR`, so many stay.

    >>> list(_gaps(np.array([0, 1, 258])))
    [0, 0, 255, 1]
    """
    between = np.diff(places, prepend=-1) - 1
    far = between // FAR
    gaps = np.full(len(places) + int(far.sum()), FAR, np.uint8)
    gaps[np.cumsum(far + 1) - 1] = between % FAR
    return gaps.tobytes()


def _places(streams: Mapping[str, Reader], name: str, distances: int, count: int) -> NDArray[np.int64]:
    """What `_gaps` was given, of `count` numbers."""
    gaps = np.frombuffer(_taken(streams, name, distances), np.uint8).astype(np.int64)
    ends = gaps < FAR
    places: NDArray[np.int64] = (np.cumsum(gaps + ends) - 1)[ends]
    if len(places) and places[-1] >= count:
        raise InputError("a change lies behind the end of its constant")
    return places
