"""`asgihive inspect FILE [PATH]`: how the values in a file are stored, and how they are read."""

import argparse
import dataclasses
import json
import os
import shutil
import sys
import time
from typing import Any

from asgihive.cli.console import STYLE, tell
from asgihive.cli.inspection_text import inspection_text
from asgihive.cli.tables import printable
from asgihive.errors import AsgihiveError, FileChanged, FileMissing
from asgihive.hdf5.inspection import Inspection, inspect_path
from asgihive.hdf5.open_file import OpenFile, Unsettled
from asgihive.hdf5.pool import FilePool, Lease
from asgihive.hdf5.sandbox import Sandbox
from asgihive.settings import ENVIRONMENT_PREFIX, H5Settings

# How often a file is read anew that changes meanwhile, or did so a moment ago.
_ATTEMPTS = 5
_LONGEST_LINE = 1000

_HELP = f"""\
ways, of a read of all values:
  engine       chunks are read and decoded past libhdf5, several at a time
  contiguous   straight from the file
  library      through libhdf5, one read at a time; the reason is told: a type or a filter
  virtual      put together from its sources, each of which has a way of its own
  raw storage  from plain files beside the HDF5 file
  none         nothing can be read, or there is nothing; the reason is told

Links and the sources of virtual datasets are followed as `asgihive serve DIR` does, inside DIR
alone, and with the same {ENVIRONMENT_PREFIX}FOLLOW_SYMLINKS and {ENVIRONMENT_PREFIX}MAX_LINK_HOPS.
The ratio is that of raw and stored size; a dataset that was written in part has a large one.

keys of --json (sizes in bytes; a key that does not apply is null):
  name path kind problem
  file object_path     where the object lies, links followed
  links                of PATH, of a child the last one: path kind target_file target_path
                       resolves problem
  type                 as in /meta
  storage              of a dataset: dataspace shape maxshape layout raw_bytes stored_bytes ratio
                       way reason, and
    chunks             shape raw_bytes in_grid stored; in detail smallest median largest
    filters            id name values decoder (asgihive, libhdf5, null = missing) install
    sources            in detail, of a virtual dataset: file dataset found refused way
                       problem
    segments           of raw storage: file offset bytes found
  members              how many links a group has
  children             of a group, each with the same keys

examples:
  asgihive inspect scan.nxs
  asgihive inspect scan.nxs /entry/data
  asgihive inspect /data/run7/scan.nxs /entry --root /data --json
"""


def add_inspect(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    parser = commands.add_parser(
        "inspect",
        help="show how data are stored, and how they are read",
        description=(
            "Show what lies at PATH of an HDF5 file: the children of a group in a table, a\n"
            "dataset in detail: layout, chunks, filters, sizes, links, the way that a read takes."
        ),
        epilog=_HELP,
        **STYLE,
    )
    parser.add_argument("file", metavar="FILE", type=_file, help="an HDF5 file")
    parser.add_argument(
        "path", metavar="PATH", nargs="?", default="/", help="in the file (default: %(default)s)"
    )
    parser.add_argument(
        "--root",
        metavar="DIR",
        type=_directory,
        help="the directory that links must not leave (default: the one FILE is in)",
    )
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    parser.set_defaults(run=_inspect, parser=parser)


def _file(text: str) -> str:
    path = os.path.abspath(text)
    if not os.path.exists(path):
        raise argparse.ArgumentTypeError(f"{text!r}: no such file")
    if not os.path.isfile(path):
        raise argparse.ArgumentTypeError(f"{text!r} is not a file")
    return text


def _directory(text: str) -> str:
    if not os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"{text!r}: no such directory")
    return text


def _inspect(options: argparse.Namespace) -> int:
    parser: argparse.ArgumentParser = options.parser
    try:
        settings = H5Settings.from_environment()
        root = os.path.dirname(os.path.abspath(options.file))
        sandbox = Sandbox(options.root or root, follow_symlinks=settings.follow_symlinks)
        name = _name_below(sandbox.root, options.file)
        found = _read(sandbox, settings, name, options.path)
    except (AsgihiveError, OSError, ValueError) as error:
        parser.error(printable(str(error), _LONGEST_LINE))
    tell(_as_json(found) if options.json else _as_text(options.file, found))
    return 0


def _as_json(found: Inspection) -> str:
    return json.dumps(dataclasses.asdict(found), indent=2)


def _as_text(file: str, found: Inspection) -> str:
    width = shutil.get_terminal_size((0, 0)).columns or None
    # Names are anything; a terminal that lacks a character shall not end the command.
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    shown = inspection_text(file, found, width)
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def _name_below(root: str, file: str) -> str:
    """The file's name as a client of the service over `root` would write it.

    Raises:
        ValueError: it does not lie below; the message says so.
    """
    path = os.path.abspath(file)
    # `root` has no symbolic links. Those in the file's own name are left for the sandbox to judge.
    folder, last = os.path.split(path)
    for each in (path, os.path.join(os.path.realpath(folder), last)):
        name = os.path.relpath(each, root)
        if name.split(os.sep)[0] != os.pardir:
            return name
    message = f"{file} is not below {root}: name a directory above it with --root"
    raise ValueError(message)


def _read(sandbox: Sandbox, settings: H5Settings, name: str, path: str) -> Inspection:
    """What lies at `path`, of one content of the file."""
    pool = FilePool(
        sandbox,
        max_open=settings.max_open_files,
        idle_seconds=settings.idle_file_seconds,
        chunk_cache_bytes=0,
        max_chunk_bytes=settings.max_chunk_bytes,
    )
    try:
        for _ in range(_ATTEMPTS):
            lease = Lease(pool)
            try:
                file = _opened(lease, name)
                found = inspect_path(lease, file, path, settings.max_link_hops)
                lease.check()
            except FileChanged:
                continue
            except Unsettled as unsettled:
                time.sleep(unsettled.seconds)
            else:
                return found
            finally:
                lease.release()
        raise FileChanged(name)
    finally:
        pool.close()


def _opened(lease: Lease, name: str) -> OpenFile:
    try:
        return lease.open_asked(name)
    except FileMissing:
        root = lease.pool.sandbox.root
        target = os.path.realpath(os.path.join(root, name))
        # It was there a moment ago, see `_file`.
        message = (
            f"{name} leads out of {root}, to {target}: name that file, or with --root a directory "
            "that holds both"
        )
        raise ValueError(message) from None
