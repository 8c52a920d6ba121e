"""The encoding of an artifact as one JSON file, for runtimes that read neither Parquet nor Python: `encoding.json`.

    {"format": 1, "artifact": DIGEST, "catalogue": NAME or null, "fields": [{"name", "kind", "size", ...}]}

Of a field with a vocabulary: `type` ("int" or "str") and `values` in the order of their ids. Integers that a double
does not hold exactly stand as text. Left out: the tokenizers of texts, for whoever asks to refuse.
"""

from __future__ import annotations

import json
from typing import Any

from slimrank.config import InputError
from slimrank.data.encoding import Encoding
from slimrank.data.schema import Field
from slimrank.data.vocabulary import Vocabulary, kind_of

ENCODING = "encoding.json"
FORMAT = 1
EXACT = 2**53  # integers below are exact in a double, which is all that JSON readers need have


def encoding_json(encoding: Encoding, digest: str) -> bytes:
    """The encoding of the artifact `digest`, compact.

    Raises:
        InputError: a field is text, whose tokenizer has no form here.
    """
    if texts := encoding.schema.texts:
        raise InputError(f"field {texts[0].name!r} is text: its tokenizer cannot be written as {ENCODING}")
    record = {
        "format": FORMAT,
        "artifact": digest,
        "catalogue": encoding.schema.catalogue,
        "fields": [_field(each, encoding) for each in encoding.schema.fields],
    }
    return json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _field(each: Field, encoding: Encoding) -> dict[str, Any]:
    if each.kind == "numeric":
        scale = encoding.scales[each.name]
        return {"name": each.name, "kind": each.kind, "log": each.log, "mean": scale.mean, "std": scale.std}
    found: dict[str, Any] = {"name": each.name, "kind": each.kind, "encoding": each.encoding}
    found["size"] = encoding.sizes[each.name]
    if each.kind == "sequence":
        found |= {"max_length": each.max_length, "separator": each.separator}
    codec = encoding.codecs[each.name]
    if not isinstance(codec, Vocabulary):
        return found | {"num_ids": each.num_ids}
    values = codec.values.to_list()
    if kind_of(codec.values) == "int":
        values = [value if -EXACT < value < EXACT else str(value) for value in values]
    return found | {"type": kind_of(codec.values), "values": values}
