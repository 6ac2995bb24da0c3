"""The command `asgihive`: serves and inspects HDF5 files, shows and begins services."""

import argparse
import importlib
import os
import platform
import sys
from collections.abc import Collection, Sequence

from asgihive import __version__
from asgihive.cli.console import OutputFailed, Parser, interrupting_signals, tell
from asgihive.errors import suggest_name

__all__ = ["main"]

# What each command is for, and the function that lets its parser take its arguments. It is
# imported when its command is asked for: not every one needs h5py and a server.
COMMANDS = {
    "serve": ("Serve the HDF5 files of a directory.", "serve:add_serve"),
    "demo": ("Serve sample files, and print URLs to open.", "serve:add_demo"),
    "inspect": ("Show what files hold, and how it is stored and read.", "inspect:add_inspect"),
    "viewer": ("Build the page in the browser, in a clone.", "viewer:add_viewer"),
    "zarr": ("Show a file as Zarr clients will see it.", "zarr:add_zarr"),
    "image": ("Make a picture of an image in a file.", "pictures:add_image"),
    "plot": ("Make a plot of curves in a file.", "pictures:add_plot"),
    "new": ("Write a small service to begin with.", "new:add_new"),
    "routes": ("List the routes of a service.", "hives:add_routes"),
    "graph": ("Show what a hive starts, in which order, and why.", "hives:add_graph"),
    "completion": ("Write a script for a shell to complete by.", "completion:add_completion"),
}
_GLOBAL_OPTIONS = frozenset({"-h", "--help", "--version"})

_EXAMPLES = """\
examples:
  asgihive demo                                   try it out: sample files and URLs to open
  asgihive serve /data                            http://127.0.0.1:8000, for this machine only
  asgihive serve /data --host 0.0.0.0 --workers 4 for the network, with four processes
  asgihive serve --help                           every option and setting
  asgihive inspect scan.nxs                       what it holds: a tree with shapes and attributes
  asgihive inspect scan.nxs /entry/data           how data are stored, and how they are read
  asgihive zarr scan.nxs                          its URL and tree for xarray and other Zarr clients
  asgihive image scan.nxs -o scan.png             its default image; plot -o scan.svg for curves
  asgihive new notes                              a service of your own to begin with
  asgihive routes main:app                        what it answers, and where that is written
  asgihive graph main:app                         what it starts, in which order, and why
  eval "$(asgihive completion bash)"              completion for this shell; also zsh and fish
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    A server that is asked to stop (SIGINT, SIGTERM, SIGHUP) finishes what it is answering,
    for `--graceful-seconds` at most, and then this returns 0. Of several workers SIGHUP
    replaces one after the other instead. Where standard output cannot be written, stderr says
    so and the exit code is 1; a reader that has seen enough (`| head`) ends a command quietly,
    with 0.

    Args:
        arguments: without the program's name; those of the process by default.

    Raises:
        SystemExit: 2 after one line on stderr, when nothing can be done as asked; 1 likewise,
            when it was begun and failed; 0 after `--help` and `--version`.
    """
    parser = _make_parser()
    try:
        options = parse_arguments(sys.argv[1:] if arguments is None else list(arguments), parser)
        if "run" not in options:
            parser.print_help()
            return 0
        with interrupting_signals():
            code: int = options.run(options)
            return code
    except KeyboardInterrupt:
        return 0
    except OutputFailed as failed:
        if failed.has_reader_gone:
            return 0
        parser.fail(str(failed))


def _make_parser() -> Parser:
    parser = Parser(
        prog="asgihive",
        description=(
            "Read HDF5 files over HTTP: metadata, attributes, values, slices, statistics.\n"
            "Build services out of components, and see what they consist of."
        ),
        epilog=_EXAMPLES,
    )
    parser.add_argument("--version", action=_TellVersions, help="Show versions and exit.")
    return parser


def parse_arguments(arguments: list[str], parser: Parser | None = None) -> argparse.Namespace:
    """Return the options of a command; its function is `run`, its parser `parser`.

    Args:
        arguments: without the program's name.
        parser: of the program; a new one by default.

    Raises:
        SystemExit: 2 after one line on stderr, with what may have been meant.
    """
    parser = parser or _make_parser()
    command = arguments[0] if arguments else "--help"
    if command not in COMMANDS and command not in _GLOBAL_OPTIONS:
        if command.startswith("-"):
            parser.error(f"{command} follows a command: asgihive COMMAND {command}")
        meant = suggest_name(command, COMMANDS)
        if os.path.exists(command):
            word = "serve" if os.path.isdir(command) else "inspect"
            meant = f" (did you mean asgihive {word} {command}?)"
        parser.error(f"there is no command {command!r}{meant}; there is: {', '.join(COMMANDS)}")
    _add_commands(parser, {command})
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        getattr(options, "parser", parser).refuse_unknown(unknown)
    return options


def _add_commands(parser: Parser, wanted: Collection[str]) -> None:
    """Let a parser know all commands, and take the arguments of those that are wanted."""
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, (text, place) in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=text)
        if name in wanted:
            module, _, function = place.partition(":")
            getattr(importlib.import_module(f"asgihive.cli.{module}"), function)(subparser)


def make_whole_parser() -> Parser:
    """Return the parser of the program with the arguments of all commands."""
    parser = _make_parser()
    _add_commands(parser, COMMANDS)
    return parser


class _TellVersions(argparse.Action):
    """As argparse's own action, which hides that standard output cannot be written."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:  # noqa: A002
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Tell the versions that a report of a problem needs, and end the process."""
        import h5py  # noqa: PLC0415  # which other commands do without
        import numpy as np  # noqa: PLC0415
        import uvicorn  # noqa: PLC0415

        tell(
            f"asgihive {__version__}\n"
            f"h5py {h5py.__version__}, HDF5 {h5py.version.hdf5_version}, "
            f"NumPy {np.__version__}, uvicorn {uvicorn.__version__}\n"
            f"Python {platform.python_version()} on {platform.platform()}"
        )
        parser.exit()
