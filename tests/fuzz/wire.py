"""A server elsewhere, as an ASGI application: what that is asked goes over one connection."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from starlette.types import Receive, Scope, Send

from asgihive.errors import AsgihiveError


class CutOffError(AsgihiveError):
    """The server ended the connection in the middle of an answer.

    It has no other way to tell of an error then; its log says which error it was.
    """


class Wire:
    """The server at `url`.

    Attributes:
        connections: the ports of this side that were used, one for each connection.
    """

    def __init__(self, url: str, patience: float) -> None:
        self.connections: set[int] = set()
        self._client = httpx.AsyncClient(
            base_url=url,
            timeout=patience,
            trust_env=False,
            headers={"accept-encoding": "identity"},
            limits=httpx.Limits(max_connections=1),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the connection open."""
        async with self._client:
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and the answer back as it is.

        Raises:
            CutOffError: it has no end.
            httpx.HTTPError: there is none, or it is not HTTP.
        """
        target = f"{scope['path']}?{scope['query_string'].decode()}".rstrip("?")
        body = (await receive())["body"]
        async with self._client.stream(scope["method"], target, content=body) as answer:
            stream = answer.extensions["network_stream"]
            self.connections.add(stream.get_extra_info("client_addr")[1])
            headers = [(name.lower(), value) for name, value in answer.headers.raw]
            status = answer.status_code
            await send({"type": "http.response.start", "status": status, "headers": headers})
            try:
                async for block in answer.aiter_raw():
                    await send({"type": "http.response.body", "body": block, "more_body": True})
            except httpx.RemoteProtocolError as error:
                raise CutOffError(str(error)) from error
        await send({"type": "http.response.body", "body": b"", "more_body": False})
