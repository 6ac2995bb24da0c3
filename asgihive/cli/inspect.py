"""`asgihive inspect FILE… [PATH]`: what files hold, how it is stored, and how it is read."""

import argparse
import dataclasses
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from asgihive.cli.console import Parser, tell
from asgihive.cli.formatting import (
    LONGEST_LINE,
    LONGEST_NAME,
    describe_target,
    describe_type_briefly,
    format_table,
    human_size,
    join_dimensions,
    printable,
)
from asgihive.cli.logs import hold_log
from asgihive.cli.terminal import paint_lines
from asgihive.cli.tree import format_tree
from asgihive.errors import AsgihiveError, EntityMissing, FileChanged, FileMissing
from asgihive.hdf5.contents import MAX_DEPTH, ContentsBounds, ContentsNode, read_contents
from asgihive.hdf5.inspection import Inspection, StorageReport, inspect_path
from asgihive.hdf5.links import LinkResolution, Resolved, walk
from asgihive.hdf5.open_file import Retries, Unsettled
from asgihive.hdf5.pool import FilePool, Lease
from asgihive.hdf5.sandbox import Sandbox
from asgihive.settings import ENVIRONMENT_PREFIX, H5Settings

T = TypeVar("T")

# Bounds of what a terminal is shown: characters of a type, rows of a table.
_LONGEST_TYPE, _MOST_ROWS = 2000, 100

# Of --depth and --rows.
_MOST_COUNTED = 1_000_000

_WAYS = {
    "engine": "chunks are read and decoded past libhdf5, several at a time",
    "contiguous": "straight from the file",
    "library": "through libhdf5, one read at a time; the reason is told: a type or a filter",
    "virtual": "put together from its sources, each of which has a way of its own",
    "raw storage": "from plain files beside the HDF5 file",
    "none": "nothing can be read, or there is nothing; the reason is told",
}
_HELP = (
    "ways, of a read of all values:\n"
    + "".join(f"  {way:<12} {text}\n" for way, text in _WAYS.items())
    + f"""
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
  asgihive inspect scan.nxs /entry --depth 2
  asgihive inspect *.nxs /entry --storage
  asgihive inspect scan.nxs /entry/images/data --preview --selection 5,:,:
  asgihive inspect scan.nxs /entry/data
  asgihive inspect /data/run7/scan.nxs /entry --root /data --json
"""
)


def add_inspect(parser: argparse.ArgumentParser) -> None:
    """Let the command take its arguments."""
    parser.description = (
        "Show what lies at PATH of an HDF5 file: a group as a tree with shapes, types, links and\n"
        "attributes; a dataset in detail: layout, chunks, filters, sizes, the way of a read."
    )
    parser.epilog = _HELP
    add_files(
        parser,
        _inspect,
        "Name HDF5 files, and a path in each of them (default: /).",
        "Let no link leave this directory (default: the one FILE is in).",
    )
    usual = ContentsBounds()
    for name, default, words in (
        ("depth", usual.depth, "Look into so many groups within each other"),
        ("rows", usual.rows, "Show so many objects and attributes, of one group half of them"),
    ):
        parser.add_argument(
            f"--{name}",
            type=_parse_count,
            default=default,
            metavar="N",
            help=f"{words} (default: {default}).",
        )
    parser.add_argument("--all", action="store_true", help="Show the whole tree.")
    parser.add_argument(
        "--storage",
        action="store_true",
        help="Show how each child of a group is stored, in a table instead of a tree.",
    )
    parser.add_argument(
        "--preview",
        action="store_true",
        help="Show a picture in characters: of a dataset, or of the NeXus default of a group.",
    )
    parser.add_argument(
        "--selection",
        metavar="TEXT",
        help="Of the picture, as in a request: 5,:,: (with --preview).",
    )


def add_files(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], int],
    words: str,
    root: str,
) -> None:
    """Let a command take what `show_files` shows.

    Args:
        parser: of the command.
        run: runs it, and returns the exit code.
        words: help about the files and the path in them.
        root: help about `--root`.
    """
    parser.usage = "%(prog)s [OPTION ...] FILE [FILE ...] [PATH]"
    parser.add_argument("words", metavar="FILE [PATH]", nargs="+", help=words)
    parser.add_argument("--root", metavar="DIR", help=root)
    parser.add_argument("--json", action="store_true", help="Write JSON, for programs.")
    parser.set_defaults(run=run, parser=parser)


def _inspect(options: argparse.Namespace) -> int:
    if options.preview:
        return _preview(options)
    if options.selection is not None:
        options.parser.error("argument --selection: it is for --preview")
    bounds = _choose_bounds(options)

    def read(lease: Lease, name: str, path: str, _: H5Settings) -> Inspection | ContentsNode:
        file = lease.open_asked(name)
        if not options.json and not options.storage:
            found = walk(lease, file, path, LinkResolution.ONLY_VALID)
            if isinstance(found, Resolved) and found.object.kind == "group":
                return read_contents(lease, file, found, bounds)
        return inspect_path(lease, file, path)

    return show_files(options, read, lambda _, found: dataclasses.asdict(found), _format)


def _preview(options: argparse.Namespace) -> int:
    # Which makes pictures, and is loaded for them alone.
    from asgihive.cli.preview import Preview, make_preview  # noqa: PLC0415

    if options.json or options.storage:
        options.parser.error("argument --preview: it is for people, without --json and --storage")

    def read(lease: Lease, name: str, path: str, settings: H5Settings) -> Preview:
        return make_preview(lease, name, path, options.selection, settings)

    def form(file: str, shown: Preview, _: int | None) -> Iterator[str]:
        yield f"{shown.title} of {printable(file)}"
        yield from shown.lines
        yield shown.caption

    return show_files(options, read, lambda _, shown: shown.caption, form)


def _choose_bounds(options: argparse.Namespace) -> ContentsBounds:
    if options.all:
        return ContentsBounds(MAX_DEPTH, None)
    return ContentsBounds(options.depth, options.rows)


def _parse_count(text: str) -> int:
    """Return a number of levels or rows."""
    number = int(text) if text.isascii() and text.isdecimal() else 0
    if not 0 < number <= _MOST_COUNTED:
        message = f"{printable(text)!r}: a number from 1 to {_MOST_COUNTED:,} is accepted"
        raise argparse.ArgumentTypeError(message)
    return number


def show_files(
    options: argparse.Namespace,
    read: Callable[[Lease, str, str, H5Settings], T],
    describe: Callable[[str, T], Any],
    form: Callable[[str, T, int | None], Iterable[str]],
) -> int:
    """Show what is read of one file or of several, and tell what cannot be.

    Args:
        options: `words`, `root`, `json` and `parser` of a command.
        read: reads a file under a lease, by its name below the root, at a path in it.
        describe: makes the JSON of what was read of a file.
        form: makes the lines for people, which fit into a width where that is possible.

    Returns:
        The exit code.
    """
    parser: Parser = options.parser
    try:
        settings = H5Settings.from_environment()
        check_root(options.root)
        files, path = _split_words(options.words)
    except ValueError as error:
        parser.error(printable(str(error), LONGEST_LINE))
    found: list[tuple[str, T]] = []
    problems: list[str] = []
    with hold_log():  # the output itself says which sources are refused
        for file in files:
            try:
                found.append((file, _read(file, path, options.root, settings, read)))
            except (AsgihiveError, OSError, ValueError) as error:
                problem = str(error)
                if isinstance(error, EntityMissing) and not path.startswith("/"):
                    problem = f"{path!r} is neither a file nor a path in {file}"
                problem = printable(problem, LONGEST_LINE)
                problems.append(problem if len(files) == 1 else f"{printable(file)}: {problem}")
    if found and options.json:
        documents = [describe(file, each) for file, each in found]
        tell(json.dumps(documents if len(files) > 1 else documents[0], indent=2))
    elif found:
        width = shutil.get_terminal_size((0, 0)).columns or None
        shown = "\n\n".join("\n".join(form(file, each, width)) for file, each in found)
        # Names are anything; a terminal that lacks a character shall not end the command.
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        tell(shown.encode(encoding, "backslashreplace").decode(encoding))
    for problem in problems[:-1]:
        parser.complain(problem)
    if problems:
        parser.fail(problems[-1])
    return 0


def _split_words(words: list[str]) -> tuple[list[str], str]:
    """Return the arguments that are files, and the path in them; the first is always a file.

    Raises:
        ValueError: one is no file, and does not stand where the path does.
    """
    files, path = list(words), "/"
    if len(words) > 1 and not os.path.isfile(words[-1]):
        path = files.pop()
    for file in files:
        check_file(file)
    return files, path


def check_file(file: str) -> None:
    """Make sure that an argument is a file. Raises ValueError."""
    problem = None
    if os.path.isdir(file):
        problem = f"{file!r} is a directory: name the files in it"
    elif not os.path.exists(file):
        problem = f"{file!r}: no such file"
    elif not os.path.isfile(file):
        problem = f"{file!r} is not a file"
    if problem:
        raise ValueError(problem)


def check_root(root: str | None) -> None:
    """Make sure that `--root` is a directory, where it is given. Raises ValueError."""
    if root is not None and not os.path.isdir(root):
        message = f"argument --root: {root!r}: no such directory"
        raise ValueError(message)


def _read(
    file: str,
    path: str,
    root: str | None,
    settings: H5Settings,
    read: Callable[[Lease, str, str, H5Settings], T],
) -> T:
    """Return what is read of one content of the file."""
    sandbox, name = find_sandbox(file, root, settings)
    pool = FilePool(
        sandbox,
        max_open=settings.max_open_files,
        idle_seconds=math.inf,
        chunk_cache_bytes=0,
        max_chunk_bytes=settings.max_chunk_bytes,
    )
    try:
        retries = Retries()
        while True:
            lease = Lease(pool)
            try:
                found = read(lease, name, path, settings)
                lease.check()
            except FileMissing as missing:
                # The file was there a moment ago, see `_split_words`.
                raise ValueError(explain_outside(sandbox, name)) from missing
            except (FileChanged, Unsettled) as error:
                time.sleep(retries.find_pause(error))
            else:
                return found
            finally:
                lease.release()
    finally:
        pool.close()


def find_sandbox(file: str, root: str | None, settings: H5Settings) -> tuple[Sandbox, str]:
    """Return where the links of a file may lead, and its name there.

    Args:
        file: that is there.
        root: a directory above it; None = the one it is in.

    Raises:
        ValueError: it does not lie below; the message says so.
    """
    folder = os.path.dirname(os.path.abspath(file))
    sandbox = Sandbox(root or folder, follow_symlinks=settings.follow_symlinks)
    return sandbox, _name_below(sandbox.root, file)


def explain_outside(sandbox: Sandbox, name: str) -> str:
    """Return why a file that is there is not found in a sandbox."""
    target = os.path.realpath(os.path.join(sandbox.root, name))
    return (
        f"{name} leads out of {sandbox.root}, to {target}: name that file, or with --root a "
        "directory that holds both"
    )


def _name_below(root: str, file: str) -> str:
    """Return the file's name as a client of the service over `root` would write it.

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


def _format(file: str, found: Inspection | ContentsNode, width: int | None) -> Iterator[str]:
    """Yield the lines for people; they fit into `width` columns where that is possible."""
    if isinstance(found, ContentsNode):
        yield from paint_lines(format_tree(file, found), width)
        return
    yield f"{printable(found.path)} of {printable(file)}"
    for name, value in _list_facts(found):
        yield f"  {name:<10}  {value}".rstrip()
    tables: list[list[Sequence[str]]] = [[_TITLES, *map(_list_cells, found.children or ())]]
    if found.storage is not None:
        tables += map(_records_table, (found.storage.sources, found.storage.segments))
    for rows in tables:
        if len(rows) > 1:
            yield ""
            yield from format_table(rows, width)


def _list_facts(found: Inspection) -> Iterator[tuple[str, str]]:
    yield "kind", found.kind.replace("_", " ")
    for index, link in enumerate(found.links):
        yield "" if index else "links", f"{printable(link.path)} {describe_target(link)}"
    if found.links and found.file is not None:
        place = printable(found.object_path or "an object without a path")
        yield "lies at", f"{place} of {printable(found.file)}"
    if found.problem is not None and not _is_dangling(found):
        yield "problem", printable(found.problem)
    if found.members is not None:
        yield "members", f"{found.members:,}"
    storage = found.storage
    if storage is not None:
        shape = _format_shape(storage)
        if storage.maxshape not in {None, storage.shape}:
            shape += f", at most {join_dimensions(storage.maxshape or ())}"
        yield "shape", shape
    if found.type is not None:
        yield "type", printable(describe_type_briefly(found.type), _LONGEST_TYPE)
    if storage is not None:
        yield from _list_storage_facts(storage)


def _list_storage_facts(storage: StorageReport) -> Iterator[tuple[str, str]]:
    yield "layout", storage.layout
    chunks = storage.chunks
    if chunks is not None:
        yield "chunk", f"{join_dimensions(chunks.shape)}, {human_size(chunks.raw_bytes)} raw"
        yield "chunks", f"{chunks.stored:,} stored of {chunks.in_grid:,}"
        if chunks.smallest is not None and chunks.median is not None and chunks.largest is not None:
            three = map(human_size, (chunks.smallest, chunks.median, chunks.largest))
            yield "as stored", "{} the smallest, {} the median, {} the largest".format(*three)
    for index, each in enumerate(storage.filters):
        by = f"decoded by {each.decoder}" if each.decoder else f"missing: {each.install}"
        yield "" if index else "filters", f"{_name_filter(each)} ({each.id}), {by}"
    size = "unknown" if storage.raw_bytes is None else f"{human_size(storage.raw_bytes)} raw"
    if storage.stored_bytes is not None:
        ratio = f", {storage.ratio:.3g} to 1" if storage.ratio is not None else ""
        size = f"{human_size(storage.stored_bytes)} stored, {size}{ratio}"
    yield "size", size
    if storage.way is None:
        yield "way", f"none: {printable(storage.reason or '')}"
    else:
        yield "way", f"{storage.way}: {_WAYS[storage.way].partition(';')[0]}"
        if storage.reason:
            yield "because of", printable(storage.reason)
    if storage.sources is not None:
        refused = sum(each.refused for each in storage.sources)
        missing = sum(not each.found and not each.refused for each in storage.sources)
        shown = f"{len(storage.sources):,}, {missing:,} missing"
        yield "sources", f"{shown}, {refused:,} refused" if refused else shown


def _list_cells(child: Inspection) -> list[str]:
    """Return the row of a child; its note says where it leads, why it is slow, and its problem."""
    storage, kind = child.storage, child.kind.replace("_", " ")
    notes = [describe_target(link) for link in child.links]
    if child.problem is not None and not _is_dangling(child):
        notes.append(printable(child.problem))
    if storage is not None and storage.reason is not None:
        notes.append(printable(storage.reason))
    name = printable(child.name, LONGEST_NAME) + ("/" if child.kind == "group" else "")
    shape = "" if child.members is None else f"{child.members:,} members"
    brief = "" if child.type is None else describe_type_briefly(child.type)
    if child.type is not None and brief.startswith("compound"):
        brief = f"compound ({len(child.type['members'])} members)"
    cells = [""] * 8
    if storage is not None:
        chunks = storage.chunks
        shape = _format_shape(storage)
        cells = [
            storage.layout,
            join_dimensions(chunks.shape) if chunks else "",
            f"{chunks.stored:,}/{chunks.in_grid:,}" if chunks else "",
            "+".join(map(_name_filter, storage.filters)),
            "" if storage.stored_bytes is None else human_size(storage.stored_bytes),
            "" if storage.raw_bytes is None else human_size(storage.raw_bytes),
            "" if storage.ratio is None else f"{storage.ratio:.3g}",
            storage.way or "none",
        ]
    return [name, kind, shape, printable(brief, LONGEST_NAME), *cells, "; ".join(notes)]


def _records_table(records: Sequence[Any] | None) -> list[Sequence[str]]:
    """Return the fields of sources or of segments of raw storage as rows."""
    if not records:
        return []
    shown = [dataclasses.asdict(each) for each in records[:_MOST_ROWS]]
    rows: list[Sequence[str]] = [list(shown[0])]
    rows += ([_format_value(each) for each in record.values()] for record in shown)
    rest = len(records) - _MOST_ROWS
    return [*rows, [f"and {rest:,} more, see --json"]] if rest > 0 else rows


def _format_value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else printable(str(value))


def _is_dangling(found: Inspection) -> bool:
    """Tell whether its problem is that of its link, which tells it."""
    return bool(found.links) and not found.links[-1].resolves


def _name_filter(each: Any) -> str:
    """Return the beginning of its name, as files say it at length, or not at all."""
    name = each.name.split(";")[0].split(":")[0].strip()
    return printable(name, LONGEST_NAME) or f"filter {each.id}"


def _format_shape(storage: StorageReport) -> str:
    if storage.dataspace != "simple" or storage.shape is None:
        return storage.dataspace
    return join_dimensions(storage.shape)


_TITLES = (
    *("name", "kind", "shape", "type", "layout", "chunk", "chunks", "filters"),
    *("stored", "raw", "ratio", "way", "note"),
)
