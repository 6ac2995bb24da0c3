"""The first half of the migration page: fastapi-hive on one side, the hive on the other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from asgihive.hive import HiveConfig
from asgihive.settings import describe_settings
from tests.docs.page import MIGRATION

# A Python with fastapi-hive 1.0.24, fastapi 0.95.2, pydantic 1 and httpx 0.27.
FASTAPI_HIVE_PYTHON = os.environ.get("TEST_FASTAPI_HIVE_PYTHON", "")

ANSWER = '{"text": "hello bee", "number": 1}'

BEFORE = f"""
from starlette.testclient import TestClient
from main import app

with TestClient(app) as client:
    answer = client.get("/api/hello/greet", params={{"name": "bee"}})
    assert answer.json() == {ANSWER}, answer.text
    assert client.get("/").json() == "hello"
"""

AFTER = f"""
import anyio, httpx
from msgspec.structs import replace
from main import CONFIG, app
from settings import config

assert replace(config, hide_endpoint_container_in_api=True) == CONFIG

async def check():
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        async with app.running():
            answer = await client.get("/api/hello/greet", params={{"name": "bee"}})
            assert answer.json() == {ANSWER}, answer.text
            assert (await client.get("/")).text == "hello"
            assert app.state.cornerstones["cornerstones.timer"]["seconds"] > 0
        with app.override("cornerstones.counter", {{"count": 41}}):
            async with app.running():
                assert app.state.cornerstones["cornerstones.counter"]["count"] == 41

anyio.run(check, backend=BACKEND)
"""


KEPT = """
import anyio, httpx
from endpoints.hello import find_user
from main import app

async def check():
    transport = httpx.ASGITransport(app)
    async with (
        app.running(),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        for number, user in ((1, "ada"), (2, "bee")):
            answer = await client.get("/endpoints/hello/greet")
            assert answer.json() == {"text": f"hello {user}", "number": number, "of": number}
            app.fastapi.dependency_overrides[find_user] = lambda: "bee"
        assert (await client.get("/")).json() == "hello"
        document = (await client.get("/openapi.json")).json()
        assert document["info"]["title"] == "Greetings"
        assert [*document["paths"]] == ["/", "/endpoints/hello/greet"]

anyio.run(check)
"""


def run(python: str, folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        [python, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not FASTAPI_HIVE_PYTHON, reason="TEST_FASTAPI_HIVE_PYTHON is not set")
def test_what_fastapi_hive_does(folder: Path) -> None:
    run(FASTAPI_HIVE_PYTHON, folder / "before", "-c", BEFORE)


def test_what_fastapi_hive_users_write() -> None:
    """Where fastapi-hive is not installed, at least it is Python."""
    before = {name: code for name, code in MIGRATION.code().items() if name.startswith("before/")}
    assert len(before) == 5
    for name, code in before.items():
        compile(code, name, "exec")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.slow_on_trio
def test_the_port_does_the_same(folder: Path, backend: str) -> None:
    text = AFTER.replace("BACKEND", repr(backend))
    run(sys.executable, folder / "after", "-W", "error", "-c", text)


def test_fastapis_routes_are_kept(folder: Path) -> None:
    run(sys.executable, folder / "kept", "-W", "error", "-c", KEPT)


def test_the_check_of_the_page(folder: Path) -> None:
    run(sys.executable, folder / "after", "-W", "error", "check.py")


def test_all_names_of_the_configuration() -> None:
    """The page says that there are fifteen, and that nothing but the case changes."""
    assert len(describe_settings(HiveConfig)) == 15
    values = {name.upper(): each.default for name, each in describe_settings(HiveConfig).items()}
    assert HiveConfig.from_object(values) == HiveConfig()
