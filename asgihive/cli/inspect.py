"""`asgihive inspect FILE… [PATH]`: how values in files are stored, and how they are read."""

import argparse
import dataclasses
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

from asgihive.cli.console import STYLE, Parser, tell
from asgihive.cli.inspection_text import inspection_text
from asgihive.cli.logs import held_log
from asgihive.cli.tables import printable
from asgihive.errors import AsgihiveError, EntityMissing, FileChanged, FileMissing
from asgihive.hdf5.inspection import Inspection, inspect_path
from asgihive.hdf5.links import MAX_LINK_HOPS
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
alone, and with the same {ENVIRONMENT_PREFIX}FOLLOW_SYMLINKS.
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

Of several files it shows one after the other, with --json as a list; what cannot be read is told
on stderr, and the exit code is 1. The last argument is PATH unless it is a file.

examples:
  asgihive inspect scan.nxs
  asgihive inspect *.nxs /entry/data
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
        usage="%(prog)s [-h] [--root DIR] [--json] FILE [FILE ...] [PATH]",
        **STYLE,
    )
    parser.add_argument(
        "words",
        metavar="FILE [PATH]",
        nargs="+",
        help="HDF5 files, and a path in each of them (default: /)",
    )
    parser.add_argument(
        "--root",
        metavar="DIR",
        type=_directory,
        help="the directory that links must not leave (default: the one FILE is in)",
    )
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    parser.set_defaults(run=_inspect, parser=parser)


def _directory(text: str) -> str:
    if not os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"{text!r}: no such directory")
    return text


def _inspect(options: argparse.Namespace) -> int:
    parser: Parser = options.parser
    try:
        settings = H5Settings.from_environment()
        files, path = _files_and_path(options.words)
    except ValueError as error:
        parser.error(printable(str(error), _LONGEST_LINE))
    found: list[tuple[str, Inspection]] = []
    problems: list[str] = []
    with held_log():  # what is refused is told of in what is shown
        for file in files:
            try:
                found.append((file, _inspected(file, path, options.root, settings)))
            except (AsgihiveError, OSError, ValueError) as error:
                problem = printable(_problem(file, path, error), _LONGEST_LINE)
                problems.append(problem if len(files) == 1 else f"{printable(file)}: {problem}")
    if found and options.json:
        tell(_as_json([each for _, each in found], is_list=len(files) > 1))
    elif found:
        tell("\n\n".join(_as_text(file, each) for file, each in found))
    for problem in problems[:-1]:
        parser.complain(problem)
    if problems:
        parser.fail(problems[-1])
    return 0


def _files_and_path(words: list[str]) -> tuple[list[str], str]:
    """The arguments that are files, and the path in them; the first is always a file.

    Raises:
        ValueError: one is no file, and does not stand where the path does.
    """
    first, *rest = words
    files, path = [first, *rest], "/"
    if rest and not os.path.isfile(rest[-1]):
        path = files.pop()
    for file in files:
        if os.path.isdir(file):
            message = f"{file!r} is a directory: name the files in it"
            raise ValueError(message)
        if not os.path.exists(file):
            message = f"{file!r}: no such file"
            raise ValueError(message)
        if not os.path.isfile(file):
            message = f"{file!r} is not a file"
            raise ValueError(message)
    return files, path


def _inspected(file: str, path: str, root: str | None, settings: H5Settings) -> Inspection:
    folder = os.path.dirname(os.path.abspath(file))
    sandbox = Sandbox(root or folder, follow_symlinks=settings.follow_symlinks)
    return _read(sandbox, settings, _name_below(sandbox.root, file), path)


def _problem(file: str, path: str, error: Exception) -> str:
    """What went wrong; where the path may have been meant as a file, also that it is none."""
    if isinstance(error, EntityMissing) and not path.startswith("/"):
        return f"{path!r} is neither a file nor a path in {file}"
    return str(error)


def _as_json(found: Sequence[Inspection], *, is_list: bool) -> str:
    documents = [dataclasses.asdict(each) for each in found]
    return json.dumps(documents if is_list else documents[0], indent=2)


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
        idle_seconds=math.inf,
        chunk_cache_bytes=0,
        max_chunk_bytes=settings.max_chunk_bytes,
    )
    try:
        for _ in range(_ATTEMPTS):
            lease = Lease(pool)
            try:
                file = _opened(lease, name)
                found = inspect_path(lease, file, path, MAX_LINK_HOPS)
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
        # It was there a moment ago, see `_files_and_path`.
        message = (
            f"{name} leads out of {root}, to {target}: name that file, or with --root a directory "
            "that holds both"
        )
        raise ValueError(message) from None
