"""An ASGI application asked in process, without a server."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import httpx
from starlette.types import ASGIApp

from tests.asgi.exchange import http, run

# As httpx asks by itself.
_HEADERS = [(b"host", b"service"), (b"accept", b"*/*"), (b"accept-encoding", b"gzip, deflate")]


def client(app: Any) -> httpx.AsyncClient:
    """A client of `app`; what the application lets escape becomes a 500, as in a server."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://service")


class Answer(httpx.Response):
    """What was answered, and what was asked for it."""

    asked = ""

    @property
    def url(self) -> httpx.URL:
        return httpx.URL(f"http://service{self.asked}")


class Asker:
    """Asks `app` for thousands of things: a client of httpx takes a millisecond for each."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def get(
        self, route: str, params: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> Answer:
        given = {name.encode(): value.encode() for name, value in (headers or {}).items()}
        kept = [(name, value) for name, value in _HEADERS if name not in given]
        query = urlencode(params, doseq=True)
        exchange = http(route, query_string=query.encode(), headers=[*kept, *given.items()])
        await run(self._app, exchange)
        response = Answer(
            exchange.status,
            headers=exchange.sent[0]["headers"],
            stream=httpx.ByteStream(exchange.body),
        )
        response.read()
        response.asked = f"{route}?{query}"
        return response
