"""The artifact's format: a flat directory whose manifest names every file with its size and sha256.

    model.onnx  [model.onnx.data]  schema.json  vocabulary.parquet  [tokenizer.json]  [index.*.bin]  README.md
    manifest.json

One that is asked by the tensors of its graph, as a module of the user's own is, has no schema and no vocabulary.

Export writes it, the runtime reads it, and nothing in it is ever unpickled. The manifest carries a digest over
itself, so that one changed byte anywhere is found before anything is loaded. That is integrity, not authenticity:
who can write the whole directory can write a consistent one. Left out: signatures, and what the files mean.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from slimrank.config import InputError, nearest
from slimrank.files import clear_stale, locked_folder, publish, sync

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
REQUIRED = ("model.onnx", "README.md")
OF_ROWS = ("schema.json", "vocabulary.parquet")  # of an artifact that is asked by rows, which is the rule
BY_TENSORS = {"asked_by": "tensors"}  # the manifest of one that is asked by the tensors of its graph
SEALED_KEYS = ("format_version", "files", "digest")  # written here, never by the caller
MAX_MANIFEST_BYTES = 64 << 20  # far above any real one; keeps a hostile one from filling the memory
CHUNK = 1 << 20
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")  # of a file, or of a model where it is at work


# Operators of the standard ONNX domain that only compute: no control flow, randomness, text or sequences.
NAMES = """
Abs Add And ArgMax ArgMin AveragePool BatchNormalization BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast
CastLike Ceil Clip Concat Constant ConstantOfShape Conv Cos CumSum DepthToSpace DequantizeLinear Div Dropout
DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm
GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GroupNormalization HardSigmoid HardSwish Identity
InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax MatMul MatMulInteger
Max MaxPool Mean Min Mish Mod Mul Neg NonZero Not OneHot Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear
Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
ReduceSumSquare Relu Reshape Round ScatterElements ScatterND Selu Shape Sigmoid Sign Sin Size Slice Softmax Softplus
Softsign Split Sqrt Squeeze Sub Sum Tanh ThresholdedRelu Tile TopK Transpose Trilu Unique Unsqueeze Where Xor
"""
OPERATORS = frozenset(NAMES.split())


@dataclass(frozen=True)
class Artifact:
    """A directory whose every byte was checked against its manifest when it was opened."""

    path: Path
    manifest: Mapping[str, Any]
    files: Mapping[str, Path]
    identity: tuple[tuple[int, ...], ...]

    @property
    def digest(self) -> str:
        """sha256 of the manifest, which holds the sha256 of all else: the name of this exact content."""
        return str(self.manifest["digest"])

    def unchanged(self) -> bool:
        """Whether the same files are still in place, for whoever reads them by path after they were verified."""
        return _identity(self.path, self.files) == self.identity


def open_artifact(path: str | Path) -> Artifact:
    """Read and verify the artifact in the directory `path` (which may itself be a symlink to one).

    A directory that is replaced while it is being read is read again, so the result is never a mixture.

    Raises:
        InputError: names the file and what is wrong with it: unknown format version; a file that is missing,
            extra, of another size or sha256; a symlink, a hard link, no regular file; a name that is no plain name.
    """
    for _ in range(8):
        folder = _resolve(Path(path))
        before = _identity(folder, {})
        try:
            artifact = _read(folder)
            fault = None
        except InputError as error:
            fault = error
        except OSError as error:
            fault = InputError(f"{folder}: cannot be read: {error.strerror}")
        if before == _identity(folder, {}) and _resolve(Path(path)) == folder:
            if fault:
                raise fault
            if artifact.unchanged():
                return artifact
    raise InputError(f"{path}: the artifact is being replaced over and over; try again")


def named(given: str | Path) -> tuple[str, Path]:
    """The name of the model at PATH, or NAME=PATH, where it is served or deployed, and the path.

    Without NAME= it is that of the directory, or of what holds a run's `artifact`. Whether the name is allowed (as
    `PLAIN_NAME` is) is for who takes it to say.
    """
    name, _, path = given.rpartition("=") if isinstance(given, str) else ("", "", given)
    absolute = Path(path).absolute()
    holds = absolute.parent.name if absolute.name == "artifact" else ""
    return name or holds or absolute.name, Path(path)


def write_artifact(path: str | Path, files: Mapping[str, Path | bytes], manifest: Mapping[str, Any]) -> None:
    """Write `files` (name -> content, or where to copy it from) and their manifest to the directory `path`.

    Written to `<path>.partial-<pid>`, synced, then renamed: `path` is at every moment absent, the old artifact or
    the new one. An old artifact is exchanged in one step where the system can (Linux), in two renames elsewhere;
    between those the old one stands at `<path>.old-<pid>`, from where the next write brings it back.

    `manifest` holds all but `format_version`, `files` and `digest`, which are added here.

    Raises:
        InputError: a name is not allowed, a required file is missing, `path` holds something that is no artifact,
            or the disk is full or fails; nothing of the new artifact is then left, and an old one is untouched.
    """
    path = Path(os.path.abspath(path))
    content = _plain(manifest, path)
    _check_names(path, files, content)
    with placing(path) as partial:
        records = {name: store(files[name], partial / name) for name in sorted(files)}
        store(render_manifest(_seal(content, records)), partial / MANIFEST)


@contextlib.contextmanager
def placing(path: str | Path) -> Iterator[Path]:
    """An empty directory beside `path`, `<path>.partial-<pid>`, which takes its place when the block ends well.

    What the block does not finish is removed. An old artifact is exchanged as `write_artifact` says.

    Raises:
        InputError: as `write_artifact`, names and files aside.
    """
    path = Path(os.path.abspath(path))
    _check_target(path)
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    try:
        clear_stale(path)
        with locked_folder(partial):
            yield partial
            sync(partial)
            publish(partial, path)
    except FileExistsError as error:
        raise InputError(f"{path}: is being written by someone else ({error.filename})") from None
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        free = f"{shutil.disk_usage(path.parent).free:,} bytes are free there"
        left = f"{partial} is left behind" if partial.exists() else "nothing was left behind"
        raise InputError(f"{path}: could not be written: {error.strerror or error}{where}; {free}, {left}") from error


def stored_tensors(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Name, dtype, shape and bytes of every tensor of the graph, and of an index's arrays as `index.NAME`."""
    graph, index = manifest.get("graph") or {}, manifest.get("index") or {}
    tensors = list(graph.get("tensors", []))
    for name, array in index.get("arrays", {}).items():
        size = math.prod(array["shape"]) * np.dtype(array["dtype"]).itemsize
        tensors.append({"name": f"index.{name}", **array, "bytes": size})
    return tensors


def render_manifest(manifest: Mapping[str, Any]) -> bytes:
    """The one way to write a manifest down: sorted, indented JSON, so that a changed space is a changed file."""
    return (json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """sha256, in hex, over the canonical JSON (sorted keys, no spaces, UTF-8) of all keys but `digest`."""
    rest = {key: value for key, value in manifest.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


# reading


def _resolve(path: Path) -> Path:
    try:
        folder = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of symlinks
        raise InputError(f"{path}: no artifact there ({error})") from None
    if not folder.is_dir():
        raise InputError(f"{path}: an artifact is a directory, this is a file")
    return folder


def _read(folder: Path) -> Artifact:
    manifest = read_manifest(folder)
    listed = {name: folder / name for name in manifest["files"]}
    found = set(os.listdir(folder)) - {MANIFEST}
    identity = _identity(folder, {name: listed[name] for name in listed.keys() & found})
    faults = [f"{folder / name}: missing, the manifest lists it" for name in sorted(listed.keys() - found)]
    faults += [f"{folder / name}: not in the manifest" for name in sorted(found - listed.keys())]
    for name in sorted(listed.keys() & found):
        faults += _check_file(folder / name, manifest["files"][name])
    if faults:
        raise InputError("\n".join(faults))
    return Artifact(folder, MappingProxyType(manifest), MappingProxyType(listed), identity)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest in `folder`, its own digest and form checked; what it says about the other files is not.

    Raises:
        InputError: as `open_artifact`, of the manifest.
    """
    path = folder / MANIFEST
    with _open_regular(path) as file:
        raw = file.read(MAX_MANIFEST_BYTES + 1)
    if len(raw) > MAX_MANIFEST_BYTES:
        raise InputError(f"{path}: larger than {MAX_MANIFEST_BYTES:,} bytes, no manifest is")
    try:
        manifest = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged, not JSON: {error}") from None
    if not isinstance(manifest, dict) or "format_version" not in manifest:
        raise InputError(f"{path}: not a manifest, it has no format_version")
    version = manifest["format_version"]
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise InputError(f"{path}: format_version {version!r:.40} is unknown; this release reads {FORMAT_VERSION}")
    _check_seal(path, manifest, raw)
    return manifest


def _check_seal(path: Path, manifest: dict[str, Any], raw: bytes) -> None:
    try:
        sealed = manifest.get("digest") == manifest_digest(manifest) and render_manifest(manifest) == raw
    except (ValueError, RecursionError):  # NaN, lone surrogates, depth: nothing that was ever written
        sealed = False
    if not sealed:
        raise InputError(f"{path}: damaged, its content does not match its own digest")
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(_is_record(record) for record in files.values()):
        raise InputError(f"{path}: `files` must map names to their sha256 and bytes")
    for name in files:
        if not PLAIN_NAME.match(name) or name == MANIFEST:
            raise InputError(f"{path}: file name {name!r} is not allowed; only plain names inside the directory are")
    for name in required(manifest):
        if name not in files:
            raise InputError(f"{path}: lists no {name}, which every artifact has")


def required(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """The files that an artifact has, by its manifest."""
    return REQUIRED if manifest.get("asked_by") == BY_TENSORS["asked_by"] else (*REQUIRED, *OF_ROWS)


def _is_record(record: Any) -> bool:
    return isinstance(record, dict) and isinstance(record.get("sha256"), str) and type(record.get("bytes")) is int


def _check_file(path: Path, record: Mapping[str, Any]) -> list[str]:
    try:
        with _open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size != record["bytes"]:
                return [f"{path}: damaged, {size:,} bytes where the manifest says {record['bytes']:,}"]
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except InputError as error:
        return [str(error)]
    if found != record["sha256"]:
        return [f"{path}: damaged, sha256 {found[:12]}... where the manifest says {record['sha256'][:12]}..."]
    return []


def _open_regular(path: Path) -> BufferedReader:
    """Open for reading, but neither through a symlink nor a file that lives elsewhere too, nor a pipe or device."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        facts = path.lstat()
        if stat.S_ISLNK(facts.st_mode):
            raise InputError(f"{path}: a symlink; an artifact holds its files itself")
        if not stat.S_ISREG(facts.st_mode):
            raise InputError(f"{path}: not a regular file")
        if facts.st_nlink > 1:
            raise InputError(f"{path}: has {facts.st_nlink} hard links; an artifact's files live in it alone")
        return open(os.open(path, flags), "rb")
    except FileNotFoundError:
        raise InputError(f"{path}: missing") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _identity(folder: Path, files: Mapping[str, Path]) -> tuple[tuple[int, ...], ...]:
    """What changes when the directory is exchanged or a file is written: inode, size, time. Empty when one is gone."""
    try:
        facts = [folder.stat(), *(files[name].lstat() for name in sorted(files))]
    except FileNotFoundError:
        return ()
    return tuple((fact.st_dev, fact.st_ino, fact.st_size, fact.st_mtime_ns) for fact in facts)


# writing


def _plain(manifest: Mapping[str, Any], path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(json.dumps(dict(manifest), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: the manifest cannot be written as JSON: {error}") from None
    return content


def _check_names(path: Path, files: Mapping[str, Path | bytes], manifest: Mapping[str, Any]) -> None:
    faults = [f"the manifest's {key!r} is added when it is written" for key in SEALED_KEYS if key in manifest]
    faults += [
        f"file name {name!r} is not allowed; letters, digits and ._- are, {MANIFEST} is added"
        for name in files
        if not PLAIN_NAME.match(name) or name == MANIFEST
    ]
    faults += [f"{name} is missing. {nearest(name, files)}" for name in required(manifest) if name not in files]
    if faults:
        raise InputError("\n".join(f"{path}: {fault}" for fault in faults))


def _check_target(path: Path) -> None:
    """Refuse to replace what is not an artifact: a directory is only thrown away when all in it is ours."""
    if not path.parent.is_dir():
        raise InputError(f"{path}: {path.parent} is not a directory")
    if path.is_symlink():
        raise InputError(f"{path}: is a symlink and no directory of its own; it is not replaced")
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: exists and is not a directory; it is not replaced")
    if path.is_dir() and (foreign := set(os.listdir(path)) - _own_names(path)):
        raise InputError(f"{path}: holds {min(foreign)!r}, which is no part of an artifact; it is not replaced")


def _own_names(path: Path) -> set[str]:
    """The names that a directory's manifest claims, of any format version; none where there is no manifest."""
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        return {MANIFEST, *manifest["files"]} if "format_version" in manifest else set()
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return set()


def _seal(content: dict[str, Any], records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    sealed = {**content, "format_version": FORMAT_VERSION, "files": dict(records)}
    return {**sealed, "digest": manifest_digest(sealed)}


def store(source: Path | bytes | Iterable[bytes], target: Path) -> dict[str, Any]:
    """Write one file, of pieces or of a file to copy, through to the disk; returns its record, hashed as it passes."""
    digest = hashlib.sha256()
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(target, "xb"))
        if isinstance(source, Path):
            source = _chunks(stack.enter_context(open(source, "rb")))
        chunks = [source] if isinstance(source, bytes) else source
        for chunk in chunks:
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
    return {"sha256": digest.hexdigest(), "bytes": size}


def _chunks(file: BufferedReader) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk
