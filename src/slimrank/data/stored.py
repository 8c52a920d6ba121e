"""How an encoding is stored, and read with every fault found: `schema.json`, `vocabulary.parquet`, `tokenizer.json`.

Left out: what the rules do (`encoding`), and the artifact around the files.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slimrank.config import InputError
from slimrank.data.scaling import Scale
from slimrank.data.schema import Field, Schema
from slimrank.data.text import TextCodec
from slimrank.data.vocabulary import Codec, Hashed, Identity, Vocabulary, kind_of

if TYPE_CHECKING:
    import polars

SCHEMA_FILE = "schema.json"
VOCABULARY_FILE = "vocabulary.parquet"
WHERE: Any = {"fields": {"__all__": {"tokenizer"}}}  # where a file lay when the encoding was fitted is not stored


def schema_json(schema: Schema, sizes: Mapping[str, int], scales: Mapping[str, Scale]) -> bytes:
    """Schema, sizes, and scaling of the numbers, as JSON."""
    record = {
        "schema": schema.model_dump(mode="json", exclude_defaults=True, exclude=WHERE),
        "sizes": dict(sizes),
        "numbers": {name: [scale.mean, scale.std] for name, scale in scales.items()},
    }
    return (json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def vocabulary_parquet(codecs: Mapping[str, Codec | TextCodec]) -> bytes:
    """One row; a column per field with a vocabulary, which holds its values as one list, in the order of their ids."""
    import polars

    lists = {}
    for name, codec in codecs.items():
        if isinstance(codec, Vocabulary):
            narrow = codec.values.shrink_dtype() if kind_of(codec.values) == "int" else codec.values
            lists[name] = polars.Series(name, [narrow])
    buffer = io.BytesIO()
    polars.DataFrame(lists).write_parquet(buffer, compression="zstd", compression_level=9, statistics=False)
    return buffer.getvalue()


def read_schema(path: Path) -> dict[str, Any]:
    """The record in `schema.json`, with the keys it must have."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a schema: {error}") from None
    if not isinstance(record, dict) or any(not isinstance(record.get(k), dict) for k in ("schema", "sizes", "numbers")):
        raise InputError(f"{path}: not a schema: it needs the keys schema, sizes and numbers")
    return record


def read_vocabulary(path: Path) -> dict[str, polars.Series]:
    """The values of each field in `vocabulary.parquet`."""
    import polars

    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        frame = polars.read_parquet(path, glob=False)
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException, OSError) as error:
        raise InputError(f"{path}: truncated, or not a Parquet file: {error}") from None
    wrong = [
        c.name for c in frame.get_columns() if not isinstance(c.dtype, polars.List) or len(c) != 1 or c.null_count()
    ]
    if wrong:
        raise InputError(f"{path}: not a vocabulary: columns {wrong} hold no list of values")
    return {column.name: column.explode() if column.list.len()[0] else column[0] for column in frame.get_columns()}


def codecs_of(schema: Schema, values: Mapping[str, polars.Series], path: Path) -> dict[str, Codec]:
    """What turns values into codes, by field, from the values that were read."""
    import polars

    fields = [each for each in schema.fields if each.kind in ("categorical", "sequence")]
    expected = [each.name for each in fields if each.encoding == "vocabulary"]
    if set(values) != set(expected):
        raise InputError(
            f"{path} does not fit {SCHEMA_FILE}: it holds {sorted(values)}, the schema says {sorted(expected)}"
        )
    codecs: dict[str, Codec] = {}
    for each in fields:
        if each.encoding != "vocabulary":
            codecs[each.name] = without_table(each)
            continue
        column = values[each.name]
        if column.dtype.is_integer():
            column = column.cast(polars.Int64, strict=False)  # one that is too large is then missing
        if column.dtype not in (polars.Int64, polars.String) or column.null_count():
            raise InputError(f"{path}: values of {each.name!r} are neither integers nor text, or some are missing")
        if not _distinct(column):
            raise InputError(f"{path}: values of {each.name!r} are not distinct")
        codecs[each.name] = Vocabulary(column)
    return codecs


def _distinct(column: polars.Series) -> bool:
    """Whether no value comes twice. Of integers by sorting, since a set of them takes several times their bytes."""
    if not column.dtype.is_integer():
        return column.n_unique() == len(column)
    ordered = np.sort(column.to_numpy())
    return not bool((ordered[1:] == ordered[:-1]).any())


def scales_of(schema: Schema, record: Mapping[str, Any], path: Path) -> dict[str, Scale]:
    """The scaling of each numeric field from the record in `schema.json`."""
    expected = [each.name for each in schema.numeric]
    if set(record) != set(expected):
        raise InputError(f"{path}: numbers are {sorted(record)}, the schema says {sorted(expected)}")
    scales = {}
    for name in expected:
        pair = record[name]
        if not isinstance(pair, list) or len(pair) != 2 or not all(_finite(value) for value in pair) or pair[1] <= 0:
            raise InputError(f"{path}: numbers.{name} is {pair!r}, allowed: [mean, std] with std > 0")
        scales[name] = Scale(float(pair[0]), float(pair[1]))
    return scales


def _finite(value: Any) -> bool:
    """Whether a JSON value is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def without_table(each: Field) -> Codec:
    """What turns values into codes where nothing is fitted."""
    assert each.num_ids is not None  # the schema holds to it
    return Hashed(each.num_ids) if each.encoding == "hash" else Identity(each.num_ids)
