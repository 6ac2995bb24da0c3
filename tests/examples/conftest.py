"""What the example's environment says."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from blockbuster import BlockBuster
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from asgihive.hive import Hive
from examples.house_price_service.main import create_app
from tests.examples.house_price import API_KEY

POSTGRES = os.environ.get("TEST_POSTGRES_URL", "")


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests: the folder that is served is known once the service is imported."""
    return tmp_path_factory.mktemp("house_price_service")


@pytest.fixture(autouse=True)
def _environment(data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", API_KEY)
    monkeypatch.setenv("DATA_FOLDER", str(data_folder))
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'notes.db'}")


@pytest.fixture(scope="module", autouse=True)
def _allowed_to_block(blockbuster: BlockBuster) -> None:
    """A hive looks for its components when it is built; the command line asks for the rest."""
    for function in blockbuster.functions.values():
        function.can_block_in("asgihive/hive/hive.py", {"__init__", "graph", "routes"})
        # asyncpg looks for the user's password file and certificates when it connects.
        function.can_block_in("asyncpg/connect_utils.py", {"_parse_connect_dsn_and_args"})


@pytest.fixture
def service() -> Hive:
    """The whole service, on SQLite."""
    return create_app()


@pytest.fixture
def service_without_db(service: Hive) -> Iterator[Hive]:
    """The service for both event loops: SQLAlchemy's drivers know only asyncio."""
    with service.override("cornerstones.db", {}):
        yield service


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[None]:
    """A database of the test's own, of each kind, named by `DATABASE_URL`."""
    if request.param == "sqlite":
        yield
        return
    if not POSTGRES:
        pytest.skip("TEST_POSTGRES_URL is not set")
    server = make_url(POSTGRES).set(drivername="postgresql+asyncpg")
    name = f"asgihive_{uuid4().hex}"
    engine = create_async_engine(server, isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            await connection.execute(text(f"CREATE DATABASE {name}"))
            try:
                url = server.set(drivername="postgresql", database=name)
                monkeypatch.setenv("DATABASE_URL", url.render_as_string(hide_password=False))
                yield
            finally:
                await connection.execute(text(f"DROP DATABASE {name}"))
    finally:
        await engine.dispose()
