"""From two artifacts to frames that hold what changed, and back to the files: what is inside of a delta.

The plan is JSON: bytes of the manifest, what becomes of every file, and name and length of every frame behind it. Of a
file it says `same`, `text`, `values` (a vocabulary), or `numbers` with the bytes of its skeleton and, for each constant
in the order of their places, the way its numbers are written (`=` where none changed) and how many distances each
stretch of them takes.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimrank.artifact import MANIFEST, MAX_MANIFEST_BYTES, Artifact, read_manifest
from slimrank.config import InputError
from slimrank.data.stored import VOCABULARY_FILE
from slimrank.shipping.codec import LARGE, compressed, decompressed, level_of
from slimrank.shipping.differences import SAME, Reader, Streams, Way, read, smallest, stretches, write
from slimrank.shipping.layout import GRAPH, OF_NUMBERS, Layout
from slimrank.shipping.rows import Ids, aligned, forerunner
from slimrank.shipping.tensors import Range, skeleton_of, whole_of
from slimrank.shipping.vocabularies import changes, rebuilt

TEXT = "text"
LENGTH = 4  # bytes of the length of the plan
ROOM, TIMES = 1 << 30, 8  # what frames, and the files made of them, may hold: so much, and so many times OLD
OTHERWISE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What a plan of another form ends in where it is used; numpy parses some names of types, hence the syntax."""


def _order(names: Mapping[str, Any]) -> list[str]:
    """Text, then the vocabulary, which says which row goes on from which, then the graph, then what lies beside it."""
    late = {VOCABULARY_FILE: 1, GRAPH: 2}
    return sorted(names, key=lambda name: (late.get(name, 3 if name.startswith(OF_NUMBERS) else 0), name))


def patch_of(before: Artifact, after: Artifact, *, portable: bool) -> bytes:
    """Plan and frames that make the files of `after` of those of `before`; if `portable` without building any again."""
    manifest = (after.path / MANIFEST).read_bytes()
    made = _Making(before, after, Ids.of(before.path, after.path), _layout(after), _layout(before))
    files = [made.file(name, portable=portable) for name in _order(after.files)]
    frames = {TEXT: compressed([b"".join([manifest, *made.text])], _dictionary(before))}
    level = level_of(sum(len(part) for parts in made.streams.values() for part in parts))
    frames |= {name: compressed(parts, level=level) for name, parts in made.streams.items()}
    lengths = [[name, len(frame)] for name, frame in frames.items()]
    plan = {"manifest": len(manifest), "files": files, "frames": lengths, **_release(files)}
    told = compressed([json.dumps(plan, separators=(",", ":")).encode()])
    return b"".join([len(told).to_bytes(LENGTH, "little"), told, *frames.values()])


def _layout(artifact: Artifact) -> Layout:
    return Layout(artifact.manifest, artifact.files[GRAPH].read_bytes())


def _release(files: list[list[Any]]) -> dict[str, str]:
    """The release of polars, where a vocabulary is built again."""
    if not any(plan[1] == "values" for plan in files):
        return {}
    import polars

    return {"polars": polars.__version__}


def _dictionary(before: Artifact) -> bytes:
    """What text of the new artifact may repeat: manifest, text and skeletons of the old one, but for what is too large.

    A graph stands there without its numbers. One that cannot be read stands there whole.
    """
    parts, layout = [(before.path / MANIFEST).read_bytes()], _layout(before)
    parts += [skeleton_of(before.files[name].read_bytes(), layout.ranges(name)) for name in _order(before.files)]
    return b"".join(part for part in parts if len(part) < LARGE)


@dataclass
class _Making:
    """What is collected while file by file is planned."""

    before: Artifact
    after: Artifact
    ids: Ids
    layout: Layout
    old_layout: Layout

    def __post_init__(self) -> None:
        self.text: list[bytes] = []
        self.streams: Streams = defaultdict(list)

    def file(self, name: str, *, portable: bool) -> list[Any]:
        """The plan of one file; what it needs is added to the text and the streams."""
        files = self.after.manifest["files"]
        known = self.before.manifest["files"].get(name, {})
        if known.get("sha256") == files[name]["sha256"]:
            return [name, "same"]
        content = self.after.files[name].read_bytes()
        if name == VOCABULARY_FILE and name in self.before.files and not portable:
            told = changes(self.before.files[name], self.after.files[name])
            if told is not None and len(compressed([told])) < len(content):
                self.text.append(told)
                return [name, "values", len(told)]
        ranges = self.layout.ranges(name)
        skeleton = skeleton_of(content, ranges)
        self.text.append(skeleton)
        return [name, "numbers", len(skeleton), self._numbers(name, content, ranges)] if ranges else [name, "text"]

    def _numbers(self, name: str, content: bytes, ranges: list[Range]) -> list[Any]:
        old, known = _known(self.before, self.old_layout, name)
        ways: list[Any] = []
        for each in ranges:
            new = content[each.start : each.start + each.length]
            base = _base(each, known, old, self.ids)
            if base == new:
                ways.append(SAME)
                continue
            way, _ = smallest(new, base, each.item_bytes)
            parts = [(new[part], None if base is None else base[part]) for part in stretches(len(new))]
            ways.append([way.word, *(write(way, *part, self.streams) for part in parts)])
        return ways


def _known(before: Artifact, layout: Layout, name: str) -> tuple[bytes, list[Range]]:
    """A file of the old artifact and its constants; nothing where there is none."""
    return (before.files[name].read_bytes(), layout.ranges(name)) if name in before.files else (b"", [])


def _base(new: Range, known: list[Range], old: bytes, ids: Ids) -> bytes | None:
    """What the numbers of a constant go on from: as many bytes; None where the old artifact has none like it."""
    found = forerunner(new, known)
    if found is None:
        return None
    return aligned(old[found.start : found.start + found.length], found, new, ids)


def patched(before: Artifact, body: bytes, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file of the new artifact; each has to be in `folder` before the next is asked for.

    Raises:
        InputError: the body is of another form.
    """
    try:
        plan, frames = _opened(before, body)
        yield from _files(before, plan, frames, folder)
    except OTHERWISE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"a delta of another form ({type(error).__name__}: {error})") from None


def _opened(before: Artifact, body: bytes) -> tuple[dict[str, Any], dict[str, Reader]]:
    """The plan, and the content of the frames by name."""
    room = _room(before)
    start = LENGTH + int.from_bytes(body[:LENGTH], "little")
    plan: dict[str, Any] = json.loads(decompressed(body[LENGTH:start], MAX_MANIFEST_BYTES))
    frames = {}
    for name, length in plan["frames"]:
        content = decompressed(body[start : start + length], room, _dictionary(before) if name == TEXT else b"")
        frames[name] = Reader(content)
        start, room = start + length, room - len(content)
    if start != len(body):
        raise InputError("a delta of another form (its frames are not all of it)")
    return plan, frames


def _room(before: Artifact) -> int:
    """How many bytes a delta may hold, and make."""
    return ROOM + TIMES * sum(int(record["bytes"]) for record in before.manifest["files"].values())


def _check_files(plan: Mapping[str, Any], said: Mapping[str, Any], room: int) -> None:
    """Raises `InputError` where a plan has other files than its manifest says, one twice, or too much of them."""
    if sorted(name for name, *_ in plan["files"]) != sorted(said["files"]):
        raise InputError("a delta of another form (its files are not those of its manifest)")
    sizes = [record["bytes"] for record in said["files"].values()]
    if min(sizes) < 0 or sum(sizes) > room:
        raise InputError(f"makes files of {sum(sizes):,} bytes; {room:,} are the most, by the size of OLD")


def _files(
    before: Artifact, plan: Mapping[str, Any], frames: Mapping[str, Reader], folder: Path
) -> Iterator[tuple[str, bytes]]:
    text = frames[TEXT]
    yield MANIFEST, text.take(plan["manifest"])
    said = read_manifest(folder)  # nothing is written under a name before that was looked at
    _check_files(plan, said, _room(before))
    layout, old_layout, ids = Layout(said), _layout(before), None
    for name, kind, *rest in plan["files"]:
        record = said["files"][name]
        if kind == "same":
            content = before.files[name].read_bytes()
        elif kind == "text":
            content = text.take(record["bytes"])
        elif kind == "values":
            content = rebuilt(before.files[name], text.take(rest[0]))
            _check_vocabulary(content, record, plan)
        else:
            ids = ids or Ids.of(before.path, folder)
            skeleton = text.take(rest[0])
            if name == GRAPH:
                layout.learn(skeleton, cut=True)
            ranges, (old, known) = layout.ranges(name), _known(before, old_layout, name)
            numbers = [
                _read(each, way, _base(each, known, old, ids), frames)
                for each, way in zip(ranges, rest[1], strict=True)
            ]
            content = whole_of(skeleton, ranges, numbers)
        if name == GRAPH:
            layout.learn(content)
        yield name, content
    if any(frame.left for frame in frames.values()):
        raise InputError("a delta of another form (something is left of its frames)")


def _read(new: Range, told: Any, base: bytes | None, frames: Mapping[str, Reader]) -> bytes:
    """The numbers of one constant."""
    if told == SAME:
        if base is None or len(base) != new.length:
            raise InputError(f"{new.name}: the old artifact has no such constant")
        return base
    way, parts = Way.of(told[0]), zip(stretches(new.length), told[1:], strict=True)
    return b"".join(
        read(way, part.stop - part.start, distances, None if base is None else base[part], frames)
        for part, distances in parts
    )


def _check_vocabulary(content: bytes, record: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
    """Raises `InputError` where a vocabulary that was built again is not the one that it is to be."""
    if hashlib.sha256(content).hexdigest() != record["sha256"]:
        import polars

        there = f"{plan.get('polars')!s:.20}"
        raise InputError(
            f"{VOCABULARY_FILE} comes out otherwise here, with polars {polars.__version__}, than with polars {there}, "
            "where the delta was made; `delta --portable` makes one that does not build it again"
        )
