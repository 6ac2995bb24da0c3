"""`asgihive serve DIR`: the HDF5 files of a directory over HTTP."""

import argparse
import os
from typing import Any

from asgihive.cli.console import STYLE, tell
from asgihive.cli.options import SETTINGS_HELP, add_server_options, settings_of
from asgihive.cli.server import listen, listen_problem, run, url_of
from asgihive.settings import ENVIRONMENT_PREFIX

_EXAMPLES = f"""
examples:
  asgihive serve /data --port 8080 --prefix /h5
  asgihive serve /data --cors https://viewer.example.org --chunk-cache-bytes 2GiB
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
    parser.add_argument("directory", metavar="DIR", type=_directory, help="the directory to serve")
    parser.set_defaults(run=_serve, parser=parser)
    add_server_options(parser)


def _directory(text: str) -> str:
    path = os.path.abspath(text)
    if not os.path.exists(path):
        raise argparse.ArgumentTypeError(f"{text!r}: no such directory")
    if not os.path.isdir(path):
        raise argparse.ArgumentTypeError(f"{text!r} is not a directory")
    if not os.access(path, os.R_OK | os.X_OK):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be read: permission denied")
    return path


def _serve(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    try:
        listener = listen(options.host, options.port)
    except OSError as error:
        options.parser.error(listen_problem(options.host, options.port, error))
    with listener:
        url = url_of(options, listener)
        tell(f"Serving {options.directory} at {url}/ (Ctrl+C stops)")
        return run(options, options.directory, settings, listener)
