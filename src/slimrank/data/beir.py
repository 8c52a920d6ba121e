"""Text collections in the layout of BEIR: documents, queries, and which documents answer a query (Thakur et al. 2021,
arXiv 2104.08663).

    corpus.jsonl.gz (or corpus.jsonl)   queries.jsonl   qrels/train.tsv   qrels/test.tsv

Read with the standard library. Left out: a table of rows; `datasets/scifact.py` makes one.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slimrank.config import InputError

Judgement = tuple[str, str, int]


@dataclass(frozen=True, eq=False)
class Collection:
    """A text collection.

    Attributes:
        documents: by id, title and text with a space between.
        queries: by id, the text.
        judged: by split, triples of query, document and grade, each above 0, in the order of the file.
    """

    documents: dict[str, str]
    queries: dict[str, str]
    judged: dict[str, list[Judgement]]

    def queries_of(self, split: str) -> list[str]:
        """The ids of the queries that a split judges, in its order."""
        return list(dict.fromkeys(query for query, _, _ in self.judged[split]))

    def parted(self, split: str, held_out: int, seed: int = 0) -> tuple[list[str], list[str]]:
        """The ids of a split's queries in two parts, drawn at random: to learn from, and `held_out` to choose by."""
        queries = sorted(self.queries_of(split), key=lambda query: (len(query), query))
        order = np.random.default_rng(seed).permutation(len(queries))
        shuffled = [queries[place] for place in order]
        return shuffled[held_out:], shuffled[:held_out]


def read_beir(folder: Path) -> Collection:
    """The collection in a folder.

    Raises:
        InputError: a file is missing or not in that layout; the message names file and line.
    """
    packed = folder / "corpus.jsonl.gz"
    corpus = packed if packed.exists() else folder / "corpus.jsonl"
    documents = {record["_id"]: f"{record.get('title', '')} {record['text']}".strip() for record in _records(corpus)}
    queries = {record["_id"]: record["text"] for record in _records(folder / "queries.jsonl")}
    judged = {path.stem: _judged(path) for path in sorted((folder / "qrels").glob("*.tsv"))}
    if not judged:
        raise InputError(f"{folder / 'qrels'}: holds no .tsv file")
    for split, rows in judged.items():
        for query, document, _ in rows:
            if query not in queries or document not in documents:
                raise InputError(f"{folder}: {split} judges {document!r} for {query!r}, which is not there")
    return Collection(documents, queries, judged)


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file of JSON lines, each with the keys `_id` and `text`."""
    for number, line in enumerate(_lines(path), 1):
        try:
            record = json.loads(line)
            fits = isinstance(record["_id"], str) and isinstance(record["text"], str)
        except (ValueError, KeyError, TypeError):
            fits = False
        if not fits:
            raise InputError(f"{path}: line {number} is no record with _id and text")
        yield record


def _judged(path: Path) -> list[Judgement]:
    """Query, document and grade of every line after the first, where the grade is above 0."""
    found = []
    for number, line in enumerate(_lines(path)[1:], 2):
        parts = line.split("\t")
        if len(parts) != 3 or not parts[2].strip().isdigit():
            raise InputError(f"{path}: line {number} is not query, document and grade")
        found.append((parts[0], parts[1], int(parts[2])))
    return [row for row in found if row[2] > 0]


def _lines(path: Path) -> list[str]:
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return raw.decode().splitlines()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
