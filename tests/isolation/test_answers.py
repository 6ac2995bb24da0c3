"""The answers are those of a service without isolation, over whatever server."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import httpx
import numpy as np
import pytest

from asgihive.hdf5.pool import FilePool
from asgihive.service import H5App
from asgihive.service.gate import PERMISSION, RequestedEntity
from asgihive.settings import H5Settings
from tests.asgi.exchange import http, run
from tests.isolation.isolated import close
from tests.service import servers
from tests.zoo.arrow_tables import ARROW
from tests.zoo.client import client

ROUND = np.arange(300_000, dtype="<f8").reshape(300, 1000)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    with h5py.File(root / "x.h5", "w") as file:
        file["small"] = np.arange(5)
        file.create_dataset("large", data=ROUND, chunks=(10, 1000), compression="gzip")
        file.attrs["text"] = "é"
        file["broken"] = h5py.SoftLink("/no/such")
    (root / "no.h5").write_text("no HDF5")
    return root


@pytest.fixture(scope="module")
def plain(root: Path) -> H5App:
    return H5App(root, H5Settings())


@pytest.fixture(scope="module")
def isolated(root: Path) -> Iterator[H5App]:
    app = H5App(root, H5Settings(isolation="process"))
    yield app
    close(app)


def comparable(answer: httpx.Response) -> tuple[int, dict[str, str], bytes]:
    headers = dict(answer.headers)
    # How long it took; and whether it is so old that its date is worth saying.
    for name in ("server-timing", "last-modified"):
        headers.pop(name, None)
    return answer.status_code, headers, answer.content


@pytest.mark.anyio
async def test_they_are_the_same(plain: H5App, isolated: H5App) -> None:
    batch = [{"route": "data", "params": {"file": "x.h5", "path": "small"}}] * 500
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "/", {}),
        ("GET", "/meta?file=x.h5", {}),
        ("GET", "/meta/?file=x.h5", {}),
        ("HEAD", "/meta?file=x.h5", {}),
        ("GET", "/attr?file=x.h5", {}),
        ("GET", "/paths?file=x.h5", {}),
        ("GET", "/stats?file=x.h5&path=large", {}),
        ("GET", "/data?file=x.h5&path=small", {}),
        ("GET", "/data?file=x.h5&path=large", {"headers": {"accept-encoding": "gzip"}}),
        *(
            ("GET", f"/data?file=x.h5&path=large&format={each}", {})
            for each in ("json", "bin", "npy", "csv", "tiff", "msgpack", *ARROW)
        ),
        ("HEAD", "/data?file=x.h5&path=large&format=bin", {}),
        ("GET", "/data?file=x.h5&path=large&format=bin", {"headers": {"range": "bytes=7-99999"}}),
        ("GET", "/file?file=x.h5", {"headers": {"range": "bytes=-100"}}),
        ("GET", "/image?file=x.h5", {}),
        ("HEAD", "/image?file=x.h5", {}),
        ("GET", "/image?file=x.h5&path=large&shape=64,64&format=webp", {}),
        ("GET", "/image?file=x.h5&cmap=virids", {}),
        ("GET", "/plot?file=x.h5&path=large&path=small", {}),
        ("GET", "/files", {}),
        ("POST", "/batch", {"json": batch}),
        ("POST", "/batch", {"content": b"x" * (2 << 20)}),
        ("POST", "/meta?file=x.h5", {"content": b"x" * (2 << 20)}),
        ("GET", "/meta", {}),
        ("GET", "/meta?file=no.h5", {}),
        ("GET", "/meta?file=../x.h5", {}),
        ("GET", "/meta?file=%ff.h5", {}),
        ("GET", "/data?file=x.h5&path=broken", {}),
        ("GET", "/data?file=x.h5&path=small&selection=9", {}),
        ("GET", "/no/such/route", {}),
        ("GET", "/openapi.json", {}),
        ("GET", "/health", {}),
    ]
    async with client(plain) as one, client(isolated) as other:
        for method, url, options in asked:
            expected = await one.request(method, url, **options)
            answer = await other.request(method, url, **options)
            assert comparable(answer) == comparable(expected), (method, url)
            tag = expected.headers.get("etag")
            if tag:
                headers = {**options.get("headers", {}), "if-none-match": tag}
                answer = await other.request(method, url, headers=headers)
                assert (answer.status_code, answer.content) == (304, b"")


@pytest.mark.anyio
async def test_what_took_how_long_is_said(isolated: H5App) -> None:
    answer = await run(isolated, http("/data?file=x.h5&path=large&format=json&selection=:50"))
    stages = set(re.findall(r"(\w+);dur=", answer.headers["server-timing"]))
    assert {"read", "encode", "total"} <= stages


@pytest.mark.anyio
async def test_an_own_permission_is_asked_here(isolated: H5App) -> None:
    def permission(target: Any) -> bool:
        return bool(target.path != "/small")

    state = {"h5_permission": permission}
    for path, status in (("/small", 403), ("/", 200)):
        answer = await run(isolated, http(f"/meta?file=x.h5&path={path}", state=state))
        assert answer.status == status
    body = b'[{"route": "meta", "params": {"file": "x.h5", "path": "small"}}]'
    answer = await run(isolated, http("/batch", "POST", body=body, state=state))
    assert answer.json[0]["status"] == 403


@pytest.mark.parametrize(
    "server",
    [
        pytest.param(
            server,
            marks=[pytest.mark.slow] * (server != "uvicorn-httptools"),
        )
        for server in servers.SERVERS
    ],
)
def test_over_real_servers(root: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        pytest.fail("a file is opened in the parent")

    monkeypatch.setattr(FilePool, "open_file", refuse)
    app = H5App(root, H5Settings(isolation="process"))
    with servers.serving(app, server) as url, servers.client(url) as asker:
        for _ in range(3):
            answer = asker.get("/data?file=x.h5&path=large&format=bin")
            assert answer.content == ROUND.tobytes()
        assert asker.head("/data?file=x.h5&path=large&format=bin").headers["content-length"] == (
            str(ROUND.nbytes)
        )
        assert asker.post("/batch", json=[{"route": "meta", "params": {"file": "x.h5"}}]).json()
        assert asker.get("/meta?file=gone.h5").status_code == 404


@pytest.mark.anyio
async def test_a_permission_is_asked_for_what_a_picture_shows(isolated: H5App) -> None:
    """Only the reader process finds out which dataset that is."""
    for route, status in {"/image?file=x.h5": 403, "/plot?file=x.h5&path=small": 200}.items():
        asked: list[str] = []

        def permission(entity: RequestedEntity, asked: list[str] = asked) -> bool:
            asked.append(entity.path)
            return entity.path != "/large"

        answer = await run(isolated, http(route, state={PERMISSION: permission}))
        assert answer.status == status
        assert asked[-1] == ("/large" if status == 403 else "/small")
