"""The trials of a search: a recipe trained beside shared teachers, exported, and measured on two halves of validation.

Where their files are is said in `pipeline/search.py`. Left out: what to try, and the processes that do.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
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
from slimrank.data.rows import Dataset, group_codes
from slimrank.evaluation.cost import LEAST_SAMPLES, disk_bytes, latency, resident_bytes, sent_bytes
from slimrank.evaluation.machine import cores
from slimrank.evaluation.measure import LATENCY_ROWS
from slimrank.evaluation.paired import compare, judge, outcome_at
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
from slimrank.searching.goal import OF_WIRE, QUALITY, ROWS, Bound
from slimrank.searching.search import Attempt, Search
from slimrank.searching.space import Space, named_space
from slimrank.searching.study import open_study, sqlite

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

    @cached_property
    def halves(self) -> tuple[Dataset, polars.DataFrame]:
        """The dataset, its validation rows those that lead the search, and the other validation rows.

        Raises:
            InputError: the label is no click, or the validation rows are too few.
        """
        dataset = load_dataset(self.recipe.data, self.data)
        if dataset.schema.answer != "click":
            raise InputError(
                f"a search is of models that answer with clicks, and its goals bound losses of {', '.join(QUALITY)}; "
                f"{dataset.name} has labels of answer {dataset.schema.answer!r}: take `slimrank run`"
            )
        return halve(dataset)

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
    def url(self) -> str:
        """Of the study's database."""
        return self.search.storage or sqlite(self.folder / "search.db")

    @property
    def workers(self) -> int:
        """How many processes try."""
        return self.search.workers or cores()

    def open_study(self, *, create: bool) -> Study:
        """The study of this search.

        Raises:
            InputError: it is of another search, or its database cannot be used.
        """
        return open_study(self.url, self.search.study or self.recipe.name, self.identity, create=create)

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
            alone = self._times({"teacher": runtime.load(folder / ARTIFACT, threads=1)}, ROWS)
            write_json(folder / QUIET, alone["teacher"])

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
            export(model.cpu().eval(), run.encoded.encoding, made, recipe.target, facts, recipe.index)
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
        searched, selected = (self.score(model, part) for part in ("search", "selection"))
        proofs = {bound.key: self.proof(selected, bound, "selection") for bound in self.search.goal.quality}
        selection = {
            "figures": self._losses(selected, "selection"),
            "proven": {key: found.get("outcome") == "non-inferior" for key, found in proofs.items()},
            "rows_needed": {key: found["rows_needed"] for key, found in proofs.items() if found.get("rows_needed")},
        }
        return Attempt(self._losses(searched, "search") | self._costs(artifact, model), selection)

    def score(self, model: runtime.Model, part: str) -> NDArray[np.float32]:
        """A model's scores of a part of the rows."""
        return model.score(model.encoding.encode(self.rows[part]))

    def proof(self, logit: NDArray[Any], bound: Bound, part: str) -> dict[str, Any]:
        """The paired comparison of scores of a part of the rows that a bound on quality is judged by, with its verdict.

        Nothing but a `reason` where these rows allow no interval.
        """
        teacher, group = self._teacher_logits(part), self._groups.get(part)
        try:
            found = compare(self._label(part), teacher, logit, METRIC[bound.figure], group=group)
        except InputError as error:
            return {"reason": str(error)}
        needed = judge(found, bound.limit).rows_needed if bound.limit > 0 else None  # a gain is no margin
        return {**asdict(found), "outcome": outcome_at(found, bound.limit), "rows_needed": needed}

    def _costs(self, artifact: Path, model: runtime.Model) -> dict[str, float]:
        """What the goal needs to know of an artifact's bytes and latency.

        Latency is timed in turns with the teacher's and told as if the machine were as quiet as when that was timed
        alone, since trials run side by side: by the ratio of their medians, as a 99th percentile among other processes
        is what those take.
        """
        wanted = self.search.measured
        found: dict[str, float] = {"bytes": disk_bytes(artifact)}
        if any(key in wanted for key in OF_WIRE):
            sizes = {f"{name}_bytes": count for name, count in sent_bytes(artifact).items()}
            found |= {key: count for key, count in sizes.items() if key in wanted}
        if "resident_bytes" in wanted:
            found["resident_bytes"] = resident_bytes(artifact)
        if self.search.timed:
            times, quiet = self._times({"teacher": self._baseline, "slim": model}), read_json(self.teacher / QUIET)
            for key, (quantile, size) in self.search.timed.items():
                ratio = times["slim"][size]["p50"] / times["teacher"][size]["p50"]
                found[key] = ratio * quiet[size][quantile]
        return found

    def timed_alone(self, artifact: Path) -> dict[str, float]:
        """Milliseconds of an artifact, of the figures that the goal needs, with nothing else at work."""
        times = self._times({"slim": runtime.load(artifact, threads=1)})["slim"]
        return {key: times[size][quantile] for key, (quantile, size) in self.search.timed.items()}

    def _times(self, models: Mapping[str, runtime.Model], sizes: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
        """Latency of models in turns, at the numbers of rows that are named or that the goal needs."""
        frame = self.rows["search"].head(LATENCY_ROWS)
        rows = {name: model.encoding.encode(frame) for name, model in models.items()}
        chosen = sizes or dict.fromkeys(size for _, size in self.search.timed.values())
        return latency(models, rows, [int(size) for size in chosen], LEAST_SAMPLES)

    @cached_property
    def _baseline(self) -> runtime.Model:
        return runtime.load(self.teacher / ARTIFACT, threads=1)

    def _teacher_logits(self, part: str) -> NDArray[np.float32]:
        """The teacher's scores of a part of the rows, which are made once."""
        if part not in self._scores_of_teacher:
            self._scores_of_teacher[part] = self.score(self._baseline, part)
        return self._scores_of_teacher[part]

    @cached_property
    def _scores_of_teacher(self) -> dict[str, NDArray[np.float32]]:
        return {}

    @cached_property
    def _groups(self) -> dict[str, NDArray[np.int64]]:
        """Groups of every part of the rows; nothing where rows have none."""
        searched, selection = self.halves
        codes, others = group_codes(searched), group_codes(replace(searched, valid=selection))
        if codes is None or others is None:
            return {}
        return {"search": codes["valid"], "selection": others["valid"], "test": codes["test"]}

    def defined(self, part: str) -> set[str]:
        """The losses that the rows of a part have, whatever the model: GAUC needs groups of both classes."""
        chance = np.random.default_rng(0).random(len(self.rows[part]))
        found = quality(self._label(part), chance, self._groups.get(part))
        return set(losses(found, found))

    def _label(self, part: str) -> NDArray[Any]:
        return self.rows[part][self.halves[0].schema.label].to_numpy()

    def _losses(self, logit: NDArray[Any], part: str) -> dict[str, float]:
        label, group = self._label(part), self._groups.get(part)
        return losses(*(quality(label, each, group) for each in (self._teacher_logits(part), logit)))


def losses(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """The losses of quality that a goal may bound, from a teacher's quality and a slim model's."""
    known = {name: METRIC[name] for name in QUALITY if METRIC[name] in before and METRIC[name] in after}
    signs = {name: -1.0 if name.endswith("rise") else 1.0 for name in known}
    return {name: signs[name] * (before[metric] - after[metric]) for name, metric in known.items()}
