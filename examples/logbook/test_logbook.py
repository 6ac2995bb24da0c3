"""The logbook, asked by httpx and by Starlette's TestClient."""

import os
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from pathlib import Path
from uuid import uuid4

import anyio
import httpx
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from starlette.testclient import TestClient, WebSocketDenialResponse

from .main import create_app

ADA = {"authorization": "Bearer secret"}
GRACE = {"authorization": "Bearer other"}


POSTGRES = os.environ.get("TEST_POSTGRES_URL", "")


@pytest.fixture(autouse=True, params=["sqlite", "postgresql"])
def _environment(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A folder and a database of the test's own; PostgreSQL where there is a server."""
    monkeypatch.setenv("LOGBOOK_FOLDER", str(tmp_path))
    monkeypatch.setenv("LOGBOOK_TOKENS", "secret=ada, other=grace")
    monkeypatch.setenv("LOGBOOK_ORIGINS", "https://lab.example")
    if request.param == "sqlite":
        yield
        return
    if not POSTGRES:
        pytest.skip("TEST_POSTGRES_URL is not set")
    name = f"logbook_{uuid4().hex}"
    url = make_url(POSTGRES).set(drivername="postgresql", database=name)
    monkeypatch.setenv("LOGBOOK_DATABASE_URL", url.render_as_string(hide_password=False))
    anyio.run(_tell_postgres, f"CREATE DATABASE {name}")
    yield
    anyio.run(_tell_postgres, f"DROP DATABASE {name}")


async def _tell_postgres(statement: str) -> None:
    server = make_url(POSTGRES).set(drivername="postgresql+asyncpg")
    engine = create_async_engine(server, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(statement))
    await engine.dispose()


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service that runs in the test's own event loop."""
    app = create_app()
    async with (
        app.running(),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://test", headers=ADA
        ) as client,
    ):
        yield client


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # SQLAlchemy's drivers know no other


@pytest.mark.anyio
async def test_write_read_delete(client: httpx.AsyncClient) -> None:
    written = await client.post("/api/entries", json={"text": "beam is back"})
    assert written.status_code == 201
    entry = written.json()
    assert (entry["author"], entry["text"]) == ("ada", "beam is back")
    assert set(entry) == {"id", "author", "text", "written"}  # not `client`
    read = await client.get(written.headers["location"])
    assert read.json() == entry
    foreign = await client.delete(written.headers["location"], headers=GRACE)
    assert foreign.status_code == 403
    assert (await client.delete(written.headers["location"])).status_code == 204
    missing = await client.get(written.headers["location"])
    assert missing.status_code == 404
    assert missing.headers["content-type"] == "application/problem+json"
    assert missing.json()["detail"] == f"There is no entry {entry['id']}"


@pytest.mark.anyio
async def test_pages(client: httpx.AsyncClient) -> None:
    for number in range(5):
        await client.post("/api/entries", json={"text": f"scan {number}"})
    texts, url = [], "/api/entries?limit=2"
    while url:
        page = await client.get(url)
        texts.append([each["text"] for each in page.json()])
        url = page.links.get("next", {}).get("url", "")
    assert texts == [["scan 4", "scan 3"], ["scan 2", "scan 1"], ["scan 0"]]


@pytest.mark.anyio
async def test_nothing_is_answered_as_stored_that_is_not(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_session: AsyncSession) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(AsyncSession, "commit", fail)
        assert (await client.post("/api/entries", json={"text": "lost"})).status_code == 500
    assert (await client.get("/api/entries")).json() == []


@pytest.mark.anyio
async def test_wrong_requests(client: httpx.AsyncClient) -> None:
    wrong = await client.post("/api/entries", json={"text": ""})
    assert (wrong.status_code, wrong.json()["title"]) == (422, HTTPStatus(422).phrase)
    assert wrong.json()["errors"][0]["where"] == ["body", "text"]
    unknown = await client.get("/api/entries", headers={"authorization": "Bearer guess"})
    assert unknown.status_code == 401
    assert unknown.headers["www-authenticate"] == 'Bearer realm="logbook"'


@pytest.mark.anyio
async def test_attachments(client: httpx.AsyncClient) -> None:
    content = bytes(range(256)) * 10_000  # more than is kept in memory
    files = {"file": ("image.raw", content)}
    stored = await client.post("/api/attachments", files=files, data={"note": "dark"})
    assert stored.status_code == 201
    assert (stored.json()["size"], stored.json()["note"]) == (len(content), "dark")
    loaded = await client.get(f"/api/attachments/{stored.json()['key']}")
    assert loaded.content == content
    assert (await client.get("/api/attachments/passwd")).status_code == 404


def test_live_entries() -> None:
    with TestClient(create_app(), headers=ADA) as client:
        with client.websocket_connect("/api/live") as live:
            client.post("/api/entries", json={"text": "shutter open"})
            assert live.receive_json() == {"id": 1, "author": "ada", "text": "shutter open"}
        with (
            pytest.raises(WebSocketDenialResponse) as refused,
            client.websocket_connect("/api/live", headers={"authorization": ""}),
        ):
            pass
        assert refused.value.status_code == 401


def test_other_sites() -> None:
    with TestClient(create_app()) as client:
        asked = {"origin": "https://lab.example", "access-control-request-method": "POST"}
        allowed = client.options("/api/entries", headers=asked)
        assert allowed.headers["access-control-allow-origin"] == "https://lab.example"
        refused = client.options(
            "/api/entries", headers={**asked, "origin": "https://evil.example"}
        )
        assert "access-control-allow-origin" not in refused.headers
