"""Values by type: who provides them, who gets them, and what is found out at the start."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.websockets import WebSocket

from asgihive import FromHive
from asgihive.asgi import Depends, Gate, Router
from asgihive.hive import (
    Component,
    ComponentError,
    CornerstoneHooks,
    Hive,
    HiveConfig,
    HookDenied,
    HookFailed,
    ModuleHooks,
    NotProvided,
    format_graph,
    format_mermaid,
)
from asgihive.hive.provided import ProvidedReader
from tests.asgi.exchange import http, run, websocket
from tests.hive.services import client, config, write

pytestmark = pytest.mark.anyio

CONFIG = HiveConfig(
    cornerstone_package_path=(),
    hide_endpoint_container_in_api=True,
    hide_endpoint_in_api=True,
)


class Engine:
    """Lives as long as the hive."""

    def __init__(self, name: str) -> None:
        self.name = name


class Session:
    """Lives for a request."""

    def __init__(self, number: int) -> None:
        self.number = number


def database(**fields: Any) -> Component:
    """A cornerstone that provides an engine, and a session for each request."""

    @asynccontextmanager
    async def lifespan(context: Any) -> AsyncIterator[None]:
        context.app_state["sessions"] = 0
        context.provide(Engine, Engine("sqlite"))
        yield

    @asynccontextmanager
    async def request(context: Any) -> AsyncIterator[None]:
        context.app_state["sessions"] += 1
        session = Session(context.app_state["sessions"])
        context.provide(Session, session)
        yield
        assert context.ask(Session) is session
        assert context.ask(Engine).name == "sqlite"

    given: dict[str, Any] = {"provides": (Session,), **fields}
    module = ModuleHooks(lifespan=lifespan, request=request, **given)
    return Component(kind="cornerstone", container="c", name="db", modules=(module,))


def make_hive(*cornerstones: Component, router: Router) -> Hive:
    endpoint = Component(kind="endpoint", container="e", name="notes", router=router)
    return Hive(
        CONFIG,
        cornerstones=cornerstones or [database()],
        endpoints=[endpoint],
        entry_points=False,
        docs=False,
    )


async def test_handlers_and_dependencies_ask_by_type() -> None:
    async def count(session: FromHive[Session], engine: FromHive[Engine]) -> str:
        return f"{engine.name} {session.number}"

    def in_thread(session: FromHive[Session]) -> int:
        return session.number

    router = Router()

    @router.get("/")
    async def show(
        session: FromHive[Session],
        request: Request,
        counted: str = Depends(count),
        threaded: int = Depends(in_thread),
    ) -> list[Any]:
        assert request.state.cornerstones.ask(Session) is session
        return [session.number, counted, threaded]

    @router.websocket("/")
    async def talk(websocket: WebSocket, engine: FromHive[Engine]) -> None:
        await websocket.accept()
        await websocket.send_text(engine.name)
        await websocket.close()

    hive = make_hive(router=router)
    async with hive.running(), client(hive) as asks:
        for number in (1, 2):
            assert (await asks.get("/")).json() == [number, f"sqlite {number}", number]
        assert (await run(hive, websocket("/"))).sent[1]["text"] == "sqlite"


async def test_hooks_classes_provide_and_ask() -> None:
    class Providing(CornerstoneHooks):
        provides = (Session,)

        def pre_endpoint_setup(self) -> None:
            self.provide(Engine, Engine("of a class"))

        async def pre_endpoint_call(self) -> None:
            self.provide(Session, Session(7))

    class Asking(CornerstoneHooks):
        def pre_endpoint_setup(self) -> None:
            self.app_state["engine"] = self.ask(Engine).name

        async def pre_endpoint_call(self) -> None:
            assert self.ask(Session).number == 7

    router = Router()

    @router.get("/")
    async def show(session: FromHive[Session], engine: FromHive[Engine]) -> str:
        return f"{engine.name} {session.number}"

    cornerstones = [
        Component(
            kind="cornerstone", container="c", name=name, modules=(ModuleHooks(hooks=(hooks,)),)
        )
        for name, hooks in (("a", Providing), ("b", Asking))
    ]
    hive = make_hive(*cornerstones, router=router)
    async with hive.running():
        assert (await run(hive, http())).body == b"of a class 7"
        assert hive.state.cornerstones["c.b"]["engine"] == "of a class"


async def start(hive: Hive) -> None:
    async with hive.running():
        pass


class Sessions:
    """Of nearly the name of another one."""


async def test_what_nobody_provides_ends_the_start() -> None:
    def depend(sessions: FromHive[Sessions]) -> None: ...

    router = Router()

    @router.get("/", dependencies=[Depends(depend)])
    async def show() -> None: ...

    with pytest.raises(ComponentError) as raised:
        await start(make_hive(router=router))
    message = str(raised.value)
    assert "depend (" in message
    assert f"{__file__}:" in message
    assert "parameter 'sessions' asks for Sessions, which no cornerstone provides" in message
    assert "there is: Session (c.db), Engine (c.db) (did you mean Session?)" in message


async def test_what_is_provided_for_http_only_is_not_there_for_websockets() -> None:
    router = Router()

    @router.websocket("/")
    async def talk(websocket: WebSocket, session: FromHive[Session]) -> None:
        await websocket.accept()
        await websocket.send_text(str(session.number))
        await websocket.close()

    with pytest.raises(ComponentError, match=r"c\.db provides for http only: it needs `websockets"):
        await start(make_hive(router=router))
    hive = make_hive(database(websockets=True), router=router)
    async with hive.running():
        assert (await run(hive, websocket())).sent[1]["text"] == "1"


async def test_a_type_for_a_request_is_declared(caplog: pytest.LogCaptureFixture) -> None:
    hive = make_hive(database(provides=()), router=Router())
    async with hive.running():
        assert (await run(hive, http())).status == 500
    assert r"write in its module provides = (Session,)" in str(caplog.records[0].exc_info)


async def test_what_is_declared_and_not_provided(caplog: pytest.LogCaptureFixture) -> None:
    router = Router()

    @router.get("/")
    async def show(session: FromHive[Session]) -> None: ...

    module = ModuleHooks(provides=(Session,))
    lazy = Component(kind="cornerstone", container="c", name="lazy", modules=(module,))
    hive = make_hive(lazy, router=router)
    async with hive.running():
        assert (await run(hive, http())).status == 500
    said = "c.lazy says that it provides Session, and has not done so for this request"
    assert said in str(caplog.records[0].exc_info)


async def test_two_cornerstones_provide_one_type() -> None:
    module = ModuleHooks(provides=(Session,))
    other = Component(kind="cornerstone", container="c", name="other", modules=(module,))
    with pytest.raises(ComponentError, match=r"provides Session, which c\.db provides already"):
        await start(make_hive(database(), other, router=Router()))
    module = ModuleHooks(provides=(Engine,))
    other = Component(kind="cornerstone", container="c", name="other", modules=(module,))
    with pytest.raises(HookFailed, match=r"c\.db provides Engine, which c\.other provides already"):
        await start(make_hive(database(), other, router=Router()))


async def test_a_cornerstone_that_starts_too_early_is_told_what_to_require() -> None:
    @asynccontextmanager
    async def lifespan(context: Any) -> AsyncIterator[None]:
        context.ask(Engine)
        yield

    early = Component(
        kind="cornerstone", container="c", name="a", modules=(ModuleHooks(lifespan=lifespan),)
    )
    db = database(provides=(Session, Engine))
    with pytest.raises(HookFailed, match=r"before c\.a starts; name 'c\.db' in `requires` of c\.a"):
        await start(make_hive(early, db, router=Router()))


async def test_an_endpoint_provides_nothing() -> None:
    @asynccontextmanager
    async def lifespan(context: Any) -> AsyncIterator[None]:
        assert context.ask(Engine).name == "sqlite"
        with pytest.raises(HookDenied, match="only cornerstones provide by type"):
            context.provide(Engine, Engine("x"))
        yield

    endpoint = Component(
        kind="endpoint", container="e", name="x", modules=(ModuleHooks(lifespan=lifespan),)
    )
    await start(Hive(CONFIG, cornerstones=[database()], endpoints=[endpoint], entry_points=False))


async def test_a_hive_is_asked_itself() -> None:
    hive = make_hive(router=Router())
    with pytest.raises(NotProvided, match="never started"):
        hive.ask(Engine)
    async with hive.running():
        assert hive.ask(Engine).name == "sqlite"
        with pytest.raises(NotProvided, match="has not done so for the life"):
            hive.ask(Session)
        with pytest.raises(NotProvided, match="No cornerstone provides Sessions; there is: "):
            hive.ask(Sessions)


def test_the_name_of_a_type_is_none() -> None:
    with pytest.raises(TypeError, match="the type itself is accepted"):
        FromHive["Session"]


async def test_where_no_hive_is_around() -> None:
    router = Router()

    @router.get("/")
    async def show(session: FromHive[Session]) -> None: ...

    assert (await run(Gate(router), http())).status == 500
    with pytest.raises(NotProvided, match="Session was asked for where no hive is around"):
        await run(router, http())


async def test_fakes() -> None:
    router = Router()

    @router.get("/")
    async def show(session: FromHive[Session], engine: FromHive[Engine]) -> str:
        return f"{engine.name} {session.number}"

    hive = make_hive(router=router)
    with hive.override("c.db", {Engine: Engine("fake"), Session: Session(0)}):
        async with hive.running():
            assert (await run(hive, http())).body == b"fake 0"
    router.overrides[ProvidedReader(Session)] = lambda: Session(9)
    async with hive.running():
        assert (await run(hive, http())).body == b"sqlite 9"
    with hive.override("c.db", {Engine: Engine("fake")}):  # and no Session, which none asks for
        async with hive.running():
            assert (await run(hive, http())).body == b"fake 9"


DB = """
from asgihive import CornerstoneHooks

class Session: ...
class Engine: ...

provides = [Session, Engine]
"""
NOTES = """
from asgihive import FromHive, Router
from ..cornerstones.db import Session

router = Router()

@router.get("/")
async def show(session: FromHive[Session]) -> None: ...
"""


async def test_the_graph_shows_types(tmp_path: Path) -> None:
    files = {"cornerstones/db.py": DB, "endpoints/notes.py": NOTES}
    hive = Hive(config(), base=write(tmp_path, files), entry_points=False)
    nodes = hive.graph()
    assert [(each.provides, each.asks) for each in nodes] == [
        (("Session", "Engine"), ()),
        ((), ("Session",)),
    ]
    lines = format_graph("main:app", nodes).splitlines()
    assert "provides Session, Engine" in lines[3]
    assert "asks for Session" in lines[6]
    assert '    n0 -- "Session" --> n1' in format_mermaid(nodes).splitlines()


async def test_what_is_no_type_is_refused(tmp_path: Path) -> None:
    hive = Hive(
        config(endpoint_package_paths=()),
        base=write(tmp_path, {"cornerstones/db.py": 'provides = ("Session",)'}),
        entry_points=False,
    )
    with pytest.raises(ComponentError, match="a tuple of types, such as"):
        await start(hive)
