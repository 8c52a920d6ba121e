"""The artifact's format: what is written is read back; whatever else is found is refused by name."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event, Thread

import pytest

from slimrank import files
from slimrank.artifact import (
    FORMAT_VERSION,
    MANIFEST,
    manifest_digest,
    open_artifact,
    render_manifest,
    write_artifact,
)
from slimrank.config import InputError

FILES: dict[str, Path | bytes] = {
    "model.onnx": b"graph" * 100,
    "model.onnx.data": bytes(range(256)) * 16,
    "schema.json": b"{}",
    "vocabulary.parquet": b"PAR1",
    "README.md": "# A card, with an é\n".encode(),
}
CONTENT = {"recipe": {"name": "café"}, "metrics": {"auc": 0.9847, "pcoc": 1.0}, "seeds": [1, 2]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_artifact(tmp_path / "slim", FILES, CONTENT)
    return tmp_path / "slim"


def reseal(folder: Path, **changes: object) -> None:
    """Change the manifest as someone would who knows the format: the digest is right again."""
    manifest = {**json.loads((folder / MANIFEST).read_bytes()), **changes}
    manifest["digest"] = manifest_digest(manifest)
    (folder / MANIFEST).write_bytes(render_manifest(manifest))


def test_what_is_written_is_read_back(folder: Path) -> None:
    artifact = open_artifact(folder)
    assert {name: path.read_bytes() for name, path in artifact.files.items()} == FILES
    assert {key: artifact.manifest[key] for key in CONTENT} == CONTENT
    assert artifact.manifest["format_version"] == FORMAT_VERSION
    assert artifact.manifest["files"]["schema.json"] == {
        "bytes": 2,
        "sha256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",  # printf '{}' | sha256sum
    }
    assert artifact.unchanged()
    assert os.listdir(folder.parent) == ["slim"]


def test_files_are_copied_from_paths_and_the_same_content_has_the_same_digest(folder: Path) -> None:
    copies: dict[str, Path | bytes] = {name: folder / name for name in FILES}
    write_artifact(folder.parent / "again", copies, CONTENT)
    assert open_artifact(folder.parent / "again").digest == open_artifact(folder).digest


def test_the_digest_is_sha256_over_canonical_json() -> None:
    assert manifest_digest({"b": [1, 2.5], "a": "é", "digest": "ignored"}) == manifest_digest({"a": "é", "b": [1, 2.5]})
    assert manifest_digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


def test_a_directory_may_be_named_through_a_symlink(folder: Path) -> None:
    (folder.parent / "current").symlink_to("slim")
    assert open_artifact(folder.parent / "current").path == folder


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_every_single_changed_byte_is_found(folder: Path, name: str) -> None:
    intact = (folder / name).read_bytes()
    for position in range(0, len(intact), max(1, len(intact) // 200)):
        damaged = bytearray(intact)
        damaged[position] ^= 1
        (folder / name).write_bytes(damaged)
        with pytest.raises(InputError, match=name):
            open_artifact(folder)
    (folder / name).write_bytes(intact)
    open_artifact(folder)


def test_another_spelling_of_the_same_manifest_is_a_change(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_bytes())
    (folder / MANIFEST).write_bytes(json.dumps(manifest).encode())
    with pytest.raises(InputError, match="does not match its own digest"):
        open_artifact(folder)


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
@pytest.mark.parametrize("keep", [0, -1])
def test_a_truncated_file_is_refused(folder: Path, name: str, keep: int) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:keep])
    with pytest.raises(InputError, match=f"{name}: .*damaged"):
        open_artifact(folder)


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"{name}: missing"):
        open_artifact(folder)


def test_all_faults_are_named_at_once(folder: Path) -> None:
    (folder / "extra.bin").write_bytes(b"")
    (folder / "schema.json").unlink()
    (folder / "README.md").write_text("another card")
    with pytest.raises(InputError) as caught:
        open_artifact(folder)
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[1].split(",")[0] for line in lines] == ["missing", "not in the manifest", "damaged"]


@pytest.mark.parametrize("version", [0, FORMAT_VERSION + 1, "1", None, True, 1.5, [1], "9" * 1000])
def test_an_unknown_format_version_is_refused(folder: Path, version: object) -> None:
    reseal(folder, format_version=version)
    with pytest.raises(InputError, match=r"format_version .{1,40} is unknown; this release reads 1"):
        open_artifact(folder)


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/hostname", "a/b", "", ".", "..", ".hidden", MANIFEST, "a\\b", "a\n", "C:x", "x" * 200]
)
def test_names_that_lead_elsewhere_are_refused_both_ways(folder: Path, name: str) -> None:
    with pytest.raises(InputError, match="is not allowed"):
        write_artifact(folder.parent / "new", {**FILES, name: b""}, {})
    files = json.loads((folder / MANIFEST).read_bytes())["files"]
    reseal(folder, files={**files, name: {"sha256": "0" * 64, "bytes": 0}})
    with pytest.raises(InputError, match="is not allowed"):
        open_artifact(folder)


@pytest.mark.parametrize("files", [None, [], {"model.onnx": 1}, {"model.onnx": {"sha256": "", "bytes": True}}, {}])
def test_a_manifest_of_another_form_is_refused(folder: Path, files: object) -> None:
    reseal(folder, files=files)
    with pytest.raises(InputError, match=r"must map names to|lists no model\.onnx"):
        open_artifact(folder)


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b"9" * 10_000, b"NaN", b'{"a": 1}'])
def test_a_manifest_that_is_none_is_refused(folder: Path, text: bytes) -> None:
    (folder / MANIFEST).write_bytes(text)
    with pytest.raises(InputError, match=MANIFEST):
        open_artifact(folder)


@pytest.mark.parametrize("name", ["model.onnx.data", MANIFEST])
def test_links_pipes_and_directories_are_no_files(folder: Path, name: str) -> None:
    (folder / name).rename(folder.parent / "elsewhere")
    (folder / name).symlink_to(folder.parent / "elsewhere")
    with pytest.raises(InputError, match=f"{name}: a symlink"):
        open_artifact(folder)
    (folder / name).unlink()
    (folder / name).hardlink_to(folder.parent / "elsewhere")
    with pytest.raises(InputError, match=f"{name}: has 2 hard links"):
        open_artifact(folder)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(InputError, match=f"{name}: not a regular file"):
        open_artifact(folder)
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(InputError, match=f"{name}: not a regular file"):
        open_artifact(folder)


def test_what_is_no_directory_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no artifact there"):
        open_artifact(tmp_path / "nowhere")
    with pytest.raises(InputError, match="an artifact is a directory, this is a file"):
        open_artifact(folder / "model.onnx")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match="loop: no artifact there"):
        open_artifact(tmp_path / "loop")


def test_a_file_that_changes_after_it_was_verified_is_noticed(folder: Path) -> None:
    artifact = open_artifact(folder)
    os.utime(folder / "model.onnx", ns=(0, 0))
    assert not artifact.unchanged()
    again = open_artifact(folder)
    write_artifact(folder, FILES, CONTENT)
    assert not again.unchanged()
    shutil.rmtree(folder)
    assert not again.unchanged()


def test_an_artifact_is_replaced_by_another(folder: Path) -> None:
    write_artifact(folder, {**FILES, "golden.parquet": b"rows"}, {"recipe": "new"})
    assert open_artifact(folder).manifest["recipe"] == "new"
    assert os.listdir(folder.parent) == ["slim"]
    write_artifact(folder, FILES, CONTENT)
    assert "golden.parquet" not in open_artifact(folder).files


def test_two_renames_replace_where_no_exchange_is(folder: Path) -> None:
    write_artifact(folder.parent / "new", FILES, {"recipe": "new"})
    files._replace_in_two_steps(folder.parent / "new", folder)
    assert open_artifact(folder).manifest["recipe"] == "new"
    assert os.listdir(folder.parent) == ["slim"]
    with pytest.raises(FileNotFoundError):
        files._replace_in_two_steps(folder.parent / "gone", folder)
    assert open_artifact(folder).manifest["recipe"] == "new"


def test_an_old_artifact_left_between_two_renames_comes_back(folder: Path) -> None:
    old = folder.with_name("slim.old-12345")
    folder.rename(old)
    with pytest.raises(InputError, match="could not be written"):
        write_artifact(folder, {**FILES, "model.onnx": Path("no such file")}, {})
    assert open_artifact(folder).manifest["metrics"] == CONTENT["metrics"]
    assert os.listdir(folder.parent) == ["slim"]


def test_readers_see_the_old_or_the_new_and_nothing_else(folder: Path) -> None:
    stop, seen, faults = Event(), set(), []

    def read() -> None:
        while not stop.is_set():
            try:
                artifact = open_artifact(folder)
                seen.add(artifact.manifest.get("turn", -1))
            except InputError as error:
                if "over and over" not in str(error):
                    faults.append(str(error))

    reader = Thread(target=read)
    reader.start()
    for turn in range(30):
        write_artifact(folder, {**FILES, "model.onnx": b"%d" % turn}, {"turn": turn})
    stop.set()
    reader.join()
    assert not faults
    assert seen <= set(range(-1, 30))


def test_what_is_no_artifact_is_not_replaced(folder: Path, tmp_path: Path) -> None:
    (folder / "thesis.tex").write_text("three years")
    with pytest.raises(InputError, match=r"holds 'thesis\.tex', which is no part of an artifact"):
        write_artifact(folder, FILES, {})
    assert (folder / "thesis.tex").read_text() == "three years"
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(folder)
    for name, fault in (("file", "exists and is not a directory"), ("link", "no directory of its own")):
        with pytest.raises(InputError, match=f"{fault}; it is not replaced"):
            write_artifact(tmp_path / name, FILES, {})
    with pytest.raises(InputError, match="is not a directory"):
        write_artifact(tmp_path / "none" / "slim", FILES, {})
    (tmp_path / "empty").mkdir()
    write_artifact(tmp_path / "empty", FILES, {})


def test_a_damaged_artifact_can_be_replaced(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"")
    write_artifact(folder, FILES, CONTENT)
    open_artifact(folder)


def test_a_bad_request_to_write_is_refused_with_all_faults(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        write_artifact(tmp_path / "slim", {"modle.onnx": b"", "schema.json": b"", "README.md": b""}, {"digest": "x"})
    assert "the manifest's 'digest' is added when it is written" in str(caught.value)
    assert "model.onnx is missing. Did you mean 'modle.onnx'?" in str(caught.value)
    assert "vocabulary.parquet is missing" in str(caught.value)
    for value in (float("nan"), b"bytes", {1, 2}):
        with pytest.raises(InputError, match="cannot be written as JSON"):
            write_artifact(tmp_path / "slim", FILES, {"metrics": value})
    assert os.listdir(tmp_path) == []


def test_a_writer_in_the_way_is_left_alone(folder: Path) -> None:
    partial = folder.with_name(f"slim.partial-{os.getpid()}")
    with files.locked_folder(partial):
        (partial / "model.onnx").write_bytes(b"half")
        with pytest.raises(InputError, match="is being written by someone else"):
            write_artifact(folder, FILES, {})
        assert (partial / "model.onnx").read_bytes() == b"half"
    assert open_artifact(folder).manifest["metrics"] == CONTENT["metrics"]


WRITER = """
import sys
from pathlib import Path
from slimrank.artifact import write_artifact
from slimrank.config import InputError
target, source, limit = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
if limit:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
rest = {name: b"x" for name in ("schema.json", "vocabulary.parquet", "README.md")}
try:
    write_artifact(target, {"model.onnx": b"graph", "model.onnx.data": source, **rest}, {"turn": "new"})
except InputError as error:
    sys.exit(str(error))
"""


def start_writer(target: Path, source: Path, limit: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(target), str(source), str(limit)]
    environment = {**os.environ, "PYTHONPATH": str(Path(files.__file__).parents[1])}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def test_a_writer_killed_in_the_middle_leaves_the_old_artifact_and_its_litter_is_removed(folder: Path) -> None:
    pipe = folder.parent / "pipe"
    os.mkfifo(pipe)
    writer = start_writer(folder, pipe)
    with open(pipe, "wb", buffering=0) as feed:  # opens when the writer has begun to read its large file
        feed.write(b"half of the weights")
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
    pipe.unlink()
    assert sorted(os.listdir(folder.parent)) == ["slim", f"slim.partial-{writer.pid}"]
    assert open_artifact(folder).manifest["metrics"] == CONTENT["metrics"]
    write_artifact(folder, FILES, {"turn": "next"})
    assert os.listdir(folder.parent) == ["slim"]


def test_a_file_that_cannot_grow_ends_in_an_error_and_nothing_is_left(folder: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"w" * (1 << 20))
    for target in (folder, tmp_path / "fresh"):
        before = sorted(os.listdir(tmp_path))
        _, message = (writer := start_writer(target, weights, limit=1 << 19)).communicate()
        assert writer.returncode == 1
        assert f"{target}: could not be written: File too large" in message
        assert "nothing was left behind" in message
        assert sorted(os.listdir(tmp_path)) == before
    assert open_artifact(folder).manifest["metrics"] == CONTENT["metrics"]


@pytest.fixture
def small_disk(tmp_path: Path):  # type: ignore[no-untyped-def]
    """A real filesystem of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    done = mount and subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True)
    if not done or done.returncode:
        pytest.skip("no right to mount a small filesystem; the limit on a file's size stands in for it")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_disk_that_fills_ends_in_an_error_and_the_old_artifact_stays(small_disk: Path) -> None:
    write_artifact(small_disk / "slim", {**FILES, "model.onnx.data": b"w" * 600_000}, CONTENT)
    for name in ("slim", "other"):
        with pytest.raises(InputError, match=r"No space left on device.*, nothing was left behind"):
            write_artifact(small_disk / name, {**FILES, "model.onnx.data": b"w" * 700_000}, {})
        assert os.listdir(small_disk) == ["slim"]
    assert open_artifact(small_disk / "slim").manifest["metrics"] == CONTENT["metrics"]
