"""sentence-transformers: an encoder is called with one mapping, of what its tokenizer gives, and answers with more.

A SentenceTransformer answers with the mapping that it was given and all that its parts added: what is kept of it is the
vector of the text. A CrossEncoder is called and answers as the model of transformers in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sentence_transformers import SentenceTransformer
from torch import nn

from slimrank.adaptors.adaptor import Adaptor
from slimrank.adaptors.transformers import asked


def encoded(module: nn.Module, batch: Mapping[str, Any]) -> Any:
    """The vectors [N, D] of texts; of pairs the answers by name."""
    if not isinstance(module, SentenceTransformer):
        return asked(module, batch)
    return module(dict(batch))["sentence_embedding"]  # which it would write into the batch itself


ADAPTOR = Adaptor(forward=encoded)
