"""Runs the service over a directory, in this process or in several."""

import functools
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from asgihive.asgi import Router
from asgihive.cli.logs import log_config
from asgihive.cli.options import ServerOptions
from asgihive.hdf5.buffers import share_one_arena
from asgihive.service import H5App
from asgihive.service import metrics as measures
from asgihive.service.sending import mark
from asgihive.settings import H5Settings

# A worker that says nothing for so long is replaced.
_HEALTHCHECK_SECONDS = 30


def build_app(root: str, settings: H5Settings, prefix: str) -> ASGIApp:
    """The service over `root`, below `prefix`; every worker process builds its own."""
    service = H5App(root, settings)
    if not prefix:
        return service
    router = Router()
    router.mount(prefix, service)

    async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
        # A router answers the lifespan itself, but the service has files to close.
        if scope["type"] == "lifespan":
            await service(scope, receive, send)
        else:
            await router(scope, receive, mark(send))

    # What is not below the prefix is counted and logged, too.
    return service.observer.around(mounted)


def run(options: ServerOptions, root: str, settings: H5Settings, listener: socket.socket) -> int:
    """Serve `root` at a listening socket until a signal ends it; the exit code."""
    build = _build_worker if options.workers > 1 else build_app
    share_one_arena()
    config = uvicorn.Config(
        functools.partial(build, root, settings, options.prefix),
        factory=True,
        lifespan="on",
        workers=options.workers,
        ssl_certfile=options.ssl_certfile,
        ssl_keyfile=options.ssl_keyfile,
        log_config=log_config(options.log_level, options.access_log),
        log_level=options.log_level,
        http="asgihive.cli.protocol_errors:JSONProtocol",
        ws="none",  # a library for websockets would refuse handshakes in plain text
        access_log=False,  # ours hides the token, and says more
        timeout_graceful_shutdown=options.graceful_seconds,
        # Imports from a network file system take long, and what is slow is not dead.
        timeout_worker_healthcheck=_HEALTHCHECK_SECONDS,
    )
    if options.workers == 1:
        uvicorn.Server(config).run(sockets=[listener])
        return 0
    with _shared_metrics(settings):
        supervisor = _Supervisor(config, sockets=[listener])
        supervisor.run()
    failed = any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes)
    return STARTUP_FAILURE if failed else 0


def _build_worker(root: str, settings: H5Settings, prefix: str) -> ASGIApp:
    share_one_arena()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return build_app(root, settings, prefix)


def _end_with_parent() -> None:
    """Stop when the supervisor was killed: nobody else would, and the port would stay taken."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _shared_metrics(settings: H5Settings) -> Iterator[None]:
    """Let the workers share their metrics, unless whoever began this has seen to it."""
    if not settings.metrics or os.environ.get(measures.SHARED_DIRECTORY):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="asgihive-metrics-") as directory:
        os.environ[measures.SHARED_DIRECTORY] = directory
        try:
            yield
        finally:
            del os.environ[measures.SHARED_DIRECTORY]


class _Supervisor(Multiprocess):
    """Replaces workers that end, and holds the socket for them until all are told to stop."""

    def init_processes(self) -> None:
        """Start workers that ignore Ctrl+C until they are up: a terminal tells them, too."""
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        super().init_processes()
        signal.signal(signal.SIGINT, handler)
        self._leave_their_ends_to_them()

    def keep_subprocess_alive(self) -> None:
        """Replace each worker that has ended, and forget what it did at the end."""
        before = {each.pid for each in self.processes}
        super().keep_subprocess_alive()
        self._leave_their_ends_to_them()
        for pid in before - {each.pid for each in self.processes}:
            measures.forget_process(pid)

    def _leave_their_ends_to_them(self) -> None:
        """Let whoever waits for a worker's answer see that the worker has ended.

        As long as this process holds the other end, too, it waits all of the health check's time.
        """
        for each in self.processes:
            each.child_conn.close()

    def terminate_all(self) -> None:
        """Tell the workers to stop; from here on nobody waits to be accepted."""
        for each in self.sockets:
            each.close()
        super().terminate_all()
