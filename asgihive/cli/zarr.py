"""`asgihive zarr FILE… [PATH]`: what Zarr clients will see of files, and what is left out."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from asgihive.cli.formatting import (
    LONGEST_LINE,
    LONGEST_NAME,
    format_table,
    join_dimensions,
    printable,
)
from asgihive.cli.inspect import add_files, show_files
from asgihive.concurrency import run_at_once
from asgihive.hdf5.file_bytes import encoded
from asgihive.hdf5.pool import Lease
from asgihive.settings import ENVIRONMENT_PREFIX, H5Settings
from asgihive.zarr.grid import ChunkSource
from asgihive.zarr.nodes import (
    OMITTED_ATTRIBUTES,
    OWN_PREFIX,
    REAL_NAME,
    ArrayNode,
    GroupNode,
    Node,
    walk_nodes,
)
from asgihive.zarr.tree import find_real_path, read_tree

_SERVED_AT = "http://127.0.0.1:8000"

_HELP = f"""\
The tree is that of GET /zarr/FILE, by the names that clients see: characters that they would not
ask for are _ in them. Its settings are those of the service ({ENVIRONMENT_PREFIX}ZARR_COMPRESSION,
{ENVIRONMENT_PREFIX}ZARR_STORED_CHUNKS).

chunks are sent
  stored   as they lie in the file, undecoded
  decoded  decoded, and compressed anew

keys of --json:
  file url             url as `asgihive serve DIR` has it
  nodes                of each node: path, kind, and where it has another name real_name;
                       of an array shape chunk_shape data_type codecs dimension_names fill_value
                       chunks_sent; the attributes; of a group omitted, by name
  complete             whether all nodes are there; groups of which some are missing say so in an
                       attribute

examples:
  asgihive zarr air.nc
  asgihive zarr scan.nxs /entry/data
  asgihive zarr /data/run7/scan.nxs --root /data --json
"""


def add_zarr(parser: argparse.ArgumentParser) -> None:
    """Let the command take its arguments."""
    parser.description = (
        "Show what xarray, zarr-python and other Zarr clients will see of an HDF5 file that is\n"
        "served: its URL, the arrays, how chunks are sent, and what is left out and why."
    )
    parser.epilog = _HELP
    add_files(
        parser,
        _show,
        "Name HDF5 files, and a group or dataset in each of them (default: /).",
        "The directory that is served, which no link may leave (default: that of FILE).",
    )


@dataclass(frozen=True, slots=True)
class _Shown:
    """What is read of one file."""

    url: str
    node: Node


def _show(options: argparse.Namespace) -> int:
    return show_files(options, _read, _describe, _format)


def _read(lease: Lease, name: str, path: str, settings: H5Settings) -> _Shown:
    file = lease.open_asked(name)
    real = find_real_path(lease, file, path)
    return _Shown(_make_url(name, path), run_at_once(read_tree(lease, file, real, settings)))


def _make_url(name: str, path: str) -> str:
    """Return where a group of a file will be, by default."""
    below = path.strip("/")
    return f"{_SERVED_AT}/zarr/{quote(encoded(f'{name}/{below}' if below else name))}"


def _list_nodes(node: Node) -> Iterator[tuple[str, Node]]:
    """Yield a node and all below it, with the paths that clients see."""
    yield "/", node
    if isinstance(node, GroupNode):
        yield from ((f"/{path}", each) for path, each in walk_nodes(node))


def _describe(file: str, shown: _Shown) -> dict[str, Any]:
    """Return the tree for programs."""
    nodes, is_complete = [], True
    for path, each in _list_nodes(shown.node):
        described: dict[str, Any] = {"path": path, "kind": "group"}
        if REAL_NAME in each.attributes:
            described["real_name"] = each.attributes[REAL_NAME]
        if isinstance(each, ArrayNode):
            described["kind"] = "array"
            for key in ("shape", "chunk_shape", "data_type", "codecs", "dimension_names"):
                described[key] = getattr(each, key)
            described |= {"fill_value": each.fill_value, "chunks_sent": _name_source(each)}
        else:
            described["omitted"] = each.omitted
            is_complete &= not each.incomplete
        described["attributes"] = each.attributes
        nodes.append(described)
    return {"file": file, "url": shown.url, "nodes": nodes, "complete": is_complete}


_TITLES = ("path", "shape", "chunk", "type", "codecs", "dimensions", "sent", "attributes")


def _format(_: str, shown: _Shown, width: int | None) -> Iterator[str]:
    """Yield the lines for people; the table fits into `width` columns where that is possible."""
    yield f"{shown.url}  (as `asgihive serve` has it)"
    yield ""
    nodes = list(_list_nodes(shown.node))
    yield from format_table([_TITLES, *(_list_cells(path, each) for path, each in nodes)], width)
    omitted = list(_list_omitted(nodes))
    if omitted:
        yield ""
        yield "left out:"
        yield from (f"  {printable(each, LONGEST_LINE)}" for each in omitted)


def _list_cells(path: str, node: Node) -> Sequence[str]:
    count = sum(not name.startswith(OWN_PREFIX) for name in node.attributes)
    attributes = str(count) if count else ""
    shown = printable(path, LONGEST_NAME)
    if isinstance(node, GroupNode):
        return [shown if path == "/" else f"{shown}/", *[""] * 6, attributes]
    names = [each["name"] for each in node.codecs]
    is_named = isinstance(node.data_type, str)
    return [
        shown,
        join_dimensions(node.shape) or "scalar",
        join_dimensions(node.chunk_shape),
        node.data_type if is_named else node.data_type["name"],
        "+".join(names),
        printable(", ".join(node.dimension_names), LONGEST_NAME),
        _name_source(node),
        attributes,
    ]


def _name_source(node: ArrayNode) -> str:
    return "decoded" if node.source == ChunkSource.READ.value else "stored"


def _list_omitted(nodes: list[tuple[str, Node]]) -> Iterator[str]:
    """Yield what is left out of each node, and why."""
    for path, node in nodes:
        if isinstance(node, GroupNode):
            for name, reason in node.omitted.items():
                yield f"{path.rstrip('/')}/{name}: {reason}"
            if node.incomplete:
                yield f"{path}: {node.incomplete}"
        for reason in node.attributes.get(OMITTED_ATTRIBUTES, ()):
            yield f"{path}, attribute {reason}"
