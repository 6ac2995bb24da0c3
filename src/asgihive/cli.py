"""The command `asgihive`: `serve` a directory, or `demo` over sample files."""

import argparse
import dataclasses
import errno
import functools
import os
import platform
import re
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn
from urllib.parse import urlsplit

import h5py
import numpy as np
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from asgihive import __version__
from asgihive.asgi import Router
from asgihive.demo import invitation, write_demo
from asgihive.service import H5App
from asgihive.settings import ENVIRONMENT_PREFIX, H5Settings, parse_size

# Seconds that answers under way have to finish once the server is asked to stop.
_GRACE = 10

_VERSIONS = (
    f"asgihive {__version__}\n"
    f"h5py {h5py.__version__}, HDF5 {h5py.version.hdf5_version}, NumPy {np.__version__}, "
    f"uvicorn {uvicorn.__version__}\n"
    f"Python {platform.python_version()} on {platform.platform()}"
)

_EXAMPLES = """\
examples:
  asgihive demo                                   try it out: sample files and URLs to open
  asgihive serve /data                            http://127.0.0.1:8000, for this machine only
  asgihive serve /data --host 0.0.0.0 --workers 4 for the network, with four processes
  asgihive serve --help                           every option and setting
"""

_SETTINGS_HELP = f"""\
A setting on the command line wins over its environment variable, which is {ENVIRONMENT_PREFIX} and
its name in upper case (for --cors, {ENVIRONMENT_PREFIX}CORS_ORIGINS), and that over its default.
SIZE is a number of bytes, or ends in K M G T (also KiB MiB GiB TiB: powers of 1024), or
in KB MB GB TB (powers of 1000).
"""

_SERVE_EXAMPLES = f"""
examples:
  asgihive serve /data --port 8080 --prefix /h5
  asgihive serve /data --cors https://viewer.example.org --chunk-cache-bytes 2GiB
  {ENVIRONMENT_PREFIX}DECODE_LANES=8 asgihive serve /data
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    A server that is asked to stop (SIGINT, SIGTERM, SIGHUP) finishes what it is answering,
    for ten seconds at most, and then this returns 0.

    Args:
        arguments: without the program's name; those of the process by default.

    Raises:
        SystemExit: 2 after one line on stderr, when nothing can be served as asked;
            0 after `--help` and `--version`.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if "run" not in options:
        parser.print_help()
        return 0
    with _signals_interrupt():
        try:
            code: int = options.run(options)
        except KeyboardInterrupt:
            return 0
    return code


class _Parser(argparse.ArgumentParser):
    """Complains in one line; whoever wants the usage is told how to see it."""

    def error(self, message: str) -> NoReturn:
        line = " ".join(message.split())
        self.exit(2, f"{self.prog}: error: {line} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    style: dict[str, Any] = {
        "formatter_class": argparse.RawDescriptionHelpFormatter,
        "allow_abbrev": False,
    }
    parser = _Parser(
        prog="asgihive",
        description="Read HDF5 files over HTTP: metadata, attributes, values, slices, statistics.",
        epilog=_EXAMPLES,
        **style,
    )
    parser.add_argument("--version", action="version", version=_VERSIONS)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    serve = commands.add_parser(
        "serve",
        help="serve the HDF5 files of a directory",
        description="Serve every HDF5 file below DIR over HTTP, read-only, to h5web and others.",
        epilog=_SETTINGS_HELP + _SERVE_EXAMPLES,
        **style,
    )
    serve.add_argument("directory", metavar="DIR", type=_directory, help="the directory to serve")
    serve.set_defaults(run=_serve, parser=serve)

    demo = commands.add_parser(
        "demo",
        help="serve sample files, and print URLs to open",
        description=(
            "Write sample files into a temporary directory, which is removed at the end,\n"
            "serve them, and print URLs to open and commands to paste. Takes any free port\n"
            "when the one asked for is taken."
        ),
        epilog=_SETTINGS_HELP,
        **style,
    )
    demo.set_defaults(run=_demo, parser=demo)

    for command in (serve, demo):
        _add_server_options(command)
    return parser


def _add_server_options(parser: argparse.ArgumentParser) -> None:
    server = parser.add_argument_group("server")
    server.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: %(default)s)"
    )
    server.add_argument(
        "--port",
        default=8000,
        type=_number(0, 65535),
        metavar="N",
        help="port to listen at, 0 = any free one (default: %(default)s)",
    )
    server.add_argument(
        "--workers",
        default=1,
        type=_number(1, 1024),
        metavar="N",
        help="processes (default: %(default)s)",
    )
    server.add_argument(
        "--prefix", default="", type=_prefix, metavar="/PATH", help="path before every route"
    )
    server.add_argument(
        "--access-log", action="store_true", help="log every request and the server's life"
    )
    settings = parser.add_argument_group("settings")
    for each in dataclasses.fields(H5Settings):
        name = "cors" if each.name == "cors_origins" else each.name.replace("_", "-")
        settings.add_argument(f"--{name}", **_option(each))


def _option(each: dataclasses.Field[Any]) -> dict[str, Any]:
    """How argparse reads one setting; what is not given stays out of the namespace."""
    default = getattr(H5Settings(), each.name)
    option: dict[str, Any] = {"dest": each.name, "default": argparse.SUPPRESS}
    if each.type is bool:
        option |= {"action": argparse.BooleanOptionalAction}
        shown = "yes" if default else "no"
    elif each.type is float:
        option |= {"type": float, "metavar": "SECONDS"}
        shown = f"{default:g}"
    elif each.type is int and each.name.endswith("_bytes"):
        option |= {"type": _size, "metavar": "SIZE"}
        shown = _size_text(default)
    elif each.type is int:
        option |= {"type": int, "metavar": "N"}
        shown = str(default)
    else:
        option |= {"type": _origin, "metavar": "ORIGIN", "action": "append"}
        shown = f"{', '.join(default) or 'none'}; * = all, may be repeated"
    purpose = each.metadata["purpose"].replace("%", "%%")
    return option | {"help": f"{purpose} (default: {shown})"}


def _directory(text: str) -> str:
    path = os.path.abspath(text)
    if not os.path.exists(path):
        raise argparse.ArgumentTypeError(f"{text!r}: no such directory")
    if not os.path.isdir(path):
        raise argparse.ArgumentTypeError(f"{text!r} is not a directory")
    if not os.access(path, os.R_OK | os.X_OK):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be read: permission denied")
    return path


def _number(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(
                f"{text!r}: a number from {least} to {most} is accepted"
            )
        return int(text)

    return parse


def _prefix(text: str) -> str:
    # Unreserved characters (RFC 3986, section 2.3); clients resolve the segments `.` and `..`.
    prefix = text.rstrip("/")
    if not re.fullmatch(r"(/(?!\.\.?(/|$))[A-Za-z0-9._~-]+)*", prefix):
        raise argparse.ArgumentTypeError(
            f"{text!r}: a path such as /h5 of letters, digits and . _ ~ - is accepted"
        )
    return prefix


def _origin(text: str) -> str:
    # RFC 6454, section 6.2: scheme, host and port, without a path. Browsers send just that.
    try:
        scheme, host, *rest = urlsplit(text)
    except ValueError:
        scheme, host, rest = "", "", []
    if text != "*" and (scheme not in {"http", "https"} or not host or any(rest)):
        raise argparse.ArgumentTypeError(
            f"{text!r}: an origin such as https://viewer.example.org, without a path, or * "
            "is accepted"
        )
    return text.lower()


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def _size_text(size: int) -> str:
    power = 0
    while size and size % 1024 == 0 and power < 4:
        size, power = size // 1024, power + 1
    return f"{size}{('', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def _settings(options: argparse.Namespace) -> H5Settings:
    parser: argparse.ArgumentParser = options.parser
    given = {
        each.name: getattr(options, each.name)
        for each in dataclasses.fields(H5Settings)
        if each.name in options
    }
    if "cors_origins" in given:
        given["cors_origins"] = tuple(given["cors_origins"])
    try:
        return H5Settings.from_environment(**given)
    except ValueError as error:
        parser.error(str(error))


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


def _serve(options: argparse.Namespace) -> int:
    settings = _settings(options)
    try:
        listener = _listen(options.host, options.port)
    except OSError as error:
        options.parser.error(_listen_problem(options.host, options.port, error))
    with listener:
        url = _url(options, listener)
        print(f"Serving {options.directory} at {url}/ (Ctrl+C stops)", flush=True)
        return _run(options, options.directory, settings, listener)


def _demo(options: argparse.Namespace) -> int:
    settings = _settings(options)
    notes = []
    try:
        try:
            listener = _listen(options.host, options.port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            listener = _listen(options.host, 0)
            notes.append(
                f"Port {options.port} is taken: using {listener.getsockname()[1]} instead."
            )
    except OSError as error:
        options.parser.error(_listen_problem(options.host, options.port, error))
    with listener, tempfile.TemporaryDirectory(prefix="asgihive-demo-") as directory:
        write_demo(directory)
        notes.append(f"Sample files are in {directory}, until Ctrl+C stops the server.")
        print("\n".join([*notes, *invitation(_url(options, listener))]), flush=True)
        return _run(options, directory, settings, listener)


def _run(
    options: argparse.Namespace, root: str, settings: H5Settings, listener: socket.socket
) -> int:
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


def _listen(host: str, port: int) -> socket.socket:
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


def _listen_problem(host: str, port: int, error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return f"host {host!r} is not an address or a known name"
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is taken: choose another with --port, or stop its owner"
    if error.errno == errno.EACCES:
        return f"port {port} needs privileges: choose one above 1023 with --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine: choose another with --host"
    return f"cannot listen at {host}, port {port}: {os.strerror(error.errno or 0)}"


def _url(options: argparse.Namespace, listener: socket.socket) -> str:
    # A server that listens everywhere is reached at the loopback address, too.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(options.host, options.host)  # noqa: S104
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listener.getsockname()[1]}{options.prefix}"


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind like Ctrl+C, so that temporary files are removed."""
    handlers: dict[str, Callable[[int, FrameType | None], None]] = {
        "SIGTERM": signal.default_int_handler,
        # uvicorn stops gracefully on SIGTERM only, and a closed terminal sends this.
        "SIGHUP": lambda *_: signal.raise_signal(signal.SIGTERM),
    }
    replaced = {}
    for name, handler in handlers.items():
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        # Whoever ignores one (nohup) goes on doing so.
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            replaced[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, before in replaced.items():
            signal.signal(number, before)
