"""`asgihive demo`: the service over sample files, and URLs to try."""

import argparse
import errno
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from asgihive.cli.console import STYLE, Parser
from asgihive.cli.listening import certificate_problem, listen, listen_problem
from asgihive.cli.options import SETTINGS_HELP, add_server_options, read_options
from asgihive.cli.server import announce, refuse, run
from asgihive.demo import invitation, write_demo


def add_demo(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    parser = commands.add_parser(
        "demo",
        help="serve sample files, and print URLs to open",
        description=(
            "Write sample files into a temporary directory, which is removed at the end,\n"
            "serve them, and print URLs to open and commands to paste. Takes any free port\n"
            "when the one asked for is taken."
        ),
        epilog=SETTINGS_HELP,
        **STYLE,
    )
    parser.set_defaults(run=_demo, parser=parser)
    add_server_options(parser, has_directory=False)


def _demo(options: argparse.Namespace) -> int:
    parser: Parser = options.parser
    given = read_options(options)
    server = given.server
    if problem := certificate_problem(server):
        refuse(parser, server, problem)
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
        refuse(parser, server, listen_problem(server, error))
    with listener, _sample_files(parser) as directory:
        notes.append(f"Sample files are in {directory}, until Ctrl+C stops the server.")

        def text(urls: Sequence[str]) -> str:
            return "\n".join([*notes, *invitation(urls[0])])

        given = announce(given, directory, listener, text)
        return run(server, directory, given.settings, listener)


@contextmanager
def _sample_files(parser: Parser) -> Iterator[str]:
    with ExitStack() as stack:
        try:
            temporary = tempfile.TemporaryDirectory(prefix="asgihive-demo-")
            directory = stack.enter_context(temporary)
            write_demo(directory)
        except OSError as error:
            parser.fail(f"the sample files cannot be written: {error}")
        yield directory
