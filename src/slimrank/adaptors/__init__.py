"""Models of other libraries: what becomes of them before steps, how they are called, and what they are afterwards.

One file a library, named as its package is; it is found by the class of a model, and imports the library only then. A
library whose models are modules of torch that are called with their batches needs no file.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Any

from torch import nn

from slimrank.adaptors.adaptor import Adaptor
from slimrank.config import InputError


def adaptor_of(model: Any) -> Adaptor:
    """The adaptor of the library that `model` is of; the plain one for any other module of torch.

    Raises:
        InputError: it is no module of torch, and of no library that is known.
    """
    known = {each.name for each in pkgutil.iter_modules(__path__)} - {"adaptor"}
    for kind in type(model).__mro__:
        library = kind.__module__.partition(".")[0]
        if library in known:
            found: Adaptor = import_module(f"slimrank.adaptors.{library}").ADAPTOR
            return found
    if not isinstance(model, nn.Module):
        allowed = ", ".join(["modules of torch", *(f"models of {name}" for name in sorted(known))])
        raise InputError(f"a {type(model).__name__} cannot be compressed. Allowed: {allowed}")
    return Adaptor()
