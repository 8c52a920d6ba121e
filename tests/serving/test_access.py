"""Who may ask, over what, and which artifacts are loaded: tokens, certificates, signatures, operators."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from slimrank.artifact import open_artifact
from slimrank.config import InputError
from slimrank.serving import Settings, models_of
from slimrank.serving.access import allowed, read_token
from slimrank.serving.server import serve
from slimrank.signing import new_key, sign

TOKEN = "a token of more than 16 bytes".replace(" ", "-")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("access")


@pytest.fixture(scope="module")
def token(folder: Path) -> Path:
    (folder / "token").write_text(f"{TOKEN}\n")
    return folder / "token"


@pytest.fixture(scope="module")
def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that signs itself, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(secret)
    return folder / "certificate.pem", folder / "key.pem"


@pytest.fixture(scope="module")
def guarded(
    start_once: Any,
    write_linear_at: Callable[..., Any],
    folder: Path,
    token: Path,
    certificate: tuple[Path, Path],
) -> Any:
    """A service with a certificate that wants the token, over HTTP and gRPC."""
    path = write_linear_at(folder / "linear").path
    tls = ("--set", f"tls_certificate={certificate[0]}", "--set", f"tls_key={certificate[1]}")
    started = start_once(path, "--port", 0, "--grpc-port", 0, "--token-file", token, *tls)
    assert started.url.startswith("https://127.0.0.1:")
    return started


@pytest.fixture(scope="module")
def https(guarded: Any, certificate: tuple[Path, Path]) -> Any:
    with httpx.Client(base_url=guarded.url, verify=ssl.create_default_context(cafile=certificate[0])) as client:
        yield client


BEARER = {"authorization": f"Bearer {TOKEN}"}


def test_only_health_and_the_page_are_told_to_everyone(https: httpx.Client, row: dict[str, Any]) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "/"):
        assert https.get(path).status_code == 200
    for path in ("/v2", "/metrics", "/openapi.json", "/v2/models/linear", "/v2/models/stats", "/nowhere"):
        answer = https.get(path)
        assert (answer.status_code, answer.json()) == (401, {"error": "a bearer token is needed"})
        assert answer.headers["www-authenticate"] == "Bearer"
        assert https.get(path, headers=BEARER).status_code == (404 if path == "/nowhere" else 200)
    assert https.post("/v2/models/linear/rank", json={"candidates": [row]}).status_code == 401
    assert https.post("/v2/repository/models/linear/unload").status_code == 401
    assert https.post("/v2/models/linear/rank", json={"candidates": [row]}, headers=BEARER).status_code == 200


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN, "Bearer \xff"],
)
def test_other_tokens_are_none(https: httpx.Client, header: str) -> None:
    assert https.get("/v2", headers={"authorization": header.encode("latin-1")}).status_code == 401


def test_the_scheme_may_be_written_in_any_case() -> None:
    assert allowed(f"bearer {TOKEN}".encode(), TOKEN.encode())
    assert allowed(f"BEARER  {TOKEN} ".encode(), TOKEN.encode())
    assert not allowed(b"", TOKEN.encode())


def test_who_does_not_know_the_certificate_or_speaks_plainly_gets_nothing(guarded: Any) -> None:
    with pytest.raises(httpx.ConnectError, match="certificate"):
        httpx.get(f"{guarded.url}/v2/health/live")
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{guarded.url.replace('https', 'http')}/v2/health/live")


def test_grpc_wants_both_too(guarded: Any, certificate: tuple[Path, Path]) -> None:
    trusted = {"ssl": True, "root_certificates": str(certificate[0])}
    with InferenceServerClient(guarded.grpc, **trusted) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        for headers in (None, {"authorization": f"Bearer {TOKEN}x"}, {"authorization": TOKEN}):
            with pytest.raises(InferenceServerException, match="a bearer token is needed") as refused:
                client.get_model_metadata("linear", headers=headers)
            assert refused.value.status() == str(grpc.StatusCode.UNAUTHENTICATED)
            with pytest.raises(InferenceServerException, match="a bearer token is needed"):
                client.unload_model("linear", headers=headers)
        assert client.get_model_metadata("linear", headers=BEARER).name == "linear"
    with InferenceServerClient(guarded.grpc) as client, pytest.raises(InferenceServerException):
        client.is_server_live()


@pytest.mark.parametrize(
    "content", [b"", b"short", b"fifteen letters", b"with a space in it", b"\x00" * 32, b"\xff" * 32]
)
def test_what_is_no_token(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(InputError, match="holds no token; a token has at least 16 printable characters and no spaces"):
        read_token(tmp_path / "token")


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "private.pem", new_key(tmp_path / "private.pem")


def test_only_signed_artifacts_are_loaded(
    serving: Any,
    write_linear_at: Callable[..., Any],
    tmp_path: Path,
    keys: tuple[Path, Path],
    row: dict[str, Any],
    eventually: Any,
) -> None:
    path = tmp_path / "linear"
    write_linear_at(path)
    settings = Settings(models=models_of([path]), port=0, public_key=keys[1])
    with pytest.raises(InputError, match=r"linear\.sig: missing"):
        serve(settings)
    sign(open_artifact(path), keys[0])
    served = serving(path, public_key=keys[1], poll_ms=5)
    expected = served.rank(candidates=[row]).json()
    assert expected["model_version"] == open_artifact(path).digest[:12]

    def index() -> dict[str, str]:
        found: dict[str, str] = served.http.post("/v2/repository/index").json()[0]
        return found

    write_linear_at(path, seed=1)
    eventually(lambda: "it signs the digest" in index()["reason"])
    assert served.rank(candidates=[row]).json() == expected
    other = tmp_path / "other.pem"
    new_key(other)
    sign(open_artifact(path), other)
    eventually(lambda: "linear.sig: by the key" in index()["reason"])
    assert served.rank(candidates=[row]).json() == expected
    sign(open_artifact(path), keys[0])  # the artifact is as it was; that its signature came is noticed
    eventually(lambda: index()["version"] == open_artifact(path).digest[:12])
    assert index()["reason"] == ""


def test_operators_outside_the_list_are_refused(
    serving: Any, write_linear_at: Callable[..., Any], tmp_path: Path, row: dict[str, Any], eventually: Any
) -> None:
    from onnx import helper

    def with_loop(model: Any) -> None:
        """What the manifest counts includes an operator that is not allowed."""
        model.graph.node.append(helper.make_node("RandomNormalLike", ["logit"], ["unused"]))

    path = tmp_path / "linear"
    write_linear_at(path)
    served = serving(path, poll_ms=5)
    expected = served.rank(candidates=[row]).json()
    write_linear_at(path, with_loop)
    with pytest.raises(InputError, match="operators not allowed: 'RandomNormalLike'"):
        serve(Settings(models=models_of([path]), port=0))
    eventually(lambda: "operators not allowed" in served.http.post("/v2/repository/index").json()[0]["reason"])
    assert served.rank(candidates=[row]).json() == expected


@pytest.mark.parametrize(
    ("host", "is_open"),
    [
        *(("127.0.0.1", False), ("127.1.2.3", False), ("::1", False), ("localhost", False)),
        *(("0.0.0.0", True), ("::", True), ("10.0.0.1", True), ("ranker.example", True)),
    ],
)
def test_models_are_loaded_by_request_where_not_everyone_may_ask(host: str, is_open: bool, folder: Path) -> None:
    models = models_of([folder / "any"])
    plain = Settings(models=models, host=host)
    guarded = Settings(models=models, host=host, token_file=folder / "token")
    assert (plain.open_to_all, plain.may_load) == (is_open, not is_open)
    assert (guarded.open_to_all, guarded.may_load) == (False, True)
    asked = [Settings(models=models, host=host, remote_load=each).may_load for each in (True, False)]
    assert asked == [True, False]


def test_that_everyone_may_ask_is_told(start: Any, linear: Any) -> None:
    open_to_all = start(linear.path, "--host", "0.0.0.0", "--port", 0)
    open_to_all.address("serving linear on http")
    closed = start(linear.path, "--port", 0)
    closed.address("serving linear on http")
    for started in (open_to_all, closed):
        started.stop()
        started.reader.join()
    assert "there is no token: everyone who reaches the port may ask\n" in open_to_all.told
    assert "there is no token" not in closed.told
