"""Two towers and matrix factorisation on MovieLens-100K: what they find, their bytes, and the search of their films.

The towers are those of `recipes/movielens_100k_two_tower.py`, teacher and slim, from a run of the pipeline; the
factorisation is trained on the same rows by the verbs. All figures are of artifacts, over the whole catalogue. Recall
of an index is against the exact one of the same vectors, and measured together with its time.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

import slimrank
from slimrank import Training
from slimrank.config import as_config
from slimrank.data import load_dataset
from slimrank.data.rows import Dataset, encode_dataset
from slimrank.evaluation.cost import disk_bytes
from slimrank.evaluation.finding import find_items
from slimrank.evaluation.retrieval import Search, compare_searches
from slimrank.indexing.index import Index, build_index
from slimrank.pipeline.run import run
from slimrank.recipe import read_recipe
from slimrank.runtime import load_retriever

RECIPE = Path(__file__).parents[1] / "recipes" / "movielens_100k_two_tower.py"
NAMES = ("teacher", "slim")
METRICS = ("ndcg@10", "recall@20", "mrr")
K = 10
KINDS: dict[str, dict[str, Any]] = {
    "exact": {"name": "exact"},
    "faiss": {"name": "faiss"},
    "codes": {"name": "codes", "parts": 8, "bits": 8},
}
MF = {"name": "mf", "embedding_dim": 32, "embedding_std": 0.1}
MF_TRAINING = {"epochs": 6, "batch_size": 512, "learning_rate": 3e-3, "patience": 0}
MF_LOSS = {"name": "in-batch-softmax", "negatives": 256}


def two_tower(folder: Path) -> dict[str, Any]:
    """The run in `folder` (made where it is missing, minutes), the factorisation, and kinds of index, by seed."""
    recipe = read_recipe(RECIPE)
    run(recipe, folder)
    dataset = load_dataset(recipe.data)
    runs = [of_seed(folder / f"seed-{seed}" / "artifacts", dataset, seed, folder / "mf") for seed in recipe.seeds]
    names = (*NAMES, "mf")
    return {
        "what": f"two towers and matrix factorisation, MovieLens-100K, last film of {len(dataset.test)} users",
        "mean": {name: {metric: fmean(each[name][metric] for each in runs) for metric in METRICS} for name in names},
        "bytes_on_disk": {name: fmean(each[name]["bytes"] for each in runs) for name in names},
        "runs": runs,
        "recipe": recipe.model_dump(mode="json"),
        "data_fingerprint": dataset.fingerprint,
    }


def of_seed(artifacts: Path, dataset: Dataset, seed: int, mf_folder: Path) -> dict[str, Any]:
    """What the artifacts of one seed find, and how the films of the slim one are searched."""
    mf_folder.mkdir(parents=True, exist_ok=True)
    encoded = encode_dataset(dataset)
    training = Training(**MF_TRAINING, loss=as_config("loss", MF_LOSS))
    model = slimrank.train(MF, encoded, training, seed=seed)
    slimrank.export(model, encoded.encoding, mf_folder / f"seed-{seed}")
    paths = {**{name: artifacts / name for name in NAMES}, "mf": mf_folder / f"seed-{seed}"}
    return {
        "seed": seed,
        **{name: found(path, dataset) for name, path in paths.items()},
        "indices": searched(paths["slim"], dataset),
    }


def found(path: Path, dataset: Dataset) -> dict[str, float]:
    """Quality on the test rows and bytes of graph and weights."""
    metrics = find_items(load_retriever(path), dataset.test, dataset.schema).metrics
    return {**{name: metrics[name].mean for name in METRICS}, "bytes": float(disk_bytes(path))}


def searched(path: Path, dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Kinds of index over the item vectors of one artifact: recall of the exact one's first ten, and time."""
    model = load_retriever(path)
    items, queries = model.item_vectors(), model.vectors(model.encoding.encode(dataset.test))
    indices = {name: build_index(as_config("index", told), items) for name, told in KINDS.items()}
    compared = compare_searches({name: searching(index) for name, index in indices.items()}, queries, K)
    return {name: {**record, "bytes": indices[name].nbytes} for name, record in compared.items()}


def searching(index: Index) -> Search:
    """The places of the first k."""
    return lambda queries, k: index.search(queries, k)[0]
