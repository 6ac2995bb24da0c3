"""The cornerstone `db`: one engine for the service, one session for each request.

A session costs nothing until it is used: it takes a connection at its first statement. What
becomes of the request decides about its transaction: committed before an answer below 400
leaves, so that what the answer says is stored is stored; rolled back when it raised, is answered
by 400 or above, or was not answered at all.
"""

from typing import Annotated

from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase
from starlette.requests import HTTPConnection

from asgihive import CornerstoneHooks, Depends

from ...settings import database_url


class Base(DeclarativeBase):
    """Of the tables of all endpoints."""


class CornerstoneHooksImpl(CornerstoneHooks):
    """`app_state` holds `engine` and `sessions`, `request_state` holds `session`."""

    def pre_endpoint_setup(self) -> None:
        """In a worker thread, since it is `def`: it makes the folder of the SQLite file."""
        engine = create_async_engine(database_url(), pool_pre_ping=True)
        self.app_state["engine"] = engine
        # Without expiry an object can be encoded after the commit that stored it.
        self.app_state["sessions"] = async_sessionmaker(engine, expire_on_commit=False)

    async def post_endpoint_setup(self) -> None:
        """The endpoints are imported by now, so that their tables are known."""
        engine: AsyncEngine = self.app_state["engine"]
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)

    async def post_endpoint_teardown(self) -> None:
        engine: AsyncEngine = self.app_state["engine"]
        await engine.dispose()

    async def pre_endpoint_call(self) -> None:
        self.request_state["session"] = self.app_state["sessions"]()

    async def before_answer(self) -> None:
        if self.response.status < 400:
            await self.request_state["session"].commit()

    async def post_endpoint_call(self) -> None:
        await self.request_state["session"].close()  # which rolls back what was not committed


async def current_session(request: HTTPConnection) -> AsyncSession:
    """The session of this request."""
    session: AsyncSession = request.state.cornerstones["cornerstones.db"]["session"]
    return session


Session = Annotated[AsyncSession, Depends(current_session)]
