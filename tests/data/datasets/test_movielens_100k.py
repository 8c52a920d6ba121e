from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from slimrank.config import InputError
from slimrank.data import load_dataset
from slimrank.data.datasets.movielens_100k import FILES, find
from slimrank.data.rows import encode_dataset


@pytest.fixture
def installed() -> tuple[Path, ...]:
    """The files of the installed recbole distribution."""
    try:
        importlib.metadata.distribution("recbole")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("recbole is not installed: pip install --no-deps recbole==1.2.1")
    return find(None)


def test_it_is_what_grouplens_published(installed: tuple[Path, ...]) -> None:
    dataset = load_dataset("movielens-100k")
    whole = sum(map(len, dataset.splits.values()))
    assert whole == 100_000
    assert sum(frame["label"].sum() for frame in dataset.splits.values()) == 34_174 + 21_201  # ratings of 4 and of 5
    assert {user for frame in dataset.splits.values() for user in frame["user_id"]} == set(range(1, 944))
    assert dataset.train["timestamp"].max() < dataset.valid["timestamp"].min()  # type: ignore[operator]
    assert dataset.valid["timestamp"].max() < dataset.test["timestamp"].min()  # type: ignore[operator]
    assert dataset.schema.group == "user_id"
    encoded = encode_dataset(dataset)
    assert encoded.encoding.sizes["gender"] == 3
    assert encoded.encoding.sizes["class"] <= 2 + 19


def test_it_is_read_from_recbole_without_importing_it(installed: tuple[Path, ...]) -> None:
    """In a fresh interpreter: here others may have imported it."""
    program = (
        "import sys; from slimrank.data import load_dataset; "
        "assert len(load_dataset('movielens-100k').train); assert 'recbole' not in sys.modules"
    )
    environment = {name: value for name, value in os.environ.items() if name != "SLIMRANK_DATA"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def test_a_named_folder_and_the_folder_above_hold_the_same(installed: tuple[Path, ...], tmp_path: Path) -> None:
    folder = tmp_path / "ml-100k"
    folder.mkdir()
    for path in installed:
        shutil.copy(path, folder / path.name)
    assert find(folder) == find(tmp_path) == tuple(folder / name for name in FILES)
    expected = load_dataset("movielens-100k").fingerprint
    assert load_dataset("movielens-100k", data=tmp_path).fingerprint == expected
    assert load_dataset(folder).fingerprint == expected


def test_the_error_says_both_ways(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        load_dataset("movielens-100k", data=tmp_path)
    assert "pip install --no-deps recbole==1.2.1" in str(error.value)
    assert f"not found in {tmp_path}" in str(error.value)
    assert "--data, or SLIMRANK_DATA" in str(error.value)


def test_files_of_another_form_are_refused(tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).write_text("a:token\tb:token\n1\t2\n")
    with pytest.raises(InputError, match="movielens-100k: the files are not of the expected format"):
        load_dataset("movielens-100k", data=tmp_path)
