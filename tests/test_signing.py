"""Signatures: whose they are, of what, and every way in which one can be wrong."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from slimrank.artifact import SEALED_KEYS, open_artifact, write_artifact
from slimrank.config import InputError
from slimrank.signing import PREFIX, new_key, sign, verify


@pytest.fixture
def key(tmp_path: Path) -> Path:
    new_key(tmp_path / "private.pem")
    return tmp_path / "private.pem"


def public(key: Path) -> Path:
    return key.with_name(f"{key.name}.pub")


def test_a_signature_is_of_the_artifact_and_by_the_key(linear: Any, key: Path) -> None:
    artifact = open_artifact(linear.path)
    written = sign(artifact, key)
    assert written == linear.path.with_name("linear.sig")
    verify(open_artifact(linear.path), public(key))  # which is as it was: no file more
    assert json.loads(written.read_text())["digest"] == artifact.digest


def test_the_same_bytes_are_signed_as_others_sign_them(linear: Any, key: Path) -> None:
    """By the library itself: the prefix, then the digest in hexadecimal."""
    artifact = open_artifact(linear.path)
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    assert isinstance(private, ed25519.Ed25519PrivateKey)
    raw = private.sign(PREFIX + artifact.digest.encode())
    assert json.loads(sign(artifact, key).read_text())["signature"] == base64.b64encode(raw).decode()


def test_it_stands_beside_the_directory_that_a_symlink_leads_to(linear: Any, key: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(linear.path.name)
    assert sign(open_artifact(tmp_path / "current"), key) == linear.path.with_name("linear.sig")
    verify(open_artifact(tmp_path / "current"), public(key))


def test_the_private_key_is_its_owners(key: Path) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert b"PRIVATE" not in public(key).read_bytes()


@pytest.mark.parametrize("there", ["private.pem", "private.pem.pub"])
def test_a_key_is_never_replaced(there: str, tmp_path: Path) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(InputError, match=f"{there}: exists, and a key is not replaced"):
        new_key(tmp_path / "private.pem")
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [(there, "mine")]


@pytest.mark.parametrize("allowed", [20, 115])  # bytes of a file: neither fits, or the public key alone (113 and 119)
def test_a_disk_that_is_full_leaves_no_key(allowed: int, tmp_path: Path) -> None:
    pytest.importorskip("resource")
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from slimrank.signing import InputError, new_key\n"
        "Path(sys.argv[1]).parent.mkdir()\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({allowed}, {allowed}))\n"
        "try: new_key(Path(sys.argv[1]))\n"
        "except InputError as error: print(error)\n"
    )
    words = [sys.executable, "-B", "-c", program, str(tmp_path / "keys" / "private.pem")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "could not be written: File too large" in done.stdout
    assert list((tmp_path / "keys").iterdir()) == []


def test_a_changed_artifact_is_another_content(linear: Any, key: Path) -> None:
    before = open_artifact(linear.path)
    sign(before, key)
    manifest = {name: value for name, value in before.manifest.items() if name not in SEALED_KEYS}
    files = {name: path.read_bytes() for name, path in before.files.items()}
    write_artifact(linear.path, {**files, "README.md": b"# Another\n"}, manifest)
    with pytest.raises(InputError, match=r"linear.sig: of another content: it signs the digest \w{12}\.\.\. where"):
        verify(open_artifact(linear.path), public(key))


def test_a_digest_that_was_written_over_is_false(linear: Any, key: Path) -> None:
    """Who changes artifact and signature alike has no key to sign with."""
    artifact = open_artifact(linear.path)
    path = sign(artifact, key)
    manifest = {name: value for name, value in artifact.manifest.items() if name not in SEALED_KEYS}
    write_artifact(linear.path, {name: each.read_bytes() for name, each in artifact.files.items()}, manifest | {"a": 1})
    changed = open_artifact(linear.path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "digest": changed.digest}))
    with pytest.raises(InputError, match=r"linear.sig: false: the owner of .* did not sign"):
        verify(changed, public(key))


def test_another_key_is_named(linear: Any, key: Path, tmp_path: Path) -> None:
    sign(open_artifact(linear.path), key)
    other = new_key(tmp_path / "other.pem")
    with pytest.raises(InputError, match=r"linear.sig: by the key \w{16}, must be by \w{16} \(.*other.pem.pub\)"):
        verify(open_artifact(linear.path), other)


def altered(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "linear.sig: missing"),
    "no JSON": (lambda path: path.write_text("{"), "linear.sig: malformed, not JSON"),
    "no text": (lambda path: path.write_bytes(b"\xff\xfe\x00"), "linear.sig: malformed, not JSON"),
    "a list": (lambda path: path.write_text("[]"), "malformed, a signature has the keys algorithm, digest, key, sig"),
    "a key more": (lambda path: altered(path, lambda record: record.update(more="x")), "malformed, a signature has"),
    "a number": (lambda path: altered(path, lambda record: record.update(signature=1)), "all of them text"),
    "another algorithm": (
        lambda path: altered(path, lambda record: record.update(algorithm="none")),
        "algorithm 'none', must be 'ed25519'",
    ),
    "no base64": (lambda path: altered(path, lambda record: record.update(signature="*")), "is not base64"),
    "not ASCII": (lambda path: altered(path, lambda record: record.update(signature="ä")), "is not base64"),
    "too short": (lambda path: altered(path, lambda record: record.update(signature="AAAA")), "linear.sig: false"),
    "zeros": (lambda path: altered(path, lambda record: record.update(signature="A" * 86 + "==")), "linear.sig: false"),
    "huge": (lambda path: path.write_bytes(b" " * (1 << 20)), "larger than 16,384 bytes"),
    "a directory": (lambda path: (path.unlink(), path.mkdir()), "linear.sig: cannot be read"),
}


@pytest.mark.parametrize("case", BAD)
def test_every_fault_of_a_signature_is_told(case: str, linear: Any, key: Path) -> None:
    change, message = BAD[case]
    change(sign(open_artifact(linear.path), key))
    with pytest.raises(InputError) as error:
        verify(open_artifact(linear.path), public(key))
    assert message in str(error.value)


def test_what_is_no_ed25519_key_is_told(linear: Any, key: Path, tmp_path: Path) -> None:
    artifact = open_artifact(linear.path)
    sign(artifact, key)
    plain, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(serialization.Encoding.PEM, plain, none)
    locked = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, plain, serialization.BestAvailableEncryption(b"secret")
    )
    for content in (other, locked, b"", b"no key"):
        (tmp_path / "bad.pem").write_bytes(content)
        with pytest.raises(InputError, match=r"bad.pem: no private key that can be used; an Ed25519 key in PEM with"):
            sign(artifact, tmp_path / "bad.pem")
    for path in (key, tmp_path / "bad.pem"):  # a private key is none to check with
        with pytest.raises(InputError, match=r"\.pem: no public key that can be used"):
            verify(artifact, path)
    with pytest.raises(InputError, match=r"nowhere.pem: missing"):
        sign(artifact, tmp_path / "nowhere.pem")


def test_a_key_of_openssl_signs(linear: Any, tmp_path: Path) -> None:
    made = subprocess.run(
        ["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(tmp_path / "theirs.pem")], capture_output=True
    )
    if made.returncode:
        pytest.skip("this openssl has no Ed25519")
    shown = ["openssl", "pkey", "-in", str(tmp_path / "theirs.pem"), "-pubout", "-out", str(tmp_path / "theirs.pub")]
    subprocess.run(shown, check=True, capture_output=True)
    sign(open_artifact(linear.path), tmp_path / "theirs.pem")
    verify(open_artifact(linear.path), tmp_path / "theirs.pub")


def test_without_the_library_the_install_command_is_told(linear: Any, key: Path) -> None:
    """In an interpreter that finds no cryptography."""
    program = (
        "import sys\n"
        "class Without:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'cryptography': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Without())\n"
        "from pathlib import Path\n"
        "from slimrank.artifact import open_artifact\n"
        "from slimrank.config import InputError\n"
        "from slimrank.signing import verify\n"
        "try: verify(open_artifact(sys.argv[1]), Path(sys.argv[2]))\n"
        "except (InputError, ModuleNotFoundError) as error: print(error)\n"
    )
    words = [sys.executable, "-c", program, str(linear.path), os.fspath(public(key))]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "pip install 'slimrank[sign]'" in done.stdout


def slimrank(*words: str | Path) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", "from slimrank.cli import main; main()", *map(str, words)]
    return subprocess.run(program, capture_output=True, text=True, check=False)


def test_the_verb_makes_keys_signs_and_checks(linear: Any, tmp_path: Path) -> None:
    private, shown = tmp_path / "mine.pem", tmp_path / "mine.pem.pub"
    assert slimrank("sign", "--new-key", private).stdout.strip() == str(shown)
    assert slimrank("sign", linear.path, "--key", private).stdout.strip() == str(tmp_path / "linear.sig")
    digest = open_artifact(linear.path).digest
    assert slimrank("sign", linear.path, "--check", shown).stdout.strip() == f"signed: {digest}"
    for words in (("--new-key", private), (), (linear.path,), (linear.path, "--key", private, "--check", shown)):
        refused = slimrank("sign", *words)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr.startswith("error: ")
