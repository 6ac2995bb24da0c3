"""Guards of whole routers, and what replaces dependencies in tests."""

from collections.abc import AsyncIterator
from typing import Annotated

import pytest
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from asgihive.asgi import BufferedResponse, Depends, Gate, Header, HTTPException, Router
from tests.asgi.exchange import answer, run, websocket

pytestmark = pytest.mark.anyio


async def test_guards_protect_applications_mounts_and_websockets() -> None:
    log = list[str]()

    async def guard(connection: HTTPConnection, token: Annotated[str, Header()]) -> None:
        log.append(connection.scope["type"])
        if token != "right":
            raise HTTPException(403, "Wrong token")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        log.append("app")
        await BufferedResponse(b"ok")(scope, receive, send)

    inner, router = Router(dependencies=[guard]), Router()
    inner.add("/app", app)
    inner.mount("/mount", app)

    @inner.websocket("/ws")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()

    router.include_router(inner, "/in")
    for path in ("/in/app", "/in/mount/x"):
        assert (await answer(router, path, headers=[(b"token", b"right")])).body == b"ok"
        assert (await answer(router, path, headers=[(b"token", b"no")])).status == 403
        assert (await answer(router, path)).status == 422
    assert log == ["http", "app", "http"] * 2
    accepted = await run(router, websocket("/in/ws", headers=[(b"token", b"right")]))
    assert accepted.types == ["websocket.accept"]
    refused = await run(Gate(router), websocket("/in/ws", headers=[(b"token", b"no")]))
    assert refused.types == ["websocket.close"]


def test_an_override_by_name_is_refused() -> None:
    """It would do nothing, and the test would ask the real dependency."""

    async def real() -> str:
        return "real"

    router = Router()
    with pytest.raises(TypeError, match=r"'real' is no function; write overrides\[f\] = g"):
        router.overrides["real"] = real  # type: ignore[index]
    with pytest.raises(TypeError, match="'fake' is no function"):
        router.overrides[real] = "fake"  # type: ignore[assignment]
    with pytest.raises(TypeError, match="'real' is no function"):
        router.overrides.update({"real": real})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="'real' is no function"):
        router.overrides |= {"real": real}  # type: ignore[dict-item]
    assert not router.overrides
    router.overrides |= {real: real}
    assert router.overrides == {real: real}


async def test_overrides_replace_dependencies_here_and_in_what_includes() -> None:
    log = list[str]()

    async def real() -> str:
        return "real"

    async def fake(x: int = 0) -> AsyncIterator[str]:
        yield f"fake {x}"
        log.append("fake closed")

    inner, outer = Router(), Router()

    @inner.get("/")
    async def handler(value: str = Depends(real)) -> str:
        return value

    outer.include_router(inner, "/in")
    inner.overrides[real] = fake
    assert (await answer(inner, "/?x=1")).body == b"fake 1"
    assert (await answer(outer, "/in/?x=2")).body == b"fake 2"
    outer.overrides[real] = lambda: "outer"
    assert (await answer(outer, "/in/")).body == b"outer"
    assert (await answer(inner, "/")).body == b"fake 0"
    outer.overrides.clear()
    inner.overrides.clear()
    assert (await answer(outer, "/in/")).body == b"real"
    assert log == ["fake closed"] * 3
