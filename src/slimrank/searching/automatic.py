"""The space that a search makes by itself, from a recipe and a first look at its teacher.

A student's shape and fields, which rare ids go, the kind of its tables with their bits or bytes, weights that become
0, the order of all that, and how it is distilled. Where a recipe compresses its teacher itself, the shape is shortened
vectors and removed neurons instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from slimrank.recipe import Recipe
from slimrank.searching.space import Changes, Setting, Space, distinct

if TYPE_CHECKING:
    from optuna import Trial

BITS = (1, 2, 4, 8)
LEAST_DIM, LEAST_NEURONS = 4, 4
GRAPH_BYTES = 4000  # of nodes, names and constants: what a budget for packed bytes leaves to the file
FIELDS_TRIED = 8
KINDS = ("scaled", "by sensitivity", "mixed", "codebook", "hashed")  # the last three need a budget
TIMES = (8, 12, 16, 24, 32, 40, 48, 56, 64, 80, 96, 128, 192)  # smaller than the teacher, of a budget
NEEDED = 1e-3  # of AUC: a field whose shuffling costs the teacher less is left out at first
STARTS = ((0, 1, 4), (1, 2, 4), (2, 2, 4), (2, 5, 4), (2, 5, 2), (4, 2, 4), (4, 8, 2))  # shape, rare ids, bits
KEPT = (0.25, 0.5, 0.75, 1.0)  # of a teacher's neurons
SPARSITIES = (0.3, 0.5, 0.7)
WORTH_TRYING = 0.02  # of AUC that all layers together may lose by a sparsity, before retraining
OF_KIND = {"bits": ("scaled",), "tolerance": ("by sensitivity",), "times": ("mixed", "codebook", "hashed")}
ORDERS = ("ids, dimensions, layers", "dimensions, ids, layers", "layers, ids, dimensions")


@dataclass(frozen=True)
class Sensitivity:
    """What the first look found: AUC on search rows that the teacher loses when one part of it is touched.

    `fields`: by field, its ids shuffled. `tables`: by field, then bits, its vectors quantised after training.
    `layers`: by layer, then the share of its weights that is 0. `bytes`: the teacher's, packed.
    """

    fields: Mapping[str, float]
    tables: Mapping[str, Mapping[int, float]]
    layers: Mapping[str, Mapping[float, float]]
    bytes: int

    def record(self) -> dict[str, Any]:
        """As plain data, for a file."""
        return {
            "fields": dict(self.fields),
            "tables": [
                {"field": name, "bits": b, "loss": loss} for name, e in self.tables.items() for b, loss in e.items()
            ],
            "layers": [
                {"layer": name, "zeros": z, "loss": loss} for name, e in self.layers.items() for z, loss in e.items()
            ],
            "bytes": self.bytes,
        }

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Sensitivity:
        """From what `record` made."""
        tables: dict[str, dict[int, float]] = {}
        layers: dict[str, dict[float, float]] = {}
        for one in record["tables"]:
            tables.setdefault(one["field"], {})[one["bits"]] = one["loss"]
        for one in record["layers"]:
            layers.setdefault(one["layer"], {})[one["zeros"]] = one["loss"]
        return cls(record["fields"], tables, layers, record["bytes"])

    def sparsities(self) -> tuple[float, ...]:
        """The shares of zeros that layers may bear."""
        losses = {share: sum(each[share] for each in self.layers.values()) for share in SPARSITIES if self.layers}
        return tuple(share for share, loss in losses.items() if loss <= WORTH_TRYING)

    def bits(self, tolerance: float) -> dict[int, list[str]]:
        """The fields by the fewest bits with which the teacher loses at most `tolerance`; 8 where none does."""
        groups: dict[int, list[str]] = {}
        for name, losses in self.tables.items():
            fewest = min((bits for bits, loss in losses.items() if loss <= tolerance), default=max(BITS))
            groups.setdefault(fewest, []).append(name)
        return dict(sorted(groups.items()))


@dataclass(frozen=True)
class AutomaticSpace(Space):
    """Settings with names of their own, which `changes` turns into a student and a list of steps."""

    recipe: Recipe = field(kw_only=True)
    sensitivity: Sensitivity = field(kw_only=True)

    def suggest(self, trial: Trial) -> Changes:
        """The changes that the study suggests; what the chosen kind of table has no use for is not asked about."""
        kind = self.settings["tables"].suggest(trial, "tables")
        active = {name: each for name, each in self.settings.items() if kind in OF_KIND.get(name, (kind,))}
        chosen = {name: each.suggest(trial, name) for name, each in active.items() if name != "tables"}
        return self.changes({**chosen, "tables": kind})

    def changes(self, chosen: Mapping[str, Any]) -> Changes:
        """The student, steps, distillation and retraining of one choice."""
        made: Changes = {"steps": self._steps(chosen)}
        if self.recipe.student is not None:
            made |= {f"student.model.{name}": chosen[name] for name in ("embedding_dim", "hidden") if name in chosen}
            made |= {"student.fields": chosen["fields"]} if "fields" in chosen else {}
        made |= {f"distillation.{name}": chosen[name] for name in ("soft_weight", "temperature") if name in chosen}
        return made | ({"retraining.epochs": chosen["retraining"]} if "retraining" in chosen else {})

    def _steps(self, chosen: Mapping[str, Any]) -> list[dict[str, Any]]:
        parts = {
            "ids": [{"name": "threshold-rows", "min_count": chosen["min_count"]}] if chosen["min_count"] > 1 else [],
            "dimensions": self._shorter(chosen),
            "layers": self._layers(chosen),
        }
        before = [step for part in chosen["order"].split(", ") for step in parts[part]]
        return [*before, *self._tables(chosen), {"name": "quantize-dense"}]

    def _shorter(self, chosen: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Shortened vectors, where the choice has fewer dimensions than the model."""
        rank, dim = chosen["rank"], chosen.get("embedding_dim", _dim(self.recipe))
        return [{"name": "reduce-dimensions", "rank": rank}] if rank and rank < dim else []

    def _layers(self, chosen: Mapping[str, Any]) -> list[dict[str, Any]]:
        keep, sparsity = chosen.get("neurons", 1.0), chosen.get("sparsity", 0.0)
        steps = [{"name": "prune-neurons", "keep": keep}] if keep < 1 else []
        return steps + ([{"name": "prune-weights", "sparsity": sparsity}] if sparsity else [])

    def _tables(self, chosen: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The steps that make the tables small, as the choice's kind does."""
        kind = chosen["tables"]
        if kind == "scaled":
            levels = {"levels": "midrise"} if chosen["bits"] == 2 else {}
            return [{"name": "quantize-tables", "bits": chosen["bits"], **levels}]
        if kind == "by sensitivity":
            read = set(chosen.get("fields") or self.sensitivity.tables)
            groups = self.sensitivity.bits(chosen["tolerance"])
            named = {bits: [name for name in names if name in read] for bits, names in groups.items()}
            return [{"name": "quantize-tables", "bits": bits, "only": only} for bits, only in named.items() if only]
        budget = int(self.sensitivity.bytes / chosen["times"]) - GRAPH_BYTES
        if kind == "codebook":
            return [{"name": "codebook-tables", "budget": budget}, {"name": "quantize-tables"}]
        return [{"name": {"mixed": "mix-bits", "hashed": "hash-tables"}[kind], "budget": budget}]


def automatic_space(recipe: Recipe, found: Sensitivity) -> AutomaticSpace:
    """The space of a recipe, and a few choices from large to small to begin with."""
    settings = {**_shape(recipe, found), **_tables(found), **_distilled(recipe)}
    return AutomaticSpace(settings, _starts(settings, recipe, found), recipe=recipe, sensitivity=found)


def _dim(recipe: Recipe) -> int:
    model = recipe.architecture
    return int(getattr(model, "embedding_dim", 0))


def _shape(recipe: Recipe, found: Sensitivity) -> dict[str, Setting]:
    """A student's dimension, layers and fields; of a teacher that is compressed itself, dimensions and neurons."""
    dim = _dim(recipe)
    fewer = sorted(less for less in {max(LEAST_DIM, dim * eighths // 8) for eighths in (2, 3, 4, 6)} if less < dim)
    shape = {"rank": Setting((*fewer, 0))}
    if recipe.student is None:
        return shape | ({"neurons": Setting(KEPT)} if hasattr(recipe.teacher.model, "hidden") else {})
    if dim:
        shape["embedding_dim"] = Setting((*fewer, dim))
    hidden = list(getattr(recipe.student.model, "hidden", ()))
    if hidden:
        narrower = [[max(LEAST_NEURONS, width * share // 8 // 4 * 4) for width in hidden] for share in (2, 4, 6)]
        shape["hidden"] = Setting(tuple(distinct([*narrower, hidden])))
    kept = [list(recipe.student.fields)] if recipe.student.fields else _nested(found.fields)
    return shape | ({"fields": Setting(tuple(kept))} if kept else {})


def _nested(importance: Mapping[str, float]) -> list[list[str]]:
    """The most important field, the two most important ones, and so on, in the order of the data."""
    ordered = sorted(importance, key=lambda name: -importance[name])
    useful = max(sum(importance[name] > 0 for name in ordered), 1)
    counts = range(max(1, min(2, useful)), useful + 1)
    return [[name for name in importance if name in ordered[:count]] for count in list(counts)[:FIELDS_TRIED]]


def _tables(found: Sensitivity) -> dict[str, Setting]:
    """What is done to tables and weights, and in what order."""
    times = tuple(each for each in TIMES if found.bytes / each >= 2 * GRAPH_BYTES)
    return {
        "min_count": Setting((1, 2, 3, 5, 8, 12, 20)),
        "tables": Setting(KINDS if times else KINDS[:2], ordered=False),
        "bits": Setting((2, 4, 8)),
        "tolerance": Setting((1e-4, 3e-4, 1e-3, 3e-3, 1e-2)),
        **({"times": Setting(times)} if times else {}),
        "sparsity": Setting((0.0, *found.sparsities())),
        "order": Setting(ORDERS, ordered=False),
    }


def _distilled(recipe: Recipe) -> dict[str, Setting]:
    """Weight and temperature of soft labels, and how long the compressed model is trained."""
    settings: dict[str, Setting] = {}
    if recipe.distillation is not None:
        settings["soft_weight"] = Setting((0.5, 0.7, 0.8, 0.9, 0.95, 1.0))
        settings["temperature"] = Setting((1.0, 1.5, 2.0, 3.0, 4.0))
    if recipe.retraining is not None:
        epochs = recipe.retraining.epochs
        settings["retraining"] = Setting(tuple(sorted({max(1, epochs // 2), epochs, 2 * epochs})))
    return settings


def _starts(settings: Mapping[str, Setting], recipe: Recipe, found: Sensitivity) -> tuple[dict[str, Any], ...]:
    """Choices of 4 and 2 bits over shapes from large to small, rare ids dropped on the way: what has done well."""
    usual: dict[str, Any] = {"tables": "scaled", "tolerance": 1e-3, "order": ORDERS[0], "sparsity": 0.0}
    usual |= {"soft_weight": 0.9, "temperature": 1.0}
    if recipe.retraining is not None:
        usual["retraining"] = recipe.retraining.epochs
    needed = [name for name, loss in found.fields.items() if loss >= NEEDED]
    if "fields" in settings and needed in settings["fields"].values:
        usual["fields"] = needed
    plain = {name: usual.get(name, setting.values[-1]) for name, setting in settings.items()}
    return tuple({**plain, **_smaller(settings, *step)} for step in STARTS)


def _smaller(settings: Mapping[str, Setting], down: int, min_count: int, bits: int) -> dict[str, Any]:
    """Shapes some places below the largest, ids met fewer than `min_count` times dropped, and bits."""
    shape: dict[str, Any] = {"min_count": min_count, "bits": bits}
    for name in ("embedding_dim" if "embedding_dim" in settings else "rank", "hidden", "neurons"):
        if name in settings:
            values = settings[name].values
            shape[name] = values[max(0, len(values) - 1 - down)]
    return shape
