"""Frappe as models of other libraries take it, and the rows of click models that were trained on it.

A model is compressed twice: as it was trained, by what is chosen on validation rows, and by fixed steps with its
library's own training after them, to where validation rows no longer gain; it was trained so itself before.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten_with_path

import slimrank
from bench.peers.row import Judged, figures
from slimrank.adaptors import adaptor_of
from slimrank.data import load_dataset
from slimrank.data.rows import EncodedDataset, encode_dataset
from slimrank.evaluation.cost import disk_bytes
from slimrank.metrics import auc

BATCH = 4096
TIMES = 8  # smaller, without training: of the ways that are, the one is chosen that validation rows prefer

Steps = Sequence[Mapping[str, Any]]
WAYS = ((1, 4), (0.9, 4), (0.75, 8), (0.6, 8), (0.5, 8))  # the share of neurons that stay, and bits of tables
TUNED = (0.25, 4)
Tune = Callable[[nn.Module], None]
Columns = Mapping[str, Tensor]


def steps_of(keep: float, bits: int, narrow: Sequence[str] = ()) -> Steps:
    """So many neurons, tables of so many bits, layers of 4; `narrow` tables, of one number a row, have 8."""
    neurons = [{"name": "prune-neurons", "keep": keep, "compensate": True}] if keep < 1 else []
    rest = [{"name": "quantize-tables", "bits": 8, "only": list(narrow)}] if narrow else []
    tables = {"name": "quantize-tables", "bits": bits, "skip": list(narrow)}
    return [*neurons, tables, *rest, {"name": "quantize-dense", "bits": 4}]


@dataclass(frozen=True)
class Clicks:
    """Encoded rows, a column a field, for models that answer with `probabilities`, or with logits.

    A library that takes them otherwise has a class of its own, with its own `given` and, where its artifact takes them
    in yet another form, `form`.
    """

    encoded: EncodedDataset
    probabilities: bool = True

    def form(self, columns: Columns) -> Any:
        """Some rows as the artifact takes them."""
        return dict(columns)

    def given(self, columns: Columns) -> Any:
        """Some rows as the library takes them."""
        return self.form(columns)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Ids of each field."""
        return dict(self.encoded.encoding.sizes)

    def columns(self, part: str) -> dict[str, Tensor]:
        """All rows of a part."""
        ids = torch.from_numpy(getattr(self.encoded, part).inputs.ids.astype(np.int64))
        return {field: ids[:, place].contiguous() for place, field in enumerate(self.sizes)}

    def label(self, part: str) -> NDArray[np.int64]:
        """Their labels [N]."""
        return getattr(self.encoded, part).label.astype(np.int64)  # type: ignore[no-any-return]

    def batches(self, part: str) -> list[dict[str, Tensor]]:
        """The rows of a part, `BATCH` at a time."""
        columns = {name: column.split(BATCH) for name, column in self.columns(part).items()}
        return [dict(zip(columns, some, strict=True)) for some in zip(*columns.values(), strict=True)]

    def calibration(self) -> list[Any]:
        """The train rows, as the library takes them."""
        return [self.given(batch) for batch in self.batches("train")]

    def shuffled(self, part: str) -> Shuffled:
        """Its rows and labels, in another order each time, as loops of torch go through them."""
        return Shuffled(self.columns(part), torch.from_numpy(self.label(part).astype(np.float32)))

    def scores(self, module: nn.Module, batches: Sequence[Columns]) -> NDArray[np.float32]:
        """What a module answers [N], called as its library does."""
        forward = adaptor_of(module).forward
        module.eval()
        with torch.no_grad():
            answers = [forward(module, self.given(batch)) for batch in batches]
        parts = [next(iter(each.values())) if isinstance(each, dict) else each for each in answers]
        return torch.cat(parts).flatten().numpy()  # type: ignore[no-any-return]

    def valid_auc(self, module: nn.Module) -> float:
        """AUC of a module on validation rows."""
        return float(auc(self.label("valid"), self.scores(module, self.batches("valid"))))

    def arrays(self, columns: Columns) -> dict[str, NDArray[Any]]:
        """Some rows by the names of an artifact's inputs."""
        leaves, _ = tree_flatten_with_path(self.form(columns))
        return {"_".join(key.key for key in path): leaf.numpy() for path, leaf in leaves}

    def judged(self) -> Judged:
        """The test rows, in groups of users."""
        group = self.encoded.test.group
        assert group is not None
        return Judged(
            inputs=self.arrays(self.columns("test")),
            label=self.label("test"),
            group=group,
            metrics=("auc", "logloss"),
            probabilities=self.probabilities,
        )


@dataclass(frozen=True)
class Shuffled:
    """Batches of columns and labels: a loader that does not go row by row."""

    columns: dict[str, Tensor]
    label: Tensor

    def __len__(self) -> int:
        return -(-len(self.label) // BATCH)

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        for places in torch.randperm(len(self.label)).split(BATCH):
            yield {name: column[places] for name, column in self.columns.items()}, self.label[places]


def frappe() -> EncodedDataset:
    """Frappe in its published splits."""
    return encode_dataset(load_dataset("frappe"))


def until_no_better(model: nn.Module, clicks: Clicks, epochs: int, patience: int, epoch: Callable[[], None]) -> None:
    """Train for at most so many epochs, until `patience` of them gain nothing on validation rows; the best are kept."""
    best, kept, worse = -1.0, model.state_dict(), 0
    for _ in range(epochs):
        epoch()
        found = clicks.valid_auc(model)
        worse += 1
        if found > best:
            best, kept, worse = found, copy.deepcopy(model.state_dict()), 0
        if worse == patience:
            break
    model.load_state_dict(kept)
    model.eval()


def fitted(model: nn.Module, path: Path, fit: Tune) -> None:
    """Train a model, or give it what it was trained to before, which is kept in a file."""
    if path.exists():
        model.load_state_dict(load_file(path))
        return
    fit(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: each.detach().clone().contiguous() for name, each in model.state_dict().items()}, path)


def click_row(
    model: nn.Module, clicks: Clicks, dim: int, folder: Path, fit: Tune, tune: Tune, narrow: Sequence[str] = ()
) -> dict[str, Any]:
    """Figures of a model, compressed as it was trained, in one of `WAYS`, and trained on after `TUNED`.

    Args:
        model: a new one.
        clicks: the rows.
        dim: numbers of an id in all tables together.
        folder: where weights are kept once they are trained; to train anew, it is deleted.
        fit: its library's training.
        tune: its library's training of a compressed model.
        narrow: its tables of one number a row.
    """
    fitted(model, folder / "trained.safetensors", fit)
    with TemporaryDirectory(prefix="bench-") as root:
        before = Made(model, [], Path(root) / "before", clicks)
        tried = [
            made(model, steps_of(*way, narrow), Path(root) / f"way-{number}", clicks) for number, way in enumerate(WAYS)
        ]
        allowed = [each for each in tried if TIMES * disk_bytes(each.path) <= disk_bytes(before.path)]
        best = max(allowed or tried, key=lambda each: each.valid_auc)
        small, records = slimrank.compress(
            model, steps_of(*TUNED, narrow), clicks.calibration(), metric=clicks.valid_auc
        )
        name = hashlib.sha256(json.dumps([each["settings"] for each in records]).encode()).hexdigest()[:12]
        fitted(small, folder / f"tuned-{name}.safetensors", tune)
        after = Made(small, records, Path(root) / "tuned", clicks)
        embeddings = 4 * dim * sum(clicks.sizes.values())
        return {
            "post_training": {**_figures(before, best, clicks, embeddings), "ways": [_told(each) for each in tried]},
            "fine_tuned": _figures(before, after, clicks, embeddings),
            "valid_auc": {"before": before.valid_auc, "post_training": best.valid_auc, "fine_tuned": after.valid_auc},
        }


class Made:
    """A model, its artifact, what made it and how good it is on validation rows."""

    def __init__(self, model: nn.Module, records: list[dict[str, Any]], path: Path, clicks: Clicks):
        self.model = model
        self.records = records
        self.path = path
        self.valid_auc = clicks.valid_auc(model)
        slimrank.export(model, clicks.form(clicks.batches("valid")[0]), path)


def made(model: nn.Module, steps: Steps, path: Path, clicks: Clicks) -> Made:
    """The model after `steps`."""
    return Made(*slimrank.compress(model, steps, clicks.calibration(), metric=clicks.valid_auc), path, clicks)


def _told(made: Made) -> dict[str, Any]:
    return {
        "steps": [{"name": each["name"], "settings": each["settings"]} for each in made.records],
        "bytes_on_disk": disk_bytes(made.path),
        "valid_auc": made.valid_auc,
    }


def _figures(before: Made, after: Made, clicks: Clicks, embedding_bytes: int) -> dict[str, Any]:
    rows = clicks.batches("valid")[0]
    answers = {name: clicks.scores(each.model, [rows]) for name, each in (("before", before), ("after", after))}
    return figures(
        {"before": before.path, "after": after.path},
        answers,
        clicks.arrays(rows),
        clicks.judged(),
        embedding_bytes,
        after.records,
    )
