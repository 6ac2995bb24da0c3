"""`asgihive serve DIR` and `asgihive demo`: HDF5 files over HTTP, and sample files to try it."""

import argparse
import errno
import logging
import logging.config
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NoReturn

from msgspec import structs

from asgihive import __version__
from asgihive.cli.console import USAGE, Parser, tell
from asgihive.cli.demo_files import list_invitations, make_page_url, write_demo
from asgihive.cli.logs import format_json_line, log_held, make_log_config
from asgihive.cli.options import (
    SETTINGS_HELP,
    ServerCommand,
    ServerOptions,
    add_server_options,
    parse_directory,
    read_options,
)
from asgihive.cli.server import (
    describe_listen_problem,
    find_certificate_problem,
    is_loopback,
    list_urls,
    listen,
    listening_at_path,
    run_server,
)
from asgihive.errors import ExtraMissing
from asgihive.object_stores.locations import is_url
from asgihive.service.store import check_store
from asgihive.settings import ENVIRONMENT_PREFIX
from asgihive.viewer.page import NOT_BUILT, find_dist

_logger = logging.getLogger("asgihive.cli")

_EXAMPLES = f"""
examples:
  asgihive serve /data --port 8080 --prefix /h5
  asgihive serve /data --cors https://viewer.example.org --chunk-cache-bytes 2GiB
  asgihive serve /data --uds /run/asgihive/socket --workers 4 --access-log json
  asgihive serve s3://bucket/prefix
  asgihive serve --config /etc/asgihive.toml
  {ENVIRONMENT_PREFIX}DECODE_LANES=8 asgihive serve /data
"""


def add_serve(parser: argparse.ArgumentParser) -> None:
    """Let the command `serve` take its arguments."""
    parser.description = (
        "Serve every HDF5 file below DIR over HTTP, read-only, to h5web and others. DIR may be\n"
        "a prefix in an object store, such as s3://bucket/prefix: see docs/object-stores.md."
    )
    parser.epilog = SETTINGS_HELP + _EXAMPLES
    parser.add_argument(
        "directory",
        metavar="DIR",
        nargs="?",
        help="Serve this directory or URL, if the file of --config has no `directory`.",
    )
    parser.set_defaults(run=_serve, parser=parser)
    add_server_options(parser, has_directory=True)


def add_demo(parser: argparse.ArgumentParser) -> None:
    """Let the command `demo` take its arguments."""
    parser.description = (
        "Write sample files into a temporary directory, which is removed at the end,\n"
        "serve them, and print URLs to open and commands to paste. Takes any free port\n"
        "when the one asked for is taken."
    )
    parser.epilog = SETTINGS_HELP
    parser.set_defaults(run=_demo, parser=parser)
    add_server_options(parser, has_directory=False)


def _serve(options: argparse.Namespace) -> int:
    parser: Parser = options.parser
    if options.directory is not None:
        try:
            options.directory = parse_directory(options.directory)
        except ValueError as error:
            # A URL is not shown again: it may hold a password.
            shown = "a URL that is not served" if is_url(options.directory) else options.directory
            parser.error(f"DIR is {shown!r}: {error}")
    given = read_options(options)
    server, directory = given.server, given.directory
    if directory is None:
        parser.error("DIR is missing: the directory to serve")
    if server.open and server.uds is not None:
        parser.error("--open needs a port: no browser opens the socket of --uds")
    if is_url(directory):
        try:
            check_store(directory, given.settings)
        except (ValueError, ExtraMissing) as error:
            _refuse(parser, server, f"DIR is {directory}: {error}")
    _check_certificate(parser, server)
    with ExitStack() as stack:
        try:
            if server.uds is None:
                listener = stack.enter_context(listen(server.host, server.port))
            else:
                listener = stack.enter_context(listening_at_path(server.uds))
        except OSError as error:
            _refuse(parser, server, describe_listen_problem(server, error))

        def write_text(urls: Sequence[str]) -> str:
            at = f"{server.uds}, " if server.uds else ""
            places = " or, on this machine, ".join(f"{each}/" for each in urls)
            return f"Serving {directory} at {at}{places} (Ctrl+C stops)"

        return _run(given, directory, listener, write_text, lambda base: f"{base}/")


def _demo(options: argparse.Namespace) -> int:
    parser: Parser = options.parser
    given = read_options(options)
    server = given.server
    _check_certificate(parser, server)
    notes = []
    try:
        try:
            listener = listen(server.host, server.port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            listener = listen(server.host, 0)
            notes.append(f"Port {server.port} is taken: using {listener.getsockname()[1]} instead.")
    except OSError as error:
        _refuse(parser, server, describe_listen_problem(server, error))
    with listener, ExitStack() as stack:
        try:
            temporary = tempfile.TemporaryDirectory(prefix="asgihive-demo-")
            directory = stack.enter_context(temporary)
            write_demo(directory)
        except OSError as error:
            parser.fail(f"the sample files cannot be written: {error}")
        notes.append(f"Sample files are in {directory}, until Ctrl+C stops the server.")

        has_page = given.settings.viewer and find_dist() is not None
        if given.settings.viewer and not has_page:
            notes.append(f"{NOT_BUILT}.")

        def write_text(urls: Sequence[str]) -> str:
            return "\n".join([*notes, *list_invitations(urls[0], has_page=has_page)])

        return _run(given, directory, listener, write_text, make_page_url)


def _check_certificate(parser: Parser, options: ServerOptions) -> None:
    problem = find_certificate_problem(options)
    if problem is not None:
        _refuse(parser, options, problem)


def _refuse(parser: Parser, options: ServerOptions, problem: str) -> NoReturn:
    """End with one line on stderr, in JSON where the log is.

    Raises:
        SystemExit: 2.
    """
    if options.access_log == "json":
        parser.exit(USAGE, format_json_line(problem, {}, logging.ERROR) + "\n")
    parser.error(problem)


def _run(
    given: ServerCommand,
    root: str,
    listener: socket.socket,
    write_text: Callable[[Sequence[str]], str],
    make_page_url: Callable[[str], str],
) -> int:
    """Say which directory is served where, warn if it is open to a network, and serve it.

    At a loopback address without a token only local names are answered, unless others were named.

    Args:
        given: the options of the command.
        root: the served directory.
        listener: where it is served.
        write_text: makes the text for people of the URLs that `list_urls` gives.
        make_page_url: makes the URL that `--open` opens of the last of them.

    Returns:
        The exit code.

    Raises:
        OutputFailed: standard output cannot be written.
    """
    options, settings = given.server, given.settings
    logging.config.dictConfig(make_log_config(options.log_level, options.access_log))
    log_held(given.held)
    is_open = settings.token is None and options.uds is None
    if is_open and settings.allowed_hosts is None and is_loopback(listener):
        settings = structs.replace(settings, allowed_hosts=())
    urls = list_urls(options, listener)
    if options.access_log == "json":
        address = f"{urls[0]}/" if options.uds is None else options.uds
        fields = {"directory": root, "address": address, "version": __version__}
        tell(format_json_line(f"Serving {root} at {address}", fields))
    else:
        tell(write_text(urls))
    if is_open and not is_loopback(listener):
        _logger.warning(
            "All who reach port %d may read every file of %s: set ASGIHIVE_TOKEN, or "
            "listen at 127.0.0.1",
            listener.getsockname()[1],
            root,
        )
    if options.open:
        _open_browser(make_page_url(urls[-1]))
    return run_server(options, root, settings, listener)


def _open_browser(url: str) -> None:
    """Open a URL in the browser of this machine, whose first request waits at the socket.

    It is opened beside the server: some browsers return only when they are closed.
    """

    def open_page() -> None:
        if not webbrowser.open(url):
            _logger.warning("There is no browser here: open %s in one", url)

    threading.Thread(target=open_page, name="browser", daemon=True).start()
