"""What a URL below `/zarr` asks for: the keys of a Zarr v3 store; pure."""

import re
from dataclasses import dataclass
from enum import Enum

METADATA_KEY = "zarr.json"

PROBES = frozenset(
    {".zgroup", ".zarray", ".zattrs", ".zmetadata", "attributes.json", "info", "manifest.ocdbt"}
)
"""What clients ask for to find out what they have before them: other formats, which are not here.

Of Zarr v2, of N5, of Neuroglancer's precomputed volumes, and of the databases of TensorStore.
"""

MOST_COORDINATES = 64
"""Axes of a chunk: 32 of a dataspace, and as many of an array type, are more than files have."""

MOST_NAMES = 512
"""Of directories, groups and all else in a URL: what a loop of links leads to has no end."""

# Chunks are numbered with 64 bits, and a number is written in one way.
_COORDINATE = re.compile(r"0|[1-9][0-9]{0,18}")

_VERSION = re.compile(r"@([0-9a-f]{32})")


class KeyKind(Enum):
    """What a key is of."""

    METADATA = "metadata"
    """The metadata of a node."""
    PROBE = "probe"
    """Metadata of another format."""
    CHUNK = "chunk"
    OTHER = "other"
    """Nothing that a store has."""


@dataclass(frozen=True, slots=True)
class StoreKey:
    """A key of a store."""

    kind: KeyKind
    node: tuple[str, ...] = ()
    """The names that lead to its node."""
    coordinates: tuple[int, ...] = ()
    """Of the chunk, in the grid of its array."""


def parse_key(parts: tuple[str, ...]) -> StoreKey:
    """Return what the key is that consists of these names.

    Of a path that may be read in two ways, as `c/0` that may be a chunk and a group, the key is a
    chunk: it names no node without `zarr.json` at its end.
    """
    *node, last = parts or ("",)
    if last == METADATA_KEY:
        return StoreKey(KeyKind.METADATA, tuple(node))
    if last in PROBES:
        return StoreKey(KeyKind.PROBE, tuple(node))
    count = len(parts)
    first = max(0, count - MOST_COORDINATES)
    while count > first and _COORDINATE.fullmatch(parts[count - 1]):
        count -= 1
    if count and parts[count - 1] == "c":
        return StoreKey(KeyKind.CHUNK, parts[: count - 1], tuple(map(int, parts[count:])))
    return StoreKey(KeyKind.OTHER)


def take_version(parts: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """Return the version that the first name says with `@`, if it does, and the other names."""
    found = _VERSION.fullmatch(parts[0]) if parts else None
    return (None, parts) if found is None else (found[1], parts[1:])
