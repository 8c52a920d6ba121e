"""Where a graph's file holds its numbers: the ranges of bytes of its larger constants, found without onnx.

What is left when they are cut out, the skeleton, still says where they were: it is read the same way, as if they were
there. Left out: constants in attributes of nodes, which stay in the skeleton, and everything else that a graph says.
The file is protobuf: https://protobuf.dev/programming-guides/encoding, with the fields of onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from slimrank.config import InputError

SMALLEST = 16  # bytes of a constant that is worth a range of its own
GRAPH, INITIALIZER = 7, 5  # fields of ModelProto, GraphProto
DIMS, DATA_TYPE, NAME, RAW_DATA, EXTERNAL, LOCATION = 1, 2, 8, 9, 13, 14  # of TensorProto
KEY, VALUE = 1, 2  # of StringStringEntryProto
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # wire types
ITEM_BYTES = {1: 4, 4: 2, 5: 2, 6: 4, 7: 8, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}  # by data type; of all others a byte


@dataclass(frozen=True)
class Range:
    """One constant: its name and shape, bytes of a number, and where its bytes stand; `file` is "" in the graph's own.

    Attributes:
        start: of the bytes, in the file with all its numbers.
        length: of the bytes.
    """

    name: str
    item_bytes: int
    shape: tuple[int, ...]
    file: str
    start: int
    length: int


def ranges_of(graph: bytes, *, cut: bool = False) -> list[Range]:
    """The constants of a graph of at least `SMALLEST` bytes, in the order of their places, by file.

    Args:
        graph: a `model.onnx`; where `cut`, its skeleton.
        cut: whether the ranges of the graph's own file are cut out of it.

    Raises:
        InputError: it is no graph.
    """
    try:
        found = list(_Reader(graph, cut).model())
    except (IndexError, ValueError, UnicodeDecodeError):
        raise InputError("not a graph, or a damaged one") from None
    found.sort(key=lambda each: (each.file, each.start))
    ends: dict[str, int] = {}
    for each in found:
        if each.start < ends.get(each.file, 0):
            raise InputError("not a graph: two constants share their bytes, or one begins before its file")
        ends[each.file] = each.start + each.length
    return found


def skeleton_of(content: bytes, ranges: list[Range]) -> bytes:
    """`content` without the ranges."""
    view, ends = memoryview(content), [0, *(each.start + each.length for each in ranges)]
    starts = [*(each.start for each in ranges), len(content)]
    return b"".join(view[end:start] for end, start in zip(ends, starts, strict=True))


def whole_of(skeleton: bytes, ranges: list[Range], numbers: list[bytes]) -> bytes:
    """The content that `skeleton_of` was given, with the numbers of each range."""
    parts, taken, at = [], 0, 0
    for each, content in zip(ranges, numbers, strict=True):
        step = each.start - at
        parts += [skeleton[taken : taken + step], content]
        taken, at = taken + step, each.start + each.length
    return b"".join([*parts, skeleton[taken:]])


@dataclass
class _Reader:
    """Walks through the bytes; a place is that in the whole file, whatever was cut out of it before."""

    data: bytes
    cut: bool
    at: int = 0
    gone: int = field(default=0)

    @property
    def place(self) -> int:
        return self.at + self.gone

    def model(self) -> Iterator[Range]:
        while self.at < len(self.data):
            number, kind, size = self.tag()
            if (number, kind) == (GRAPH, LENGTH):
                yield from self.graph(self.place + size)
            elif kind != VARINT:
                self.skip(size)
        if self.at != len(self.data):
            raise ValueError("cut short")

    def graph(self, end: int) -> Iterator[Range]:
        while self.place < end:
            number, kind, size = self.tag()
            if (number, kind) == (INITIALIZER, LENGTH):
                yield from self.tensor(self.place + size)
            elif kind != VARINT:
                self.skip(size)
        if self.place != end:
            raise ValueError("a field ends behind its message")

    def tensor(self, end: int) -> Iterator[Range]:
        name, kind_of_number, shape = "", 0, []
        start, length = 0, 0
        beside: dict[str, str] = {}
        while self.place < end:
            number, kind, size = self.tag()
            if kind == VARINT and number in (DIMS, DATA_TYPE):
                if number == DIMS:
                    shape.append(size)
                else:
                    kind_of_number = size
            elif (number, kind) == (NAME, LENGTH):
                name = self.text(size)
            elif (number, kind) == (RAW_DATA, LENGTH):
                start, length = self.place, size
                self.numbers(size)
            elif (number, kind) == (EXTERNAL, LENGTH):
                beside.update([self.entry(self.place + size)])
            elif kind != VARINT:
                self.skip(size)
        if self.place != end:
            raise ValueError("a field ends behind its message")
        if beside:
            start, length = int(beside.get("offset", "0")), int(beside.get("length", "0"))
        if length >= SMALLEST:
            size = ITEM_BYTES.get(kind_of_number, 1)
            yield Range(name, size, tuple(shape), beside.get("location", ""), start, length)

    def entry(self, end: int) -> tuple[str, str]:
        found = {KEY: "", VALUE: ""}
        while self.place < end:
            number, kind, size = self.tag()
            if kind == LENGTH:
                found[number] = self.text(size)
        return found[KEY], found[VALUE]

    def numbers(self, size: int) -> None:
        """Go past a tensor's numbers, which are not there where they were cut out."""
        if self.cut and size >= SMALLEST:
            self.gone += size
        else:
            self.skip(size)

    def tag(self) -> tuple[int, int, int]:
        """Field, wire type, and the length of what follows; of a varint its value, and nothing follows."""
        key = self.varint()
        number, kind = key >> 3, key & 7
        if kind in (VARINT, LENGTH):
            return number, kind, self.varint()
        if kind not in (FIXED64, FIXED32):
            raise ValueError("an unknown wire type")
        return number, kind, 8 if kind == FIXED64 else 4

    def varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("a number of too many bytes")

    def text(self, size: int) -> str:
        self.skip(size)
        return bytes(self.data[self.at - size : self.at]).decode()

    def skip(self, size: int) -> None:
        self.at += size
        if self.at > len(self.data):
            raise IndexError("cut short")
