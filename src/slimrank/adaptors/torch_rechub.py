"""torch-rechub: its models take one mapping of features."""

from __future__ import annotations

from slimrank.adaptors.adaptor import Adaptor, whole

ADAPTOR = Adaptor(forward=whole)
