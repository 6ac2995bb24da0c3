"""`asgihive demo`: the service over sample files, and URLs to try."""

import argparse
import errno
import tempfile
from typing import Any

from asgihive.cli.console import STYLE, tell
from asgihive.cli.listening import certificate_problem, listen, listen_problem, url_of
from asgihive.cli.options import SETTINGS_HELP, add_server_options, read_options
from asgihive.cli.server import run
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
    add_server_options(parser)


def _demo(options: argparse.Namespace) -> int:
    given = read_options(options)
    server = given.server
    if problem := certificate_problem(server):
        options.parser.error(problem)
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
        options.parser.error(listen_problem(server, error))
    with listener, tempfile.TemporaryDirectory(prefix="asgihive-demo-") as directory:
        write_demo(directory)
        notes.append(f"Sample files are in {directory}, until Ctrl+C stops the server.")
        tell("\n".join([*notes, *invitation(url_of(server, listener))]))
        return run(server, directory, given.settings, listener)
