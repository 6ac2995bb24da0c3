"""Runs the service over a directory with uvicorn, in this process or in several.

Before that, it opens the sockets, finds mistakes in an address or a certificate, and names URLs.
"""

import asyncio
import contextlib
import errno
import functools
import gc
import inspect
import ipaddress
import logging
import multiprocessing
import os
import re
import signal
import socket
import ssl
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import orjson
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import STARTUP_FAILURE
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.supervisors import Multiprocess

from asgihive.asgi import Router
from asgihive.cli.console import replacing_handlers
from asgihive.cli.logs import log_warnings_and_crashes, make_log_config
from asgihive.cli.options import ServerOptions
from asgihive.hdf5.buffers import share_one_arena
from asgihive.service import H5App, operations
from asgihive.service.gate import NO_SNIFFING
from asgihive.settings import H5Settings

_BACKLOG = 2048

# Of documentation (RFC 5737, RFC 3849): nothing is sent there, only a route is looked up.
_ELSEWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
_LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket: from here on connections wait to be accepted.

    Raises:
        OSError: the address cannot be resolved or bound.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError as error:  # a name that IDNA cannot encode
        raise socket.gaierror(socket.EAI_NONAME, str(error)) from None
    family, _, _, _, address = found[0]
    return socket.create_server(address, family=family, backlog=_BACKLOG)


@contextmanager
def listening_at_path(path: str) -> Iterator[socket.socket]:
    """Listen at a Unix socket at `path`, which is removed at the end.

    As at a port, every user may connect whom the directories let through. A socket that a
    server has left there is replaced.

    Raises:
        OSError: it cannot be made; `EADDRINUSE` when another server listens there, `EEXIST`
            when there is something else.
    """
    with socket.socket(socket.AF_UNIX) as listener:
        _remove_dead(path)
        listener.bind(path)
        made = os.lstat(path)
        try:
            os.chmod(path, 0o666)  # noqa: S103  # as anyone may connect to a port
            listener.listen(_BACKLOG)
            yield listener
        finally:
            # Another program may have put a file there meanwhile.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(made, os.lstat(path)):
                    os.unlink(path)


def _remove_dead(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def describe_listen_problem(options: ServerOptions, error: OSError) -> str:
    """Return why a server cannot listen where `options` say, and what to do."""
    # A path that is too long has no number.
    reason = os.strerror(error.errno) if error.errno else str(error)
    if options.uds is not None:
        path = options.uds
        problems = {
            errno.EADDRINUSE: f"another server listens at {path}: choose another path with --uds, "
            "or stop it",
            errno.EEXIST: f"{path} is there already, and no socket: choose another path with --uds",
        }
        return problems.get(error.errno or 0, f"cannot listen at {path}: {reason}")
    host, port = options.host, options.port
    if isinstance(error, socket.gaierror):
        return f"host {host!r} is not an address or a known name"
    problems = {
        errno.EADDRINUSE: f"port {port} of {host} is taken: choose another with --port, or stop "
        "its owner",
        errno.EACCES: f"port {port} needs privileges: choose one above 1023 with --port",
        errno.EADDRNOTAVAIL: f"{host} is not an address of this machine: choose another with "
        "--host",
    }
    return problems.get(error.errno or 0, f"cannot listen at {host}, port {port}: {reason}")


def find_certificate_problem(options: ServerOptions) -> str | None:
    """Return why HTTPS cannot be served with the files that `options` name, None if it can."""
    certificate, key = options.ssl_certfile, options.ssl_keyfile
    if certificate is None:
        return None if key is None else "--ssl-keyfile needs --ssl-certfile"
    for path in (certificate, key or certificate):
        if not os.access(path, os.R_OK):
            return f"{path!r} cannot be read: the certificate and key are PEM files"
    try:
        # A password is never asked for: there is no one to type it when a service starts.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        files = certificate if key is None else f"{certificate} and {key}"
        return f"{files}: no certificate chain and its unencrypted key in PEM ({reason})"
    return None


def is_loopback(listener: socket.socket) -> bool:
    """Tell whether the socket is at a loopback address: only this machine can connect."""
    if listener.family not in _LOOPBACK:
        return False
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def list_urls(options: ServerOptions, listener: socket.socket) -> list[str]:
    """Return the URLs to open, without a slash at their end: for others, and for this machine.

    There is one where both are the same. A server that listens at every address is shown by
    the one that this machine has towards others, where it has any.
    """
    scheme = "http" if options.ssl_certfile is None else "https"
    if options.uds is not None:
        return [f"{scheme}://localhost{options.prefix}"]
    address, port = listener.getsockname()[:2]
    hosts = [options.host]
    if ipaddress.ip_address(address.partition("%")[0]).is_unspecified:
        own = _find_outer_address(listener.family)
        hosts = [each for each in (own, _LOOPBACK[listener.family]) if each]
    return [
        f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{options.prefix}"
        for host in hosts
    ]


def _find_outer_address(family: int) -> str | None:
    """Return the address of this machine that others see, None where it has no route to them."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((_ELSEWHERE[socket.AddressFamily(family)], 9))
        except OSError:
            return None
        address: str = probe.getsockname()[0]
    return None if ipaddress.ip_address(address).is_loopback else address


_logger = logging.getLogger("asgihive.cli")

# A worker that says nothing for so long is replaced: imports from a network file system take
# long, and a slow worker is not dead.
_HEALTHCHECK_SECONDS = 30


def build_app(root: str, settings: H5Settings, prefix: str) -> ASGIApp:
    """Return the service over `root`, below `prefix`; every worker process builds its own."""
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

    # Requests that are not below the prefix are counted and logged, too.
    return service.gate.make_outer(mounted)


def run_server(
    options: ServerOptions, root: str, settings: H5Settings, listener: socket.socket
) -> int:
    """Serve `root` at a listening socket until a signal ends it; return the exit code."""
    share_one_arena()
    config = uvicorn.Config(
        functools.partial(_build_in_process, options, root, settings),
        factory=True,
        lifespan="on",
        workers=options.workers,
        ssl_certfile=options.ssl_certfile,
        ssl_keyfile=options.ssl_keyfile,
        log_config=make_log_config(options.log_level, options.access_log),
        log_level=options.log_level,
        http="asgihive.cli.server:JSONProtocol",
        ws="none",  # a library for websockets would refuse handshakes in plain text
        access_log=False,  # ours hides the token, and says more
        timeout_graceful_shutdown=options.graceful_seconds,
        timeout_worker_healthcheck=_HEALTHCHECK_SECONDS,
    )
    if options.workers == 1:
        server = StoppableServer(config)
        with server.stopping_at_signals():
            server.run(sockets=[listener])
        return 0
    with sharing_metrics(settings):
        supervisor = WorkerSupervisor(config, sockets=[listener])
        supervisor.run()
    failed = any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes)
    return STARTUP_FAILURE if failed else 0


def _build_in_process(options: ServerOptions, root: str, settings: H5Settings) -> ASGIApp:
    if options.workers > 1:
        share_one_arena()
        threading.Thread(target=_end_with_parent, daemon=True).start()
    if options.access_log == "json":
        log_warnings_and_crashes()
    app = build_app(root, settings, options.prefix)
    # A full collection would look at every object of every library now and then, which holds up all
    # requests for some 60 ms.
    gc.collect()
    gc.freeze()
    return app


def _end_with_parent() -> None:
    """Stop when the supervisor was killed: the port would stay taken."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def sharing_metrics(settings: H5Settings) -> Iterator[None]:
    """Let the workers share their metrics, unless the environment says where already."""
    if not settings.metrics or os.environ.get(operations.SHARED_DIRECTORY):
        yield
        return
    try:
        temporary = tempfile.TemporaryDirectory(prefix="asgihive-metrics-")
    except OSError as error:
        _logger.warning("Each worker counts for itself in /metrics: %s", error)
        yield
        return
    with temporary as directory:
        os.environ[operations.SHARED_DIRECTORY] = directory
        try:
            yield
        finally:
            del os.environ[operations.SHARED_DIRECTORY]


class StoppableServer(uvicorn.Server):
    """Stops in order at a signal, also before uvicorn listens to signals."""

    _is_stopped = False

    @contextmanager
    def stopping_at_signals(self) -> Iterator[None]:
        """Let SIGINT and SIGTERM stop it instead of raising KeyboardInterrupt.

        Python raises that wherever it is, also where it is printed and lost, as in the callback
        of a weak reference. uvicorn listens to signals only once it has begun, and raises the one
        that ended it once more at the end.
        """

        def stop(*_: object) -> None:
            self._is_stopped = True

        handlers = {signal.SIGINT: stop, signal.SIGTERM: stop}
        with replacing_handlers(signal.default_int_handler, handlers):
            yield

    async def main_loop(self) -> None:
        """Wait until a signal comes, unless one has come."""
        if not self._is_stopped:
            await super().main_loop()


class StopEvent(threading.Event):
    """Is set as soon as a signal to stop has come, though the supervisor handles signals later.

    A terminal tells the workers at the same moment, and one that has ended for it needs no other in
    its place.
    """

    def __init__(self, signals: list[int]) -> None:
        super().__init__()
        self._signals = signals

    def is_set(self) -> bool:
        """Return whether the supervisor stops, or is about to."""
        return super().is_set() or any(each in _STOPPING for each in self._signals)


_STOPPING = (signal.SIGINT, signal.SIGTERM)


class WorkerSupervisor(Multiprocess):
    """Replaces workers that end, and holds the socket for them until all are told to stop."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self.should_exit = StopEvent(self.signal_queue)

    def init_processes(self) -> None:
        """Start workers that ignore Ctrl+C until they are up: a terminal tells them, too."""
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        super().init_processes()
        signal.signal(signal.SIGINT, handler)
        self.close_worker_ends()

    def keep_subprocess_alive(self) -> None:
        """Replace each worker that has ended, say so, and forget what it did at the end."""
        before = list(self.processes)
        super().keep_subprocess_alive()
        self.close_worker_ends()
        for old, new in zip(before, self.processes, strict=True):
            if new is not old:
                _logger.warning(
                    "Worker process %s has ended (%s): %s takes its place",
                    old.pid,
                    describe_exit(old.exitcode),
                    new.pid,
                )
                operations.forget_process(old.pid)

    def close_worker_ends(self) -> None:
        """Close what the workers answer by, so that their end is seen while they are waited for.

        As long as this process holds it too, it waits all of the health check's time.
        """
        for each in self.processes:
            each.child_conn.close()

    def terminate_all(self) -> None:
        """Tell the workers to stop, and accept no further connection."""
        for each in self.sockets:
            each.close()
        super().terminate_all()


def describe_exit(exit_code: int | None) -> str:
    """Return how a process has ended, for people."""
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


# What uvicorn calls where its parser gives up. Neither uvicorn's documentation nor its changelog
# speaks of it, so `make_protocol` does without where it is not as it was in 0.50 to 0.54.
_HOOK = "send_400_response"

# The beginning of what h11 and httptools say: behind a colon h11 repeats what the client sent.
_REASON = re.compile(r"[A-Za-z][A-Za-z0-9 -]*")
# What httptools says where uvicorn cannot take the URL apart.
_OF_UVICORN = "user callback error"
_ABOUT_THE_URL = re.compile("url|request line", re.IGNORECASE)
_ADVICE = (
    "; in a URL only printable ASCII is accepted, without blanks, and all else is "
    "percent-encoded: %C3%A9 stands for \N{LATIN SMALL LETTER E WITH ACUTE}"
)


def make_protocol(base: type[asyncio.Protocol] = AutoHTTPProtocol) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol with refusals in JSON, or as it is where that is impossible.

    uvicorn refuses a request that is no HTTP before it asks an application.

    Args:
        base: `H11Protocol`, `HttpToolsProtocol`, or the one that uvicorn chooses.
    """
    method = getattr(base, _HOOK, None)
    if method is None or list(inspect.signature(method).parameters) != ["self", "msg"]:
        _logger.info("This uvicorn answers requests that are no HTTP in plain text")
        return base

    def send_400_response(self: Any, msg: str) -> None:
        _refuse(self, msg, sys.exception())

    return type(f"JSON{base.__name__}", (base,), {_HOOK: send_400_response})


JSONProtocol = make_protocol()
"""The protocol that uvicorn chooses, with refusals in JSON; worker processes import it by name."""


def _refuse(protocol: Any, message: str, error: BaseException | None) -> None:
    """Answer a request that is no HTTP, and close the connection.

    Nothing is answered where another response has begun: it would become a part of that one.

    Args:
        protocol: uvicorn's, of one connection.
        message: uvicorn's own, which says no reason.
        error: of the parser.
    """
    cycle = getattr(protocol, "cycle", None)
    has_begun = getattr(cycle, "response_started", False)
    if not has_begun or getattr(cycle, "response_complete", False):
        reason = _REASON.match(str(error or ""))
        if reason is not None:
            text = reason[0].strip().lower()
            if text == _OF_UVICORN:
                text = "the url cannot be taken apart, or is longer than 65,535 bytes"
            advice = _ADVICE if _ABOUT_THE_URL.search(text) else ""
            message = f"{message.rstrip('.')}: {text}{advice}"
        body = orjson.dumps({"message": message})
        # h11 has a status of its own for headers that are too large: 431.
        status = HTTPStatus(getattr(error, "error_status_hint", HTTPStatus.BAD_REQUEST))
        fields = [
            *getattr(getattr(protocol, "server_state", None), "default_headers", ()),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            NO_SNIFFING,
            (b"connection", b"close"),
        ]
        lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode()]
        lines += [name + b": " + value for name, value in fields]
        protocol.transport.write(b"\r\n".join([*lines, b"", body]))
    protocol.transport.close()
