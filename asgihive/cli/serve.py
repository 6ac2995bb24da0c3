"""`asgihive serve DIR`: the HDF5 files of a directory over HTTP."""

import argparse
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from asgihive.cli.console import STYLE, Parser
from asgihive.cli.listening import (
    certificate_problem,
    listen,
    listen_problem,
    listening_at_path,
)
from asgihive.cli.options import (
    SETTINGS_HELP,
    ServerOptions,
    add_server_options,
    parse_directory,
    read_options,
)
from asgihive.cli.server import announce, refuse, run
from asgihive.settings import ENVIRONMENT_PREFIX

_EXAMPLES = f"""
examples:
  asgihive serve /data --port 8080 --prefix /h5
  asgihive serve /data --cors https://viewer.example.org --chunk-cache-bytes 2GiB
  asgihive serve /data --uds /run/asgihive/socket --workers 4 --access-log json
  asgihive serve --config /etc/asgihive.toml
  {ENVIRONMENT_PREFIX}DECODE_LANES=8 asgihive serve /data
"""


def add_serve(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    parser = commands.add_parser(
        "serve",
        help="serve the HDF5 files of a directory",
        description="Serve every HDF5 file below DIR over HTTP, read-only, to h5web and others.",
        epilog=SETTINGS_HELP + _EXAMPLES,
        **STYLE,
    )
    parser.add_argument(
        "directory",
        metavar="DIR",
        nargs="?",
        help="the directory to serve, if the file of --config has no `directory`",
    )
    parser.set_defaults(run=_serve, parser=parser)
    add_server_options(parser, has_directory=True)


def _serve(options: argparse.Namespace) -> int:
    parser: Parser = options.parser
    if options.directory is not None:
        try:
            options.directory = parse_directory(options.directory)
        except ValueError as error:
            parser.error(f"DIR is {options.directory!r}: {error}")
    given = read_options(options)
    directory = given.directory
    if directory is None:
        parser.error("DIR is missing: the directory to serve")
    if problem := certificate_problem(given.server):
        refuse(parser, given.server, problem)
    with _listening(parser, given.server) as listener:
        at = f"{given.server.uds}, " if given.server.uds else ""

        def text(urls: Sequence[str]) -> str:
            places = " or, on this machine, ".join(f"{each}/" for each in urls)
            return f"Serving {directory} at {at}{places} (Ctrl+C stops)"

        given = announce(given, directory, listener, text)
        return run(given.server, directory, given.settings, listener)


@contextmanager
def _listening(parser: Parser, options: ServerOptions) -> Iterator[socket.socket]:
    with ExitStack() as stack:
        try:
            if options.uds is None:
                listener = stack.enter_context(listen(options.host, options.port))
            else:
                listener = stack.enter_context(listening_at_path(options.uds))
        except OSError as error:
            refuse(parser, options, listen_problem(options, error))
        yield listener
