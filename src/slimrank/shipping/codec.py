"""zstd, as files and deltas use it: levels by size, frames whose size is known before they are opened.

Left out: threads, with which the same content would give other bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from io import BufferedReader
from typing import Any

from slimrank.config import InputError

LEVEL = 19
LARGE = 4 << 20
LARGE_LEVEL = 9
"""From `LARGE` bytes on: tables come out the same to 0.1% at levels 9 to 19, and 19 takes a hundred times as long."""

WINDOW = 27  # log2 of the bytes that a frame's matches may reach back, which whoever opens it has to hold
SEAL = b"\x50\x2a\x4d\x18\x20\x00\x00\x00"  # a frame of 32 bytes that decoders skip
FILE_WINDOW = 23  # of a file of `pack`: 8 MB
OWN_BLOCK = 1 << 10  # bytes that are worth a code of their own, which takes some 50
PIECE = 1 << 10  # of a file; no frame makes more of one than some 32 MB, so memory is bounded whatever it says


def library() -> Any:
    """The module `zstandard`.

    Raises:
        InputError: it is not installed; with the command that does it.
    """
    try:
        import zstandard
    except ImportError:
        raise InputError("zstandard is not installed; this needs: pip install 'slimrank[edge]'") from None
    return zstandard


def level_of(size: int) -> int:
    """The level for that many bytes."""
    return LEVEL if size < LARGE else LARGE_LEVEL


def compressed(parts: Sequence[bytes], dictionary: bytes = b"", level: int | None = None) -> bytes:
    """One frame; its matches reach into `dictionary` as if that stood before it, and each large part has its own code.

    (One code for a table, the weights of a layer and text together makes an artifact of 59 KB 7% larger.)
    """
    zstd = library()
    size = sum(map(len, parts))
    whole = size + len(dictionary)
    window = min(WINDOW, max(10, whole.bit_length()))
    settings = zstd.ZstdCompressionParameters.from_level(
        level or level_of(whole), source_size=size, dict_size=len(dictionary), window_log=window
    )
    compressor = zstd.ZstdCompressor(compression_params=settings, dict_data=_dictionary(dictionary))
    return b"".join(_fed(compressor.compressobj(size=size), own_blocks(parts)))


def decompressed(frame: bytes, most: int, dictionary: bytes = b"") -> bytes:
    """What `compressed` was given.

    Raises:
        InputError: the frame is damaged, or holds more than `most` bytes.
    """
    zstd = library()
    try:
        size = zstd.get_frame_parameters(frame).content_size
        if size in (zstd.CONTENTSIZE_UNKNOWN, zstd.CONTENTSIZE_ERROR) or size > most:
            raise InputError(f"holds more than {most:,} bytes")
        opener = zstd.ZstdDecompressor(dict_data=_dictionary(dictionary), max_window_size=1 << WINDOW)
        content = bytes(opener.decompress(frame, max_output_size=size, allow_extra_data=False)) if size else b""
    except zstd.ZstdError as error:
        raise InputError(f"damaged ({error})") from None
    if len(content) != size:
        raise InputError("damaged")
    return content


def _dictionary(content: bytes) -> Any:
    zstd = library()
    return zstd.ZstdCompressionDict(content, dict_type=zstd.DICT_TYPE_RAWCONTENT) if len(content) >= 8 else None


def compressed_pieces(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """One frame of `size` bytes in all, then one with its sha256 that `zstd -d` skips.

    A frame's own checksum is of its content, and a changed bit need not change that: of a window's size, for one.

    An empty piece ends a block, as `own_blocks` has it.
    """
    zstd = library()
    window = min(FILE_WINDOW, max(10, size.bit_length()))
    settings = zstd.ZstdCompressionParameters.from_level(
        level_of(size), source_size=size, window_log=window, write_checksum=True
    )
    digest = hashlib.sha256()
    for made in _fed(zstd.ZstdCompressor(compression_params=settings).compressobj(size=size), pieces):
        digest.update(made)
        yield made
    yield SEAL + digest.digest()


def own_blocks(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The parts, each large one between two empty ones, which end a block: zstd gives the next its own code."""
    for part in parts:
        yield from (b"", part, b"") if len(part) >= OWN_BLOCK else (part,)


def _fed(compressor: Any, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """What a compressor makes of the pieces; an empty one ends a block."""
    block, begun = library().COMPRESSOBJ_FLUSH_BLOCK, False
    for piece in pieces:
        made = b""
        if piece:
            made, begun = compressor.compress(piece), True
        elif begun:
            made, begun = compressor.flush(block), False
        if made:
            yield made
    yield compressor.flush()


def decompressed_pieces(file: BufferedReader) -> Iterator[bytes]:
    """The content of a file of `compressed_pieces`; whether that is all as it was is known behind the last of them.

    Raises:
        InputError: it is damaged, cut short, or something follows.
    """
    zstd = library()
    opener = zstd.ZstdDecompressor(max_window_size=1 << FILE_WINDOW).decompressobj()
    digest, rest = hashlib.sha256(), b""
    try:
        while not opener.eof:
            if not (piece := file.read(PIECE)):
                raise InputError("cut short")
            made = opener.decompress(piece)
            rest = opener.unused_data
            digest.update(piece[: len(piece) - len(rest)])
            if made:
                yield made
    except zstd.ZstdError as error:
        raise InputError(f"damaged, or no file of `pack` ({error})") from None
    seal = SEAL + digest.digest()
    if rest + file.read(len(seal) + 1) != seal:
        raise InputError("damaged, cut short, or something follows its end")
