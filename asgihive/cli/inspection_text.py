"""What `asgihive inspect` shows to people: a table of a group, a dataset line by line."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from h5py import h5t

from asgihive.cli.tables import Column, human_size, printable, table
from asgihive.hdf5.inspection import (
    ChunksReport,
    FilterReport,
    Inspection,
    LinkReport,
    SegmentReport,
    SourceReport,
    StorageReport,
    Way,
)

# So that one long name does not make a table of blanks.
_LONGEST_NAME = 60
_LONGEST_TYPE = 2000
_MOST_ROWS = 100

_COLUMNS = (
    Column("name"),
    Column("kind"),
    Column("shape"),
    Column("type"),
    Column("layout", line=1),
    Column("chunk", line=1),
    Column("chunks", right=True, line=1),
    Column("filters", line=1),
    Column("stored", right=True, line=1),
    Column("raw", right=True, line=1),
    Column("ratio", right=True, line=1),
    Column("way", line=1),
    Column("note", line=2),
)

_WAYS = {
    Way.ENGINE: "chunks are read and decoded past libhdf5, several at a time",
    Way.CONTIGUOUS: "straight from the file",
    Way.LIBRARY: "through libhdf5, one read at a time",
    Way.VIRTUAL: "put together from its sources",
    Way.RAW_STORAGE: "from plain files beside this one",
}

# As people call them; files say it at length, or not at all.
_FILTER_NAMES = {
    1: "deflate",
    2: "shuffle",
    3: "fletcher32",
    4: "szip",
    5: "nbit",
    6: "scaleoffset",
    307: "bzip2",
    32000: "lzf",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32013: "zfp",
    32015: "zstd",
    32017: "sz",
    32018: "fcidecomp",
    32024: "sz3",
    32026: "blosc2",
    32028: "sperr",
    32033: "htj2k",
}


def inspection_text(file: str, found: Inspection, width: int | None) -> str:
    """The whole text; tables fit into `width` columns where that is possible.

    Args:
        file: as the user named it.
        found: what lies there.
        width: None = there is no bound.
    """
    lines = [
        f"{printable(found.path)} of {printable(file)}",
        *(f"  {name:<10}  {value}".rstrip() for name, value in _facts(found)),
    ]
    if found.children:
        rows = [_row(child) for child in found.children]
        lines += ["", *table(_COLUMNS, rows, width)]
    storage = found.storage
    if storage is not None and storage.sources:
        lines += ["", *_sources(storage.sources, width)]
    if storage is not None and storage.segments:
        lines += ["", *_segments(storage.segments, width)]
    return "\n".join(lines)


def _facts(found: Inspection) -> Iterator[tuple[str, str]]:
    yield "kind", found.kind.replace("_", " ")
    for index, link in enumerate(found.links):
        yield "" if index else "links", f"{printable(link.path)} {_target(link)}"
    if found.links and found.file is not None:
        place = printable(found.object_path or "an object without a path")
        yield "lies at", f"{place} of {printable(found.file)}"
    if found.problem is not None and not _dangles(found):
        yield "problem", printable(found.problem)
    if found.members is not None:
        yield "members", f"{found.members:,}"
    if found.storage is not None:
        yield "shape", _shape_in_full(found.storage)
    if found.type is not None:
        yield "type", printable(type_text(found.type), _LONGEST_TYPE)
    if found.storage is not None:
        yield from _storage_facts(found.storage)


def _storage_facts(storage: StorageReport) -> Iterator[tuple[str, str]]:
    yield "layout", storage.layout
    if storage.chunks is not None:
        yield from _chunk_facts(storage.chunks)
    for index, each in enumerate(storage.filters):
        yield "" if index else "filters", _filter_in_full(each)
    yield "size", _size_in_full(storage)
    if storage.way is None:
        yield "way", f"none: {printable(storage.reason or '')}"
    else:
        yield "way", f"{storage.way}: {_WAYS[storage.way]}"
        if storage.reason:
            yield "because of", printable(storage.reason)
    if storage.sources is not None:
        refused = sum(each.refused for each in storage.sources)
        missing = sum(not each.found and not each.refused for each in storage.sources)
        shown = f"{len(storage.sources):,}, {missing:,} missing"
        yield "sources", f"{shown}, {refused:,} refused" if refused else shown


def _chunk_facts(chunks: ChunksReport) -> Iterator[tuple[str, str]]:
    yield "chunk", f"{_dimensions(chunks.shape)}, {human_size(chunks.raw_bytes)} raw"
    yield "chunks", f"{chunks.stored:,} stored of {chunks.in_grid:,}"
    if chunks.smallest is not None and chunks.median is not None and chunks.largest is not None:
        smallest, median, largest = map(
            human_size, (chunks.smallest, chunks.median, chunks.largest)
        )
        yield "as stored", f"{smallest} the smallest, {median} the median, {largest} the largest"


def _filter_in_full(each: FilterReport) -> str:
    by = f"decoded by {each.decoder}" if each.decoder else f"missing: {each.install}"
    return f"{_filter_name(each)} ({each.id}), {by}"


def _filter_name(each: FilterReport) -> str:
    known = _FILTER_NAMES.get(each.id)
    return known or printable(each.name, _LONGEST_NAME) or f"filter {each.id}"


def _size_in_full(storage: StorageReport) -> str:
    raw = "unknown" if storage.raw_bytes is None else f"{human_size(storage.raw_bytes)} raw"
    if storage.stored_bytes is None:
        return raw
    ratio = f", {storage.ratio:.3g} to 1" if storage.ratio is not None else ""
    return f"{human_size(storage.stored_bytes)} stored, {raw}{ratio}"


def _shape_in_full(storage: StorageReport) -> str:
    shown = _shape(storage)
    if storage.maxshape is None or storage.maxshape == storage.shape:
        return shown
    return f"{shown}, at most {_dimensions(storage.maxshape)}"


def _shape(storage: StorageReport) -> str:
    if storage.dataspace != "simple" or storage.shape is None:
        return storage.dataspace
    return _dimensions(storage.shape)


def _dimensions(shape: tuple[int | None, ...]) -> str:
    return " x ".join("unlimited" if extent is None else str(extent) for extent in shape)


def _row(child: Inspection) -> tuple[str, ...]:
    name = printable(child.name, _LONGEST_NAME) + ("/" if child.kind == "group" else "")
    kind = child.kind.replace("_", " ")
    type_cell = "" if child.type is None else _type_in_short(child.type)
    storage = child.storage
    if storage is None:
        shape = "" if child.members is None else f"{child.members:,} members"
        return (name, kind, shape, type_cell, *([""] * 8), _note(child))
    chunks = storage.chunks
    return (
        name,
        kind,
        _shape(storage),
        type_cell,
        storage.layout,
        _dimensions(chunks.shape) if chunks else "",
        f"{chunks.stored:,}/{chunks.in_grid:,}" if chunks else "",
        "+".join(map(_filter_name, storage.filters)),
        "" if storage.stored_bytes is None else human_size(storage.stored_bytes),
        "" if storage.raw_bytes is None else human_size(storage.raw_bytes),
        "" if storage.ratio is None else f"{storage.ratio:.3g}",
        storage.way or "none",
        _note(child),
    )


def _type_in_short(described: dict[str, Any]) -> str:
    if described["class"] == h5t.COMPOUND:
        return f"compound ({len(described['members'])} members)"
    return printable(type_text(described), _LONGEST_NAME)


def _note(child: Inspection) -> str:
    """Where it leads, why it goes no faster, what is wrong with it."""
    notes = [_target(link) for link in child.links]
    if child.problem is not None and not _dangles(child):
        notes.append(printable(child.problem))
    if child.storage is not None and child.storage.reason is not None:
        notes.append(printable(child.storage.reason))
    return "; ".join(notes)


def _dangles(found: Inspection) -> bool:
    """Whether its problem is that of its link, which tells it."""
    return bool(found.links) and not found.links[-1].resolves


def _target(link: LinkReport) -> str:
    file = "" if link.target_file is None else f"{printable(link.target_file)}:"
    broken = "" if link.problem is None else f", does not resolve: {printable(link.problem)}"
    return f"-> {file}{printable(link.target_path)}{broken}"


def _sources(sources: tuple[SourceReport, ...], width: int | None) -> list[str]:
    columns = (
        Column("source"),
        Column("dataset"),
        Column("found"),
        Column("way"),
        Column("note", line=2),
    )
    rows = [
        (
            printable(each.file, _LONGEST_NAME),
            printable(each.dataset, _LONGEST_NAME),
            "refused" if each.refused else "yes" if each.found else "missing",
            each.way or "none",
            printable(each.problem or ""),
        )
        for each in sources[:_MOST_ROWS]
    ]
    return [*table(columns, rows, width), *_more(len(sources))]


def _segments(segments: tuple[SegmentReport, ...], width: int | None) -> list[str]:
    columns = (
        Column("raw storage"),
        Column("offset", right=True),
        Column("size", right=True),
        Column("found"),
    )
    rows = [
        (
            printable(each.file),
            f"{each.offset:,}",
            human_size(each.bytes),
            "yes" if each.found else "no",
        )
        for each in segments[:_MOST_ROWS]
    ]
    return [*table(columns, rows, width), *_more(len(segments))]


def _more(count: int) -> list[str]:
    return [f"and {count - _MOST_ROWS:,} more, see --json"] if count > _MOST_ROWS else []


def type_text(described: dict[str, Any]) -> str:
    """A type, described as `/meta` does, in a few words."""
    size = f"{described['size']} bytes"
    match described["class"]:
        case h5t.STRING:
            shown = f"string ({'variable' if described['vlen'] else size})"
        case h5t.COMPOUND:
            members = (f"{each['name']} {type_text(each)}" for each in described["members"])
            shown = f"compound ({', '.join(members)})"
        case h5t.ARRAY:
            shown = f"{_dimensions(tuple(described['dims']))} of {type_text(described['base'])}"
        case h5t.VLEN:
            shown = f"sequence of {type_text(described['base'])}"
        # h5py's booleans are enumerations.
        case h5t.ENUM if described["dtype"] != "|b1":
            shown = f"enum of {type_text(described['base'])}"
        case h5t.REFERENCE:
            shown = "reference"
        case h5t.OPAQUE | h5t.BITFIELD as kind:
            shown = f"{'opaque' if kind == h5t.OPAQUE else 'bit field'} ({size})"
        case _:
            shown = _number_text(described["dtype"], size)
    return shown


def _number_text(dtype: Any, size: str) -> str:
    if not isinstance(dtype, str) or dtype.startswith("|V"):
        return f"without NumPy equivalent ({size})"
    number = np.dtype(dtype)
    return f"{number.name} big-endian" if number.byteorder == ">" else number.name
