"""What every registered architecture must hold to, over every kind of row."""

import pytest
import torch

from slimrank.config import Entry, InputError, entries
from slimrank.models.architecture import build_model
from slimrank.models.layers import Ranker
from slimrank.models.text_encoder import TextModel
from slimrank.tables.embedding import Layout

RANKERS = {  # texts are not rows of fields: tests/models/test_text_encoder.py has what holds of their models
    name
    for name, each in entries("model").items()
    if issubclass(each.run, Ranker) and not issubclass(each.run, TextModel)
}


LAYOUTS = {
    "ids": Layout(("user", "item", "city"), (11, 23, 5), (1, 1, 1)),
    "two ids": Layout(("user", "item"), (11, 23), (1, 1)),
    "ids and numbers": Layout(("user", "item"), (11, 23), (1, 1), numbers=3),
    "ids, sequence and numbers": Layout(("user", "item", "genres"), (11, 23, 7), (1, 1, 4), 2, ("genres",)),
    "a sequence only": Layout(("genres",), (7,), (4,), 0, ("genres",)),
    "one id": Layout(("user",), (11,), (1,)),
    "numbers only": Layout((), (), (), 4),
}


def rows(layout: Layout, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = layout.per_column(layout.sizes)
    ids = (torch.rand(count, len(sizes), generator=generator) * sizes).to(torch.int32)
    return ids, torch.randn(count, layout.numbers, generator=generator)


def fits(entry: Entry, layout: Layout) -> bool:
    """Whether the rows have what the architecture multiplies."""
    vectors = len(layout.names) + bool(layout.numbers)
    if entry.name == "gmf":
        return len(layout.names) == 2 and not layout.numbers and not layout.sequences
    return entry.name != "dlrm" or (vectors >= 2 and bool(layout.names))


@pytest.fixture(params=sorted(RANKERS))
def entry(request: pytest.FixtureRequest) -> Entry:
    return entries("model")[request.param]


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_scores_are_finite_and_do_not_depend_on_neighbours(entry: Entry, layout: Layout) -> None:
    if not fits(entry, layout):
        with pytest.raises(InputError, match=f"model {entry.name} multiplies .*: take "):
            build_model(entry.config(), layout, seed=1)
        return
    model = build_model(entry.config(), layout, seed=1).eval()
    ids, numbers = rows(layout, 6)
    logits = model(ids, numbers)
    assert logits.shape == (6,)
    assert logits.isfinite().all()
    alone = torch.cat([model(ids[i : i + 1], numbers[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(alone, logits, atol=1e-5, rtol=1e-4)


def test_every_parameter_learns(entry: Entry) -> None:
    layout = next(LAYOUTS[name] for name in ("ids, sequence and numbers", "two ids") if fits(entry, LAYOUTS[name]))
    model = build_model(entry.config(), layout, seed=1).train()
    ids, numbers = rows(layout, 64)
    model(ids, numbers).square().mean().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_large_tables_get_sparse_gradients(entry: Entry) -> None:
    layout = Layout(("user", "item"), (600_000, 5), (1, 1))
    model = build_model(entry.config(), layout, seed=1)
    ids, numbers = rows(layout, 8)
    model(ids, numbers).sum().backward()
    assert model.embedding.table.weight.grad.is_sparse
