"""What a ranking request of a model may hold: its fields and made values for them, for who has no row at hand.

Values are made, not taken from a vocabulary: whom a model has met is nobody's business. Integers lie between the least
and the greatest that it knows, numbers around their mean; text is invented and unknown. Only of a catalogue, whose
items are what the service answers with anyway, real ones are told.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from slimrank.data.encoding import Encoding
from slimrank.data.schema import Field
from slimrank.data.text import TextCodec
from slimrank.data.vocabulary import Vocabulary, kind_of
from slimrank.runtime import Graph, Retriever
from slimrank.serving.repository import Version

EXAMPLES = 3
DIGITS = 3  # of a made number


def form_of(name: str, version: Version) -> dict[str, Any]:
    """The answer to GET /v2/models/{name}/schema.

    Returns:
        What the model answers with ("scores" of rows or "items" of its catalogue; "vectors" or "tensors", which no
        ranking request is for), the field that says which rows belong together ("" for none), what its golden rows
        said, and of each field the name, the kind and some values.
    """
    loaded = version.served.loaded
    told = {"model_name": name, "model_version": version.name, "golden": version.proof}
    if isinstance(loaded, Graph):
        return {**told, "answers": "tensors", "group": "", "fields": []}
    encoding = loaded.encoding
    fields = [field for each in encoding.schema.fields for field in _told(each, encoding)]
    group = encoding.schema.group if encoding.schema.group in (each["name"] for each in fields) else None
    found = "vectors" if encoding.schema.catalogue is None else "items"
    answers = found if isinstance(loaded, Retriever) else "scores"
    return {**told, "answers": answers, "group": group or "", "fields": fields}


def _told(each: Field, encoding: Encoding) -> list[dict[str, Any]]:
    """A field, and the second text that is read after its own."""
    names = [each.name, *([each.pair] if each.pair else [])]
    return [{"name": name, "kind": each.kind, "examples": _examples(name, each, encoding)} for name in names]


def _examples(name: str, each: Field, encoding: Encoding) -> list[Any]:
    if each.kind == "numeric":
        return _numbers(each, encoding)
    codec = encoding.codecs[each.name]
    if isinstance(codec, TextCodec):
        return [f"a text for {name}", f"another one for {name}"]
    if not isinstance(codec, Vocabulary):
        values: list[Any] = _between(0, codec.num_ids - 1)
    elif len(codec.values) and kind_of(codec.values) == "int":
        values = _between(int(codec.values.min()), int(codec.values.max()))  # type: ignore[arg-type]
    elif each.name == encoding.schema.catalogue:
        values = codec.values.head(EXAMPLES).to_list()
    else:
        values = [f"{name} {place}" for place in range(1, EXAMPLES + 1)]
    if each.kind != "sequence":
        return values
    return [values[:1], values[:2]] if each.separator is None else [each.separator.join(map(str, values[:2]))]


def _between(low: int, high: int) -> list[int]:
    """Integers within low..high, without its ends where there are others."""
    return sorted({low + (high - low) * part // (EXAMPLES + 1) for part in range(1, EXAMPLES + 1)})


def _numbers(each: Field, encoding: Encoding) -> list[float]:
    """The train mean of a field, and a standard deviation to both sides of it."""
    scale = encoding.scales[each.name]
    scaled = scale.mean + scale.std * np.array([0.0, -1.0, 1.0])
    raw = np.sign(scaled) * np.expm1(np.abs(scaled)) if each.log else scaled
    return [float(f"{value:.{DIGITS}g}") for value in raw]
