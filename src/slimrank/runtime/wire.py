"""What an artifact takes on the wire: each of its files compressed, as a web server or an image layer sends it.

Left out: the one file of `slimrank pack`, which is a little smaller, since each table in it has a code of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from slimrank.artifact import MANIFEST, Artifact
from slimrank.config import InputError
from slimrank.data.stored import VOCABULARY_FILE
from slimrank.data.text import TOKENIZER_FILE

NUMBERS = ("model.onnx", "index.")  # what names of files begin with that hold a model's graph and numbers
WORDS = (VOCABULARY_FILE, TOKENIZER_FILE)  # the same, of what raw values are looked up in
MISSING = "pyarrow is not installed; bytes on the wire need: pip install 'slimrank[train]'"
SMALL = 1 << 17
LEVELS = {"zstd": (19, 9), "brotli": (11, 5)}
"""Of files below `SMALL` bytes, and of others: on tables the two give the same bytes to 0.1% (brotli: 1%), and the
first takes a hundred times as long, two megabytes at brotli's 11 for example 12 seconds."""


def measurable() -> bool:
    """Whether this installation can tell (it has pyarrow, as one for training has)."""
    return find_spec("pyarrow") is not None


def sent(artifact: Artifact) -> dict[str, int]:
    """Bytes of an artifact's files on the wire.

    - `wire`: all of them, each compressed with zstd.
    - `wire_graph`: of these the graph, its weights, and an index of its own.
    - `wire_vocabulary`: of these the vocabulary, and the tokenizer of a text.
    - `wire_brotli`: all of them with brotli, which browsers take; missing where pyarrow was built without it.

    Files of at least 128 KB are compressed at lower levels (`LEVELS`), so that hundreds of megabytes take seconds.

    Raises:
        InputError: pyarrow is not installed.
    """
    if not measurable():
        raise InputError(MISSING)
    from pyarrow import Codec

    files = {**artifact.files, MANIFEST: artifact.path / MANIFEST}
    zstd = {name: compressed_bytes(path, "zstd") for name, path in files.items()}
    found = {
        "wire": sum(zstd.values()),
        "wire_graph": _of(NUMBERS, zstd.items()),
        "wire_vocabulary": _of(WORDS, zstd.items()),
    }
    if Codec.is_available("brotli"):
        found["wire_brotli"] = sum(compressed_bytes(path, "brotli") for path in files.values())
    return found


def _of(starts: tuple[str, ...], sizes: Iterable[tuple[str, int]]) -> int:
    return sum(size for name, size in sizes if name.startswith(starts))


def compressed_bytes(file: Path, codec: str) -> int:
    """Bytes of one file after zstd or brotli; none of an empty one."""
    from pyarrow import Codec, memory_map

    size = file.stat().st_size
    if not size:
        return 0
    level = LEVELS[codec][size >= SMALL]
    compressor: Any = Codec(codec, compression_level=level)
    with memory_map(str(file)) as source:
        return int(compressor.compress(source.read_buffer()).size)
