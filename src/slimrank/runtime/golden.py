"""Whether a loaded artifact answers its golden rows as it did when it was exported.

How near answers must be. Floats are added in an order that hangs on the processor's registers, on the number of
threads and on the release of the runtime: among these, answers differ by some 1e-6 of their size, and 1e-4 of
max(1, |x|) is far from that and far from any fault. A graph that rounds within (integer layers) may round one number of
a hidden layer to the other side, which is a step of its grid in the answer: between two orders of summation 0.3 to 0.6%
of rows of a small model moved by up to 0.01 of a logit, and more of a deep one. There what differs is held to be noise
where it is below 3% (-30 dB) of how answers spread. A kernel that is wrong has given -10 dB, and another model gives
0 dB.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimrank.artifact import Artifact
from slimrank.config import InputError
from slimrank.data.golden import Golden, StoredTensor, sampled
from slimrank.runtime.graph import Graph
from slimrank.runtime.opened import Opened

NEAR = 1e-4  # of max(1, |x|)
NOISE = 0.03  # rms of the difference, of the standard deviation of answers
SPREAD = 0.01  # at least: answers to all rows may be alike
ROUNDING = frozenset({"QuantizeLinear", "DynamicQuantizeLinear", "Round", "Sign"})


def golden_of(artifact: Artifact) -> Golden | None:
    """The golden rows of an artifact; None where it is from a release that wrote none.

    Raises:
        InputError: what the manifest says of them has another form.
    """
    found = artifact.manifest.get("golden")
    if found is None:
        return None
    if not isinstance(found, dict):
        raise InputError(f"{artifact.path}: golden is a {type(found).__name__}, must be a table")
    return Golden.parse(found, f"{artifact.path}: golden")


def check_golden(opened: Opened | Graph) -> str:
    """Ask a loaded artifact its golden rows; what was found, in words, which says where there are none to ask.

    Raises:
        InputError: the graph cannot be asked, or an answer is not what it was at export; names output, row, what was
            got and what was expected.
    """
    where = opened.artifact.path
    golden = golden_of(opened.artifact)
    if golden is None:
        return "no golden rows: exported by a release that wrote none"
    if not golden.inputs:
        return f"no golden rows: {golden.none}"
    try:
        feeds = {name: stored.array() for name, stored in golden.inputs.items()}
        found = opened.session.run(list(golden.outputs), feeds)
    except Exception as error:  # the runtime's errors share no other base class
        raise InputError(f"{where}: its golden rows cannot be asked: {error}") from error
    rounds = not ROUNDING.isdisjoint(opened.artifact.manifest.get("graph", {}).get("operators", {}))
    answers = zip(golden.outputs.items(), found, strict=True)
    faults = [_difference(name, stored, sampled(array), rounds) for (name, stored), array in answers]
    if told := [f"{where}: {fault}" for fault in faults if fault]:
        raise InputError("\n".join(told))
    return f"{golden.short()['rows']} golden rows answered as at export"


def _difference(name: str, stored: StoredTensor, found: NDArray[Any], rounds: bool) -> str:
    """What is wrong with the answers of one output; empty where they are near enough."""
    expected = stored.array()
    if expected.shape != found.shape or expected.dtype != found.dtype:
        said = [f"{each.dtype} {list(each.shape)}" for each in (found, expected)]
        return f"golden rows: {name} is {said[0]}, expected {said[1]}"
    got, wanted = found.astype(np.float64), expected.astype(np.float64)
    apart = np.abs(got - wanted) / np.maximum(1.0, np.abs(wanted))
    apart[~np.isfinite(got)] = np.inf
    if apart.size == 0 or apart.max() <= NEAR:
        return ""
    allowed = f"allowed: {NEAR:g} of max(1, |x|) apart"
    if rounds and np.isfinite(apart).all():
        noise = float(np.sqrt(np.square(got - wanted).mean())) / max(float(wanted.std()), SPREAD)
        if noise <= NOISE:
            return ""
        allowed = f"answers are {noise:.0%} of their spread apart, allowed: {NOISE:.0%}"
    row, place = np.unravel_index(int(apart.argmax()), apart.shape)
    return f"golden row {row}: {name} is {got[row, place]:.7g}, expected {wanted[row, place]:.7g}; {allowed}"
