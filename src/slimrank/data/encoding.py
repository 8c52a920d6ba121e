"""Raw columns to the arrays that a model takes, by rules fitted on train and shipped in the artifact.

Local ids of a field: 0 is out-of-vocabulary (and missing), 1.. are values by falling train frequency. In a sequence
field 0 is padding, 1 is out-of-vocabulary, 2.. are values; a row's ids stand at the front, the padding behind. The ids
of a text are its tokenizer's, with padding behind as well.
Numbers are scaled to mean 0 and standard deviation 1 on train; a missing number is 0, the train mean.
Left out: the offsets of a fused table, which the model's graph adds itself. polars is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from slimrank.config import InputError, nearest
from slimrank.data.columns import encode_sequence, encode_text, flat, lists
from slimrank.data.scaling import Scale, fit_scale, scaled
from slimrank.data.schema import Field, Schema
from slimrank.data.stored import (
    SCHEMA_FILE,
    VOCABULARY_FILE,
    codecs_of,
    read_schema,
    read_vocabulary,
    scales_of,
    schema_json,
    vocabulary_parquet,
    without_table,
)
from slimrank.data.text import TOKENIZER_FILE, TextCodec
from slimrank.data.vocabulary import Codec, Vocabulary, kind_of

if TYPE_CHECKING:
    import polars


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


def without_padding(ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """`ids` [N, K] without the columns behind the last one that is not 0 in all rows; two columns at least."""
    used = np.flatnonzero(ids.any(axis=0))
    return ids[:, : max(2, int(used[-1]) + 1 if len(used) else 0)]


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
    codecs: Mapping[str, Codec | TextCodec]
    scales: Mapping[str, Scale]
    counts: dict[str, NDArray[np.int64]] = field(default_factory=dict, compare=False)

    @property
    def sizes(self) -> dict[str, int]:
        """By categorical field, then sequence field: the number of local ids, which is the rows its table needs."""
        return {each.name: self.codecs[each.name].size + each.first_value - 1 for each in self.schema.looked_up}

    @property
    def text_fields(self) -> tuple[str, ...]:
        """Columns that hold text: categorical fields whose vocabulary does, texts, and a label that names an item."""
        known = ((each.name, self.codecs[each.name]) for each in self.schema.categorical)
        ids = [n for n, codec in known if isinstance(codec, Vocabulary) and kind_of(codec.values) == "str"]
        catalogue = self.codecs.get(self.schema.catalogue or "")
        if isinstance(catalogue, Vocabulary) and kind_of(catalogue.values) == "str":
            ids.append(self.schema.label)
        return (*ids, *(name for each in self.schema.texts for name in (each.name, each.pair) if name))

    def cut(self, sizes: Mapping[str, int]) -> Encoding:
        """The rules of a smaller model: the fields in `sizes` with that many ids each, and all numbers.

        Values whose local id is not below the field's size become unknown.

        Raises:
            InputError: a field is unknown, a size is larger than it was, or the field's ids are not a vocabulary's.
        """
        codecs, counts = {}, {}
        by_name = {each.name: each for each in self.schema.looked_up}
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

    def with_text(self, codec: TextCodec) -> Encoding:
        """The same with another tokenizer for the text field, such as the pruned one that a model carries.

        Raises:
            InputError: there is no text field.
        """
        if not self.schema.texts:
            raise InputError("the schema has no text field for a tokenizer")
        (each,) = self.schema.texts
        text = each.model_copy(update={"max_length": codec.max_length})
        fields = tuple(text if other is each else other for other in self.schema.fields)
        counts = {name: count for name, count in self.counts.items() if name != each.name}
        schema = self.schema.model_copy(update={"fields": fields})
        return Encoding(schema, {**self.codecs, each.name: codec}, self.scales, counts)

    @classmethod
    def of_text(cls, codec: TextCodec, name: str = "text", pair: str | None = None) -> Encoding:
        """The rules of one text field, with nothing fitted: what a pretrained text model reads."""
        text = Field(name=name, kind="text", max_length=codec.max_length, pair=pair)
        return cls(Schema(fields=(text,)), {name: codec}, {})

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
        codec = self.codecs[name]
        assert not isinstance(codec, TextCodec)  # the schema holds to it
        codes, _ = codec.codes(label)
        return codes.astype(np.int64) + each.first_value - 1

    def encode(self, frame: polars.DataFrame | Mapping[str, Any]) -> Inputs:
        """Raw rows as inputs; unknown ids go to out-of-vocabulary (`encode_counting` counts them).

        Raises:
            InputError: a column is missing or of the wrong type, a number is NaN or infinite, a raw id of an
                identity field is out of range; all faults at once.
        """
        return self.encode_counting(frame)[0]

    def encode_counting(self, frame: polars.DataFrame | Mapping[str, Any]) -> tuple[Inputs, dict[str, int]]:
        """Like `encode`, and by field how many values were unknown (missing ones are not counted).

        Of a text field it is how many texts were longer than `max_length`, and were cut.
        """
        frame = _as_frame(frame)
        arrays, unknown = self._arrays(frame)
        return self.joined(arrays, len(frame)), unknown

    def encode_telling(
        self, frame: polars.DataFrame | Mapping[str, Any]
    ) -> tuple[Inputs, dict[str, int], dict[str, int]]:
        """Like `encode`, and by field how many values were unknown, and how many rows hold more than is kept.

        The first is of categorical and sequence fields, the second of sequences and texts.
        """
        frame = _as_frame(frame)
        arrays, unknown, shortened = self.arrays(frame)
        return self.joined(arrays, len(frame)), unknown, shortened

    def arrays(self, frame: polars.DataFrame) -> tuple[dict[str, NDArray[Any]], dict[str, int], dict[str, int]]:
        """By field its local ids [N] or [N, max_length] or its scaled numbers [N]; the rest as `encode_telling`."""
        arrays, unknown = self._arrays(frame)
        cut = {each.name: unknown.pop(each.name) for each in self.schema.texts}
        return arrays, unknown, {**self.shortened(frame), **cut}

    def _arrays(self, frame: polars.DataFrame) -> tuple[dict[str, NDArray[Any]], dict[str, int]]:
        unknown: dict[str, int] = {}

        def encode_field(each: Field, column: polars.Series) -> NDArray[Any]:
            if each.kind == "numeric":
                return scaled(column, each, self.scales[each.name])
            codec = self.codecs[each.name]
            if isinstance(codec, TextCodec):
                ids, unknown[each.name] = encode_text(frame, each, codec)
            elif each.kind == "sequence":
                ids, unknown[each.name] = encode_sequence(column, each, codec)
            else:
                ids, unknown[each.name] = codec.codes(column)
            return ids

        return _each(frame, self.schema.fields, encode_field), unknown

    def joined(self, arrays: Mapping[str, NDArray[Any]], rows: int) -> Inputs:
        """The inputs that the arrays of all fields are (`arrays`), of so many rows."""
        widths, numeric = self._layout
        ids = np.zeros((rows, sum(widths.values())), np.int32)
        start = 0
        for name, width in widths.items():
            ids[:, start : start + width] = arrays[name].reshape(rows, width)
            start += width
        numbers = np.zeros((rows, len(numeric)), np.float32)
        for place, name in enumerate(numeric):
            numbers[:, place] = arrays[name]
        return Inputs(ids, numbers)

    @cached_property
    def _layout(self) -> tuple[dict[str, int], list[str]]:
        """By field how many columns of `ids` it has, and the fields that are columns of `numbers`."""
        widths = {each.name: 1 if each.kind == "categorical" else each.max_length for each in self.schema.looked_up}
        return widths, [each.name for each in self.schema.numeric]

    def whole_lists(self, name: str, column: polars.Series) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of a sequence field all values, those beyond what a model reads too.

        Returns:
            Local ids [M] of all rows behind one another (unknown ones out of vocabulary), and how many each has [N].
        """
        each = next(field for field in self.schema.sequences if field.name == name)
        codec = self.codecs[name]
        assert not isinstance(codec, TextCodec)  # the schema holds to it
        values, lengths = flat(column, each, whole=True)
        return codec.codes(values)[0].astype(np.int64) + 1, lengths

    def shortened(self, frame: polars.DataFrame) -> dict[str, int]:
        """By sequence field, how many rows hold more ids than are kept."""
        given = {each: lists(frame[each.name], each) for each in self.schema.sequences}
        return {each.name: int((own.list.len() > each.max_length).sum()) for each, own in given.items()}

    def files(self) -> dict[str, bytes]:
        """The encoding as `schema.json`, `vocabulary.parquet` and, of a text, `tokenizer.json`.

        The same encoding gives the same bytes.
        """
        files = {
            SCHEMA_FILE: schema_json(self.schema, self.sizes, self.scales),
            VOCABULARY_FILE: vocabulary_parquet(self.codecs),
        }
        texts = [codec.content for codec in self.codecs.values() if isinstance(codec, TextCodec)]
        return files | ({TOKENIZER_FILE: texts[0]} if texts else {})

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
        record = read_schema(folder / SCHEMA_FILE)
        schema = Schema.parse(record["schema"], f"{folder / SCHEMA_FILE}: schema")
        values = read_vocabulary(folder / VOCABULARY_FILE)
        codecs: dict[str, Codec | TextCodec] = {**codecs_of(schema, values, folder / VOCABULARY_FILE)}
        codecs |= {each.name: TextCodec.read(folder / TOKENIZER_FILE, each.max_length) for each in schema.texts}
        scales = scales_of(schema, record["numbers"], folder / SCHEMA_FILE)
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


def _fit_field(each: Field, column: polars.Series) -> Codec | TextCodec | Scale:
    """What the train column gives: a scaling for numbers, else what turns values into codes."""
    if each.kind == "text":
        if each.tokenizer is None:
            raise InputError(f"field {each.name!r} is text, and names no tokenizer (a tokenizer.json)")
        return TextCodec.read(each.tokenizer, each.max_length)
    if each.kind == "numeric":
        return fit_scale(column, each)
    if each.encoding != "vocabulary":
        return without_table(each)
    values = flat(column, each)[0] if each.kind == "sequence" else column
    return Vocabulary.fit(values, each.min_count)


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
    columns = {column.name: column for column in frame.get_columns()}
    for each in fields:
        if each.name not in columns:
            faults.append(f"missing column {each.name!r}. {nearest(each.name, columns)}")
            continue
        try:
            results[each.name] = use(each, columns[each.name])
        except InputError as error:
            faults.append(str(error))
    if faults:
        raise InputError("\n".join(faults))
    return results
