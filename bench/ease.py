"""EASE on MovieLens-1M, dense and pruned: bytes, recall of what unseen users met, and time, all of the artifacts.

Strong generalisation, as in the papers of this family (Liang et al. 2018, arXiv 1802.05814): users are divided, the
model is fitted to all items of the train users, and of every other user 80% of the items are given and 20% are to be
found. Validation users choose `l2` and how many weights are kept; test users take part in no choice. Beside it
leave-one-out on all users, whose figures sequence models have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from slimrank.artifact import open_artifact
from slimrank.compression.steps import Context, compress
from slimrank.data.datasets.movielens_1m import read
from slimrank.data.encoding import Inputs
from slimrank.data.ragged import Ragged
from slimrank.data.rows import Dataset, EncodedDataset, encode_dataset, make_dataset
from slimrank.data.schema import Field, Schema
from slimrank.data.sequences import HISTORY, ITEM, USER
from slimrank.evaluation.bootstrap import bootstrap
from slimrank.evaluation.catalogue import find_in_catalogue
from slimrank.evaluation.cost import disk_bytes, latency, sent_bytes
from slimrank.evaluation.sums import Sums
from slimrank.exporting.artifact import export
from slimrank.files import read_json, write_json
from slimrank.metrics import Floats
from slimrank.models.architecture import build_model
from slimrank.models.ease import EASE
from slimrank.models.layers import ItemScorer
from slimrank.runtime.session import open_session
from slimrank.tables.embedding import Layout
from slimrank.training.examples import Examples
from slimrank.training.loop import Training, fit

SEEDS = (1, 2, 3)
TEST_USERS, VALID_USERS, FOUND_SHARE = 1200, 600, 0.2
PENALTIES = (200.0, 400.0, 800.0)
PENALTIES_OF_LAST = (50.0, 100.0, 200.0)
PER_ITEM = (12.0, 16.0, 24.0, 32.0, 48.0, 64.0)
ALLOWED = 0.01  # of validation recall that pruning may lose; the goal is 0.02 of test recall
FIRST = 2  # local ids of padding and out of vocabulary come before those of items
GOAL = {"bytes_ratio": 50.0, "recall_loss": 0.02}


@dataclass(frozen=True)
class Asked:
    """Users by their encoded histories [N, L], and the items that each is to be answered with, by place."""

    inputs: Inputs
    wanted: Ragged
    items: int


@dataclass(frozen=True)
class Timed:
    """An artifact's session, as it is timed."""

    session: Any
    feeds: tuple[str, ...] = ("ids",)


def ease(folder: Path) -> dict[str, Any]:
    """Both ways to ask, with the artifacts of all in `folder`."""
    frame = read("ease", None)
    runs = [kept(folder / f"seed-{seed}.json", partial(strong, frame, seed, folder / f"seed-{seed}")) for seed in SEEDS]
    last = kept(folder / "leave-one-out.json", partial(leave_one_out, frame, folder / "leave-one-out"))
    return {
        "what": f"EASE on MovieLens-1M, {TEST_USERS} unseen users, 80% of their items given; {len(SEEDS)} divisions",
        "goal": GOAL,
        "met": {
            "bytes_ratio": min(run["ratio_of_matrix_to_artifact"] for run in runs),
            "recall_loss": max(run["recall@20"]["loss"] for run in runs),
        },
        "runs": runs,
        "leave_one_out": last,
    }


def kept(path: Path, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` gives, or gave when the benchmark was run before: one that was cut off goes on."""
    if not path.exists():
        found = work()
        write_json(path, found)
    return dict(read_json(path))


def strong(frame: pl.DataFrame, seed: int, folder: Path) -> dict[str, Any]:
    """One division of the users: the choice on validation users, the figures on test users."""
    encoded, valid, test = divided(frame, seed)
    tried = {l2: fitted(encoded, l2) for l2 in PENALTIES}
    of_penalty = {l2: float(found_by(model, valid).mean()) for l2, model in tried.items()}
    l2 = max(of_penalty, key=lambda each: of_penalty[each])
    models = {"dense": tried[l2]}
    models["slim"], of_pruning = chosen(models["dense"], encoded, valid, of_penalty[l2])
    if seed == SEEDS[0]:
        models["narrow"], _ = compress(models["dense"], narrower(models["slim"]), Context.of(encoded))
    sessions = exported(models, encoded, folder)
    matrix = 4 * items_of(encoded) ** 2
    disk = {name: disk_bytes(folder / name) for name in models}
    recall = {name: found_by(session, test) for name, session in sessions.items()}
    return {
        "seed": seed,
        "l2": l2,
        "valid_recall@20_by_l2": of_penalty,
        "valid_recall@20_by_weights_per_item": of_pruning,
        "items": items_of(encoded),
        "dense_matrix_bytes": matrix,
        "artifact_bytes": disk,
        "wire_bytes": {name: sent_bytes(folder / name)["wire"] for name in models},
        "ratio_of_matrix_to_artifact": matrix / disk["slim"],
        "recall@20": compared(recall["dense"], recall["slim"]),
        "recall@20_at_most_20": compared(*(at_most(recall[name], test) for name in ("dense", "slim"))),
        "recall@20_narrow": float(recall["narrow"].mean()) if "narrow" in recall else None,
        "recall@20_by_popularity": by_popularity(sessions, test, encoded),
        "latency_ms": latency(
            {name: Timed(sessions[name]) for name in ("dense", "slim")}, test.inputs, sizes=(1, 32), samples=400
        ),
    }


def at_most(recall: Floats, asked: Asked) -> Floats:
    """The same with at most 20 items to be found, as the papers count: hits / min(20, items)."""
    return recall * asked.wanted.lengths / np.minimum(asked.wanted.lengths, 20)


def exported(models: Mapping[str, ItemScorer], encoded: EncodedDataset, folder: Path) -> dict[str, Any]:
    """The session of every model's artifact, which is written to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in models.items():
        export(model, encoded.encoding, folder / name)
    return {name: open_session(open_artifact(folder / name), 1) for name in models}


def divided(frame: pl.DataFrame, seed: int) -> tuple[EncodedDataset, Asked, Asked]:
    """The train users' rows, and the validation and test users, of one division by `seed`."""
    draw = np.random.default_rng(seed)
    lists = frame.group_by(USER, maintain_order=True).agg(items=pl.col(ITEM)).filter(pl.col("items").list.len() >= 2)
    order = draw.permutation(len(lists))
    test, valid = order[:TEST_USERS], order[TEST_USERS : TEST_USERS + VALID_USERS]
    train = lists[np.sort(order[TEST_USERS + VALID_USERS :])]
    last = train.select(USER, pl.col("items").list.head(pl.col("items").list.len() - 1).alias(HISTORY))
    frames = [last.with_columns(train["items"].list.last().alias(ITEM))]
    wanted = []
    for users in (valid, test):
        given, kept_back = zip(*(halves(items, draw) for items in lists["items"].gather(users).to_list()), strict=True)
        frames.append(pl.DataFrame({USER: lists[USER].gather(users), HISTORY: given, ITEM: [w[0] for w in kept_back]}))
        wanted.append(kept_back)
    encoded = encode_dataset(histories("movielens-1m", frames, int(lists["items"].list.len().max())))
    asked = [
        asked_of(encoded, rows.inputs, items) for rows, items in zip((encoded.valid, encoded.test), wanted, strict=True)
    ]
    return encoded, asked[0], asked[1]


def halves(items: Sequence[int], draw: np.random.Generator) -> tuple[list[int], list[int]]:
    """What is given of a user's items, in their order, and what is to be found, drawn at random."""
    back = set(draw.permutation(len(items))[: max(1, round(FOUND_SHARE * len(items)))].tolist())
    return [i for n, i in enumerate(items) if n not in back], [i for n, i in enumerate(items) if n in back]


def histories(name: str, frames: Sequence[pl.DataFrame], longest: int) -> Dataset:
    """A dataset of histories; none is cut."""
    field = Field(name=HISTORY, kind="sequence", max_length=longest)
    schema = Schema(fields=(field,), label=ITEM, group=USER, answer="item", catalogue=HISTORY)
    return make_dataset(name, schema, tuple(frame.select(schema.used) for frame in frames))


def asked_of(encoded: EncodedDataset, inputs: Inputs, items: Sequence[Sequence[int]]) -> Asked:
    """The users with the items to be found; one that training never met is -1, counts and can be found by nobody."""
    codes = (encoded.encoding.encode_label(pl.Series(own)) for own in items)
    return Asked(inputs, Ragged.of(np.where(own < FIRST, -1, own - FIRST) for own in codes), items_of(encoded))


def items_of(encoded: EncodedDataset) -> int:
    """Items of the catalogue."""
    return encoded.encoding.sizes[HISTORY] - FIRST


def fitted(encoded: EncodedDataset, l2: float) -> ItemScorer:
    """EASE on the train rows."""
    model = build_model(EASE(l2=l2), Layout.of(encoded.encoding), seed=0)
    train, valid = (Examples.of(rows, "cpu", "item") for rows in (encoded.train, encoded.valid))
    fit(model, train, valid, Training(), seed=0)
    assert isinstance(model, ItemScorer)
    return model


def chosen(
    dense: ItemScorer, encoded: EncodedDataset, valid: Asked, before: float
) -> tuple[ItemScorer, dict[float, float]]:
    """The smallest pruned model within `ALLOWED` of validation recall, and the recall of those that were tried."""
    tried: dict[float, float] = {}
    for per_item in PER_ITEM:
        slim, _ = compress(dense, [{"name": "prune-neighbours", "per_item": per_item}], Context.of(encoded))
        tried[per_item] = float(found_by(slim, valid).mean())
        if tried[per_item] >= before * (1 - ALLOWED):
            break
    return slim, tried


def narrower(slim: ItemScorer) -> list[dict[str, Any]]:
    """Steps from the dense model to as many bytes as the pruned one has, by fewer dimensions of a byte each.

    The projection back from them is of floats: five bytes an item and dimension.
    """
    rank = slim.embedding.table.nbytes // (5 * slim.num_items)
    return [{"name": "reduce-dimensions", "rank": rank, "fold": False}, {"name": "quantize-tables", "bits": 8}]


def scored_by(model: Any) -> Callable[[NDArray[np.int32]], NDArray[np.float32]]:
    """What gives scores [N, items] of ids [N, L]: a session, or a module."""
    if isinstance(model, torch.nn.Module):
        model.eval()
        return lambda ids: model(torch.from_numpy(ids)).detach().numpy()[:, FIRST:]
    return lambda ids: model.run(["scores"], {"ids": ids})[0][:, FIRST:]


def found_by(model: Any, asked: Asked, metric: str = "recall@20", only: NDArray[np.bool_] | None = None) -> Floats:
    """A metric of every user [N] among all items but those they met; of `only` [items] of those to be found."""
    scores, items = scored_by(model), asked.items
    places = asked.wanted.values
    wanted = asked.wanted if only is None else asked.wanted.where((places >= 0) & only[places])
    ids = asked.inputs.ids
    met = Ragged.of(np.unique(own[own >= FIRST]).astype(np.int64) - FIRST for own in ids)
    found = find_in_catalogue(lambda start, stop: scores(ids[start:stop]), wanted, items, met)
    return np.asarray(found.metrics[metric].value)


def compared(before: NDArray[np.float64], after: NDArray[np.float64]) -> dict[str, Any]:
    """Both means, the share that is lost, and its 95% interval over users, paired."""
    a, b = (
        Sums(np.stack([each, np.ones(len(each))]), lambda totals: float(totals[0] / totals[1]))
        for each in (before, after)
    )
    low, high = bootstrap(a, b, len(before)).interval()
    base = a.whole()
    return {
        "dense": base,
        "slim": b.whole(),
        "loss": 1 - b.whole() / base,
        "loss_interval": [-high / base, -low / base],
    }


def by_popularity(models: Mapping[str, Any], test: Asked, encoded: EncodedDataset) -> dict[str, dict[str, float]]:
    """Recall of items popular in train, less so, and rare: a third of all that was met, up to 90% of it, the rest."""
    counts = encoded.encoding.counts[HISTORY][FIRST:]
    place = (np.cumsum(counts) - counts / 2) / counts.sum()
    parts = {"head": place <= 1 / 3, "torso": (place > 1 / 3) & (place <= 0.9), "tail": place > 0.9}
    return {
        name: {which: float(np.nanmean(found_by(model, test, only=part))) for which, model in models.items()}
        for name, part in parts.items()
    }


def leave_one_out(frame: pl.DataFrame, folder: Path) -> dict[str, Any]:
    """NDCG@10 and recall of every user's last item among all, fitted to all but the last two; validation chooses."""
    lists = frame.group_by(USER, maintain_order=True).agg(items=pl.col(ITEM)).filter(pl.col("items").list.len() >= 4)
    frames = [
        lists.select(
            USER,
            pl.col("items").list.head(pl.col("items").list.len() - back).alias(HISTORY),
            pl.col("items").list.get(-back).alias(ITEM),
        )
        for back in (3, 2, 1)
    ]
    encoded = encode_dataset(histories("movielens-1m", frames, int(lists["items"].list.len().max())))
    rows = {"valid": encoded.valid, "test": encoded.test}
    asked = {
        name: asked_of(encoded, each.inputs, frames[n][ITEM].to_frame().rows())
        for n, (name, each) in enumerate(rows.items(), 1)
    }
    tried = {l2: fitted(encoded, l2) for l2 in PENALTIES_OF_LAST}
    of_penalty = {l2: float(found_by(model, asked["valid"], "ndcg@10").mean()) for l2, model in tried.items()}
    l2 = max(of_penalty, key=lambda each: of_penalty[each])
    models = {"dense": tried[l2]}
    steps = [{"name": "prune-neighbours", "max_drop": ALLOWED}]
    models["slim"], records = compress(tried[l2], steps, Context.of(encoded))
    sessions = exported(models, encoded, folder)
    return {
        "l2": l2,
        "valid_ndcg@10_by_l2": of_penalty,
        "weights_per_item": records[0]["facts"].get("neighbours"),
        "artifact_bytes": {name: disk_bytes(folder / name) for name in models},
        **{
            metric: compared(*(found_by(sessions[name], asked["test"], metric) for name in ("dense", "slim")))
            for metric in ("ndcg@10", "recall@20")
        },
    }
