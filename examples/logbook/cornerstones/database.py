"""One engine for the service, one session for each request, committed before the answer."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from ..settings import find_database

provides = (AsyncSession,)
websockets = False  # a websocket would hold its session for hours


class Base(DeclarativeBase):
    """Of the tables of all endpoints."""


@asynccontextmanager
async def lifespan(context: Any) -> AsyncIterator[None]:
    """Connect; the endpoints are imported by now, so that their tables are known."""
    url = await anyio.to_thread.run_sync(find_database)  # it makes the folder
    engine = create_async_engine(url, pool_pre_ping=True)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    context.provide(async_sessionmaker, async_sessionmaker(engine, expire_on_commit=False))
    yield
    await engine.dispose()


@asynccontextmanager
async def request(context: Any) -> AsyncIterator[None]:
    """Give the request a session, which takes a connection at its first statement."""
    async with context.ask(async_sessionmaker)() as session:
        context.provide(AsyncSession, session)
        yield


async def before_answer(context: Any) -> None:
    """Commit, so that an answer never says what is not stored; if that fails, it is a 500."""
    if context.response.status < 400:
        await context.ask(AsyncSession).commit()
