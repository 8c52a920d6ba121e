"""`load_dataset`: names, configs, files and folders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from slimrank.config import InputError
from slimrank.data import load_dataset, resolve
from slimrank.data.datasets.synthetic import Synthetic

TABLE = pl.DataFrame(
    {"label": [0, 1] * 50, "user": [f"u{row % 7}" for row in range(100)], "x": [row / 2 for row in range(100)]}
)


def test_a_name_a_mapping_and_a_config_are_the_same_dataset() -> None:
    prints = {
        load_dataset(source).fingerprint
        for source in (Synthetic(rows=500), {"name": "synthetic", "rows": 500})
    }  # fmt: skip
    assert len(prints) == 1
    assert resolve("synthetic") == (Synthetic(), None)


def test_a_file_and_a_folder_of_three(tmp_path: Path) -> None:
    TABLE.write_parquet(tmp_path / "shop.parquet")
    TABLE.write_csv(tmp_path / "shop.csv")
    one, two = load_dataset(tmp_path / "shop.parquet"), load_dataset(str(tmp_path / "shop.csv"))
    assert one.name == two.name == "shop"
    assert one.fingerprint == two.fingerprint
    assert [len(frame) for frame in one.splits.values()] == [80, 10, 10]
    folder = tmp_path / "given"
    folder.mkdir()
    for name, frame in (("train", TABLE[:60]), ("valid", TABLE[60:80]), ("test", TABLE[80:])):
        frame.write_csv(folder / f"{name}.csv")
    given = load_dataset(folder)
    assert given.name == "given"
    assert [len(frame) for frame in given.splits.values()] == [60, 20, 20]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("synthetik", "unknown dataset 'synthetik'. Did you mean 'synthetic'? Allowed: amazon-beauty, "),
        ({"name": "frape"}, "unknown dataset 'frape'. Did you mean 'frappe'?"),
        ({"rows": 5}, "a dataset needs a name."),
        ({"name": "synthetic", "row": 5}, "dataset synthetic: unknown key 'row'. Did you mean 'rows'?"),
        ({"name": "synthetic", "ids": [5, 1]}, "dataset synthetic: ids"),
        ("rows.json", "unknown dataset 'rows.json'."),
        ("rows.csv", "rows.csv: no such file"),
        ({"name": "csv"}, "dataset csv: path is missing"),
    ],
)
def test_what_means_no_dataset_is_refused(
    source: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SLIMRANK_DATA", raising=False)
    with pytest.raises(InputError) as error:
        load_dataset(source)  # type: ignore[arg-type]
    assert message in str(error.value)


def test_schema_and_encoding_load_neither_polars_nor_torch() -> None:
    code = (
        "import sys, slimrank.data, slimrank.data.schema, slimrank.data.encoding\n"
        "sys.exit(', '.join({'polars', 'torch', 'pyarrow'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
