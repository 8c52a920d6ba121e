"""The encoding of new train rows that keeps the ids of an older one, so that rows of its tables keep their places.

Fitted afresh, ids go by falling train frequency: a few more rows permute them, and with them every row of every table.
Here what the older encoding knows keeps its id, met again or not, and what is new comes behind, most frequent first.
Numbers are scaled as before. So ids are no longer sorted by frequency. Left out: forgetting values; once in a while
an encoding is fitted afresh.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from slimrank.config import InputError
from slimrank.data.encoding import Encoding
from slimrank.data.schema import Field, Schema
from slimrank.data.text import TextCodec
from slimrank.data.vocabulary import Vocabulary, as_kind, kind_of


def appended(base: Encoding, schema: Schema, frame: pl.DataFrame) -> Encoding:
    """The encoding of train rows `frame` in which the ids of `base` are what they were, with the counts of `frame`.

    Raises:
        InputError: `base` is of another schema, values of a field are of another type, or as `Encoding.fit`.
    """
    _check_schema(base.schema, schema)
    every = tuple(each.model_copy(update={"min_count": 1}) for each in schema.fields)
    met = Encoding.fit(schema.model_copy(update={"fields": every}), frame)
    codecs, counts = dict(met.codecs), dict(met.counts)
    for each in schema.looked_up:
        old, new = base.codecs[each.name], met.codecs[each.name]
        if isinstance(old, TextCodec) and isinstance(new, TextCodec) and old.content != new.content:
            raise InputError(f"field {each.name!r} had another tokenizer in the base")
        if isinstance(old, Vocabulary) and isinstance(new, Vocabulary):
            codecs[each.name], counts[each.name] = _appended_field(each, old, new, met.counts[each.name])
    return Encoding(schema, codecs, base.scales, counts)


def _appended_field(
    each: Field, old: Vocabulary, met: Vocabulary, count: NDArray[np.int64]
) -> tuple[Vocabulary, NDArray[np.int64]]:
    """`old` with the values of `met` that it lacks behind its own, and how often each local id was met.

    `count` is that of the local ids of `met`, which holds every value of the train rows.
    """
    kind = kind_of(old.values)
    if kind == "int" and kind_of(met.values) == "str":
        raise InputError(f"field {each.name!r} held integers alone in the base, and now holds text")
    values = as_kind(met.values, kind)
    often = pl.Series(count[each.first_value :] >= each.min_count)
    new = values.filter(often & ~values.is_in(old.values.implode()))
    both = Vocabulary(pl.concat([old.values.rename("value"), new.rename("value")]).rechunk())
    codes, _ = met.codes(both.values)
    first = each.first_value
    known = np.where(codes > 0, count[codes.astype(np.int64) + first - 1], 0)
    unknown = count[first - 1 :].sum() - known.sum()
    return both, np.concatenate([count[: first - 1], [unknown], known]).astype(np.int64)


def _check_schema(base: Schema, schema: Schema) -> None:
    """Raises `InputError` where the fields that are encoded are not the same; a tokenizer's place may be another."""
    plain = [
        {each.name: each.model_dump(mode="json", exclude={"tokenizer", "min_count"}) for each in one.fields}
        for one in (base, schema)
    ]
    if list(plain[0]) != list(plain[1]):
        raise InputError(f"the base has the fields {', '.join(plain[0])}, these rows {', '.join(plain[1])}")
    for name, before in plain[0].items():
        if before != plain[1][name]:
            raise InputError(f"field {name!r} was {before} in the base, and is {plain[1][name]}")
