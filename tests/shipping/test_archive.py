"""One file of an artifact: the same bytes every time, back byte for byte, and nothing hostile ever gets out of it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import zstandard

from slimrank.artifact import MANIFEST, open_artifact
from slimrank.config import InputError
from slimrank.shipping.archive import members
from slimrank.shipping.codec import compressed_pieces
from slimrank.shipping.packing import pack, unpack

TABLES = {"table": np.arange(4000, dtype=np.uint8).reshape(500, 8), "scale": np.ones(500, np.float32)}
Content = Callable[[Path], dict[str, bytes]]


@pytest.fixture
def folder(made: Callable[..., Path]) -> Path:
    return made("a", TABLES)


def test_it_comes_back_byte_for_byte(folder: Path, tmp_path: Path, content: Content) -> None:
    packed = pack(folder, tmp_path / "a.slim")
    assert packed.bytes == (tmp_path / "a.slim").stat().st_size
    assert packed.artifact_bytes == sum(len(each) for each in content(folder).values())
    assert unpack(tmp_path / "a.slim", tmp_path / "b") == tmp_path / "b"
    assert content(tmp_path / "b") == content(folder)


def test_the_same_content_has_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "a.slim")
    for file in folder.iterdir():
        os.utime(file, (1, 1))
        file.chmod(0o600)
    pack(folder, tmp_path / "b.slim")
    unpack(tmp_path / "a.slim", tmp_path / "again")
    pack(tmp_path / "again", tmp_path / "c.slim")
    assert (
        (tmp_path / "a.slim").read_bytes() == (tmp_path / "b.slim").read_bytes() == (tmp_path / "c.slim").read_bytes()
    )


def test_standard_tools_read_it(folder: Path, tmp_path: Path, content: Content) -> None:
    pack(folder, tmp_path / "a.slim")
    with zstandard.open(tmp_path / "a.slim", "rb") as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        found = {}
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
            found[member.name] = tar.extractfile(member).read()  # type: ignore[union-attr]
    assert found == content(folder)
    assert next(iter(found)) == MANIFEST


def test_tables_have_a_code_of_their_own(made: Callable[..., Path], tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    narrow, wide = draw.integers(0, 4, (4000, 4)).astype(np.uint8), draw.integers(100, 228, (4000, 4)).astype(np.uint8)
    packed = pack(made("a", {"narrow": narrow, "wide": wide}), tmp_path / "a.slim")
    entropy = 16_000 * 2 / 8 + 16_000 * 7 / 8  # bytes; by one code for both, every number would take a bit more: 22,000
    rest = packed.artifact_bytes - 32_000
    assert entropy < packed.bytes < 1.05 * entropy + rest < 21_000


def test_an_artifact_that_is_there_is_replaced(made: Callable[..., Path], tmp_path: Path, content: Content) -> None:
    first, second = made("a", TABLES), made("b", {**TABLES, "more": np.ones(99)})
    pack(second, tmp_path / "b.slim")
    unpack(tmp_path / "b.slim", first)
    assert content(first) == content(second)
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "b.slim"]


def read_through(packed: bytes) -> dict[str, bytes]:
    """The files of an archive, none of which is written."""
    file = io.BufferedReader(io.BytesIO(packed))
    return {name: b"".join(pieces) for name, pieces in members(file, lambda sizes: None)}


def test_every_changed_byte_is_found(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.slim"
    pack(folder, file)
    intact = file.read_bytes()
    assert read_through(intact)[MANIFEST] == (folder / MANIFEST).read_bytes()
    for at in range(len(intact)):
        damaged = intact[:at] + bytes([intact[at] ^ 1]) + intact[at + 1 :]
        with pytest.raises(InputError):
            read_through(damaged)
        if at % 100 == 0:
            file.write_bytes(damaged)
            with pytest.raises(InputError, match=r"a\.slim: "):
                unpack(file, tmp_path / "b")
    assert sorted(os.listdir(tmp_path)) == ["a", "a.slim"]


def test_every_cut_is_found(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.slim"
    pack(folder, file)
    intact = file.read_bytes()
    for end in range(len(intact)):
        with pytest.raises(InputError):
            read_through(intact[:end])
        if end % 100 == 0 or end == len(intact) - 1:
            file.write_bytes(intact[:end])
            with pytest.raises(InputError, match=r"a\.slim: "):
                unpack(file, tmp_path / "b")
    file.write_bytes(intact + b"\x00")
    with pytest.raises(InputError, match="something follows its end"):
        unpack(file, tmp_path / "b")
    file.write_bytes(intact + intact)
    with pytest.raises(InputError, match="something follows its end"):
        unpack(file, tmp_path / "b")
    assert sorted(os.listdir(tmp_path)) == ["a", "a.slim"]


def archive(members: Sequence[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.GNU_FORMAT) -> bytes:
    """A compressed tar of whatever one likes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for info, content in members:
            info.size = len(content) if info.type == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(content))
    return sealed(buffer.getvalue())


def sealed(tar: bytes) -> bytes:
    """A tar as `pack` compresses one."""
    return b"".join(compressed_pieces([tar], len(tar)))


def plain(name: str, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), content


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


HOSTILE = {
    "absolute": (plain("/etc/cron.d/x", b"x"), r"holds '.*etc/cron\.d/x'"),
    "above": (plain("../above", b"x"), "holds '../above'"),
    "deeper": (plain("deeper/file", b"x"), "holds 'deeper/file'"),
    "symlink": (special("model.onnx", tarfile.SYMTYPE, "/etc/passwd"), "holds 'model.onnx', a symlink"),
    "hard link": (special("model.onnx", tarfile.LNKTYPE, "README.md"), "holds 'model.onnx', a hard link"),
    "device": (special("model.onnx", tarfile.CHRTYPE), "holds 'model.onnx', a device"),
    "pipe": (special("model.onnx", tarfile.FIFOTYPE), "holds 'model.onnx', a pipe"),
    "directory": (special("model.onnx", tarfile.DIRTYPE), "holds 'model.onnx.*', a directory"),
    "twice": (plain("README.md", b"x"), "README.md"),
    "another name": (plain("extra.bin", b"x"), "holds 'extra.bin'"),
    "another size": (plain("model.onnx", b"x"), "model.onnx: not as the manifest says"),
    "a long name": (plain("n" * 120, b"x"), "no plain file"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_members_are_refused(folder: Path, tmp_path: Path, content: Content, case: str) -> None:
    member, message = HOSTILE[case]
    files = content(folder)
    start = [plain(MANIFEST, files[MANIFEST]), plain("README.md", files["README.md"])]
    (tmp_path / "hostile.slim").write_bytes(archive([*start, member]))
    with pytest.raises(InputError, match=f"hostile.slim: .*{message}"):
        unpack(tmp_path / "hostile.slim", tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["a", "hostile.slim"]


def test_headers_that_are_not_ours_are_refused(folder: Path, tmp_path: Path, content: Content) -> None:
    """Times and owners say nothing bad, and yet two archives of one artifact would differ."""
    files = content(folder)
    info = tarfile.TarInfo(MANIFEST)
    info.mtime = 1
    for given, form in (
        ([(info, files[MANIFEST])], tarfile.GNU_FORMAT),
        ([plain(MANIFEST, b"{}")], tarfile.PAX_FORMAT),
    ):
        (tmp_path / "x").write_bytes(archive(given, form))
        with pytest.raises(InputError):
            unpack(tmp_path / "x", tmp_path / "out")


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (b"no JSON", "does not say what files there are"),
        (b"[]", "does not say what files there are"),
        (b'{"files": {"a": 1}}', "does not say what files there are"),
        (b'{"files": {"../a": {"bytes": 1}}}', r"'\.\./a', which is not allowed"),
        (b'{"files": {"manifest.json": {"bytes": 1}}}', "'manifest.json', which is not allowed"),
        (b'{"files": {"a": {"bytes": -1}}}', "'a', which is not allowed"),
        (b'{"files": {"a": {"bytes": 1.5}}}', "'a', which is not allowed"),
        (b'{"files": {"a": {"bytes": 99999999999999999}}}', "bytes when unpacked, and .* are free"),
        (b'{"files": {}}', "no sound artifact"),
    ],
)
def test_hostile_manifests_are_refused(tmp_path: Path, manifest: bytes, message: str) -> None:
    raw = io.BytesIO()
    raw.write(
        tarfile.TarInfo.tobuf(_sized(manifest), tarfile.GNU_FORMAT) + manifest + bytes(-len(manifest) % 512 + 1024)
    )
    (tmp_path / "x").write_bytes(sealed(raw.getvalue()))
    with pytest.raises(InputError, match=message):
        unpack(tmp_path / "x", tmp_path / "out")
    assert os.listdir(tmp_path) == ["x"]


def _sized(content: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(MANIFEST)
    info.size = len(content)
    return info


def test_a_bomb_is_let_off_no_further_than_its_manifest_says(folder: Path, tmp_path: Path, content: Content) -> None:
    """A gigabyte of zeros in some 30 KB, as a file that is to have 4 KB, or as a manifest."""
    files = content(folder)
    zeros = zstandard.ZstdCompressor().compressobj()
    for name in ("README.md", MANIFEST):
        start = [plain(MANIFEST, files[MANIFEST])] if name != MANIFEST else []
        info = tarfile.TarInfo(name)
        info.size = 1 << 30
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for member, each in start:
                member.size = len(each)
                tar.addfile(member, io.BytesIO(each))
            head = raw.getvalue()
        zeros = zstandard.ZstdCompressor().compressobj()
        packed = zeros.compress(head + info.tobuf(tarfile.GNU_FORMAT))
        packed += b"".join(zeros.compress(bytes(1 << 20)) for _ in range(1 << 10)) + zeros.flush()
        (tmp_path / "bomb").write_bytes(packed)
        with pytest.raises(InputError, match=f"{name}: not as the manifest says"):
            unpack(tmp_path / "bomb", tmp_path / "out")


def test_other_files_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tar").write_bytes(sealed(b"no tar at all" * 100))
    for file in (folder / "model.onnx", tmp_path / "tar", folder / "vocabulary.parquet"):
        with pytest.raises(InputError, match=file.name):
            unpack(file, tmp_path / "out")
    with pytest.raises(InputError, match="none: cannot be read: No such file"):
        unpack(tmp_path / "none", tmp_path / "out")
    with pytest.raises(InputError, match="is a directory"):
        pack(folder, tmp_path)
    with pytest.raises(InputError, match="an artifact is a directory"):
        pack(tmp_path / "tar", tmp_path / "x")
    (folder / "README.md").write_text("changed")
    with pytest.raises(InputError, match=r"README\.md: damaged"):
        pack(folder, tmp_path / "x")
    assert sorted(os.listdir(tmp_path)) == ["a", "tar"]


def test_files_of_two_artifacts_do_not_go_together(made: Callable[..., Path], tmp_path: Path, content: Content) -> None:
    one, other = content(made("a", TABLES)), content(made("b", {**TABLES, "scale": np.zeros(500, np.float32)}))
    assert len(one["model.onnx"]) == len(other["model.onnx"])
    names = [MANIFEST, *sorted(set(one) - {MANIFEST})]
    swapped = [plain(name, (other if name == "model.onnx" else one)[name]) for name in names]
    buffer = io.BytesIO()
    for info, each in swapped:
        info.size = len(each)
        buffer.write(info.tobuf(tarfile.GNU_FORMAT) + each + bytes(-len(each) % 512))
    (tmp_path / "x").write_bytes(sealed(buffer.getvalue() + bytes(1024)))
    with pytest.raises(InputError, match=r"x: what it holds is no sound artifact: model\.onnx: damaged, sha256"):
        unpack(tmp_path / "x", tmp_path / "out")


def test_a_full_disk_leaves_nothing(
    made: Callable[..., Path], tmp_path: Path, small_disk: Path, content: Content
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, 900_000, np.uint8)
    large, small = made("large", {"t": noise}), made("small", TABLES)
    pack(large, tmp_path / "large.slim")
    pack(small, tmp_path / "small.slim")
    unpack(tmp_path / "small.slim", small_disk / "m")
    (small_disk / "fill").write_bytes(bytes(400_000))
    before = content(small_disk / "m")
    with pytest.raises(InputError, match=r"bytes when unpacked, and .* are free"):
        unpack(tmp_path / "large.slim", small_disk / "m")
    with pytest.raises(InputError, match="No space left"):
        pack(large, small_disk / "large.slim")
    assert content(small_disk / "m") == before
    assert sorted(os.listdir(small_disk)) == ["fill", "m"]


def test_it_needs_no_torch_and_no_onnx(folder: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from slimrank.shipping.packing import pack, unpack\n"
        f"root = Path({str(tmp_path)!r}); pack(root / 'a', root / 'a.slim'); unpack(root / 'a.slim', root / 'b')\n"
        "print(*sorted({'torch', 'onnx', 'pyarrow', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([os.sys.executable, "-c", program], capture_output=True, text=True, check=True)  # type: ignore[attr-defined]
    assert done.stdout.strip() == ""
    assert open_artifact(tmp_path / "b").digest == json.loads((folder / MANIFEST).read_bytes())["digest"]
