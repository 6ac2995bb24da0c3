"""An ASGI application asked in process, without a server."""

from typing import Any

import httpx


def client(app: Any) -> httpx.AsyncClient:
    """A client of `app`; what the application lets escape becomes a 500, as in a server."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://service")
