"""What the columns of a table mean: the one description that training, the artifact and the runtime share.

A schema says which columns are inputs and of what kind, and which hold the label, the group (for metrics per
user or per query) and the time (for splits). It holds no data: what is fitted on data is in `encoding`.
polars is imported where it is used, so that the runtime starts fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import NonNegativeInt, PositiveInt, model_validator

from slimrank.config import Config, InputError, nearest

if TYPE_CHECKING:
    import polars

Kind = Literal["categorical", "numeric", "sequence", "text"]
Answer = Literal["click", "relevance", "item"]
JUDGED: dict[Answer, str] = {"click": "auc", "relevance": "ndcg@10", "item": "ndcg@10"}
"""The metric that a model of each answer is chosen and judged by."""


class Field(Config):
    """One input column.

    Attributes:
        name: the column's name.
        kind: `categorical` (one id), `numeric` (one number), `sequence` (a list of ids, oldest first) or `text`, of
            which a table has one at most.
        encoding: how raw values become local ids: a `vocabulary` fitted on train, a `hash` into `num_ids` buckets,
            or `identity` for raw ids that are already 0..num_ids-1.
        min_count: values rarer than this in train share the out-of-vocabulary id.
        num_ids: buckets of a hash, or number of raw ids of an identity.
        max_length: ids kept of a sequence, the most recent (last) ones; tokens kept of a text, the first ones.
        separator: what stands between the ids of a sequence that is stored as text; None for list columns.
        log: numeric: sign(x) * log(1 + |x|) before standard scaling.
        tokenizer: text: the `tokenizer.json` to fit with. An artifact has its own, and no such key.
        pair: text: the column with a second text, which is read after the first.
    """

    name: str
    kind: Kind
    encoding: Literal["vocabulary", "hash", "identity"] = "vocabulary"
    min_count: PositiveInt = 1
    num_ids: PositiveInt | None = None
    max_length: PositiveInt = 20
    separator: str | None = None
    log: bool = False
    tokenizer: Path | None = None
    pair: str | None = None
    LATER: ClassVar = frozenset({"tokenizer", "pair"})

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Field:
        faults = []
        if self.kind in ("numeric", "text") and self.encoding != "vocabulary":
            faults.append(f"a {self.kind} field has no ids to encode by {self.encoding!r}")
        if self.encoding != "vocabulary" and self.num_ids is None:
            faults.append(f"encoding {self.encoding!r} needs num_ids")
        if self.encoding == "vocabulary" and self.num_ids is not None:
            faults.append("num_ids is for the encodings 'hash' and 'identity' only")
        if self.encoding != "vocabulary" and self.min_count > 1:
            faults.append("min_count is for the encoding 'vocabulary' only")
        if self.log and self.kind != "numeric":
            faults.append("log is for numeric fields only")
        if self.separator is not None and (self.kind != "sequence" or not self.separator):
            faults.append("separator is for sequence fields only, and not empty")
        if self.kind != "text" and (self.tokenizer is not None or self.pair is not None):
            faults.append("tokenizer and pair are for text fields only")
        if self.kind == "text" and self.min_count > 1:
            faults.append("min_count is for ids: a text has the tokens of its tokenizer")
        if faults:
            raise ValueError(f"field {self.name!r}: " + "; ".join(faults))
        return self

    @property
    def first_value(self) -> NonNegativeInt:
        """The local id of the first value: 1 after out-of-vocabulary, 2 after padding and out-of-vocabulary."""
        return 2 if self.kind == "sequence" else 1


class Schema(Config):
    """The fields of a table in order, and the columns that are not inputs: label, group and time.

    `answer` says what the label is, and so what a model answers: a "click" (0 or 1), the "relevance" of a document to
    the query `group` (a grade of at least 0), or the "item" that is to be found among the values of the field
    `catalogue`, whose ids the label shares.

    With `drawn_negatives` the train rows of label 0 were drawn and not observed: vocabularies, the order of their ids
    and all frequencies come from rows of label 1 alone. Counted with the others, an id that was drawn by chance would
    stand before one that was met.
    """

    fields: tuple[Field, ...]
    label: str = "label"
    group: str | None = None
    time: str | None = None
    drawn_negatives: bool = False
    answer: Answer = "click"
    catalogue: str | None = None
    LATER: ClassVar = frozenset({"drawn_negatives", "answer", "catalogue"})

    @model_validator(mode="after")
    def _names_differ(self) -> Schema:
        names = [field.name for field in self.fields]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"fields named twice: {', '.join(twice)}")
        if self.label in names:
            raise ValueError(f"the label {self.label!r} is also a field")
        if not names:
            raise ValueError("a schema needs at least one field")
        if len(self.texts) > 1:
            raise ValueError(f"fields {', '.join(each.name for each in self.texts)} are texts: one at most may be")
        if (self.answer == "item") != (self.catalogue is not None):
            raise ValueError("answer 'item' and catalogue go together: the field whose ids are the items")
        if self.catalogue is not None and self.catalogue not in names:
            raise ValueError(f"catalogue: no field {self.catalogue!r}. {nearest(self.catalogue, names)}")
        if self.answer == "relevance" and self.group is None:
            raise ValueError("answer 'relevance' needs a group: the query that a document is ranked for")
        return self

    @property
    def categorical(self) -> tuple[Field, ...]:
        """The fields with one id a row, in order."""
        return self._of("categorical")

    @property
    def numeric(self) -> tuple[Field, ...]:
        """The fields with one number a row, in order: the columns of the `numbers` input."""
        return self._of("numeric")

    @property
    def sequences(self) -> tuple[Field, ...]:
        """The fields with up to `max_length` ids a row, in order."""
        return self._of("sequence")

    @property
    def texts(self) -> tuple[Field, ...]:
        """The text field, if there is one: its tokens are the last columns of the `ids` input."""
        return self._of("text")

    @property
    def looked_up(self) -> tuple[Field, ...]:
        """The fields whose ids are looked up in tables, in the order of their columns."""
        return self.categorical + self.sequences + self.texts

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns that a row without a label needs."""
        pairs = tuple(field.pair for field in self.texts if field.pair is not None)
        return tuple(dict.fromkeys([*(field.name for field in self.fields), *pairs]))

    @property
    def columns(self) -> tuple[str, ...]:
        """The field behind each column of `ids`: a column per categorical field, then one per slot of the others."""
        slots = tuple(field.name for field in self.sequences + self.texts for _ in range(field.max_length))
        return tuple(field.name for field in self.categorical) + slots

    @property
    def used(self) -> tuple[str, ...]:
        """Every column that a labelled table needs, each once: fields, label, group, time."""
        others = [name for name in (self.label, self.group, self.time) if name is not None]
        return tuple(dict.fromkeys([*self.inputs, *others]))

    def _of(self, kind: Kind) -> tuple[Field, ...]:
        return tuple(field for field in self.fields if field.kind == kind)


def infer_schema(
    frame: polars.DataFrame,
    *,
    label: str,
    group: str | None = None,
    time: str | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> Schema:
    """The schema that a table's column types suggest.

    Text, booleans and integers are categorical, floats numeric, lists sequences. More than half of the values
    distinct, an integer column is a number (log-scaled) unless its name ends in `id`, and a text column keeps only
    the values seen twice. The time is no field unless `overrides` names it; the group is one.

    Args:
        frame: the table.
        label: its label column.
        group: its group column, if any.
        time: its time column, if any.
        overrides: by column, keys of `Field` that replace what was inferred.

    Raises:
        InputError: label, group, time or an override name a column that is not there, or a column has a type
            that cannot be an input; all faults at once.
    """
    overrides = overrides or {}
    faults = [
        f"no column {name!r} for the {role}. {nearest(name, frame.columns)}"
        for role, name in [("label", label), ("group", group), ("time", time), *(("field", key) for key in overrides)]
        if name is not None and name not in frame.columns
    ]
    fields = []
    for series in frame.get_columns():
        if series.name == label or (series.name == time and time not in overrides):
            continue
        try:
            fields.append(_infer_field(series, overrides.get(series.name, {})))
        except InputError as error:
            faults.append(str(error))
    if faults:
        raise InputError("\n".join(faults))
    return Schema.parse({"fields": fields, "label": label, "group": group, "time": time})


def _infer_field(series: polars.Series, override: Mapping[str, Any]) -> Field:
    """The field of one column: what its type suggests, with the user's keys on top."""
    where = f"field {series.name!r}"
    if "kind" in override:
        return Field.parse({"name": series.name, **override}, where)
    return Field.parse({"name": series.name, **_guess(series), **override}, where)


def _guess(series: polars.Series) -> dict[str, Any]:
    """Keys of the field that a column's type and values suggest."""
    import polars

    dtype = series.dtype
    if dtype.is_float() or dtype.is_decimal():
        return {"kind": "numeric"}
    if isinstance(dtype, polars.List | polars.Array):
        return {"kind": "sequence"}
    if dtype in (polars.Boolean, polars.Categorical, polars.Enum):
        return {"kind": "categorical"}
    if not dtype.is_integer() and dtype not in (polars.String, polars.Null):
        raise InputError(f"column {series.name!r} is of type {dtype}: name it as the time, drop it, or give its kind")
    many = series.n_unique() > max(100, len(series) // 2)
    if many and dtype.is_integer() and not series.name.lower().endswith("id"):
        return {"kind": "numeric", "log": True}
    return {"kind": "categorical", "min_count": 2 if many and dtype == polars.String else 1}
