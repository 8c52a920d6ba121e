"""Text collections in the layout of BEIR, and what is wrong with one."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from slimrank.config import InputError
from slimrank.data.beir import read_beir

CORPUS = '{"_id": "d1", "title": "Cats", "text": "They sit."}\n{"_id": "d2", "text": "Dogs."}\n'
QUERIES = '{"_id": "1", "text": "Do cats sit?"}\n{"_id": "2", "text": "Dogs?"}\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "corpus.jsonl.gz").write_bytes(gzip.compress(CORPUS.encode()))
    (tmp_path / "queries.jsonl").write_text(QUERIES)
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n1\td1\t1\n1\td2\t0\n")
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n2\td2\t2\n2\td1\t1\n")
    return tmp_path


def test_a_document_is_its_title_and_text(folder: Path) -> None:
    found = read_beir(folder)
    assert found.documents == {"d1": "Cats They sit.", "d2": "Dogs."}
    assert found.queries == {"1": "Do cats sit?", "2": "Dogs?"}
    assert found.judged == {"test": [("2", "d2", 2), ("2", "d1", 1)], "train": [("1", "d1", 1)]}
    assert found.queries_of("test") == ["2"]


def test_a_corpus_may_be_plain(folder: Path) -> None:
    (folder / "corpus.jsonl.gz").unlink()
    (folder / "corpus.jsonl").write_text(CORPUS)
    assert len(read_beir(folder).documents) == 2


@pytest.mark.parametrize(
    ("file", "content", "fault"),
    [
        (
            "queries.jsonl",
            b'{"_id": "1", "text": "a"}\n{"_id": 2, "text": "b"}\n',
            r"queries\.jsonl: line 2 is no record",
        ),
        ("queries.jsonl", b"{\n", r"line 1 is no record with _id and text"),
        ("queries.jsonl", b"\xff\xfe", r"queries\.jsonl: cannot be read: 'utf-8'"),
        ("corpus.jsonl.gz", b"not gzip", r"corpus\.jsonl\.gz: cannot be read"),
        ("corpus.jsonl.gz", gzip.compress(CORPUS.encode(), mtime=0)[:-9], r"corpus\.jsonl\.gz: cannot be read"),
        ("qrels/test.tsv", b"header\n2\td2\n", r"test\.tsv: line 2 is not query, document and grade"),
        ("qrels/test.tsv", b"header\n2\td9\t1\n", "test judges 'd9' for '2', which is not there"),
    ],
)
def test_a_fault_is_named_with_its_place(folder: Path, file: str, content: bytes, fault: str) -> None:
    (folder / file).write_bytes(content)
    with pytest.raises(InputError, match=fault):
        read_beir(folder)


def test_a_missing_file_is_named(folder: Path, tmp_path: Path) -> None:
    for file in (*(folder / "qrels").iterdir(),):
        file.unlink()
    with pytest.raises(InputError, match=r"qrels: holds no \.tsv file"):
        read_beir(folder)
    (folder / "queries.jsonl").unlink()
    with pytest.raises(InputError, match=r"queries\.jsonl: no such file"):
        read_beir(folder)


@pytest.mark.skipif(not os.environ.get("SLIMRANK_DATA"), reason="SLIMRANK_DATA names no directory of real data")
def test_scifact_has_the_published_counts() -> None:
    found = read_beir(Path(os.environ["SLIMRANK_DATA"]) / "scifact")
    assert len(found.documents) == 5183
    assert len(found.queries_of("train")) == 809
    assert len(found.queries_of("test")) == 300
    assert len(found.judged["test"]) == 339
