"""The second half of the migration page: h5grove on one side, `H5App` on the other."""

import asyncio
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from tornado.httpserver import HTTPServer
from werkzeug.serving import make_server

from asgihive import H5App
from asgihive.hive import compose_lifespans
from tests.docs.conftest import LARGE_BYTES
from tests.docs.page import MIGRATION
from tests.service import servers

QUESTIONS = (
    "/h5/meta?file=x.h5",
    "/h5/meta?file=x.h5&path=/group/small",
    "/h5/attr?file=x.h5&path=/group/small",
    "/h5/data?file=x.h5&path=/group/small",
    "/h5/data?file=x.h5&path=/group/small&selection=1,2:5",
    "/h5/stats?file=x.h5&path=/group/small",
    "/h5/paths?file=x.h5",
)
LARGE = "/h5/data?file=x.h5&path=/large&format=bin"


def test_every_block_is_tried() -> None:
    """By one of the tests here, or as a part of the service that the other module runs."""
    tried = Path(__file__).read_text()
    for name in MIGRATION.code():
        assert (
            name.startswith(("before/", "after/", "kept/"))
            or f'"{name.removesuffix(".py")}"' in tried
        )


def application(folder: Path, name: str) -> Any:
    """`app` of a file of the page; those of h5grove only where it is installed."""
    if name.startswith("h5grove"):
        pytest.importorskip("h5grove")
    return runpy.run_path(str(folder / f"{name}.py"))["app"]


def check(client: httpx.Client) -> None:
    """Check the answers of the service, which h5grove gives too."""
    assert client.get("/h5/").status_code == 200
    meta, small, attributes, values, selected, statistics, paths = (
        client.get(question).json() for question in QUESTIONS
    )
    assert {each["name"] for each in meta["children"]} == {"group", "large"}
    assert (small["kind"], small["shape"]) == ("dataset", [4, 6])
    assert attributes == {"unit": "counts"}
    assert values == np.arange(24.0).reshape(4, 6).tolist()
    assert selected == [8.0, 9.0, 10.0]
    assert (statistics["min"], statistics["max"], statistics["mean"]) == (0, 23, 11.5)
    assert set(paths) >= {"/group", "/group/small", "/large"}
    raw = client.get(LARGE)
    assert (len(raw.content), raw.headers["content-length"]) == (LARGE_BYTES, f"{LARGE_BYTES}")


def check_own(client: httpx.Client) -> None:
    """What h5grove does otherwise."""
    answer = client.get("/h5/meta?file=no.h5")
    assert (answer.status_code, answer.json()) == (404, {"message": "File not found: no.h5"})
    assert client.get("/h5/meta").status_code == 422
    head = client.head("/h5/meta/?file=x.h5")
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize("name", ["h5grove_fastapi", "asgihive_fastapi"])
def test_fastapi(folder: Path, name: str) -> None:
    app = application(folder, name)
    with servers.serving(app, "uvicorn-httptools") as url, servers.client(url) as client:
        check(client)
        if name.startswith("asgihive"):
            check_own(client)


def test_fastapi_with_a_lifespan_of_its_own(folder: Path) -> None:
    steps: list[str] = []

    @asynccontextmanager
    async def mine(app: object) -> AsyncIterator[None]:
        steps.append("up")
        yield
        steps.append("down")

    h5 = H5App(folder / "data")
    app = FastAPI(lifespan=compose_lifespans(mine, h5.lifespan))
    app.mount("/h5", h5)
    with servers.serving(app, "uvicorn-h11") as url, servers.client(url) as client:
        assert client.get(QUESTIONS[2]).json() == {"unit": "counts"}
        assert steps == ["up"]
    assert steps == ["up", "down"]


@contextmanager
def serving_wsgi(app: Any) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(servers.PATIENCE)
        server.server_close()


@pytest.mark.parametrize("name", ["h5grove_flask", "asgihive_in_flask"])
def test_in_flask(folder: Path, name: str) -> None:
    with serving_wsgi(application(folder, name)) as url, servers.client(url) as client:
        check(client)
        if name.startswith("asgihive"):
            check_own(client)


def test_broken_off_in_flask(folder: Path) -> None:
    """Nothing stays of a download that its client broke off."""
    module = runpy.run_path(str(folder / "asgihive_in_flask.py"))

    async def others_ended() -> bool:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=servers.PATIENCE)
        return not [each for each in others if not each.done()]

    with serving_wsgi(module["app"]) as url:
        for _ in range(3):
            port = int(url.rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port)) as leaving:
                leaving.sendall(f"GET {LARGE} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
                assert leaving.recv(1000).startswith(b"HTTP/1.")
        loop = module["bridge"].loop
        assert asyncio.run_coroutine_threadsafe(others_ended(), loop).result()
        with servers.client(url) as client:
            check(client)


def test_beside_flask(folder: Path) -> None:
    app = application(folder, "asgihive_beside_flask")
    with servers.serving(app, "uvicorn-h11") as url, servers.client(url) as client:
        assert client.get("/hello").text == "hello"
        check(client)
        check_own(client)


@contextmanager
def serving_tornado(app: Any) -> Iterator[str]:
    """In a thread with an event loop of its own."""
    ready: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)  # Tornado accepts until there is no connection
        stop = asyncio.Event()
        server = HTTPServer(app)
        server.add_socket(listener)
        ready.set_result((listener.getsockname()[1], asyncio.get_running_loop(), stop))
        await stop.wait()
        server.stop()
        await server.close_all_connections()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    port, loop, stop = ready.result(servers.PATIENCE)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(servers.PATIENCE)
        assert not thread.is_alive(), "Tornado does not stop"


@pytest.mark.parametrize("name", ["h5grove_tornado", "asgihive_in_tornado"])
def test_in_tornado(folder: Path, name: str) -> None:
    app = application(folder, name)
    with serving_tornado(app) as url, servers.client(url) as client:
        check(client)
        if name.startswith("asgihive"):
            check_own(client)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_beside_tornado(folder: Path) -> None:
    port, h5_port = free_port(), free_port()
    module = "asgihive_beside_tornado"
    text = f"import asyncio, {module} as it; asyncio.run(it.serve({port}, {h5_port}))"
    command = [sys.executable, "-c", text]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            said = next(line for line in process.stderr if "running on" in line)
            assert f":{h5_port}" in said
            with servers.client(f"http://127.0.0.1:{port}") as client:
                assert client.get("/hello").text == "hello"
            with httpx.Client(base_url=f"http://127.0.0.1:{h5_port}", trust_env=False) as client:
                assert client.get("/attr?file=x.h5&path=/group/small").json() == {"unit": "counts"}
        finally:
            process.send_signal(signal.SIGTERM)
        assert "Application shutdown complete" in process.stderr.read()
