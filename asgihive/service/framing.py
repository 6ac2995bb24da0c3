"""Requests of which nobody can say where they end."""

from starlette.types import ASGIApp, Receive, Scope, Send

from asgihive.asgi import HTTPException, send_error

_MESSAGE = "Content-Length and Transfer-Encoding exclude each other: send one of them"


class Framed:
    """An ASGI application: another one, which is asked only what has one length.

    With both headers a proxy may have taken the next client's request for a part of the body,
    or the other way round; the connection ends with the refusal (RFC 9112, section 6.1), which
    not every server sees to (h11).
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _is_ambiguous(scope):
            refusal = HTTPException(400, _MESSAGE, {"connection": "close"})
            await send_error(refusal, scope, receive, send)
            return
        await self._app(scope, receive, send)


def _is_ambiguous(scope: Scope) -> bool:
    names = [name for name, _ in scope["headers"]]
    return b"transfer-encoding" in names and b"content-length" in names
