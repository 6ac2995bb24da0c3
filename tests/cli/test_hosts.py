"""Which names `asgihive serve` answers to."""

from pathlib import Path

import httpx
import pytest

from tests.cli.processes import PATIENCE, complaint, running

EVIL, PROXY = {"host": "evil.example"}, {"host": "data.example.org:443"}


def status(url: str, headers: dict[str, str]) -> int:
    return httpx.get(url, headers=headers, timeout=PATIENCE).status_code


@pytest.mark.parametrize("command", ["serve", pytest.param("demo", marks=pytest.mark.slow)])
def test_at_a_loopback_address_only_local_names(directory: Path, command: str) -> None:
    where = [str(directory)] if command == "serve" else []
    with running(command, *where, "--port", "0") as server:
        url = httpx.URL(server.url)
        root = f"http://{url.host}:{url.port}/"
        assert status(root, {}) == 200
        assert status(root, {"host": f"localhost:{url.port}"}) == 200
        refused = httpx.get(root, headers=EVIL, timeout=PATIENCE)
        assert refused.status_code == 403
        assert "'evil.example'" in refused.json()["message"]


@pytest.mark.slow
def test_names_that_are_allowed(directory: Path, tmp_path: Path) -> None:
    file = tmp_path / "asgihive.toml"
    file.write_text('allowed-host = ["data.example.org"]\n')
    for options in (["--allowed-host", "data.example.org"], ["--config", str(file)]):
        with running("serve", str(directory), "--port", "0", *options) as server:
            assert status(server.url, PROXY) == 200
            assert status(server.url, EVIL) == 403


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("*", marks=pytest.mark.slow),
        "token",
        pytest.param("everywhere", marks=pytest.mark.slow),
    ],
)
def test_all_names(directory: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"*": ["--allowed-host", "*"], "everywhere": ["--host", "0.0.0.0"]}.get(name, [])
    if name == "token":
        monkeypatch.setenv("ASGIHIVE_TOKEN", "open-sesame")
    with running("serve", str(directory), "--port", "0", *options) as server:
        assert status(server.url, EVIL) == 200


@pytest.mark.slow
def test_names_of_the_environment_hold_wherever_it_listens(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASGIHIVE_ALLOWED_HOSTS", "data.example.org, other.example")
    monkeypatch.setenv("ASGIHIVE_TOKEN", "open-sesame")
    with running("serve", str(directory), "--port", "0", "--host", "0.0.0.0") as server:
        port = httpx.URL(server.url).port
        assert status(f"http://127.0.0.1:{port}/", PROXY) == 200
        assert status(f"http://127.0.0.1:{port}/", {}) == 200
        assert status(f"http://127.0.0.1:{port}/", EVIL) == 403


def test_a_unix_socket_is_for_proxies(directory: Path, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with running("serve", str(directory), "--uds", str(path)):
        transport = httpx.HTTPTransport(uds=str(path))
        with httpx.Client(transport=transport, timeout=PATIENCE) as client:
            assert client.get("http://evil.example/").text == "ok"


def test_what_is_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    line = complaint(capsys, ["serve", ".", "--allowed-host", "data.example.org:80"])
    assert "a host such as data.example.org" in line
