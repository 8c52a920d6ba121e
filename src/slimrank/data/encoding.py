"""Raw columns to the arrays that a model takes, by rules fitted on train and shipped in the artifact.

Local ids of a field: 0 is out-of-vocabulary (and missing), 1.. are values by falling train frequency. In a sequence
field 0 is padding, 1 is out-of-vocabulary, 2.. are values; a row's ids stand at the front, the padding behind.
Numbers are scaled to mean 0 and standard deviation 1 on train; a missing number is 0, the train mean.
Left out: the offsets of a fused table, which the model's graph adds itself. polars is imported where it is used.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from slimrank.config import InputError, nearest
from slimrank.data.scaling import Scale, fit_scale, scaled
from slimrank.data.schema import Field, Schema
from slimrank.data.vocabulary import Codec, Hashed, Identity, Vocabulary, kind_of

if TYPE_CHECKING:
    import polars

SCHEMA_FILE = "schema.json"
VOCABULARY_FILE = "vocabulary.parquet"


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a model takes: ids int32 [N, K], local to each field (`Schema.columns`), and numbers float32 [N, M]."""

    ids: NDArray[np.int32]
    numbers: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: NDArray[Any] | slice) -> Inputs:
        """The rows at `index` (integers, a mask or a slice), in that order."""
        return Inputs(self.ids[index], self.numbers[index])


T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Encoding:
    """The fitted rules from raw columns to `Inputs`.

    Attributes:
        schema: the fields.
        codecs: by categorical or sequence field, what turns its values into codes.
        scales: by numeric field, its scaling.
        counts: by categorical or sequence field, int64 [sizes[field]]: how often each local id occurs in the rows that
            the encoding was fitted on (padding too). Not stored: empty in a loaded encoding.
    """

    schema: Schema
    codecs: Mapping[str, Codec]
    scales: Mapping[str, Scale]
    counts: dict[str, NDArray[np.int64]] = field(default_factory=dict, compare=False)

    @property
    def sizes(self) -> dict[str, int]:
        """By categorical field, then sequence field: the number of local ids, which is the rows its table needs."""
        fields = self.schema.categorical + self.schema.sequences
        return {each.name: self.codecs[each.name].size + each.first_value - 1 for each in fields}

    @property
    def text_fields(self) -> tuple[str, ...]:
        """Categorical fields whose vocabulary holds text."""
        known = ((each.name, self.codecs[each.name]) for each in self.schema.categorical)
        return tuple(n for n, codec in known if isinstance(codec, Vocabulary) and kind_of(codec.values) == "str")

    def cut(self, sizes: Mapping[str, int]) -> Encoding:
        """The rules of a smaller model: the fields in `sizes` with that many ids each, and all numbers.

        Values whose local id is not below the field's size become unknown.

        Raises:
            InputError: a field is unknown, a size is larger than it was, or the field's ids are not a vocabulary's.
        """
        codecs, counts = {}, {}
        by_name = {each.name: each for each in self.schema.categorical + self.schema.sequences}
        for name, size in sizes.items():
            if name not in by_name:
                raise InputError(f"unknown field {name!r}. {nearest(name, by_name)}")
            codec, first = self.codecs[name], by_name[name].first_value
            if size != self.sizes[name]:
                if not isinstance(codec, Vocabulary) or not first <= size <= self.sizes[name]:
                    raise InputError(f"field {name!r} cannot be cut from {self.sizes[name]} ids to {size}")
                codec = Vocabulary(codec.values.head(size - first))
            codecs[name] = codec
            if name in self.counts:
                counts[name] = self.counts[name][:size]
        fields = tuple(each for each in self.schema.fields if each.kind == "numeric" or each.name in sizes)
        return Encoding(self.schema.model_copy(update={"fields": fields}), codecs, self.scales, counts)

    @classmethod
    def fit(cls, schema: Schema, frame: polars.DataFrame) -> Encoding:
        """The encoding that train rows give; of a schema with drawn negatives, those of label 1.

        Raises:
            InputError: a column is missing or cannot be what the schema says; all columns at once.
        """
        if schema.drawn_negatives:
            frame = frame.filter(frame[schema.label] == 1)
        frame = _with_labels(frame, schema)
        parts = _each(frame, schema.fields, _fit_field)
        codecs = {name: part for name, part in parts.items() if not isinstance(part, Scale)}
        scales = {name: part for name, part in parts.items() if isinstance(part, Scale)}
        encoding = cls(schema, codecs, scales)
        ids, sizes = encoding.encode(frame).ids, encoding.sizes
        columns = np.asarray(schema.columns)
        counts = {name: np.bincount(ids[:, columns == name].ravel(), minlength=sizes[name]) for name in sizes}
        return cls(schema, codecs, scales, {name: count.astype(np.int64) for name, count in counts.items()})

    def encode_label(self, label: polars.Series) -> NDArray[Any]:
        """What training takes as the label, [N]: float32, or the int64 local id of an item in the catalogue's field.

        An item that train never met is out of vocabulary.
        """
        import polars

        name = self.schema.catalogue
        if name is None:
            return label.cast(polars.Float32).to_numpy()
        each = next(field for field in self.schema.fields if field.name == name)
        codes, _ = self.codecs[name].codes(label)
        return codes.astype(np.int64) + each.first_value - 1

    def encode(self, frame: polars.DataFrame | Mapping[str, Any]) -> Inputs:
        """Raw rows as inputs; unknown ids go to out-of-vocabulary (`encode_counting` counts them).

        Raises:
            InputError: a column is missing or of the wrong type, a number is NaN or infinite, a raw id of an
                identity field is out of range; all faults at once.
        """
        return self.encode_counting(frame)[0]

    def encode_counting(self, frame: polars.DataFrame | Mapping[str, Any]) -> tuple[Inputs, dict[str, int]]:
        """Like `encode`, and by field how many values were unknown (missing ones are not counted)."""
        frame = _as_frame(frame)
        unknown: dict[str, int] = {}

        def encode_field(each: Field, column: polars.Series) -> NDArray[Any]:
            if each.kind == "numeric":
                return scaled(column, each, self.scales[each.name])
            coded = _encode_sequence if each.kind == "sequence" else _encode_ids
            ids, unknown[each.name] = coded(column, each, self.codecs[each.name])
            return ids

        arrays = _each(frame, self.schema.fields, encode_field)
        ids = np.zeros((len(frame), len(self.schema.columns)), np.int32)
        start = 0
        for each in self.schema.categorical + self.schema.sequences:
            width = each.max_length if each.kind == "sequence" else 1
            ids[:, start : start + width] = arrays[each.name].reshape(len(frame), width)
            start += width
        numbers = np.zeros((len(frame), len(self.schema.numeric)), np.float32)
        for place, each in enumerate(self.schema.numeric):
            numbers[:, place] = arrays[each.name]
        return Inputs(ids, numbers), unknown

    def files(self) -> dict[str, bytes]:
        """The encoding as `schema.json` and `vocabulary.parquet`; the same encoding gives the same bytes."""
        return {SCHEMA_FILE: _schema_json(self), VOCABULARY_FILE: _vocabulary_parquet(self)}

    def save(self, folder: Path) -> None:
        """Write `files` into `folder`, which is made where it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files().items():
            (folder / name).write_bytes(content)

    @classmethod
    def load(cls, folder: Path) -> Encoding:
        """The encoding that `save` wrote, without counts.

        Raises:
            InputError: a file is missing, cannot be read, or does not fit the other.
        """
        record = _read_schema(folder / SCHEMA_FILE)
        schema = Schema.parse(record["schema"], f"{folder / SCHEMA_FILE}: schema")
        values = _read_vocabulary(folder / VOCABULARY_FILE)
        codecs = _codecs(schema, values, folder / VOCABULARY_FILE)
        scales = _scales(schema, record["numbers"], folder / SCHEMA_FILE)
        encoding = cls(schema, codecs, scales)
        if encoding.sizes != record["sizes"]:
            raise InputError(
                f"{folder / VOCABULARY_FILE} does not fit {SCHEMA_FILE}: it gives the sizes {encoding.sizes}, "
                f"the schema says {record['sizes']}"
            )
        return encoding


def _with_labels(frame: polars.DataFrame, schema: Schema) -> polars.DataFrame:
    """The frame in whose catalogue column the labels stand as well: items that were met last are items too."""
    import polars

    each = next((field for field in schema.fields if field.name == schema.catalogue), None)
    if each is None or each.name not in frame.columns or schema.label not in frame.columns:
        return frame
    if each.kind != "sequence" or not isinstance(frame[each.name].dtype, polars.List):
        return frame
    last = polars.col(each.name).list.tail(each.max_length - 1)
    return frame.with_columns(polars.concat_list(last, polars.col(schema.label)).alias(each.name))


def _fit_field(each: Field, column: polars.Series) -> Codec | Scale:
    """What the train column gives: a scaling for numbers, else what turns values into codes."""
    if each.kind == "numeric":
        return fit_scale(column, each)
    if each.encoding != "vocabulary":
        return _without_table(each)
    flat = _flat(column, each)[0] if each.kind == "sequence" else column
    return Vocabulary.fit(flat, each.min_count)


def _without_table(each: Field) -> Codec:
    """What turns values into codes where nothing is fitted."""
    assert each.num_ids is not None  # the schema holds to it
    return Hashed(each.num_ids) if each.encoding == "hash" else Identity(each.num_ids)


def _encode_ids(column: polars.Series, each: Field, codec: Codec) -> tuple[NDArray[np.int32], int]:
    """Local ids [N] of a column with one value a row, and how many are unknown."""
    return codec.codes(column)


def _encode_sequence(column: polars.Series, each: Field, codec: Codec) -> tuple[NDArray[np.int32], int]:
    """Local ids [N, max_length] of a column of lists, padded behind, and how many are unknown."""
    flat, lengths = _flat(column, each)
    codes, unknown = codec.codes(flat)
    ids = np.zeros((len(column), each.max_length), np.int32)
    ids[np.arange(each.max_length) < lengths[:, None]] = codes + 1
    return ids, unknown


def _flat(column: polars.Series, each: Field) -> tuple[polars.Series, NDArray[np.int64]]:
    """The last `max_length` values of every row behind one another, and how many each row has [N]."""
    import polars

    if each.separator is not None and column.dtype == polars.String:
        column = column.str.split(each.separator).list.eval(polars.element().filter(polars.element() != ""))
    if isinstance(column.dtype, polars.Array):
        column = column.arr.to_list()
    if column.dtype == polars.Null:
        column = column.cast(polars.List(polars.Null))
    if not isinstance(column.dtype, polars.List):
        hint = ", or text with a separator" if each.separator is None else ""
        raise InputError(f"column {each.name!r} is of type {column.dtype}, a sequence is a list{hint}")
    last = column.list.tail(each.max_length)
    lengths = last.list.len().fill_null(0)
    return last.filter(lengths > 0).explode(), lengths.cast(polars.Int64).to_numpy()


def _as_frame(frame: polars.DataFrame | Mapping[str, Any]) -> polars.DataFrame:
    """The frame, or one made of a mapping of columns."""
    import polars

    if isinstance(frame, polars.DataFrame):
        return frame
    try:
        return polars.DataFrame(dict(frame))
    except (polars.exceptions.PolarsError, TypeError, ValueError) as error:
        raise InputError(f"these columns make no table: {error}") from None


def _each(frame: polars.DataFrame, fields: tuple[Field, ...], use: Callable[[Field, polars.Series], T]) -> dict[str, T]:
    """`use(field, column)` for every field, with the faults of all of them in one error."""
    results: dict[str, T] = {}
    faults = []
    for each in fields:
        if each.name not in frame.columns:
            faults.append(f"missing column {each.name!r}. {nearest(each.name, frame.columns)}")
            continue
        try:
            results[each.name] = use(each, frame[each.name])
        except InputError as error:
            faults.append(str(error))
    if faults:
        raise InputError("\n".join(faults))
    return results


def _schema_json(encoding: Encoding) -> bytes:
    """Schema, sizes, and scaling of the numbers, as JSON."""
    record = {
        "schema": encoding.schema.model_dump(mode="json", exclude_defaults=True),
        "sizes": encoding.sizes,
        "numbers": {name: [scale.mean, scale.std] for name, scale in encoding.scales.items()},
    }
    return (json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _vocabulary_parquet(encoding: Encoding) -> bytes:
    """One row; a column per field with a vocabulary, which holds its values as one list, in the order of their ids."""
    import polars

    lists = {}
    for name, codec in encoding.codecs.items():
        if isinstance(codec, Vocabulary):
            narrow = codec.values.shrink_dtype() if kind_of(codec.values) == "int" else codec.values
            lists[name] = polars.Series(name, [narrow])
    buffer = io.BytesIO()
    polars.DataFrame(lists).write_parquet(buffer, compression="zstd", compression_level=9, statistics=False)
    return buffer.getvalue()


def _read_schema(path: Path) -> dict[str, Any]:
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


def _read_vocabulary(path: Path) -> dict[str, polars.Series]:
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


def _codecs(schema: Schema, values: Mapping[str, polars.Series], path: Path) -> dict[str, Codec]:
    """What turns values into codes, by field, from the values that were read."""
    import polars

    fields = [each for each in schema.fields if each.kind != "numeric"]
    expected = [each.name for each in fields if each.encoding == "vocabulary"]
    if set(values) != set(expected):
        raise InputError(
            f"{path} does not fit {SCHEMA_FILE}: it holds {sorted(values)}, the schema says {sorted(expected)}"
        )
    codecs: dict[str, Codec] = {}
    for each in fields:
        if each.encoding != "vocabulary":
            codecs[each.name] = _without_table(each)
            continue
        column = values[each.name]
        if not (column.dtype.is_integer() or column.dtype == polars.String) or column.null_count():
            raise InputError(f"{path}: values of {each.name!r} are neither integers nor text, or some are missing")
        column = column.cast(polars.Int64) if column.dtype.is_integer() else column
        if column.n_unique() != len(column):
            raise InputError(f"{path}: values of {each.name!r} are not distinct")
        codecs[each.name] = Vocabulary(column)
    return codecs


def _scales(schema: Schema, record: Mapping[str, Any], path: Path) -> dict[str, Scale]:
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
