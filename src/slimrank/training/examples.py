"""Rows as tensors on the training device, batches by index: no worker processes, no copy of what stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from slimrank.data.schema import Answer
from slimrank.models.layers import Encoder, SequenceEncoder, of_like_length, trimmed
from slimrank.models.text_encoder import TextModel, outputs_of

if TYPE_CHECKING:
    from slimrank.data.rows import Rows

SCORED_AT_ONCE = 1 << 15  # rows scored at a time outside training
SEQUENCES_AT_ONCE = 1 << 7  # and queries encoded at a time, of which each may hold a vector for every place


@dataclass(frozen=True)
class Examples:
    """N rows: `ids` [N, K] int32, `numbers` [N, M] float32 and `label` [N], and, to distil, `teacher` [N] logits.

    The label is float32, or the int64 local id of an item where that is the `answer`. `group` [N] int64 is the user or
    query of each row, where rows have one. `confidence` [N] is how much the teacher's logit of a row counts; None: all
    alike.
    """

    ids: Tensor
    numbers: Tensor
    label: Tensor
    teacher: Tensor | None = None
    group: Tensor | None = None
    answer: Answer = "click"
    confidence: Tensor | None = None

    @classmethod
    def of(cls, rows: Rows, device: torch.device | str = "cpu", answer: Answer = "click") -> Examples:
        """The rows' arrays as tensors; on the CPU they share memory with the arrays."""
        ids, numbers, label = (_tensor(each, device) for each in (rows.inputs.ids, rows.inputs.numbers, rows.label))
        return cls(ids, numbers, label, None, None if rows.group is None else _tensor(rows.group, device), answer)

    def __len__(self) -> int:
        return len(self.label)

    def with_teacher(self, logit: Tensor | None, confidence: Tensor | None = None) -> Examples:
        """The same rows with the teacher's logits [N] and its confidence in them [N], or without."""
        device = self.label.device
        teacher, sure = (None if each is None else each.to(device) for each in (logit, confidence))
        return replace(self, teacher=teacher, confidence=sure)

    def to(self, device: torch.device | str) -> Examples:
        """The same rows on `device`."""
        return self._each(lambda column: column.to(device))

    def take(self, index: Tensor) -> Examples:
        """The rows of `index`, in its order."""
        return self._each(lambda column: column.index_select(0, index))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Examples:
        """The same with every column changed alike."""
        columns: dict[str, Any] = {}
        for name in ("ids", "numbers", "label", "teacher", "group", "confidence"):
            column = getattr(self, name)
            columns[name] = None if column is None else change(column)
        return replace(self, **columns)

    def batches(self, size: int, seed: int, epoch: int) -> Iterator[Examples]:
        """All rows once, `size` at a time, in an order that `seed` and `epoch` alone decide.

        The last batch may be smaller, or larger by one row. Where the answer is a relevance, queries stay whole: a
        batch is of queries in an order of chance, each with all its rows, and ends with the query that fills it.
        """
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        if self.answer == "relevance":
            yield from self._whole_groups(size, generator)
            return
        order = torch.randperm(len(self), generator=generator).to(self.label.device)
        starts = list(range(0, len(self), size))
        if len(starts) > 1 and len(self) - starts[-1] == 1:
            starts.pop()  # one row alone has no variance for batch normalisation: it joins the batch before
        for start, stop in pairwise([*starts, len(self)]):
            yield self.take(order[start:stop])

    def _whole_groups(self, size: int, generator: torch.Generator) -> Iterator[Examples]:
        """Batches of whole groups, of at least `size` rows but for the last."""
        assert self.group is not None
        code, sizes = torch.unique(self.group, return_inverse=True, return_counts=True)[1:]
        place = torch.randperm(len(sizes), generator=generator).to(code.device)
        order = torch.argsort(place[code], stable=True)
        ends = sizes[torch.argsort(place)].cumsum(0).tolist()
        start = 0
        for end in ends:
            if end - start >= size or end == len(self):
                yield self.take(order[start:end])
                start = end


def _tensor(array: NDArray[Any], device: torch.device | str) -> Tensor:
    return torch.from_numpy(np.require(array, requirements=["C", "W"])).to(device)


def training_device() -> torch.device:
    """Where models are trained: a GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@torch.inference_mode()
def score(model: nn.Module, examples: Examples) -> np.ndarray:
    """Logits [N], or an encoder's vectors [N, D], float32, of all rows, in evaluation mode; the mode is put back."""
    if isinstance(model, TextModel):
        return outputs_of(model, examples.ids).to("cpu", torch.float32).numpy()
    training = model.training
    model.eval()
    if isinstance(model, SequenceEncoder) and len(model.embedding.layout.names) == 1:
        parts = _by_length(model, examples)
    else:
        size = SEQUENCES_AT_ONCE if isinstance(model, Encoder) else SCORED_AT_ONCE
        starts = range(0, len(examples), size)
        parts = [model(examples.ids[s : s + size], examples.numbers[s : s + size]) for s in starts]
    model.train(training)
    logits = torch.cat(parts).to("cpu", torch.float32) if parts else torch.zeros(0)
    return logits.numpy()


def _by_length(model: SequenceEncoder, examples: Examples) -> list[Tensor]:
    """What the model gives for histories, those of like length together."""
    if not len(examples):
        return []
    places, back = of_like_length(examples.ids, -(-len(examples) // SEQUENCES_AT_ONCE))
    parts = [model(trimmed(examples.ids[some]), examples.numbers[some]) for some in places]
    return [torch.cat(parts)[back]]
