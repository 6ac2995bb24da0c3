"""Unix sockets and HTTPS: what is served there, and what is wrong with a path or a certificate."""

import socket
import ssl
import stat
from pathlib import Path

import httpx
import pytest
import trustme

from tests.cli.processes import PATIENCE, complaint, running, taken_port

QUERY = {"file": "x.h5", "path": "/values"}


def at_socket(path: Path) -> httpx.Client:
    transport = httpx.HTTPTransport(uds=str(path))
    return httpx.Client(transport=transport, base_url="http://localhost", timeout=PATIENCE)


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_serves_at_a_unix_socket_and_removes_it(
    directory: Path, tmp_path: Path, workers: str
) -> None:
    path = tmp_path / "socket"
    with running("serve", str(directory), "--uds", str(path), "--workers", workers) as server:
        assert str(path) in server.lines[0]
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        with at_socket(path) as client:
            assert client.get("/data", params=QUERY).json() == [0, 1, 2, 3, 4]
        assert server.stop() == (0, "")
    assert not path.exists()


def test_a_socket_that_nobody_listens_at_is_replaced(directory: Path, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    with (
        running("serve", str(directory), "--uds", str(path)),
        at_socket(path) as client,
    ):
        assert client.get("/").text == "ok"


def test_a_socket_of_another_server_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        line = complaint(capsys, ["serve", ".", "--uds", str(path)])
        assert f"another server listens at {path}" in line
        assert path.is_socket()


def test_what_is_no_socket_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("dear diary")
    assert "is there already, and no socket" in complaint(
        capsys, ["serve", ".", "--uds", str(path)]
    )
    assert path.read_text() == "dear diary"


@pytest.mark.parametrize(
    ("name", "words"), [("missing/socket", "No such file"), ("x" * 200, "AF_UNIX path too long")]
)
def test_a_path_where_no_socket_can_be(
    name: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in complaint(capsys, ["serve", ".", "--uds", str(tmp_path / name)])


@pytest.mark.slow
def test_a_socket_that_somebody_replaced_stays(directory: Path, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with running("serve", str(directory), "--uds", str(path)) as server:
        with at_socket(path) as client:
            assert client.get("/").text == "ok"
        path.unlink()
        path.write_text("mine now")
        assert server.stop() == (0, "")
    assert path.read_text() == "mine now"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def certificate(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with chain.pem, key.pem, both in both.pem, and the key of another certificate."""
    folder = tmp_path_factory.mktemp("certificate")
    issued, other = (authority.issue_cert("127.0.0.1") for _ in range(2))
    issued.cert_chain_pems[0].write_to_path(folder / "chain.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    issued.private_key_and_cert_chain_pem.write_to_path(folder / "both.pem")
    other.private_key_pem.write_to_path(folder / "other.pem")
    return folder


@pytest.mark.parametrize(
    "files",
    [
        pytest.param(("--ssl-certfile", "chain.pem", "--ssl-keyfile", "key.pem"), id="two files"),
        pytest.param(("--ssl-certfile", "both.pem"), id="one file", marks=pytest.mark.slow),
    ],
)
def test_serves_https(
    directory: Path, authority: trustme.CA, certificate: Path, files: tuple[str, ...]
) -> None:
    given = [str(certificate / each) if each.endswith(".pem") else each for each in files]
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with running("serve", str(directory), "--port", "0", *given) as server:
        assert server.url.startswith("https://")
        with httpx.Client(verify=trusting, trust_env=False, timeout=PATIENCE) as client:
            answer = client.get(server.url + "data", params=QUERY)
        assert answer.json() == [0, 1, 2, 3, 4]
        assert server.stop() == (0, "")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("--ssl-keyfile", "key.pem"), "--ssl-keyfile needs --ssl-certfile"),
        (("--ssl-certfile", "chain.pem"), "no certificate chain and its unencrypted key"),
        (("--ssl-certfile", "chain.pem", "--ssl-keyfile", "other.pem"), "KEY_VALUES_MISMATCH"),
        (("--ssl-certfile", "missing.pem"), "missing.pem' cannot be read"),
        (("--ssl-certfile", "chain.pem", "--ssl-keyfile", "missing.pem"), "cannot be read"),
    ],
)
@pytest.mark.parametrize("command", ["serve", "demo"])
def test_what_is_wrong_with_a_certificate(
    command: str,
    files: tuple[str, ...],
    words: str,
    certificate: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [str(certificate / each) if each.endswith(".pem") else each for each in files]
    arguments = [command, *([] if command == "demo" else ["."]), *given]
    assert words in complaint(capsys, arguments)


def test_an_encrypted_key_asks_nobody(
    certificate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415  # trustme's own

    key = serialization.load_pem_private_key((certificate / "key.pem").read_bytes(), None)
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"open sesame"),
        )
    )
    arguments = ["--ssl-certfile", str(certificate / "chain.pem")]
    arguments += ["--ssl-keyfile", str(tmp_path / "key.pem")]
    assert "unencrypted key" in complaint(capsys, ["serve", ".", *arguments])


def test_a_taken_port_is_told_with_https_too(
    certificate: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with taken_port() as port:
        given = ["--port", str(port), "--ssl-certfile", str(certificate / "both.pem")]
        assert f"port {port} of 127.0.0.1 is taken" in complaint(capsys, ["serve", ".", *given])
