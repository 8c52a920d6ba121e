from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from slimrank.config import InputError
from slimrank.data.files import data_folder, locate, read_csv, read_parquet, suffix_of, table_files


def write(path: Path, rows: int = 1000) -> bytes:
    pl.DataFrame({"a": range(rows), "b": [str(row) for row in range(rows)]}).write_parquet(path)
    return path.read_bytes()


def test_a_truncated_parquet_file_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    whole = write(path)
    for length in [1, 4, 12, len(whole) // 2, len(whole) - 9, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(InputError) as error:
            read_parquet(path)
        assert f"{path}: truncated, or not a Parquet file ({length} bytes)" in str(error.value)


@pytest.mark.parametrize("read", [read_parquet, read_csv])
def test_files_that_are_not_there_or_have_no_bytes(tmp_path: Path, read: object) -> None:
    assert callable(read)
    write(tmp_path / "train.parquet")
    with pytest.raises(InputError, match=r"trin.parquet: no such file. Did you mean 'train.parquet'\?"):
        read(tmp_path / "trin.parquet")
    with pytest.raises(InputError, match=r"is a folder, a file is needed"):
        read(tmp_path)
    (tmp_path / "empty").touch()
    with pytest.raises(InputError, match=r"empty is empty: 0 bytes"):
        read(tmp_path / "empty")


def test_csv_types_hold_for_all_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n" + "1,2\n" * 20_000 + "x,0.5\n")
    frame = read_csv(path)
    assert frame.schema == {"a": pl.String, "b": pl.Float64}
    assert len(frame) == 20_001


@pytest.mark.parametrize("content", [b"a,b\n\xff\xfe,1\n", b"a,b\n1,2,3\n"])
def test_csv_that_is_no_table_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rows.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"rows.csv: not a table of values"):
        read_csv(tmp_path / "rows.csv")


def test_the_named_folder_comes_before_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLIMRANK_DATA", raising=False)
    assert data_folder(None) is None
    monkeypatch.setenv("SLIMRANK_DATA", str(tmp_path))
    assert data_folder(None) == tmp_path
    assert data_folder(tmp_path.parent) == tmp_path.parent
    with pytest.raises(InputError, match="nowhere: no such folder"):
        data_folder(tmp_path / "nowhere")
    monkeypatch.setenv("SLIMRANK_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"SLIMRANK_DATA=.*nowhere: no such folder"):
        data_folder(None)


def test_locate_takes_the_first_whole_set_in_the_folder_or_inside(tmp_path: Path) -> None:
    sets = [("a", "b"), ("c",)]
    assert locate(tmp_path, ["mine"], sets) is None
    (tmp_path / "mine").mkdir()
    for name in ("c", "a"):
        (tmp_path / "mine" / name).touch()
    assert locate(tmp_path, ["mine"], sets) == (tmp_path / "mine" / "c",)
    assert locate(tmp_path / "mine", ["mine"], sets) == (tmp_path / "mine" / "c",)
    assert locate(tmp_path / "mine" / "a", ["mine"], sets) == (tmp_path / "mine" / "a",)


def test_table_files_by_name(tmp_path: Path) -> None:
    for name in ("train.csv", "val.csv", "test.csv", "notes.md"):
        (tmp_path / name).touch()
    assert [path.name for path in table_files(tmp_path)] == ["train.csv", "val.csv", "test.csv"]
    (tmp_path / "dev.parquet").touch()
    (tmp_path / "test.csv").unlink()
    with pytest.raises(InputError) as error:
        table_files(tmp_path)
    assert "2 files for valid, one is needed (valid or validation or dev or val, .parquet or .csv)" in str(error.value)
    assert "0 files for test" in str(error.value)


def test_suffixes() -> None:
    names = ["a.parquet", "a.PQ", "a.csv", "a.tsv", "a.csv.gz", "a.json", "frappe"]
    assert [suffix_of(Path(name)) for name in names] == ["parquet", "parquet", "csv", "csv", "csv", None, None]
