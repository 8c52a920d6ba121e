"""What is deployed, asked as an artifact is: the same checks of types, sizes, ids and numbers before any runtime.

Runtimes differ in what an id outside its table does, so none of them sees one. A phone's app has to hold to the same
rules, which stand in `checks.json` beside its model. Left out: raw rows, which are encoded before they are tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slimrank.config import Config, InputError, runner
from slimrank.data.tensors import TensorSpec
from slimrank.files import write_json
from slimrank.runtime import Graph, Retriever
from slimrank.runtime.golden import golden_of
from slimrank.runtime.opened import Opened

CHECKS = "checks.json"
WITHIN = 1e-3  # of a probability, or of max(1, |x|) of any other output

Bounds = dict[str, list[tuple[int, int | None, int]]]


@dataclass(frozen=True)
class Deployed:
    """A folder of a deployment target, in the place of a session."""

    config: Config
    folder: Path

    def run(self, names: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs `names` for tensors that were checked."""
        found = runner("deployed", self.config)(self.config, self.folder, feeds)
        return [found[name] for name in names]


def deployed_graph(opened: Opened | Graph, config: Config, folder: Path) -> Graph:
    """What the target `config` wrote of an artifact to `folder`, to be asked by tensors: `ask`."""
    return _graph(opened, Deployed(config, folder))


def tensor_graph(opened: Opened | Graph) -> Graph:
    """An artifact of whichever kind, to be asked by the tensors of its graph."""
    return opened if isinstance(opened, Graph) else _graph(opened, opened.session)


def _graph(opened: Opened | Graph, session: Any) -> Graph:
    ends = (opened.session.get_inputs(), opened.session.get_outputs())
    inputs, outputs = ({spec.name: spec for spec in map(TensorSpec.of_end, side)} for side in ends)
    return Graph(opened.artifact, session, inputs, outputs, bounds_of(opened))


def bounds_of(opened: Opened | Graph) -> Bounds:
    """By input the columns (first, last; or all) and how many ids these may hold."""
    if isinstance(opened, Graph):
        return dict(opened.bounds)
    limits = opened.checks.limits.tolist()
    bounds: Bounds = {"ids": [(column, column + 1, limit) for column, limit in enumerate(limits)]}
    if "items" in opened.feeds and isinstance(opened, Retriever):
        bounds["items"] = [(0, None, opened.first_item + opened.count)]
    return {name: found for name, found in bounds.items() if name in opened.feeds}


def ask(graph: Graph, feeds: Mapping[str, ArrayLike]) -> dict[str, NDArray[Any]]:
    """The outputs for inputs by name.

    Raises:
        InputError: as `Graph.run`; or what the deployment's runtime says.
    """
    try:
        return graph.run(feeds)
    except InputError as error:
        raise error.__cause__ if isinstance(error.__cause__, InputError) else error from None


def write_checks(opened: Opened | Graph, folder: Path, more: Mapping[str, Any]) -> None:
    """What an app has to check before it asks, as `checks.json`.

    By input: type, shape with a name for each size that varies, `finite` for numbers, the fields of the columns, and
    `ids`: of columns first to last (null: of all) the number of ids, from 0 on, that are allowed.
    """
    graph = tensor_graph(opened)
    columns = {} if isinstance(opened, Graph) else {"ids": opened.checks.columns, "numbers": opened.checks.numbers}
    inputs = [
        {
            **_described(spec),
            "finite": spec.dtype.kind == "f",
            "columns": list(columns.get(name, ())),
            "ids": [{"first": a, "last": b, "count": rows} for a, b, rows in graph.bounds.get(name, [])],
        }
        for name, spec in graph.inputs.items()
    ]
    outputs = [_described(spec) for spec in graph.outputs.values()]
    content = {"artifact": opened.artifact.digest, "inputs": inputs, "outputs": outputs, **more}
    write_json(folder / CHECKS, content)


def _described(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype.name, "shape": list(spec.shape)}


def golden_feeds(opened: Opened | Graph) -> dict[str, NDArray[Any]] | None:
    """What an artifact's golden rows ask, where it has any."""
    golden = golden_of(opened.artifact)
    if golden is None or not golden.inputs:
        return None
    return {name: stored.array() for name, stored in golden.inputs.items()}


def check_answers(
    opened: Opened | Graph, feeds: Mapping[str, NDArray[Any]], found: Mapping[str, NDArray[Any]], target: str
) -> None:
    """Hold what was converted to the artifact's answers to the same tensors.

    Raises:
        InputError: an output is of another shape, or further than `WITHIN` away.
    """
    graph = tensor_graph(opened)
    for name, wanted in ask(graph, feeds).items():
        got = found[name]
        if got.shape != wanted.shape:
            raise InputError(f"{target}: {name} is {list(got.shape)} where the artifact gives {list(wanted.shape)}")
        apart = difference(name, wanted, got)
        if apart.size and not apart.max() <= WITHIN:
            raise InputError(f"{target}: {name} is {apart.max():.3g} from the artifact's, allowed {WITHIN:g}")


def difference(name: str, wanted: NDArray[Any], got: NDArray[Any]) -> NDArray[np.float64]:
    """How far answers are apart: of a logit as probabilities, of all else of max(1, |x|). NaN is infinitely far."""
    a, b = wanted.astype(np.float64), got.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        if name == "logit":
            apart = np.abs(1 / (1 + np.exp(-a)) - 1 / (1 + np.exp(-b)))
        else:
            apart = np.where(a == b, 0.0, np.abs(a - b) / np.maximum(1.0, np.abs(a)))  # -inf is a score too
    return np.where(np.isnan(apart), np.inf, apart)
