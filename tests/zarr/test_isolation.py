"""`/zarr` where reader processes read the files: a file that crashes them, and names in URLs."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from asgihive.isolation import process
from asgihive.service import H5App
from asgihive.settings import H5Settings
from tests.asgi.exchange import http, run
from tests.gates import until
from tests.isolation import doubles
from tests.isolation.isolated import close, pids
from tests.zarr.serving import ask

pytestmark = [pytest.mark.anyio, pytest.mark.slow_on_trio]

VALUES = doubles.VALUES.tobytes()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    root.mkdir()
    doubles.write(root / "good.h5")
    (root / os.fsdecode(b"\xff ?#.h5")).write_bytes((root / "good.h5").read_bytes())
    return root


@pytest.fixture
def app(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[H5App]:
    monkeypatch.setattr(process, "MODULE", doubles.MODULE)
    settings = H5Settings(isolation="process", decode_lanes=2, read_timeout_seconds=120.0)
    app = H5App(root, settings)
    yield app
    close(app)


async def test_a_file_that_crashes_its_reader(app: H5App, root: Path) -> None:
    """It is told from others by the part of the URL that is its name."""
    doubles.write(root / "bad.h5", "abort")
    async with app.running():
        good = await ask(app, "/zarr/good.h5/values/c/0")
        assert (good.status, good.body) == (200, VALUES)
        for url in (
            "bad.h5/zarr.json",
            "bad.h5/values/c/0",
            "./bad.h5.zarr/values/c/0",
            "bad.h5/no/c",
        ):
            got = await ask(app, f"/zarr/{url}")
            assert got.status == 500, url
            assert "crashed the reader" in got.message
            if url == "bad.h5/zarr.json":
                await until(lambda: pids(app))  # another reader begins
                before = pids(app)
        assert pids(app) == before
        for key, status in {
            "values/c/0": 200,
            ".zgroup": 404,
            "no/c/0": 410,
            "no/zarr.json": 404,
        }.items():
            assert (await ask(app, f"/zarr/good.h5/{key}")).status == status
        assert (await ask(app, "/zarr/bad.h5/.zgroup")).status == 404
        # It is not refused any more once it is another one.
        doubles.write(root / "bad.h5")
        assert (await ask(app, "/zarr/bad.h5/values/c/0")).body == VALUES


async def test_what_a_reader_is_told(app: H5App) -> None:
    async with app.running():
        raw = b"/zarr/%FF%20%3F%23.h5/values/c/0"
        path = "/zarr/\ufffd ?#.h5/values/c/0"
        for method, body in (("GET", VALUES), ("HEAD", b"")):
            exchange = http("/", method, raw_path=raw)
            exchange.scope["path"] = path
            got = await run(app, exchange)
            assert (got.status, got.body) == (200, body)
        exchange = http("/", raw_path=b"/h5" + raw, root_path="/h5")
        exchange.scope["path"] = "/h5" + path
        assert (await run(app, exchange)).body == VALUES
        part = await ask(app, "/zarr/good.h5.zarr/values/c/0", range="bytes=4-7")
        assert (part.status, part.body) == (206, VALUES[4:8])
        document = await ask(app, "/zarr/good.h5/zarr.json")
        version = document.json["attributes"]["_asgihive_version"]
        tag = document.headers["etag"]
        assert (await ask(app, "/zarr/good.h5/zarr.json", if_none_match=tag)).status == 304
        for url in (f"good.h5/@{version}/values/c/0", f"good.h5/values/c/0?v={version}"):
            assert (await ask(app, f"/zarr/{url}")).body == VALUES
            assert (await ask(app, f"/zarr/{url.replace(version, '0' * 32)}")).status == 410
