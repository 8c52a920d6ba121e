"""faiss, which the base install does not have: imported when it is needed, and kept to one thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from slimrank.config import InputError


def load_faiss(what: str) -> Any:
    """faiss, for `what` needs it.

    Raises:
        InputError: it is not installed.
    """
    try:
        import faiss
    except ModuleNotFoundError:
        raise InputError(f'{what} need faiss: pip install "slimrank[train]"') from None
    return faiss


@contextmanager
def one_thread(faiss: Any) -> Iterator[None]:
    """faiss on one thread: its result does not depend on how many there are, and torch's threads are left alone."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
