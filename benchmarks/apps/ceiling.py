"""The least that an application can do on this server: two bytes, whatever is asked."""

from starlette.types import ASGIApp, Receive, Scope, Send

_HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"2")]


async def _two_bytes(scope: Scope, _receive: Receive, send: Send) -> None:
    # Raising at the lifespan's start is how an application says that it has none (ASGI lifespan).
    if scope["type"] != "http":
        raise RuntimeError(scope["type"])
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": b"ok"})


def create(_directory: str) -> ASGIApp:
    return _two_bytes
