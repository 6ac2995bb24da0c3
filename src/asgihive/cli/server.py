"""Runs the service over a directory, in this process or in several."""

import argparse
import errno
import functools
import os
import signal
import socket

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from asgihive.asgi import Router
from asgihive.service import H5App
from asgihive.settings import H5Settings

# Seconds that answers under way have to finish once the server is asked to stop.
_GRACE = 10


def build_app(root: str, settings: H5Settings, prefix: str) -> ASGIApp:
    """The service over `root`, below `prefix`; every worker process builds its own."""
    service = H5App(root, settings)
    if not prefix:
        return service
    router = Router()
    router.mount(prefix, service)

    async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
        # A router answers the lifespan itself, but the service has files to close.
        app = service if scope["type"] == "lifespan" else router
        await app(scope, receive, send)

    return mounted


def run(
    options: argparse.Namespace, root: str, settings: H5Settings, listener: socket.socket
) -> int:
    """Serve `root` at a listening socket until a signal ends it; the exit code."""
    config = uvicorn.Config(
        functools.partial(build_app, root, settings, options.prefix),
        factory=True,
        lifespan="on",
        workers=options.workers,
        log_level="info" if options.access_log else "warning",
        access_log=options.access_log,
        timeout_graceful_shutdown=_GRACE,
    )
    if options.workers == 1:
        uvicorn.Server(config).run(sockets=[listener])
        return 0
    supervisor = _Supervisor(config, sockets=[listener])
    supervisor.run()
    failed = any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes)
    return STARTUP_FAILURE if failed else 0


class _Supervisor(Multiprocess):
    """Starts workers that ignore Ctrl+C, which a terminal sends to them too, until they are up."""

    def init_processes(self) -> None:
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        super().init_processes()
        signal.signal(signal.SIGINT, handler)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket: from here on connections wait to be accepted.

    Raises:
        OSError: the address cannot be resolved or bound.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError as error:  # a name that IDNA cannot encode
        raise socket.gaierror(socket.EAI_NONAME, str(error)) from None
    family, _, _, _, address = found[0]
    return socket.create_server(address, family=family, backlog=2048)


def listen_problem(host: str, port: int, error: OSError) -> str:
    """Why `listen` failed, and what to do."""
    if isinstance(error, socket.gaierror):
        return f"host {host!r} is not an address or a known name"
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is taken: choose another with --port, or stop its owner"
    if error.errno == errno.EACCES:
        return f"port {port} needs privileges: choose one above 1023 with --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine: choose another with --host"
    return f"cannot listen at {host}, port {port}: {os.strerror(error.errno or 0)}"


def url_of(options: argparse.Namespace, listener: socket.socket) -> str:
    """The URL to open on this machine, without a slash at its end."""
    # A server that listens everywhere is reached at the loopback address, too.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(options.host, options.host)  # noqa: S104
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listener.getsockname()[1]}{options.prefix}"
