"""The trials of a search: a recipe trained beside shared teachers, exported, and measured on two halves of validation.

teacher-SEED/           teachers, trained once
baseline/               the teacher's artifact
trials/NUMBER/          the artifact of a trial that was trained whole, and the record of its steps
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import polars
from numpy.typing import NDArray

from slimrank import runtime
from slimrank.config import InputError
from slimrank.data import load_dataset
from slimrank.data.halves import halve
from slimrank.data.rows import Dataset
from slimrank.evaluation.cost import LEAST_SAMPLES, disk_bytes, latency, resident_bytes, sent_bytes
from slimrank.evaluation.measure import LATENCY_ROWS
from slimrank.evaluation.paired import Comparison, compare, judge
from slimrank.exporting.artifact import export
from slimrank.files import read_json, replace_file, write_json
from slimrank.metrics import quality
from slimrank.pipeline.first_look import first_look
from slimrank.pipeline.models import STEPS, baseline, compressed, train_student, train_teacher
from slimrank.pipeline.result import provenance
from slimrank.pipeline.stages import stage
from slimrank.pipeline.workspace import Run
from slimrank.recipe import Recipe
from slimrank.searching.automatic import Sensitivity, automatic_space
from slimrank.searching.goal import QUALITY, ROWS, Bound
from slimrank.searching.search import Attempt, Search
from slimrank.searching.space import Space, named_space

if TYPE_CHECKING:
    from optuna import Study

METRIC = {"auc_drop": "auc", "gauc_drop": "gauc", "logloss_rise": "logloss"}
ARTIFACT, QUIET, SENSITIVITY = "artifact", "latency.json", "sensitivity"


@dataclass
class Trials:
    """What all trials of a search share; `recipe` is what they change, `folder` where they are."""

    search: Search
    recipe: Recipe
    folder: Path
    data: Path | None = None
    warned: set[str] = field(default_factory=set)

    @cached_property
    def halves(self) -> tuple[Dataset, polars.DataFrame]:
        """The dataset, its validation rows those that lead the search, and the other validation rows."""
        return halve(load_dataset(self.recipe.data, self.data))

    @cached_property
    def run(self) -> Run:
        """The recipe's run; its validation rows are those that lead the search."""
        return Run(self.recipe, self.folder, self.data, prepared=self.halves[0])

    @cached_property
    def rows(self) -> dict[str, polars.DataFrame]:
        """Rows that lead the search, that choose among what it found, and that what was chosen is judged on."""
        return {"search": self.halves[0].valid, "selection": self.halves[1], "test": self.halves[0].test}

    @property
    def seed(self) -> int:
        """Of all trials."""
        return self.recipe.seeds[0]

    @property
    def teacher(self) -> Path:
        """The artifact that trials are compared with."""
        return self.folder / "baseline"

    @cached_property
    def place(self) -> str:
        """A name of this directory that no other has, on this machine or another; it says whose artifacts are here."""
        path = self.folder / "place"
        if not path.exists():
            replace_file(path, uuid4().hex.encode())
        return path.read_text()

    @property
    def identity(self) -> dict[str, Any]:
        """What has to be the same for two searches to share a study."""
        return {
            "recipe": self.recipe.model_dump(mode="json", exclude={"threads"}),
            "goal": str(self.search.goal),
            "wanted": self.search.wanted,
            "space": self.search.space,
            "data": self.run.dataset.fingerprint,
        }

    @property
    def artifacts(self) -> Path:
        """The folder of this study's artifacts: another study in the same directory has numbers of its own."""
        known = json.dumps([self.search.storage, self.search.study, self.identity], sort_keys=True)
        return self.folder / "trials" / hashlib.sha256(known.encode()).hexdigest()[:12]

    def prepare(self) -> None:
        """Train the teachers, export the one that is compared with, and time it alone."""
        seeds = self.recipe.teacher_seeds(self.seed)
        keys = [train_teacher(self.run, one) for one in seeds]
        facts = provenance(self.recipe, self.run.dataset, self.seed)

        def work(folder: Path) -> None:
            model = baseline(self.run, self.seed)
            facts_of_teacher = {**facts, "name": f"{self.recipe.name}-teacher"}
            encoding = self.run.encoded.encoding
            export(model.cpu().eval(), encoding, folder / ARTIFACT, self.recipe.target, facts_of_teacher)
            loaded = runtime.load(folder / ARTIFACT, threads=1)
            rows = loaded.encoding.encode(self.rows["search"].head(LATENCY_ROWS))
            sizes = [int(rows) for rows in ROWS]
            write_json(folder / QUIET, latency({"teacher": loaded}, rows, sizes, LEAST_SAMPLES)["teacher"])

        stage(self.teacher, {"teachers": keys, "facts": facts}, work)

    def look(self, study: Study) -> None:
        """Take the first look, or the one that the study has: whoever shares it has the same space."""
        known = study.user_attrs.get(SENSITIVITY)
        if known is None:
            known = first_look(self.run, self.seed).record()
            study.set_user_attr(SENSITIVITY, known)
        self.sensitivity = Sensitivity.of(known)

    @cached_property
    def space(self) -> Space:
        """What may change: the user's own space, or one made from the first look."""
        if self.search.space:
            return named_space(self.recipe, self.search.space)
        return automatic_space(self.recipe, self.sensitivity)

    def attempt(self, recipe: Recipe, number: int, share: float) -> Attempt:
        """Train a recipe, export it and measure the artifact, which is kept where the training was whole.

        Raises:
            InputError: its steps cannot be applied, or training diverged.
        """
        kept = self.artifacts / str(number)
        with tempfile.TemporaryDirectory(prefix=f"trial-{number}-", dir=self.folder) as folder:
            run = self.run.with_recipe(recipe, Path(folder))
            train_student(run, self.seed, [train_teacher(run, one) for one in recipe.teacher_seeds(self.seed)])
            model, steps = compressed(run, self.seed, Path(folder))
            facts = {**provenance(recipe, self.run.dataset, self.seed), "name": f"{recipe.name}-trial-{number}"}
            made = Path(folder) / ARTIFACT
            export(model.cpu().eval(), run.encoded.encoding, made, recipe.target, facts)
            write_json(Path(folder) / STEPS, steps)
            found = self.measure(made)
            if share == 1.0:
                shutil.rmtree(kept, ignore_errors=True)
                kept.mkdir(parents=True)
                os.rename(Path(folder) / STEPS, kept / STEPS)
                os.rename(made, kept / ARTIFACT)
        return found

    def measure(self, artifact: Path) -> Attempt:
        """Figures of an artifact on search rows, and its losses on selection rows with whether they are proven."""
        model = runtime.load(artifact, threads=1)
        figures, selected = (self._losses(part, model) for part in ("search", "selection"))
        proofs = {bound.key: self.proof(model, bound, "selection") for bound in self.search.goal.quality}
        proven = {key: found.get("outcome") == "non-inferior" for key, found in proofs.items()}
        needed = {key: found["rows_needed"] for key, found in proofs.items() if found.get("rows_needed")}
        return Attempt(figures | self.costs(artifact), {"figures": selected, "proven": proven, "rows_needed": needed})

    def proof(self, model: runtime.Model, bound: Bound, part: str) -> dict[str, Any]:
        """The paired comparison that a bound on quality is judged by, on a part of the rows, with its verdict.

        Nothing but a `reason` where these rows allow no interval.
        """
        label, group = self._label(part), self._group(part)
        logits = self._teacher_logits(part), self._score(model, part)
        try:
            found = compare(label, *logits, METRIC[bound.figure], group=group)
        except InputError as error:
            return {"reason": str(error)}
        return {**asdict(found), **_verdict(found, bound.limit)}

    def costs(self, artifact: Path) -> dict[str, float]:
        """What the goal needs to know of an artifact's bytes and latency.

        Latency is timed in turns with the teacher's and told as if the machine were as quiet as when that was timed
        alone, since trials run side by side: by the ratio of their medians, as a 99th percentile among other processes
        is what those take.
        """
        wanted = self.search.measured
        found: dict[str, float] = {"bytes": disk_bytes(artifact)}
        if "wire_bytes" in wanted:
            found["wire_bytes"] = sent_bytes(artifact)
        if "resident_bytes" in wanted:
            found["resident_bytes"] = resident_bytes(artifact)
        sizes = sorted({int(key.partition("@")[2]) for key in wanted if "@" in key})
        if sizes:
            models = {"teacher": self._baseline, "slim": runtime.load(artifact, threads=1)}
            frame = self.rows["search"].head(LATENCY_ROWS)
            rows = {name: model.encoding.encode(frame) for name, model in models.items()}
            times, quiet = latency(models, rows, sizes, LEAST_SAMPLES), read_json(self.teacher / QUIET)
            for key in (key for key in wanted if "@" in key):
                figure, _, size = key.partition("@")
                ratio = times["slim"][size]["p50"] / times["teacher"][size]["p50"]
                found[key] = ratio * quiet[size][figure.removesuffix("_ms")]
        return found

    def timed_alone(self, artifact: Path) -> dict[str, float]:
        """Milliseconds of an artifact, of the figures that the goal needs, with nothing else at work."""
        model = runtime.load(artifact, threads=1)
        sizes = sorted({int(key.partition("@")[2]) for key in self.search.measured if "@" in key})
        rows = model.encoding.encode(self.rows["search"].head(LATENCY_ROWS))
        times = latency({"slim": model}, rows, sizes, LEAST_SAMPLES)["slim"]
        keys = [key.partition("@") for key in self.search.measured if "@" in key]
        return {f"{figure}@{size}": times[size][figure.removesuffix("_ms")] for figure, _, size in keys}

    @cached_property
    def _baseline(self) -> runtime.Model:
        return runtime.load(self.teacher / ARTIFACT, threads=1)

    @cached_property
    def _scores_of_teacher(self) -> dict[str, NDArray[np.float32]]:
        return {}

    def _teacher_logits(self, part: str) -> NDArray[np.float32]:
        """The teacher's scores of a part of the rows, which are made once."""
        if part not in self._scores_of_teacher:
            self._scores_of_teacher[part] = self._score(self._baseline, part)
        return self._scores_of_teacher[part]

    def _score(self, model: runtime.Model, part: str) -> NDArray[np.float32]:
        return model.score(model.encoding.encode(self.rows[part]))

    def defined(self, part: str) -> set[str]:
        """The losses that the rows of a part have, whatever the model: GAUC needs groups of both classes."""
        label, chance = self._label(part), np.random.default_rng(0).random(len(self.rows[part]))
        found = quality(label, chance, self._group(part))
        return set(losses(found, found))

    def _label(self, part: str) -> NDArray[Any]:
        return self.rows[part][self.halves[0].schema.label].to_numpy()

    def _group(self, part: str) -> NDArray[np.int64] | None:
        """Groups as numbers; -1 where missing."""
        name = self.halves[0].schema.group
        if name is None:
            return None
        ranks = self.rows[part][name].cast(polars.String).rank("dense")
        return ranks.cast(polars.Int64).fill_null(-1).to_numpy()

    def _losses(self, part: str, model: runtime.Model) -> dict[str, float]:
        label, group = self._label(part), self._group(part)
        logits = self._teacher_logits(part), self._score(model, part)
        return losses(*(quality(label, logit, group) for logit in logits))


def _verdict(found: Comparison, limit: float) -> dict[str, Any]:
    """Whether the whole interval of a loss is within a limit; one of 0 or less asks for a gain."""
    if limit > 0:
        return asdict(judge(found, limit))
    least, _, most = found.loss
    outcome = "non-inferior" if most < limit else "inferior" if least >= limit else "undecided"
    return {"margin": limit, "outcome": outcome, "rows_needed": None}


def losses(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """The losses of quality that a goal may bound, from a teacher's quality and a slim model's."""
    known = {name: METRIC[name] for name in QUALITY if METRIC[name] in before and METRIC[name] in after}
    signs = {name: -1.0 if name.endswith("rise") else 1.0 for name in known}
    return {name: signs[name] * (before[metric] - after[metric]) for name, metric in known.items()}
