"""One request to a service in process, with whatever fields a client may send."""

from collections.abc import Mapping
from urllib.parse import urlencode

import anyio

from asgihive.service import H5App
from tests.asgi.exchange import Exchange, http, run
from tests.service.servers import PATIENCE


async def ask(
    app: H5App,
    route: str,
    fields: Mapping[str, str] | None = None,
    method: str = "GET",
    /,
    **query: str,
) -> Exchange:
    """The answer to a request with these header fields, about `x.h5` unless `file` is given."""
    headers = [(name.lower().encode(), value.encode()) for name, value in (fields or {}).items()]
    raw = urlencode({"file": "x.h5", **query}).encode()
    exchange = http(route, method, query_string=raw, headers=headers)
    with anyio.fail_after(PATIENCE):
        return await run(app, exchange)


def held(app: H5App) -> int:
    """How many requests hold a file."""
    return sum(len(file.holders) for file in app.store.pool.files.values())
