"""Students of a text encoder for SciFact: cut, distilled, quantised, distilled again, and stored packed.

python -m bench.scifact_train --teacher FOLDER --data FOLDER --out FOLDER [--sizes 12mb 6mb] [--seeds 1 2 3]

Runs on a CPU and on a GPU alike and needs torch, numpy, pydantic, safetensors and tokenizers. The teacher is a folder
of sentence-transformers, the data one in the layout of BEIR. Texts are the documents, their sentences and pieces, and
the train queries without the validation part; what is learned are the teacher's vectors, no judgement.
Left out: artifacts and figures, which `scifact.py` makes of what is stored here.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slimrank.compression.steps import Context, compress
from slimrank.config import Config
from slimrank.data.beir import Collection, read_beir
from slimrank.exporting.pack import pack
from slimrank.metrics.top_k import ndcg
from slimrank.models.pretrained import load_pretrained
from slimrank.models.text_encoder import TextEncoderModel, outputs_of
from slimrank.training.alignment import Alignment, align
from slimrank.training.checkpoint import save_tensors
from slimrank.training.examples import Examples, training_device

VALIDATION = 200  # of the 809 train queries: they choose, and nothing is fitted on them
PIECES, PIECE_WORDS = 6, (5, 30)  # pieces of a document at random places, as long as claims are
QUERY_COPIES = 8  # of each train query in an epoch
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9])")
Step = dict[str, Any]


class Size(Config):
    """A student: the steps before its distillation, and how long that takes."""

    steps: tuple[Step, ...]
    distillation: Alignment = Alignment(epochs=10, tokens=24_576, learning_rate=7e-4)
    retraining: Alignment = Alignment(epochs=4, tokens=24_576, learning_rate=1.5e-4)


FEWER_NEURONS = {"name": "prune-heads", "neurons": 2 / 3, "rows": 32}
BYTES = ({"name": "quantize-tables", "bits": 8},)
HALF_BYTES = (
    {"name": "quantize-tables", "bits": 4, "scale": "row", "only": ["text"]},
    {"name": "quantize-tables", "bits": 8, "only": ["position"]},
)


def _size(layers: tuple[int, ...], min_count: int, *tables: Step) -> Size:
    """The layers are those whose students learnt fastest in a trial, of the greedy choice and of layers spread out."""
    vocabulary = {"name": "prune-vocabulary", "min_count": min_count}
    return Size(steps=({"name": "drop-layers", "keep": layers}, vocabulary, FEWER_NEURONS, *tables))


SIZES = {"12mb": _size((0, 4, 5), 2, *BYTES), "6mb": _size((0, 5), 3, *HALF_BYTES)}


def passages(documents: Sequence[str], seed: int) -> list[str]:
    """Each document, its sentences, neighbouring sentences together, and random pieces of it; each text once."""
    draw = np.random.default_rng(seed)
    found: dict[str, None] = {}
    for document in documents:
        sentences = SENTENCE_END.split(document)
        words = document.split()
        texts = [document, *sentences, *(f"{one} {other}" for one, other in pairwise(sentences))]
        for _ in range(PIECES):
            length = int(draw.integers(*PIECE_WORDS))
            start = int(draw.integers(0, max(1, len(words) - length)))
            texts.append(" ".join(words[start : start + length]))
        found |= dict.fromkeys(text for text in texts if text)
    return list(found)


def encoded(model: TextEncoderModel, ids: NDArray[np.int32]) -> Tensor:
    """The model's vectors [N, D] of `ids`, where the model is; texts of like length are computed together."""
    device = next(model.parameters()).device
    order = np.argsort((ids != 0).sum(axis=1), kind="stable")
    vectors = outputs_of(model, torch.from_numpy(ids[order]).to(device), at_once=256 if device.type == "cuda" else 32)
    back = torch.from_numpy(np.argsort(order)).to(device)
    return vectors.index_select(0, back)


def ndcg_at_10(collection: Collection, queries: Sequence[str], split: str, of_queries: Any, of_documents: Any) -> Any:
    """nDCG@10 of each of `queries` from unit vectors of queries and documents, every document being a candidate."""
    places = {document: place for place, document in enumerate(collection.documents)}
    rows = {query: row for row, query in enumerate(queries)}
    relevance = np.zeros((len(queries), len(places)), np.float32)
    for query, document, grade in collection.judged[split]:
        if query in rows:
            relevance[rows[query], places[document]] = grade
    scores = np.asarray(of_queries, np.float32) @ np.asarray(of_documents, np.float32).T
    group = np.repeat(np.arange(len(queries)), len(places))
    return ndcg(relevance.ravel(), scores.ravel(), group, k=10).value


def valid_ndcg(model: TextEncoderModel, collection: Collection, queries: Sequence[str]) -> float:
    """Mean nDCG@10 of the validation queries by the model as a module: what chooses, and no figure."""
    assert model.codec is not None
    texts = ([collection.queries[query] for query in queries], list(collection.documents.values()))
    vectors = [encoded(model, model.codec.encode(each)[0]).cpu().numpy() for each in texts]
    return float(np.mean(ndcg_at_10(collection, queries, "train", *vectors)))


def context_of(model: TextEncoderModel, texts: Sequence[str]) -> Context:
    """What steps look at: documents and train queries, shuffled, as the model's tokenizer encodes them."""
    assert model.codec is not None
    ids = torch.from_numpy(model.codec.encode(texts)[0])
    ids = ids[torch.from_numpy(np.random.default_rng(0).permutation(len(ids)))]
    rows = Examples(ids, torch.zeros(len(ids), 0), torch.zeros(len(ids)))
    return Context(rows, rows)


def shrunk(teacher: TextEncoderModel, size: Size, corpus: Sequence[str]) -> TextEncoderModel:
    """The student before its distillation."""
    student, records = compress(teacher, size.steps, context_of(teacher, corpus))
    for record in records:
        print(record["name"], record["touched"], flush=True)
    assert isinstance(student, TextEncoderModel)
    return student


def integer(student: TextEncoderModel, corpus: Sequence[str]) -> TextEncoderModel:
    """The student with layers of integers, calibrated on the corpus."""
    made, _ = compress(student, ["quantize-dense"], context_of(student, corpus))
    assert isinstance(made, TextEncoderModel)
    return made


def with_limit(settings: Alignment, epochs: float, minutes: float | None) -> Alignment:
    """The same for that share of epochs, and within that many minutes."""
    return settings.model_copy(update={"epochs": max(1, round(settings.epochs * epochs)), "minutes": minutes})


def main() -> None:
    """Train every size with every seed, and store what each ships."""
    options = _options()
    device = training_device()
    torch.set_float32_matmul_precision("high")
    collection = read_beir(options.data)
    teacher = load_pretrained(options.teacher)
    assert isinstance(teacher, TextEncoderModel)
    fitted, validation = collection.parted("train", VALIDATION)
    documents = list(collection.documents.values())[: options.documents]
    queries = [collection.queries[query] for query in fitted][: options.documents]
    corpus = [*documents, *queries]
    texts = [*passages(documents, seed=0), *queries * QUERY_COPIES]
    assert teacher.codec is not None
    teacher.to(device)
    vectors = encoded(teacher, teacher.codec.encode(texts)[0])
    print(f"{len(texts):,} texts, teacher {valid_ndcg(teacher, collection, validation):.4f}", flush=True)
    teacher.cpu()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.sizes:
        size = SIZES[name]
        start = shrunk(teacher, size, corpus)
        assert start.codec is not None
        ids = start.codec.encode(texts)[0]
        for seed in options.seeds:
            student, _ = compress(start, [], context_of(start, corpus[:1]))
            assert isinstance(student, TextEncoderModel)
            student.to(device)
            minutes = None if options.minutes is None else options.minutes / len(options.sizes) / len(options.seeds)
            parts = [None if minutes is None else minutes * share for share in (0.7, 0.3)]
            history = align(
                student, ids, vectors, with_limit(size.distillation, options.epochs, parts[0]), seed=seed, say=print
            )
            student = integer(student.cpu(), corpus).to(device)
            history += align(
                student, ids, vectors, with_limit(size.retraining, options.epochs, parts[1]), seed=seed, say=print
            )
            facts = {"size": name, "seed": seed, "valid": valid_ndcg(student, collection, validation)}
            save_tensors(
                options.out / f"{name}-{seed}.safetensors", pack(student).state_dict(), {**facts, "history": history}
            )
            print(json.dumps(facts), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sizes", nargs="+", choices=sorted(SIZES), default=["12mb", "6mb"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--minutes", type=float, help="for all trainings together")
    parser.add_argument("--epochs", type=float, default=1.0, help="share of the usual epochs")
    parser.add_argument("--documents", type=int, help="only the first ones: for a trial")
    return parser.parse_args()


if __name__ == "__main__":
    main()
