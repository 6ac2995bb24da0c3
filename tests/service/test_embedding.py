"""The service under real servers, and inside other applications."""

import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import anyio
import anyio.to_thread
import h5py
import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount

from asgihive.asgi import Router
from asgihive.service import H5App
from asgihive.settings import H5Settings
from tests.service import servers
from tests.zoo.client import client as in_process

SMALL = np.arange(24, dtype="<i4").reshape(4, 6)
LARGE = np.arange(3 << 18, dtype="<u2").reshape(3, 512, 512)
ORIGIN = "http://viewer.example"

Embedding = Callable[[H5App], Any]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    root.mkdir()
    with h5py.File(root / "x.h5", "w") as file:
        file["small"] = SMALL
        file["small"].attrs["unit"] = "counts"
        options = {"compression": "gzip", "compression_opts": 1}
        file.create_dataset("large", data=LARGE, chunks=(1, 512, 512), **options)
    return root


def check(client: httpx.Client, prefix: str = "") -> None:
    """Every kind of answer there is: a text, documents, values in one piece and streamed,
    errors of the routes, of the router, of the method."""
    assert client.get(f"{prefix}/").text == "ok"
    for slash in ("", "/"):
        meta = client.get(f"{prefix}/meta{slash}", params={"file": "x.h5"})
        assert [each["name"] for each in meta.json()["children"]] == ["large", "small"]
        attributes = client.get(f"{prefix}/attr{slash}", params={"file": "x.h5", "path": "small"})
        assert attributes.json() == {"unit": "counts"}
        for path, values in (("small", SMALL), ("large", LARGE)):
            wanted = {"file": "x.h5", "path": path, "format": "bin"}
            answer = client.get(f"{prefix}/data{slash}", params=wanted)
            assert answer.headers["content-length"] == str(values.nbytes)
            assert answer.content == values.tobytes()
    for path, status, words in (
        ("/meta?file=no.h5", 404, "File not found"),
        ("/meta", 422, "file"),
        ("/data?file=x.h5&path=/small&selection=9", 422, "selection"),
        ("/no/such/route", 404, "/no/such/route"),
    ):
        answer = client.get(prefix + path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
        assert words in answer.json()["message"]
    answer = client.post(f"{prefix}/meta")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert "POST" in answer.json()["message"]


@pytest.mark.parametrize("root_path", [pytest.param("", marks=pytest.mark.slow), "/api"])
@pytest.mark.parametrize("server", servers.SERVERS)
def test_by_itself(root: Path, server: str, root_path: str) -> None:
    with (
        servers.serving(H5App(root), server, root_path) as url,
        servers.client(url) as client,
    ):
        check(client)
        if root_path and server in servers.HYPERCORN:
            check(client, root_path)  # behind a proxy that does not take the prefix off


async def _passing_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
    response = await call_next(request)
    response.headers["x-passed"] = "yes"
    return response


def _fastapi(h5: H5App, **options: Any) -> FastAPI:
    app = FastAPI(**options)
    app.mount("/deep/h5", h5)
    return app


def _router(h5: H5App) -> Router:
    router = Router()
    router.mount("/deep/h5", h5)
    return router


def _dispatcher(h5: H5App) -> Any:
    """Dispatch as a router that is not of Starlette does, after the ASGI specification."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            assert scope["path"].startswith("/deep/h5/")
            scope = {**scope, "root_path": scope["root_path"] + "/deep/h5"}
        await h5(scope, receive, send)

    return app


def _starlette(h5: H5App, **options: Any) -> Starlette:
    inner = Starlette(routes=[Mount("/h5", app=h5)])
    return Starlette(routes=[Mount("/deep", app=inner)], **options)


EMBEDDINGS: dict[str, Embedding] = {
    "starlette": _starlette,
    "starlette-lifespan": lambda h5: _starlette(h5, lifespan=h5.lifespan),
    "fastapi": _fastapi,
    "fastapi-lifespan": lambda h5: _fastapi(h5, lifespan=h5.lifespan),
    "router": _router,
    "dispatcher": _dispatcher,
    "cors": lambda h5: CORSMiddleware(_starlette(h5), allow_origins=["*"]),
    "gzip": lambda h5: GZipMiddleware(_starlette(h5)),
    "base-http": lambda h5: BaseHTTPMiddleware(_starlette(h5), dispatch=_passing_on),
}


@pytest.mark.parametrize(
    ("embedding", "server"),
    [
        # Each embedding with one of the two, and each of the two with some.
        pytest.param(embedding, server, marks=[pytest.mark.slow] * ((number + other) % 2))
        for number, embedding in enumerate(EMBEDDINGS)
        for other, server in enumerate(("uvicorn-httptools", "hypercorn-trio"))
    ],
)
def test_inside_another_application(root: Path, embedding: str, server: str) -> None:
    app = EMBEDDINGS[embedding](H5App(root))
    with servers.serving(app, server) as url, servers.client(url) as client:
        check(client, "/deep/h5")


def test_compressed_by_a_middleware(root: Path) -> None:
    app = GZipMiddleware(H5App(root))
    wanted = {"file": "x.h5", "path": "large", "format": "bin"}
    with servers.serving(app, "uvicorn-h11") as url, servers.client(url) as client:
        answer = client.get("/data", params=wanted, headers={"accept-encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.content == LARGE.tobytes()


# Starlette's client prefers a successor of httpx, and says so when it is imported.
@pytest.mark.filterwarnings("ignore:Using `httpx`")
def test_a_new_event_loop_for_each_request(root: Path) -> None:
    from starlette.testclient import TestClient  # noqa: PLC0415

    check(TestClient(EMBEDDINGS["starlette"](H5App(root))), "/deep/h5")
    check(TestClient(H5App(root), backend="trio"))


def test_origins_of_the_settings(root: Path) -> None:
    settings = H5Settings(cors_origins=(ORIGIN,))
    with (
        servers.serving(H5App(root, settings), "uvicorn-h11") as url,
        servers.client(url) as client,
    ):
        client.headers["origin"] = ORIGIN
        asked = {"access-control-request-method": "GET", "access-control-request-headers": "x-a"}
        preflight = client.options("/meta", headers=asked)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-headers"] == "x-a"
        for answer in (
            preflight,
            client.get("/meta?file=x.h5"),
            client.get("/meta?file=no.h5"),
            client.get("/no/such/route"),
            client.post("/meta"),
        ):
            assert answer.headers["access-control-allow-origin"] == ORIGIN
        other = client.get("/meta?file=x.h5", headers={"origin": "http://other.example"})
        assert "access-control-allow-origin" not in other.headers


# Lifespan


@pytest.mark.parametrize("server", servers.SERVERS)
@pytest.mark.parametrize(
    "embedding",
    [
        "itself",
        pytest.param("starlette-lifespan", marks=pytest.mark.slow),
        pytest.param("fastapi-lifespan", marks=pytest.mark.slow),
    ],
)
def test_no_file_is_open_after_the_shutdown(root: Path, embedding: str, server: str) -> None:
    h5 = H5App(root)
    app = h5 if embedding == "itself" else EMBEDDINGS[embedding](h5)
    prefix = "" if embedding == "itself" else "/deep/h5"
    with servers.serving(app, server) as url, servers.client(url) as client:
        assert client.get(f"{prefix}/meta?file=x.h5").status_code == 200
        assert servers.descriptors_below(root)
    assert not servers.descriptors_below(root)


@pytest.fixture
def impatient(root: Path) -> H5App:
    return H5App(root, H5Settings(idle_file_seconds=0))


@pytest.mark.anyio
@pytest.mark.slow_on_trio
async def test_idle_files_are_closed_in_time(
    root: Path, impatient: H5App, monkeypatch: pytest.MonkeyPatch
) -> None:
    h5 = impatient
    looked = threading.Semaphore(0)
    close_idle = h5.store.pool.close_idle

    def noted() -> None:
        close_idle()
        looked.release()

    async with h5.lifespan(), in_process(h5) as client:
        assert (await client.get("/meta", params={"file": "x.h5"})).status_code == 200
        assert servers.descriptors_below(root)
        monkeypatch.setattr(h5.store.pool, "close_idle", noted)
        assert await anyio.to_thread.run_sync(lambda: looked.acquire(timeout=servers.PATIENCE))
        assert not servers.descriptors_below(root)
        wanted = {"file": "x.h5", "path": "small", "format": "bin"}
        assert (await client.get("/data", params=wanted)).content == SMALL.tobytes()


@pytest.mark.anyio
@pytest.mark.parametrize("isolation", ["none", pytest.param("process", marks=pytest.mark.slow)])
@pytest.mark.slow_on_trio
async def test_freed_memory_is_given_back_in_time(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    isolation: Literal["none", "process"],
) -> None:
    trimmed = threading.Semaphore(0)
    monkeypatch.setattr("asgihive.service.store.trim_freed_memory", trimmed.release)
    monkeypatch.setattr("asgihive.service.store.TRIM_MEMORY_SECONDS", 0.001)
    h5 = H5App(root, H5Settings(isolation=isolation))

    def is_trimmed() -> bool:
        return trimmed.acquire(timeout=servers.PATIENCE)

    async with h5.lifespan(), in_process(h5) as client:
        assert (await client.get("/", params={"file": "x.h5"})).status_code == 200
        for _ in range(2):
            assert await anyio.to_thread.run_sync(is_trimmed)


# Several services in one process


def _rewrite(file: Path, number: int) -> None:
    """In place, past HDF5, which refuses in a process that has the file open."""
    content = io.BytesIO()
    with h5py.File(content, "w") as out:
        out.create_dataset("values", data=np.full((4, 1 << 20), number, "u1"), chunks=(1, 1 << 20))
        out[f"version{number}"] = number
    file.write_bytes(content.getvalue())


@pytest.fixture
def pair(root: Path) -> tuple[H5App, H5App]:
    """Of a directory, and of one inside it."""
    (root / "inner").mkdir()
    _rewrite(root / "inner" / "v.h5", 1)
    return H5App(root), H5App(root / "inner")


def test_two_services_of_different_directories(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    _rewrite(other / "x.h5", 7)
    app = Starlette(
        routes=[Mount("/a", app=H5App(root)), Mount("/b", app=H5App(other))],
    )
    with servers.serving(app, "uvicorn-httptools") as url, servers.client(url) as client:
        check(client, "/a")
        assert client.get("/b/meta?file=x.h5&path=/version7").status_code == 200
        assert client.get("/b/meta?file=x.h5&path=/small").status_code == 404


@pytest.mark.anyio
@pytest.mark.slow_on_trio
async def test_neither_of_two_services_shows_old_content(
    root: Path, pair: tuple[H5App, H5App]
) -> None:
    outer, inner = pair
    wanted = {"path": "values", "selection": ":,0", "format": "bin"}
    async with in_process(outer) as asks_outer, in_process(inner) as asks_inner:
        both = ((asks_outer, "inner/v.h5"), (asks_inner, "v.h5"))
        for number in range(1, 6):
            await anyio.to_thread.run_sync(_rewrite, root / "inner" / "v.h5", number)
            for client, name in both if number % 2 else reversed(both):
                meta = (await client.get("/meta", params={"file": name})).json()
                names = [each["name"] for each in meta["children"]]
                assert names == ["values", f"version{number}"]
                values = (await client.get("/data", params={"file": name, **wanted})).content
                assert values == bytes([number] * 4)


@pytest.mark.anyio
async def test_services_of_one_file_leave_each_other_alone(pair: tuple[H5App, H5App]) -> None:
    outer, inner = pair
    async with in_process(outer) as asks_outer, in_process(inner) as asks_inner:
        for _ in range(3):
            for client, name in ((asks_outer, "inner/v.h5"), (asks_inner, "v.h5")):
                answer = await client.get("/meta", params={"file": name, "path": "values"})
                assert answer.status_code == 200
                await client.get("/paths", params={"file": name})
        opened = [each for app in pair for each in app.store.pool.files.values()]
        assert [each.revoked for each in opened] == [False, False]


@pytest.fixture
def two_names(root: Path) -> H5App:
    """Of a file with a relative external link."""
    (root / "a").mkdir()
    (root / "b").mkdir()
    for name in ("a", "b"):
        with h5py.File(root / name / "target.h5", "w") as file:
            file["values"] = name
    with h5py.File(root / "a" / "links.h5", "w") as file:
        file["link"] = h5py.ExternalLink("target.h5", "/values")
    os.link(root / "a" / "links.h5", root / "b" / "links.h5")
    return H5App(root)


@pytest.mark.anyio
@pytest.mark.slow_on_trio
async def test_two_names_of_one_file_are_two_places(two_names: H5App) -> None:
    """A link starts at the name by which its file was asked for, not at that of earlier ones."""
    async with in_process(two_names) as client:
        for name in ("a", "b", "a"):
            wanted = {"file": f"{name}/links.h5", "path": "link"}
            assert (await client.get("/data", params=wanted)).json() == name
