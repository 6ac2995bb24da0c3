"""Runs the service over a directory, in this process or in several."""

import dataclasses
import functools
import logging
import logging.config
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NoReturn

import uvicorn
from msgspec import structs
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from asgihive import __version__
from asgihive.asgi import Router
from asgihive.cli.console import USAGE, Parser, tell
from asgihive.cli.listening import is_loopback, urls_of
from asgihive.cli.logs import json_line, log_config, log_held, log_warnings_and_crashes
from asgihive.cli.options import ServerCommand, ServerOptions
from asgihive.cli.signals import signals_call
from asgihive.hdf5.buffers import share_one_arena
from asgihive.service import H5App
from asgihive.service import metrics as measures
from asgihive.settings import H5Settings

_logger = logging.getLogger("asgihive.cli")

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
            await router(scope, receive, send)

    # What is not below the prefix is counted and logged, too.
    return service.gate.make_outer(mounted)


def refuse(parser: Parser, options: ServerOptions, problem: str) -> NoReturn:
    """End with one line on stderr, in JSON where the log is.

    Raises:
        SystemExit: 2.
    """
    if options.access_log == "json":
        parser.exit(USAGE, json_line(problem, {}, logging.ERROR) + "\n")
    parser.error(problem)


def announce(
    given: ServerCommand, root: str, listener: socket.socket, text: Callable[[Sequence[str]], str]
) -> ServerCommand:
    """Say what is served where, first of all; and for whom, if that may not be meant.

    Args:
        given: what was asked for.
        root: the served directory.
        listener: where it is served.
        text: for people, of the URLs that `urls_of` gives.

    Returns:
        The same, with what holds where it is served: at a loopback address without a token
        only local names are answered, unless others were named.

    Raises:
        OutputFailed: standard output cannot be written.
    """
    options, settings = given.server, given.settings
    logging.config.dictConfig(log_config(options.log_level, options.access_log))
    log_held(given.held)
    is_open = settings.token is None and options.uds is None
    if is_open and settings.allowed_hosts is None and is_loopback(listener):
        settings = structs.replace(settings, allowed_hosts=())
    urls = urls_of(options, listener)
    if options.access_log == "json":
        address = f"{urls[0]}/" if options.uds is None else options.uds
        fields = {"directory": root, "address": address, "version": __version__}
        tell(json_line(f"Serving {root} at {address}", fields))
    else:
        tell(text(urls))
    if is_open and not is_loopback(listener):
        _logger.warning(
            "Everybody who reaches port %d may read every file of %s: set ASGIHIVE_TOKEN, or "
            "listen at 127.0.0.1",
            listener.getsockname()[1],
            root,
        )
    return dataclasses.replace(given, settings=settings)


def run(options: ServerOptions, root: str, settings: H5Settings, listener: socket.socket) -> int:
    """Serve `root` at a listening socket until a signal ends it; the exit code."""
    is_json = options.access_log == "json"
    build = _build_worker if options.workers > 1 else _build
    share_one_arena()
    config = uvicorn.Config(
        functools.partial(build, root, settings, options.prefix, is_json=is_json),
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
        server = _StoppableServer(config)
        with signals_call(server.stop):
            server.run(sockets=[listener])
        return 0
    with _shared_metrics(settings):
        supervisor = _Supervisor(config, sockets=[listener])
        supervisor.run()
    failed = any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes)
    return STARTUP_FAILURE if failed else 0


def _build(root: str, settings: H5Settings, prefix: str, *, is_json: bool) -> ASGIApp:
    if is_json:
        log_warnings_and_crashes()
    return build_app(root, settings, prefix)


def _build_worker(root: str, settings: H5Settings, prefix: str, *, is_json: bool) -> ASGIApp:
    share_one_arena()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return _build(root, settings, prefix, is_json=is_json)


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
    with ExitStack() as stack:
        try:
            temporary = tempfile.TemporaryDirectory(prefix="asgihive-metrics-")
            directory = stack.enter_context(temporary)
        except OSError as error:
            _logger.warning("Each worker counts for itself in /metrics: %s", error)
            yield
            return
        os.environ[measures.SHARED_DIRECTORY] = directory
        try:
            yield
        finally:
            del os.environ[measures.SHARED_DIRECTORY]


class _StoppableServer(uvicorn.Server):
    """Stops in order whenever it is told to, also before uvicorn listens to signals."""

    _is_stopped = False

    def stop(self) -> None:
        """End as soon as it has started; it also ends what its lifespan began."""
        self._is_stopped = True

    async def main_loop(self) -> None:
        """Wait until a signal comes, unless one has come."""
        if not self._is_stopped:
            await super().main_loop()


class _Supervisor(Multiprocess):
    """Replaces workers that end, and holds the socket for them until all are told to stop."""

    def init_processes(self) -> None:
        """Start workers that ignore Ctrl+C until they are up: a terminal tells them, too."""
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        super().init_processes()
        signal.signal(signal.SIGINT, handler)
        self._leave_their_ends_to_them()

    def keep_subprocess_alive(self) -> None:
        """Replace each worker that has ended, say so, and forget what it did at the end."""
        before = list(self.processes)
        super().keep_subprocess_alive()
        self._leave_their_ends_to_them()
        for old, new in zip(before, self.processes, strict=True):
            if new is not old:
                _logger.warning(
                    "Worker process %s has ended (%s): %s takes its place",
                    old.pid,
                    _end_of(old.exitcode),
                    new.pid,
                )
                measures.forget_process(old.pid)

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


def _end_of(exit_code: int | None) -> str:
    """How a process has ended, for people."""
    if exit_code is None or exit_code >= 0:
        return f"exit code {exit_code}"
    name = {each.value: each.name for each in signal.Signals}.get(-exit_code)
    if name is None:
        return f"signal {-exit_code}"
    if name != "SIGKILL":
        return name
    return (
        f"{name}: the system sends it when memory is short, and the supervisor when a worker "
        f"does not answer for {_HEALTHCHECK_SECONDS} s"
    )
