"""Who an artifact is from: an Ed25519 signature of its digest, in a file beside its directory.

The digest of an artifact names its exact content, so that a signature of it is one of every byte. It stands beside the
directory (`frappe.sig` of `frappe`), since an artifact holds the files of its manifest and no others. Where a version
is put in the place of another, its signature goes first. Keys are PEM files, as `openssl genpkey -algorithm ed25519`
writes them too. Left out: who trusts which key, and keys behind a passphrase.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimrank.artifact import Artifact, open_artifact
from slimrank.config import InputError
from slimrank.files import replace_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PREFIX = b"slimrank artifact signature 1\n"  # nothing else that the key may sign begins like that
SUFFIX = ".sig"
PUBLIC = ".pub"
KEYS = {"algorithm", "digest", "key", "signature"}
ALGORITHM = "ed25519"
MAX_BYTES = 16 << 10  # of a key or a signature, which are below one kilobyte


def asked(artifact: Path | None, private: Path | None, public: Path | None, new: Path | None) -> str:
    """Do what `slimrank sign` was asked: sign with a private key, check with a public one, or make a new pair.

    Returns:
        The file that was written, or that the signature is right and of which digest.

    Raises:
        InputError: not exactly one of the three was asked; as `sign`, `verify` and `new_key`.
    """
    if [private, public, new].count(None) != 2 or (artifact is None) != (new is not None):
        raise InputError("sign takes ARTIFACT with --key or with --check, or --new-key alone")
    if new is not None:
        return str(new_key(new))
    assert artifact is not None  # by the check above
    found = open_artifact(artifact)
    if private is not None:
        return str(sign(found, private))
    assert public is not None
    verify(found, public)
    return f"signed: {found.digest}"


def new_key(path: Path) -> Path:
    """Make a pair of keys: the private one in `path`, which its owner alone may read, the public one in `path`.pub.

    Returns:
        The public key's file.

    Raises:
        InputError: one of the files is there already, or cannot be written; neither is changed then.
    """
    _need_library()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    public = path.with_name(path.name + PUBLIC)
    secret = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    shown = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    _write_new(public, shown, 0o644)
    try:
        _write_new(path, secret, 0o600)
    except InputError:
        public.unlink()
        raise
    return public


def sign(artifact: Artifact, private_key: Path) -> Path:
    """Sign a verified artifact with the key in `private_key`; the signature's file, which replaces an older one.

    Raises:
        InputError: the key is missing, is no private Ed25519 key, or the file cannot be written.
    """
    _need_library()
    key = _private(private_key)
    record = {
        "algorithm": ALGORITHM,
        "digest": artifact.digest,
        "key": _fingerprint(key.public_key()),
        "signature": base64.b64encode(key.sign(PREFIX + artifact.digest.encode())).decode(),
    }
    path = signature_file(artifact)
    replace_file(path, (json.dumps(record, indent=1, sort_keys=True) + "\n").encode())
    return path


def verify(artifact: Artifact, public_key: Path) -> None:
    """Return if the signature beside a verified artifact is of its content, and by the owner of the key.

    Raises:
        InputError: the key is missing or is no public Ed25519 key; the signature is missing, malformed, of another
            content, by another key, or false.
    """
    _need_library()
    from cryptography.exceptions import InvalidSignature

    key = _public(public_key)
    path = signature_file(artifact)
    record = _record(path)
    if record["key"] != _fingerprint(key):
        raise InputError(f"{path}: by the key {record['key']:.16}, must be by {_fingerprint(key):.16} ({public_key})")
    if record["digest"] != artifact.digest:
        said = f"{record['digest']:.12}... where the artifact's is {artifact.digest:.12}..."
        raise InputError(f"{path}: of another content: it signs the digest {said}")
    try:
        key.verify(base64.b64decode(record["signature"], validate=True), PREFIX + artifact.digest.encode())
    except (binascii.Error, ValueError):
        raise InputError(f"{path}: malformed: `signature` is not base64") from None
    except InvalidSignature:
        raise InputError(f"{path}: false: the owner of {public_key} did not sign {artifact.digest:.12}...") from None


def signature_file(artifact: Artifact) -> Path:
    """Where the signature of an artifact stands: beside the directory itself, where the way to it is a symlink."""
    return artifact.path.with_name(artifact.path.name + SUFFIX)


def _record(path: Path) -> dict[str, str]:
    """The signature's file, its form checked."""
    try:
        found: Any = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: malformed, not JSON: {error}") from None
    if not isinstance(found, dict) or set(found) != KEYS or not all(isinstance(each, str) for each in found.values()):
        raise InputError(f"{path}: malformed, a signature has the keys {', '.join(sorted(KEYS))}, all of them text")
    if found["algorithm"] != ALGORITHM:
        raise InputError(f"{path}: algorithm {found['algorithm']!r:.40}, must be {ALGORITHM!r}")
    return found


def _private(path: Path) -> Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _read(path)
    try:
        key = load_pem_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"{path}: no private key that can be used; an Ed25519 key in PEM without a passphrase is")
    return key


def _public(path: Path) -> Ed25519PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    content = _read(path)
    try:
        key = load_pem_public_key(content)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(f"{path}: no public key that can be used; an Ed25519 key in PEM is, such as PRIVATE{PUBLIC}")
    return key


def _fingerprint(key: Ed25519PublicKey) -> str:
    """sha256 of the key's 32 bytes, in hex: by which a key is named."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"{path}: missing") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise InputError(f"{path}: larger than {MAX_BYTES:,} bytes, no key and no signature is")
    return content


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file that is not there yet, with those rights from its first byte; whole or not at all."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise InputError(f"{path}: exists, and a key is not replaced") from None
    except OSError as error:
        raise InputError(f"{path}: could not be written: {error.strerror}") from error
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()
        raise InputError(f"{path}: could not be written: {error.strerror}") from error


def _need_library() -> None:
    """Raises `InputError` with the install command where cryptography is not installed."""
    try:
        import cryptography  # noqa: F401
    except ModuleNotFoundError:
        raise InputError("cryptography is not installed; signatures need: pip install 'slimrank[sign]'") from None
