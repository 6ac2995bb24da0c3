"""`asgihive inspect FILE… [PATH]`: how values in files are stored, and how they are read."""

import argparse
import dataclasses
import json
import math
import os
import shutil
import sys
import textwrap
import time
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from h5py import h5t

from asgihive.cli.console import Parser, tell
from asgihive.cli.logs import hold_log
from asgihive.errors import AsgihiveError, EntityMissing, FileChanged, FileMissing
from asgihive.hdf5.inspection import Inspection, LinkReport, StorageReport, inspect_path
from asgihive.hdf5.open_file import Retries, Unsettled
from asgihive.hdf5.pool import FilePool, Lease
from asgihive.hdf5.sandbox import Sandbox
from asgihive.settings import ENVIRONMENT_PREFIX, H5Settings

# Bounds of what a terminal is shown, since a name in a file may have any length.
_LONGEST_LINE, _LONGEST_NAME, _LONGEST_TYPE, _MOST_ROWS = 1000, 60, 2000, 100

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
  asgihive inspect *.nxs /entry/data
  asgihive inspect scan.nxs /entry/data
  asgihive inspect /data/run7/scan.nxs /entry --root /data --json
"""
)


def add_inspect(parser: argparse.ArgumentParser) -> None:
    """Let the command take its arguments."""
    parser.description = (
        "Show what lies at PATH of an HDF5 file: the children of a group in a table, a\n"
        "dataset in detail: layout, chunks, filters, sizes, links, the way that a read takes."
    )
    parser.epilog = _HELP
    parser.usage = "%(prog)s [-h] [--root DIR] [--json] FILE [FILE ...] [PATH]"
    parser.add_argument(
        "words",
        metavar="FILE [PATH]",
        nargs="+",
        help="Name HDF5 files, and a path in each of them (default: /).",
    )
    parser.add_argument(
        "--root",
        metavar="DIR",
        help="Let no link leave this directory (default: the one FILE is in).",
    )
    parser.add_argument("--json", action="store_true", help="Write JSON, for programs.")
    parser.set_defaults(run=_inspect, parser=parser)


def _inspect(options: argparse.Namespace) -> int:
    parser: Parser = options.parser
    try:
        settings = H5Settings.from_environment()
        if options.root is not None and not os.path.isdir(options.root):
            message = f"argument --root: {options.root!r}: no such directory"
            raise ValueError(message)  # noqa: TRY301  # told as the others are
        files, path = _split_words(options.words)
    except ValueError as error:
        parser.error(printable(str(error), _LONGEST_LINE))
    found: list[tuple[str, Inspection]] = []
    problems: list[str] = []
    with hold_log():  # the output itself says which sources are refused
        for file in files:
            try:
                found.append((file, _read(file, path, options.root, settings)))
            except (AsgihiveError, OSError, ValueError) as error:
                problem = str(error)
                if isinstance(error, EntityMissing) and not path.startswith("/"):
                    problem = f"{path!r} is neither a file nor a path in {file}"
                problem = printable(problem, _LONGEST_LINE)
                problems.append(problem if len(files) == 1 else f"{printable(file)}: {problem}")
    if found and options.json:
        documents = [dataclasses.asdict(each) for _, each in found]
        tell(json.dumps(documents if len(files) > 1 else documents[0], indent=2))
    elif found:
        width = shutil.get_terminal_size((0, 0)).columns or None
        shown = "\n\n".join("\n".join(_format(file, each, width)) for file, each in found)
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
        problem = None
        if os.path.isdir(file):
            problem = f"{file!r} is a directory: name the files in it"
        elif not os.path.exists(file):
            problem = f"{file!r}: no such file"
        elif not os.path.isfile(file):
            problem = f"{file!r} is not a file"
        if problem:
            raise ValueError(problem)
    return files, path


def _read(file: str, path: str, root: str | None, settings: H5Settings) -> Inspection:
    """Return what lies at `path`, of one content of the file."""

    folder = os.path.dirname(os.path.abspath(file))
    sandbox = Sandbox(root or folder, follow_symlinks=settings.follow_symlinks)
    name = _name_below(sandbox.root, file)
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
                found = inspect_path(lease, lease.open_asked(name), path)
                lease.check()
            except FileMissing as missing:
                # The file was there a moment ago, see `_split_words`.
                target = os.path.realpath(os.path.join(sandbox.root, name))
                message = (
                    f"{name} leads out of {sandbox.root}, to {target}: name that file, or with "
                    "--root a directory that holds both"
                )
                raise ValueError(message) from missing
            except (FileChanged, Unsettled) as error:
                time.sleep(retries.find_pause(error))
            else:
                return found
            finally:
                lease.release()
    finally:
        pool.close()


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


def _format(file: str, found: Inspection, width: int | None) -> Iterator[str]:
    """Yield the lines for people; tables fit into `width` columns where that is possible."""
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
        yield "" if index else "links", f"{printable(link.path)} {_describe_target(link)}"
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
            shape += f", at most {_join_dimensions(storage.maxshape or ())}"
        yield "shape", shape
    if found.type is not None:
        yield "type", printable(describe_type_briefly(found.type), _LONGEST_TYPE)
    if storage is not None:
        yield from _list_storage_facts(storage)


def _list_storage_facts(storage: StorageReport) -> Iterator[tuple[str, str]]:
    yield "layout", storage.layout
    chunks = storage.chunks
    if chunks is not None:
        yield "chunk", f"{_join_dimensions(chunks.shape)}, {human_size(chunks.raw_bytes)} raw"
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
    notes = [_describe_target(link) for link in child.links]
    if child.problem is not None and not _is_dangling(child):
        notes.append(printable(child.problem))
    if storage is not None and storage.reason is not None:
        notes.append(printable(storage.reason))
    name = printable(child.name, _LONGEST_NAME) + ("/" if child.kind == "group" else "")
    shape = "" if child.members is None else f"{child.members:,} members"
    brief = "" if child.type is None else describe_type_briefly(child.type)
    if child.type is not None and child.type["class"] == h5t.COMPOUND:
        brief = f"compound ({len(child.type['members'])} members)"
    cells = [""] * 8
    if storage is not None:
        chunks = storage.chunks
        shape = _format_shape(storage)
        cells = [
            storage.layout,
            _join_dimensions(chunks.shape) if chunks else "",
            f"{chunks.stored:,}/{chunks.in_grid:,}" if chunks else "",
            "+".join(map(_name_filter, storage.filters)),
            "" if storage.stored_bytes is None else human_size(storage.stored_bytes),
            "" if storage.raw_bytes is None else human_size(storage.raw_bytes),
            "" if storage.ratio is None else f"{storage.ratio:.3g}",
            storage.way or "none",
        ]
    return [name, kind, shape, printable(brief, _LONGEST_NAME), *cells, "; ".join(notes)]


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


def _describe_target(link: LinkReport) -> str:
    file = "" if link.target_file is None else f"{printable(link.target_file)}:"
    broken = "" if link.problem is None else f", does not resolve: {printable(link.problem)}"
    return f"-> {file}{printable(link.target_path)}{broken}"


def _is_dangling(found: Inspection) -> bool:
    """Tell whether its problem is that of its link, which tells it."""
    return bool(found.links) and not found.links[-1].resolves


def _name_filter(each: Any) -> str:
    """Return the beginning of its name, as files say it at length, or not at all."""
    name = each.name.split(";")[0].split(":")[0].strip()
    return printable(name, _LONGEST_NAME) or f"filter {each.id}"


def _format_shape(storage: StorageReport) -> str:
    if storage.dataspace != "simple" or storage.shape is None:
        return storage.dataspace
    return _join_dimensions(storage.shape)


def _join_dimensions(shape: Sequence[int | None]) -> str:
    return " x ".join("unlimited" if extent is None else str(extent) for extent in shape)


def describe_type_briefly(described: dict[str, Any]) -> str:
    """Return a type, described as `/meta` does, in a few words."""

    size = f"({described['size']} bytes)"
    dtype = described.get("dtype")
    match described["class"]:
        case h5t.STRING:
            shown = "string (variable)" if described["vlen"] else f"string {size}"
        case h5t.COMPOUND:
            members = (f"{e['name']} {describe_type_briefly(e)}" for e in described["members"])
            shown = f"compound ({', '.join(members)})"
        case h5t.ARRAY:
            base = describe_type_briefly(described["base"])
            shown = f"{_join_dimensions(described['dims'])} of {base}"
        # h5py's booleans are enumerations.
        case h5t.VLEN | h5t.ENUM as kind if dtype != "|b1":
            word = "sequence" if kind == h5t.VLEN else "enum"
            shown = f"{word} of {describe_type_briefly(described['base'])}"
        case h5t.REFERENCE:
            shown = "reference"
        case h5t.OPAQUE | h5t.BITFIELD as kind:
            shown = f"{'opaque' if kind == h5t.OPAQUE else 'bit field'} {size}"
        case _ if not isinstance(dtype, str) or dtype.startswith("|V"):
            shown = f"without NumPy equivalent {size}"
        case _:
            number = np.dtype(dtype)
            shown = f"{number.name} big-endian" if number.byteorder == ">" else number.name
    return shown


_TITLES = (
    *("name", "kind", "shape", "type", "layout", "chunk", "chunks", "filters"),
    *("stored", "raw", "ratio", "way", "note"),
)

# Titles of columns of numbers, which end below each other.
_NUMBERS = frozenset(("chunks", "stored", "raw", "ratio", "offset", "bytes"))


def format_table(rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """Return the lines of a table without its empty columns.

    Args:
        rows: the titles, then the rows; one that is shorter is a line by itself.
        width: where a line is longer, the cells of each row are wrapped; None = never.
    """
    titles, *below = rows
    full = [row for row in below if len(row) == len(titles)]
    kept = [at for at in range(len(titles)) if any(row[at] for row in full)]
    cells = [[row[at] for at in kept] for row in (titles, *full)]
    widths = [max(map(width_of, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        aligned = []
        for title, cell, most in zip(cells[0], row, widths, strict=True):
            blanks = " " * (most - width_of(cell))
            aligned.append(blanks + cell if title in _NUMBERS else cell + blanks)
        lines.append("  ".join(aligned).rstrip())
    if width is not None and max(map(width_of, lines), default=0) > width:
        texts = ("  ".join(filter(None, row)) for row in cells)
        lines = [
            line for text in texts for line in textwrap.wrap(text, width, subsequent_indent="    ")
        ]
    return lines + ["".join(row) for row in below if len(row) < len(titles)]


def width_of(cell: str) -> int:
    """Return how many columns of a terminal a text takes (Unicode Standard Annex #11)."""
    return sum(
        0 if unicodedata.combining(each) else 1 + (unicodedata.east_asian_width(each) in "WF")
        for each in cell
    )


def printable(name: str, most: int = 200) -> str:
    """Return a name in one line, without control characters, not too long for a terminal."""
    shown = "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in name[: most + 1]
    )
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def human_size(size: int) -> str:
    """Return a size in three digits and a unit, by powers of 1024."""
    value, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    # What would be rounded to four digits is told in the next unit.
    while value >= 999.5 and len(units) > 1:
        value, _ = value / 1024, units.pop(0)
    return f"{value:.3g} {units[0]}"
