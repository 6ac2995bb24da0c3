"""`Host`: which names a service answers to, and that a page cannot let its own lead there."""

import socket
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import httpx
import pytest

from asgihive.service import H5App
from asgihive.service.gate import is_local_host
from asgihive.settings import H5Settings, parse_host
from tests.service import servers

pytestmark = pytest.mark.anyio

DATA = "/data?file=x.h5&path=/values"
LOCAL = [
    *("localhost", "localhost:8000", "LOCALHOST", "localhost.", "localhost.:80"),
    *("127.0.0.1", "127.0.0.1:8000", "127.8.9.10:1", "[::1]", "[::1]:8000"),
    *("[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]:8000", "127.0.0.1:", "::1"),
]
FOREIGN = [
    *("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example"),
    *("192.0.2.7", "0.0.0.0:8000", "[::]:8000", "[2001:db8::1]", "", ":8000", "xlocalhost"),
    *("localhost:8000@evil.example", "evil.example@localhost", "127.1", "0x7f000001", "2130706433"),
    *("evil.example/localhost", "[::1", "localhost:http", "localhost, evil.example"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    with h5py.File(root / "x.h5", "w") as file:
        file["values"] = [3, 1, 4]
    return root


def client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def assert_answers(app: H5App, hosts: list[str]) -> None:
    async with client(app) as http:
        for host in hosts:
            assert (await http.get(DATA, headers={"host": host})).json() == [3, 1, 4], host


async def test_an_application_of_ones_own_checks_nothing(root: Path) -> None:
    await assert_answers(H5App(root), [*LOCAL, *FOREIGN])


@pytest.mark.parametrize("allowed", [(), ("data.example.org",)])
async def test_local_names(root: Path, allowed: tuple[str, ...]) -> None:
    await assert_answers(H5App(root, H5Settings(allowed_hosts=allowed)), LOCAL)


async def test_other_names(root: Path) -> None:
    async with client(H5App(root, H5Settings(allowed_hosts=("data.example.org",)))) as http:
        for host, target in product(FOREIGN, (DATA, "/", "/health", "/docs", "/nothing")):
            answer = await http.get(target, headers={"host": host})
            assert answer.status_code == 403, host
            assert "--allowed-host" in answer.json()["message"]
            assert "allowed_hosts" in answer.json()["message"]
            assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "host", ["data.example.org", "Data.Example.Org:8443", "[2001:db8::7]:80", "[2001:DB8:0:0::7]"]
)
async def test_names_that_are_allowed(root: Path, host: str) -> None:
    allowed = ("DATA.example.org", "2001:db8::7")
    async with client(H5App(root, H5Settings(allowed_hosts=allowed))) as http:
        assert (await http.get(DATA, headers={"host": host})).json() == [3, 1, 4]


async def test_a_star_allows_all(root: Path) -> None:
    await assert_answers(H5App(root, H5Settings(allowed_hosts=("*",))), FOREIGN)


async def test_of_two_names_both_have_to_be_right(root: Path) -> None:
    async with client(H5App(root, H5Settings(allowed_hosts=()))) as http:
        for hosts in (("localhost", "evil.example"), ("evil.example", "localhost")):
            answer = await http.get(DATA, headers=[("host", each) for each in hosts])
            assert answer.status_code == 403


async def test_the_page_of_an_allowed_origin_can_read_the_refusal(root: Path) -> None:
    origin = "https://viewer.example"
    settings = H5Settings(allowed_hosts=(), cors_origins=(origin,))
    async with client(H5App(root, settings)) as http:
        answer = await http.get(DATA, headers={"host": "proxy.example", "origin": origin})
        assert answer.status_code == 403
        assert answer.headers["access-control-allow-origin"] == origin


async def test_nothing_of_what_was_sent_is_too_long_for_a_message(root: Path) -> None:
    async with client(H5App(root, H5Settings(allowed_hosts=()))) as http:
        answer = await http.get(DATA, headers=[(b"host", b"\xe4" * 9000)])
        assert answer.status_code == 403
        assert len(answer.content) < 1500


@pytest.mark.slow_on_trio
async def test_readers_do_not_check_again(root: Path) -> None:
    settings = H5Settings(allowed_hosts=("data.example.org",), isolation="process", decode_lanes=1)
    app = H5App(root, settings)
    async with app.running(), client(app) as http:
        answer = await http.get(DATA, headers={"host": "data.example.org"})
        assert answer.json() == [3, 1, 4]


async def test_a_websocket_is_refused(root: Path) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "websocket",
        "path": "/",
        "headers": [(b"host", b"evil.example")],
        "query_string": b"",
        "extensions": {"websocket.http.response": {}},
    }
    await H5App(root, H5Settings(allowed_hosts=()))(scope, receive, send)
    assert sent[0]["status"] == 403


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.255.255.254", "::1"])
def test_what_is_local(host: str) -> None:
    assert is_local_host(host)


@pytest.mark.parametrize(
    "name", ["https://data.example.org", "a:80", "a b", "[::1", "::1]", "", "[a]", "1:2:3", "a/b"]
)
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="a host such as"):
        parse_host(name)
    with pytest.raises(ValueError, match="allowed_hosts is "):
        H5Settings(allowed_hosts=(name,))


def test_names_are_compared_in_one_form() -> None:
    names = ("Data.Example.ORG.", "[2001:DB8:0::7]", "2001:db8::7", "192.0.2.7", "*")
    parsed = ("data.example.org", "2001:db8::7", "2001:db8::7", "192.0.2.7", "*")
    assert H5Settings(allowed_hosts=names).allowed_hosts == parsed


@pytest.fixture(params=servers.SERVERS)
def address(request: pytest.FixtureRequest, root: Path) -> Iterator[tuple[str, int]]:
    app = H5App(root, H5Settings(allowed_hosts=()))
    with servers.serving(app, request.param) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        yield host, int(port)


def status_of(address: tuple[str, int], head: bytes) -> bytes:
    with socket.create_connection(address, timeout=servers.PATIENCE) as connection:
        connection.sendall(head + b"\r\n")
        return connection.makefile("rb").readline().split()[1]


def test_over_the_wire(address: tuple[str, int]) -> None:
    line = f"GET {DATA} HTTP/1.1\r\nConnection: close\r\n".encode()
    assert status_of(address, line + b"Host: localhost:8000\r\n") == b"200"
    assert status_of(address, line + b"Host: evil.example\r\n") == b"403"
    # An old program, such as the health check of a load balancer, which is no browser.
    assert status_of(address, f"GET {DATA} HTTP/1.0\r\n".encode()) == b"200"
