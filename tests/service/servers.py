"""Real servers on free ports of 127.0.0.1, each in a thread of this process."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import hypercorn.asyncio
import hypercorn.config
import hypercorn.trio
import uvicorn

PATIENCE = 30.0  # seconds until what hangs fails instead

UVICORN = ("uvicorn-h11", "uvicorn-httptools")
HYPERCORN = ("hypercorn-asyncio", "hypercorn-trio")
SERVERS = (*UVICORN, *HYPERCORN)


@contextmanager
def serving(app: Any, server: str, root_path: str = "") -> Iterator[str]:
    """The URL of `app`, served until the end of the context, its lifespan included.

    The port listens before the server runs, so that no test has to wait for it.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    brand, _, variant = server.partition("-")
    prepare = _uvicorn if brand == "uvicorn" else _hypercorn
    run, stop = prepare(app, variant, listener, root_path)
    thread = threading.Thread(target=run, name=server)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        stop()
        thread.join(PATIENCE)
        assert not thread.is_alive(), f"{server} does not stop"


def client(url: str) -> httpx.Client:
    """Return a client that uses no proxy, and asks for no compression."""
    headers = {"accept-encoding": "identity"}
    return httpx.Client(base_url=url, timeout=PATIENCE, trust_env=False, headers=headers)


def descriptors_below(root: Path) -> list[str]:
    """The files of a directory that this process has open."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            target = str(each.readlink())
        except FileNotFoundError:  # the listing's own
            continue
        if target.startswith(f"{root}/"):
            found.append(target)
    return found


def _uvicorn(
    app: Any, http: str, listener: socket.socket, root_path: str
) -> tuple[Callable[[], None], Callable[[], None]]:
    config = uvicorn.Config(
        app,
        http=http,
        loop="asyncio",
        lifespan="on",
        log_config=None,
        root_path=root_path,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)

    def stop() -> None:
        server.should_exit = True

    return partial(server.run, sockets=[listener]), stop


def _hypercorn(
    app: Any, backend: str, listener: socket.socket, root_path: str
) -> tuple[Callable[[], None], Callable[[], None]]:
    config = hypercorn.config.Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.root_path = root_path
    config.graceful_timeout = 1
    serve: Any = hypercorn.trio.serve if backend == "trio" else hypercorn.asyncio.serve
    stopped = threading.Event()

    async def until_stopped() -> None:
        await anyio.to_thread.run_sync(stopped.wait, abandon_on_cancel=True)

    async def run() -> None:
        await serve(app, config, shutdown_trigger=until_stopped)

    return partial(anyio.run, run, backend=backend), stopped.set
