"""What changed between two artifacts: NEW bit for bit, or a refusal that says why, with OLD as it was."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slimrank.artifact import MANIFEST, SEALED_KEYS, open_artifact, write_artifact
from slimrank.config import InputError
from slimrank.data.encoding import Encoding
from slimrank.shipping.codec import compressed, decompressed
from slimrank.shipping.delta import DIGEST, HEAD, apply, delta
from slimrank.shipping.differences import STRETCH
from slimrank.shipping.patching import _dictionary

Made = Callable[..., Path]
Encodings = Callable[..., Encoding]
Content = Callable[[Path], dict[str, bytes]]


def tables(rows: int = 400, seed: int = 0) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    return {
        "codes": draw.integers(0, 256, (rows, 8), np.uint8),
        "scale": draw.normal(size=rows).astype(np.float32),
        "weight": draw.normal(size=(8, 16)).astype(np.float16),
        "tiny": np.arange(2),
    }


def moved(found: dict[str, Any], share: float = 0.05, seed: int = 1) -> dict[str, Any]:
    """A day later: some codes by one step, all floats a little."""
    draw = np.random.default_rng(seed)
    return {
        name: each + (draw.random(each.shape) < share).astype(each.dtype)
        if each.dtype.kind in "ui"
        else (each * (1 + 1e-3 * draw.normal(size=each.shape))).astype(each.dtype)
        for name, each in found.items()
    }


@pytest.fixture
def pair(made: Made) -> tuple[Path, Path]:
    return made("old", tables(), metrics={"auc": 0.75}), made("new", moved(tables()), metrics={"auc": 0.76})


def there(old: Path, new: Path, content: Content) -> int:
    """Makes a delta and applies it; its bytes."""
    file, out = old.parent / "d", old.parent / "out"
    found = delta(old, new, file)
    assert found.bytes == file.stat().st_size
    assert found.artifact_bytes == sum(len(each) for each in content(new).values())
    before = content(old)
    assert apply(old, file, out) == out
    assert content(out) == content(new)
    assert content(old) == before
    return found.bytes


def test_new_comes_out_bit_for_bit(pair: tuple[Path, Path], content: Content) -> None:
    old, new = pair
    assert there(old, new, content) < 0.6 * sum(len(each) for each in content(new).values())
    assert sorted(os.listdir(old.parent)) == ["d", "new", "old", "out"]


def test_it_is_made_the_same_twice(pair: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        delta(*pair, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_old_may_be_replaced_itself(pair: tuple[Path, Path], tmp_path: Path, content: Content) -> None:
    old, new = pair
    delta(old, new, tmp_path / "d")
    apply(old, tmp_path / "d", old)
    assert content(old) == content(new)
    assert sorted(os.listdir(tmp_path)) == ["d", "new", "old"]


@pytest.mark.parametrize("external", [False, True])
def test_a_vocabulary_that_grows_costs_its_values(
    made: Made, encodings: Encodings, content: Content, external: bool
) -> None:
    """Of 3,000 rows none but 20 changed, and those that are new are in the middle of the table."""
    users, items = list(range(1500)), [f"item {each}" for each in range(1497)]
    draw = np.random.default_rng(0)
    table = draw.integers(0, 256, (3000, 8), np.uint8)  # user: unknown and 1500; seen: padding, unknown and 1497
    grown = np.concatenate([table[:1501], draw.integers(0, 256, (10, 8), np.uint8), table[1501:], table[:10]])
    old = made("old", {"t": table}, encodings(users, items), external=external)
    more = encodings([*users, *range(5000, 5010)], [*items, *(f"more {each}" for each in range(10))])
    new = made("new", {"t": grown}, more, external=external)
    assert there(old, new, content) < 1200  # 160 bytes of rows, 20 values, two digests and a sha256, three of files


def test_a_portable_delta_builds_nothing_again(
    made: Made, encodings: Encodings, content: Content, tmp_path: Path
) -> None:
    items = [f"item {each}" for each in range(400)]
    old = made("old", tables(), encodings([1, 2], items))
    new = made("new", tables(), encodings([1, 2], [*items, "more"]))
    assert delta(old, new, tmp_path / "small").bytes < delta(old, new, tmp_path / "d", portable=True).bytes
    apply(old, tmp_path / "d", tmp_path / "out")
    assert content(tmp_path / "out") == content(new)
    program = (
        "from pathlib import Path; import slimrank.data.stored as stored; from slimrank.shipping.delta import apply\n"
        f"folder = Path({str(tmp_path)!r}); stored.vocabulary_parquet = None  # nothing that writes one\n"
        "apply(folder / 'old', folder / 'd', folder / 'elsewhere')"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert content(tmp_path / "elsewhere") == content(new)


def test_values_in_another_order_take_their_rows_along(made: Made, encodings: Encodings, content: Content) -> None:
    draw = np.random.default_rng(0)
    table, order = draw.integers(0, 256, (1003, 16), np.uint8), draw.permutation(998)
    old = made("old", {"t": table}, encodings(list(range(998)), ["a", "b"]))
    mixed = np.concatenate([table[:1], table[1 + order], table[999:]])
    new = made("new", {"t": mixed}, encodings(order.tolist(), ["a", "b"]))
    assert (
        there(old, new, content) < 3500
    )  # of 16,000 bytes of table: a permutation of 998 takes 8,500 bits, and more as text


def test_a_large_constant_is_written_in_stretches(made: Made, content: Content) -> None:
    noise = np.random.default_rng(0).integers(0, 256, 1 << 16, np.uint8)
    old = np.resize(noise, 2 * STRETCH + 40)  # over and over, which packs in a tenth of the time
    new = old.copy()
    new[[0, STRETCH - 1, STRETCH, 2 * STRETCH + 39]] += 1
    assert there(made("old", {"t": old}), made("new", {"t": new}), content) < 500


def test_only_a_line_of_the_card_changes(made: Made, content: Content) -> None:
    assert there(made("old", tables()), made("another-name", tables()), content) < 400


def test_constants_that_were_renamed_are_found_by_their_shape(made: Made, content: Content) -> None:
    found = tables()
    old = made("old", {"codes": found["codes"], "scale": found["scale"]})
    new = made("new", {"renamed": found["codes"], "scale": found["scale"]})
    assert there(old, new, content) < 500


def test_numbers_move_between_the_graph_and_beside_it(made: Made, content: Content) -> None:
    inside, beside = made("inside", tables()), made("beside", moved(tables()), external=True)
    there(inside, beside, content)
    shutil.rmtree(inside.parent / "out")
    there(beside, made("back", tables()), content)


def test_numbers_beside_under_a_name_of_its_own_are_sent_as_they_are(made: Made, content: Content) -> None:
    old, new = (
        made(name, each, external=True, location="weights.bin")
        for name, each in (("old", tables()), ("new", moved(tables())))
    )
    there(old, new, content)


def test_an_index_is_numbers_too(made: Made, content: Content) -> None:
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(500, 8)).astype(np.float32)
    near = (vectors * (1 + 1e-5 * draw.normal(size=vectors.shape))).astype(np.float32)
    old, new = (made(name, tables(), index={"vectors": each}) for name, each in (("old", vectors), ("new", near)))
    assert there(old, new, content) < 0.5 * vectors.nbytes


def test_files_come_and_go(made: Made, content: Content, tmp_path: Path) -> None:
    old, plain = made("old", tables()), made("plain", tables(seed=3))
    more: dict[str, Path | bytes] = dict(open_artifact(plain).files)
    write_artifact(tmp_path / "more", {**more, "notes.txt": b"words " * 99, "empty": b""}, {})
    there(old, tmp_path / "more", content)
    shutil.rmtree(tmp_path / "out")
    there(tmp_path / "more", old, content)


def test_a_graph_that_is_none_is_text(tmp_path: Path, content: Content) -> None:
    files: dict[str, Path | bytes] = {"schema.json": b"{}", "vocabulary.parquet": b"PAR1", "README.md": b"#"}
    noise = np.random.default_rng(0).bytes(20_000)
    write_artifact(tmp_path / "old", {**files, "model.onnx": noise}, {})
    write_artifact(tmp_path / "new", {**files, "model.onnx": noise[:9000] + b"edited" + noise[9000:]}, {})
    assert there(tmp_path / "old", tmp_path / "new", content) < 500


def test_a_vocabulary_of_another_writer_is_sent_as_it_is(made: Made, content: Content, tmp_path: Path) -> None:
    import polars

    old = made("old", tables())
    base = open_artifact(made("base", moved(tables())))
    other = tmp_path / "other.parquet"
    polars.read_parquet(base.files["vocabulary.parquet"]).write_parquet(other, compression="lz4")
    write_artifact(tmp_path / "new", {**base.files, "vocabulary.parquet": other}, {})
    there(old, tmp_path / "new", content)


def test_every_changed_byte_and_every_cut_is_found(pair: tuple[Path, Path], tmp_path: Path, content: Content) -> None:
    old, new = pair
    file, before = tmp_path / "d", content(pair[0])
    delta(old, new, file)
    intact = file.read_bytes()
    for at in {
        *range(HEAD),
        *range(HEAD, len(intact), max(1, len(intact) // 300)),
        *range(len(intact) - DIGEST, len(intact)),
    }:
        damaged = bytearray(intact)
        damaged[at] ^= 1
        file.write_bytes(damaged)
        with pytest.raises(InputError, match="d: "):
            apply(old, file, tmp_path / "out")
    for end in {*range(HEAD + 8), *range(HEAD, len(intact), max(1, len(intact) // 100)), len(intact) - 1}:
        file.write_bytes(intact[:end])
        with pytest.raises(InputError, match=r"d: (is no delta|damaged, or cut short|is a delta of another version)"):
            apply(old, file, old)
    file.write_bytes(intact + b"\x00")
    with pytest.raises(InputError, match="damaged, or cut short"):
        apply(old, file, old)
    assert content(old) == before
    assert sorted(os.listdir(tmp_path)) == ["d", "new", "old"]


def resealed(content: bytes) -> bytes:
    """A delta that was changed by someone who knows the format."""
    return content[:-DIGEST] + hashlib.sha256(content[:-DIGEST]).digest()


def test_a_delta_that_was_changed_on_purpose_is_refused(
    pair: tuple[Path, Path], tmp_path: Path, content: Content
) -> None:
    """Whatever it then says, the result has another digest, or there is none."""
    old, new = pair
    file = tmp_path / "d"
    delta(old, new, file)
    intact, draw = file.read_bytes(), np.random.default_rng(0)
    for at in [*range(HEAD, HEAD + 12), *draw.integers(HEAD, len(intact) - DIGEST, 150).tolist()]:
        changed = bytearray(intact)
        changed[at] ^= 1 << int(draw.integers(0, 8))
        file.write_bytes(resealed(bytes(changed)))
        with pytest.raises(InputError, match="d: "):
            apply(old, file, tmp_path / "out")
    swapped = intact[:8] + intact[8 : 8 + DIGEST] * 2 + intact[HEAD:]
    file.write_bytes(resealed(swapped))
    with pytest.raises(InputError, match=r"makes [0-9a-f]{12}\.\.\., and should make"):
        apply(old, file, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["d", "new", "old"]


def test_another_base_is_refused(pair: tuple[Path, Path], made: Made, tmp_path: Path) -> None:
    old, new = pair
    delta(old, new, tmp_path / "d")
    other = made("other", tables(seed=5))
    with pytest.raises(InputError, match=rf"is a delta of {open_artifact(old).digest[:12]}\.\.\., and .*other is"):
        apply(other, tmp_path / "d", other)
    with pytest.raises(InputError, match="that is what the delta makes, already"):
        apply(new, tmp_path / "d", tmp_path / "out")
    delta(new, old, tmp_path / "back")
    with pytest.raises(InputError, match="is a delta of"):
        apply(old, tmp_path / "back", tmp_path / "out")
    with pytest.raises(InputError, match="is the same artifact"):
        delta(old, old, tmp_path / "same")
    assert not (tmp_path / "same").exists()


def test_other_files_and_versions_are_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = pair
    delta(old, new, tmp_path / "d")
    intact = (tmp_path / "d").read_bytes()
    (tmp_path / "d").write_bytes(intact[:7] + b"\x02" + intact[8:])
    with pytest.raises(InputError, match="another version of the format; this release applies 1"):
        apply(old, tmp_path / "d", tmp_path / "out")
    for file in (new / "model.onnx", new / MANIFEST):
        with pytest.raises(InputError, match="is no delta"):
            apply(old, file, tmp_path / "out")
    with pytest.raises(InputError, match="cannot be read: No such file"):
        apply(old, tmp_path / "none", tmp_path / "out")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        apply(old, new, tmp_path / "out")
    with pytest.raises(InputError, match="is a directory; --out is the file"):
        delta(old, new, tmp_path)


def test_a_damaged_artifact_has_no_delta(pair: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = pair
    delta(old, new, tmp_path / "d")
    (old / "README.md").write_text("changed")
    for act in (lambda: delta(old, new, tmp_path / "e"), lambda: apply(old, tmp_path / "d", old)):
        with pytest.raises(InputError, match=r"README\.md: damaged"):
            act()


def test_what_is_no_artifact_is_not_replaced(pair: tuple[Path, Path], tmp_path: Path) -> None:
    delta(*pair, tmp_path / "d")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("three years")
    with pytest.raises(InputError, match="which is no part of an artifact"):
        apply(pair[0], tmp_path / "d", tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "three years"


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_two_artifacts_hold(made: Made, encodings: Encodings, content: Content, data: st.DataObject) -> None:
    """Tables of any type, shape and place, of vocabularies of any size, whether they are alike or not."""
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    count = data.draw(st.integers(0, 10**9))
    folders = []
    for side in ("old", "new"):
        users = draw.permutation(40)[: data.draw(st.integers(1, 40))].tolist()
        seen = [f"s{each}" for each in draw.permutation(9)[: data.draw(st.integers(1, 9))]]
        rows = data.draw(st.sampled_from([len(users) + len(seen) + 3, len(users) + 1, 0, 1, 7]))
        found = {}
        for name in data.draw(st.lists(st.sampled_from("abc"), min_size=1, unique=True)):
            kind = np.dtype(data.draw(st.sampled_from(["u1", "i1", "f2", "f4", "i4", "i8", "f8", "?"])))
            shape = (rows, *data.draw(st.sampled_from([(), (8,), (3, 4)])))
            found[name] = np.frombuffer(draw.bytes(int(np.prod(shape)) * kind.itemsize), np.uint8)
            found[name] = (found[name] & 1 if kind == np.bool_ else found[name]).view(kind).reshape(shape)
        external = data.draw(st.booleans())
        folders.append(
            made(f"{side}-{count}-{draw.integers(1 << 60)}", found, encodings(users, seen), external=external)
        )
    file, out = (folders[0].parent / f"{what}-{draw.integers(1 << 60)}" for what in ("d", "out"))
    delta(*folders, file)
    apply(folders[0], file, out)
    assert content(out) == content(folders[1])


INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from slimrank.artifact import open_artifact
from slimrank.shipping.delta import apply
import slimrank.shipping.patching, slimrank.shipping.vocabularies, zstandard, polars  # so that no event is an import's

old, file, before = Path(sys.argv[1]), Path(sys.argv[2]), open_artifact(sys.argv[1]).digest
events = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir", "os.scandir", "shutil.rmtree")


def killed_at(count):
    seen = 0

    def hook(event, details):
        nonlocal seen
        if event in events and "/proc/" not in str(details):
            seen += 1
            if seen == count:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


count, digests = 0, []
while True:
    count += 1
    child = os.fork()
    if not child:
        killed_at(count)
        apply(old, file, old)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    digests.append(open_artifact(old).digest)  # raises where it is neither
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
        break
    if digests[-1] != before:  # it was in its place already; the next one starts from there
        break
print(count, len(set(digests)), digests[-1])
"""


def test_an_application_that_is_killed_anywhere_leaves_old_or_new(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """A real process, killed at each file that it opens, makes, renames or removes, one after the other."""
    old, new = pair
    delta(old, new, tmp_path / "d")
    command = [sys.executable, "-c", INTERRUPTED, str(old), str(tmp_path / "d")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count, kinds, last = done.stdout.split()
    assert int(count) > 20
    assert kinds == "2"
    assert last == open_artifact(new).digest
    write_artifact(
        old, open_artifact(new).files, {k: v for k, v in open_artifact(new).manifest.items() if k not in SEALED_KEYS}
    )
    assert sorted(os.listdir(tmp_path)) == ["d", "new", "old"]  # whoever writes next removes what was left


def test_a_full_disk_leaves_old_as_it_was(made: Made, tmp_path: Path, small_disk: Path, content: Content) -> None:
    noise = np.random.default_rng(0).integers(0, 256, 300_000, np.uint8)
    old, new = made("old", {"t": noise}), made("new", {"t": noise + 1, "more": noise[:150_000]})
    delta(old, new, tmp_path / "d")
    write = {key: value for key, value in open_artifact(old).manifest.items() if key not in SEALED_KEYS}
    write_artifact(small_disk / "m", open_artifact(old).files, write)
    (small_disk / "fill").write_bytes(bytes(400_000))
    for out in (small_disk / "m", small_disk / "other"):
        with pytest.raises(InputError, match=r"could not be written: No space left.*nothing was left behind"):
            apply(small_disk / "m", tmp_path / "d", out)
        assert sorted(os.listdir(small_disk)) == ["fill", "m"]
        assert content(small_disk / "m") == content(old)
    with pytest.raises(InputError, match="could not be written: No space left"):
        delta(old, made("noise", {"t": np.random.default_rng(1).integers(0, 256, 500_000, np.uint8)}), small_disk / "d")
    assert sorted(os.listdir(small_disk)) == ["fill", "m"]


def test_a_plan_of_another_form_is_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = pair
    delta(old, new, tmp_path / "d")
    intact = (tmp_path / "d").read_bytes()
    length = int.from_bytes(intact[HEAD : HEAD + 4], "little")
    plan = json.loads(decompressed(intact[HEAD + 4 : HEAD + 4 + length], 1 << 20))
    rest = intact[HEAD + 4 + length : -DIGEST]
    graph = next(each for each in plan["files"] if each[0] == "model.onnx")
    changes: list[dict[str, Any]] = [
        {"files": []},
        {"files": [["model.onnx", "same"]]},
        {"files": [["none", "text"]]},
        {"files": plan["files"][1:]},
        {"files": [*plan["files"], ["../above", "same"]]},
        {"files": [*plan["files"][:-1], [*graph[:3], []]]},
        {"files": [*plan["files"][:-1], [*graph[:3], ["="] * len(graph[3])]]},
        {"files": [*plan["files"][:-1], [*graph[:3], [["8+", -1]] * len(graph[3])]]},
        {"files": {"model.onnx": 1}},
        {"manifest": -1},
        {"manifest": 1 << 50},
        {"frames": []},
        {"frames": [["text", 1]]},
        {"frames": [["text", -1]]},
        {"frames": 1},
    ]
    for change in changes:
        told = compressed([json.dumps({**plan, **change}).encode()])
        body = intact[:HEAD] + len(told).to_bytes(4, "little") + told + rest
        (tmp_path / "d").write_bytes(body + hashlib.sha256(body).digest())
        with pytest.raises(InputError, match="d: "):
            apply(old, tmp_path / "d", tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["d", "new", "old"]


def test_a_vocabulary_that_comes_out_otherwise_is_refused_by_name(
    made: Made, encodings: Encodings, tmp_path: Path
) -> None:
    """As it would with another release of polars: here what is told of the values was changed instead."""
    old, new = made("old", tables(), encodings([1, 2], ["a"])), made("new", tables(), encodings([1, 2], ["a", "bcd"]))
    delta(old, new, tmp_path / "d")
    intact = (tmp_path / "d").read_bytes()
    start = HEAD + 4 + int.from_bytes(intact[HEAD : HEAD + 4], "little")
    plan = json.loads(decompressed(intact[HEAD + 4 : start], 1 << 20))
    (name, length), *others = plan["frames"]
    assert (name, others) == ("text", [])
    dictionary = _dictionary(open_artifact(old))
    text = decompressed(intact[start : start + length], 1 << 20, dictionary)
    assert text.count(b'"bcd"') == 1
    frame = compressed([text.replace(b'"bcd"', b'"xyz"')], dictionary)
    told = compressed([json.dumps({**plan, "polars": "0.99", "frames": [["text", len(frame)]]}).encode()])
    body = intact[:HEAD] + len(told).to_bytes(4, "little") + told + frame
    (tmp_path / "d").write_bytes(body + hashlib.sha256(body).digest())
    with pytest.raises(
        InputError, match=r"vocabulary\.parquet comes out otherwise here, with polars .*with polars 0\.99"
    ):
        apply(old, tmp_path / "d", tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["d", "new", "old"]
