"""Models of other libraries, compressed as they come: bytes touched, ratio, quality, parity and latency of each.

One row a library, each in a process of its own (`bench/peers/NAME.py`), and where the library does not go with ours in
an environment of its own (`bench/peers/NAME.sh`); all figures are of exported artifacts.
"""

from __future__ import annotations

from typing import Any

from bench.peers import run_alone
from slimrank.config import InputError
from slimrank.data.files import locate

KERAS_FILES = ("gmf-8.h5", "ml-1m.test.rating", "ml-1m.test.negative.gz")


def keras() -> dict[str, Any]:
    """GMF-8 from its Keras weights.

    Raises:
        InputError: the data is not there.
    """
    files = locate(None, ["ml-1m-ncf"], [KERAS_FILES])
    if files is None:
        raise InputError(f"byo-keras needs ml-1m-ncf/{', '.join(KERAS_FILES)} in SLIMRANK_DATA")
    return {
        "what": "GMF-8 of NCF from its Keras weights, post-training; leave-one-out among 100, all users, one thread",
        **run_alone("keras", str(files[0].resolve().parent)),
        "goal": {"times_smaller": 6, "change": 0.003},
    }


ROWS = {"keras": keras}
