"""The command `asgihive`: serves and inspects HDF5 files, shows and begins services."""

import os
import platform
import sys
from collections.abc import Sequence

import h5py
import numpy as np
import uvicorn

from asgihive import __version__
from asgihive.cli.console import STYLE, OutputFailed, Parser, TellVersion
from asgihive.cli.demo import add_demo
from asgihive.cli.hives import add_graph, add_routes
from asgihive.cli.inspect import add_inspect
from asgihive.cli.new import add_new
from asgihive.cli.serve import add_serve
from asgihive.cli.signals import signals_interrupt
from asgihive.errors import suggest_name

__all__ = ["main"]

_VERSIONS = (
    f"asgihive {__version__}\n"
    f"h5py {h5py.__version__}, HDF5 {h5py.version.hdf5_version}, NumPy {np.__version__}, "
    f"uvicorn {uvicorn.__version__}\n"
    f"Python {platform.python_version()} on {platform.platform()}"
)

COMMANDS = {
    "serve": add_serve,
    "demo": add_demo,
    "inspect": add_inspect,
    "new": add_new,
    "routes": add_routes,
    "graph": add_graph,
}
_GLOBAL_OPTIONS = frozenset({"-h", "--help", "--version"})

_EXAMPLES = """\
examples:
  asgihive demo                                   try it out: sample files and URLs to open
  asgihive serve /data                            http://127.0.0.1:8000, for this machine only
  asgihive serve /data --host 0.0.0.0 --workers 4 for the network, with four processes
  asgihive serve --help                           every option and setting
  asgihive inspect scan.nxs /entry                how data are stored, and how they are read
  asgihive new notes                              a service of your own to begin with
  asgihive routes main:app                        what it answers, and where that is written
  asgihive graph main:app                         what it starts, in which order, and why
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    A server that is asked to stop (SIGINT, SIGTERM, SIGHUP) finishes what it is answering,
    for `--graceful-seconds` at most, and then this returns 0. Of several workers SIGHUP
    replaces one after the other instead.

    Args:
        arguments: without the program's name; those of the process by default.

    Where standard output cannot be written, that is said on stderr and the exit code is 1; a
    reader who has seen enough (`| head`) ends a command quietly, with 0.

    Raises:
        SystemExit: 2 after one line on stderr, when nothing can be done as asked; 1 likewise,
            when it was begun and failed; 0 after `--help` and `--version`.
    """
    parser = build_parser()
    try:
        return _run(parser, sys.argv[1:] if arguments is None else list(arguments))
    except OutputFailed as failed:
        if failed.has_reader_gone:
            return 0
        parser.fail(str(failed))


def _run(parser: Parser, arguments: list[str]) -> int:
    _check_command(parser, arguments)
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        getattr(options, "parser", parser).refuse_unknown(unknown)
    if "run" not in options:
        parser.print_help()
        return 0
    with signals_interrupt():
        try:
            code: int = options.run(options)
        except KeyboardInterrupt:
            return 0
    return code


def _check_command(parser: Parser, arguments: list[str]) -> None:
    """Say what may have been meant where the first word is no command."""
    first = arguments[0] if arguments else "--help"
    if first in COMMANDS or first in _GLOBAL_OPTIONS:
        return
    if first.startswith("-"):
        parser.error(f"{first} follows a command: asgihive COMMAND {first}")
    meant = suggest_name(first, COMMANDS)
    if os.path.exists(first):
        command = "serve" if os.path.isdir(first) else "inspect"
        meant = f" (did you mean asgihive {command} {first}?)"
    parser.error(f"there is no command {first!r}{meant}; there is: {', '.join(COMMANDS)}")


def build_parser() -> Parser:
    """Return the parser of all commands."""
    parser = Parser(
        prog="asgihive",
        description=(
            "Read HDF5 files over HTTP: metadata, attributes, values, slices, statistics.\n"
            "Build services out of components, and see what they consist of."
        ),
        epilog=_EXAMPLES,
        **STYLE,
    )
    parser.add_argument(
        "--version", action=TellVersion, version=_VERSIONS, help="show versions and exit"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for add in COMMANDS.values():
        add(commands)
    return parser
