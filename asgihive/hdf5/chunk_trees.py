"""Chunks that a B-tree in the file's bytes lists (HDF5 File Format Specification 3.0, III.A).

One chunk is found by descending, with one read a level; many are gathered level by level, from
all nodes that may have some. Nodes of version 1 have no checksum: a damaged one may lead to
wrong places, as in libhdf5, but no further than the file goes.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from asgihive.hdf5.chunk_grid import (
    ChunkGrid,
    ChunkPlace,
    ChunkTable,
    GoOn,
    Numbers,
    RecordedChunks,
    TableBuilder,
    Uints,
    place_chunk,
)
from asgihive.hdf5.file_bytes import DamagedMetadata, FileBytes, NotPlain, is_checked, uints_of

# Nodes that are read at once.
_NODES_AT_ONCE = 512

# Honest nodes have two KiB, and trees of more levels have more chunks than bytes have addresses.
_MAX_NODE_BYTES = 1 << 20
_MAX_DEPTH = 32


@dataclass(slots=True, eq=False)
class ChunkTree1:
    """A version 1 B-tree (section III.A.1); its keys are the corners of chunks, in elements."""

    file: FileBytes
    grid: ChunkGrid
    root: int | None
    """Its address; None = nothing was ever written."""

    at_most: int = field(init=False, default=0)
    """How many chunks are stored at most: the file has an entry for each."""

    _head: int = field(init=False)
    _node: np.dtype[Any] = field(init=False)
    _entry_bytes: int = field(init=False)
    _key: struct.Struct = field(init=False)

    def __post_init__(self) -> None:
        rank, width, most = len(self.grid.chunks), self.file.address_bytes, 2 * self.file.tree_k
        # Behind the coordinates is that of the bytes of an element, which is always 0.
        key = [("size", "<u4"), ("mask", "<u4"), ("corner", "<u8", (rank + 1,))]
        entry = np.dtype([*key, ("child", f"<u{width}")])
        self._head, self._entry_bytes = 8 + 2 * width, entry.itemsize
        self._key = struct.Struct(f"<II{rank}Q")
        size = self._head + most * entry.itemsize + (entry.itemsize - width)
        self._node = np.dtype(
            {
                "names": ["signature", "type", "level", "used", "entries", "last"],
                "formats": ["S4", "u1", "u1", "<u2", (entry, (most,)), (key, ())],
                "offsets": [0, 4, 5, 6, self._head, self._head + most * entry.itemsize],
                "itemsize": size,
            }
        )
        if self.root is not None:
            self.at_most = min(self.grid.size, self.file.end // entry.itemsize)

    def find(self, coordinates: tuple[int, ...]) -> ChunkPlace | None:
        """Find one chunk, as `StoredChunks.find`."""
        corner = tuple(map(int.__mul__, coordinates, self.grid.chunks))
        address, level, entry_bytes = self.root, -1, self._entry_bytes
        while address is not None:
            node = self.file.read(address, self._node.itemsize)
            above, level, used = level, node[5], int.from_bytes(node[6:8], "little")
            if not node.startswith(b"TREE\1") or used > 2 * self.file.tree_k:
                raise DamagedMetadata(f"there is no node of its index at {address}")
            if above not in (-1, level + 1):
                raise DamagedMetadata(f"the node of its index at {address} is of another level")
            first, behind = 0, used
            while first < behind:
                middle = (first + behind) // 2
                at = self._head + middle * entry_bytes
                if self._key.unpack_from(node, at)[2:] <= corner:
                    first = middle + 1
                else:
                    behind = middle
            if not first:
                return None
            at = self._head + (first - 1) * entry_bytes
            address = self.file.address(node, at + entry_bytes - self.file.address_bytes)
            if level == 0:
                size, mask, *found = self._key.unpack_from(node, at)
                if tuple(found) != corner or address == self.file.undefined:
                    return None
                return place_chunk(self.file.base, address, size, mask)
        return None

    def gather(self, wanted: Numbers | None, most: int, go_on: GoOn) -> ChunkTable | None:
        """Gather many chunks, as `StoredChunks.gather`."""
        rows = TableBuilder(self.grid, self.file.base, wanted, most)
        if self.root is None:
            return rows.finish()
        level = -1
        nodes = np.array([self.root], np.uint64)
        seen = 0
        while True:
            below: list[Uints] = []
            for batch in _cut_batches(self.file, nodes, self._node.itemsize, seen):
                go_on()
                read = self.file.read_many(batch, self._node.itemsize).view(self._node)[:, 0]
                level = int(read["level"][0]) if level < 0 else level
                self._check_all(read, level)
                is_used = np.arange(read["entries"].shape[1]) < read["used"][:, None]
                if level:
                    below.append(self._find_children(read, is_used, wanted))
                elif not self._add(rows, read["entries"][is_used]):
                    return None
            if not below or not sum(map(len, below)):
                return rows.finish()
            seen += len(nodes)
            nodes = np.sort(np.concatenate(below))
            level -= 1

    def _check_all(self, nodes: np.ndarray[Any, Any], level: int) -> None:
        is_sound = (nodes["signature"] == b"TREE") & (nodes["type"] == 1)
        is_sound &= (nodes["level"] == level) & (nodes["used"] <= 2 * self.file.tree_k)
        if not is_sound.all():
            raise DamagedMetadata("a node of its index is none")

    def _find_children(
        self, nodes: np.ndarray[Any, Any], is_used: np.ndarray[Any, Any], wanted: Numbers | None
    ) -> Uints:
        """Return the addresses of children that may have chunks that are wanted."""
        entries = nodes["entries"]
        children: Uints = entries["child"][is_used].astype(np.uint64)
        if wanted is None or not len(wanted):
            return children
        # Each ends before the next one's key, the last one before the node's.
        corners = np.concatenate([entries["corner"], nodes["last"]["corner"][:, None]], axis=1)
        bounds = np.searchsorted(wanted, self._find_numbers(corners))
        chosen: Uints = children[(bounds[:, 1:] > bounds[:, :-1])[is_used]]
        return chosen

    def _find_numbers(self, corners: Any) -> Numbers:
        """Return the number of the first chunk at or behind each corner in C order."""
        chunks = self.grid.chunks
        # Of a corner between two chunks, the second one.
        along = [
            corners[..., axis] // np.uint64(chunk) + (corners[..., axis] % np.uint64(chunk) > 0)
            for axis, chunk in enumerate(chunks)
        ]
        return self.grid.find_numbers(along)[0]

    def _add(self, rows: TableBuilder, entries: np.ndarray[Any, Any]) -> bool:
        addresses = entries["child"].astype(np.uint64)
        is_there = addresses != self.file.undefined
        if not is_there.all():
            entries, addresses = entries[is_there], addresses[is_there]
        corners = entries["corner"]
        along = []
        for axis, chunk in enumerate(self.grid.chunks):
            at, off = np.divmod(corners[:, axis], np.uint64(chunk))
            if off.any():
                raise DamagedMetadata("its index has a chunk that is not on the grid")
            along.append(at)
        return rows.add(along, addresses, entries["size"].astype(np.uint64), entries["mask"])


@dataclass(slots=True, eq=False)
class ChunkTree2(RecordedChunks):
    """A version 2 B-tree (sections III.A.2 and VII); its records are chunks, by coordinates.

    Raises:
        NotPlain: it is of another kind.
    """

    at_most: int = field(init=False, default=0)
    _node_bytes: int = field(init=False, default=0)
    _depth: int = field(init=False, default=0)
    _root: tuple[int, int] = field(init=False, default=(0, 0))
    _most: list[int] = field(init=False, default_factory=list)
    _total_bytes: list[int] = field(init=False, default_factory=list)
    _count_bytes: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        width, rank = self.file.address_bytes, len(self.grid.chunks)
        self.record = self.make_record(("scaled", "<u8", (rank,)))
        if self.address is None:
            return
        head = self.file.read_checked(self.address, 22 + width + self.file.length_bytes, b"BTHD")
        version, kind, self._node_bytes, record_bytes, self._depth = struct.unpack_from(
            "<BBIHH", head, 4
        )
        if version or kind != self._kind or record_bytes != self.record.itemsize:
            raise NotPlain
        if self._node_bytes > _MAX_NODE_BYTES or self._depth > _MAX_DEPTH:
            raise NotPlain
        count = int.from_bytes(head[16 + width : 18 + width], "little")
        self._root = (self.file.address(head, 16), count)
        self.at_most = min(self.file.length(head, 18 + width), self.grid.size)
        self._set_most()

    @property
    def _kind(self) -> int:
        return 11 if self.size_bytes else 10

    def _set_most(self) -> None:
        """Find how many records nodes have at most, by level, and how wide such numbers are."""
        record_bytes, room = self.record.itemsize, self._node_bytes - 10
        if room < record_bytes:
            raise NotPlain
        self._most, self._total_bytes, total = [room // record_bytes], [0], room // record_bytes
        self._count_bytes = _find_width(total)
        for level in range(1, self._depth + 1):
            pointer = self._count_pointer_bytes(level)
            most = (room - pointer) // (record_bytes + pointer)
            if most < 1:
                raise NotPlain
            total = (most + 1) * total + most
            self._most.append(most)
            self._total_bytes.append(_find_width(total))

    def _count_pointer_bytes(self, level: int) -> int:
        """Return the bytes of a child: its address, its records, and those of all below."""
        return self.file.address_bytes + self._count_bytes + self._total_bytes[level - 1]

    def find(self, coordinates: tuple[int, ...]) -> ChunkPlace | None:
        """Find one chunk, as `StoredChunks.find`."""
        if self.address is None:
            return None
        (address, count), level = self._root, self._depth
        record_bytes = self.record.itemsize
        scaled = struct.Struct(f"<{len(coordinates)}Q")
        start = record_bytes - scaled.size
        while address != self.file.undefined and count:
            size = self._count_bytes_of(address, count, level)
            node = self.file.read_checked(address, size, b"BTIN" if level else b"BTLF")
            self._check(node[4], node[5])
            first, behind = 0, count
            while first < behind:
                middle = (first + behind) // 2
                found = scaled.unpack_from(node, 6 + middle * record_bytes + start)
                if found == coordinates:
                    return self.parse_record(node, 6 + middle * record_bytes)
                if found < coordinates:
                    first = middle + 1
                else:
                    behind = middle
            if not level:
                return None
            at = 6 + count * record_bytes + first * self._count_pointer_bytes(level)
            address, count = self._parse_child(node, at)
            level -= 1
        return None

    def gather(self, wanted: Numbers | None, most: int, go_on: GoOn) -> ChunkTable | None:
        """Gather many chunks, as `StoredChunks.gather`."""
        rows = TableBuilder(self.grid, self.file.base, wanted, most)
        if self.address is None or self._root[0] == self.file.undefined:
            return rows.finish()
        nodes = np.array([self._root[0]], np.uint64)
        counts = np.array([self._root[1]], np.int64)
        seen = 0
        for level in range(self._depth, -1, -1):
            below: list[tuple[Uints, Numbers]] = []
            signature = b"BTIN" if level else b"BTLF"
            done = 0
            for batch in _cut_batches(self.file, nodes, self._node_bytes, seen):
                go_on()
                several = counts[done : done + len(batch)].tolist()
                done += len(batch)
                read = self._read_nodes(batch, several, level, signature)
                records = read[:, 6 : 6 + self._most[level] * self.record.itemsize]
                records = records.view(self.record)
                is_used = np.arange(self._most[level]) < np.array(several)[:, None]
                if not self._add(rows, records[is_used]):
                    return None
                if level:
                    below += [
                        self._find_children(node, each[:count], level, wanted)
                        for node, each, count in zip(read, records, several, strict=True)
                    ]
            if level:
                seen += len(nodes)
                nodes = np.concatenate([each for each, _ in below])
                counts = np.concatenate([each for _, each in below])
                order = np.argsort(nodes)
                nodes, counts = nodes[order], counts[order]
        return rows.finish()

    def _read_nodes(
        self, addresses: Uints, counts: list[int], level: int, signature: bytes
    ) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return whole nodes, whose checksums are right; one row each."""
        for address, count in zip(addresses.tolist(), counts, strict=True):
            self._count_bytes_of(address, count, level)
        read = self.file.read_many(addresses, self._node_bytes)
        for row, (address, count) in enumerate(zip(addresses.tolist(), counts, strict=True)):
            size = self._count_bytes_of(address, count, level)
            stored = read[row, :size].tobytes()
            if not is_checked(stored, signature):
                # Of a live file, a second look may see more.
                stored = self.file.read_checked(address, size, signature)
                read[row, :size] = np.frombuffer(stored, np.uint8)
            self._check(stored[4], stored[5])
        return read

    def _count_bytes_of(self, address: int, count: int, level: int) -> int:
        """Return the bytes of a node of `count` records, with its checksum."""
        if count > self._most[level]:
            raise DamagedMetadata(f"the node of its index at {address} has {count} chunks")
        size = 10 + count * self.record.itemsize
        return size + (count + 1) * self._count_pointer_bytes(level) if level else size

    def _check(self, version: int, kind: int) -> None:
        if version or kind != self._kind:
            raise DamagedMetadata("a node of its index is of another kind")

    def _parse_child(self, node: bytes, at: int) -> tuple[int, int]:
        counted = at + self.file.address_bytes
        count = int.from_bytes(node[counted : counted + self._count_bytes], "little")
        return self.file.address(node, at), count

    def _find_children(
        self, node: Any, records: np.ndarray[Any, Any], level: int, wanted: Numbers | None
    ) -> tuple[Uints, Numbers]:
        """Return addresses and record counts of children that may have chunks that are wanted."""
        size, width = self._count_pointer_bytes(level), self.file.address_bytes
        start = 6 + len(records) * self.record.itemsize
        stored = node[start : start + (len(records) + 1) * size].reshape(-1, size)
        addresses = uints_of(stored[:, :width])
        counts = uints_of(stored[:, width : width + self._count_bytes]).astype(np.int64)
        chosen = counts > 0
        if wanted is not None and len(wanted):
            scaled = records["scaled"]
            along = [scaled[:, axis] for axis in range(scaled.shape[1])]
            numbers, _ = self.grid.find_numbers(along)
            bounds = np.searchsorted(wanted, numbers)
            # A record itself is in no child, but may be outside of the grid.
            chosen &= np.append(bounds, len(wanted)) > np.append(0, bounds)
        return addresses[chosen], counts[chosen]

    def _add(self, rows: TableBuilder, records: np.ndarray[Any, Any]) -> bool:
        addresses = records["address"].astype(np.uint64)
        is_there = addresses != self.file.undefined
        if not is_there.all():
            records, addresses = records[is_there], addresses[is_there]
        scaled = records["scaled"]
        sizes, masks = self.find_sizes(records)
        return rows.add(
            [scaled[:, axis] for axis in range(scaled.shape[1])], addresses, sizes, masks
        )


def _cut_batches(file: FileBytes, nodes: Uints, size: int, seen: int) -> Iterator[Uints]:
    """Yield some nodes at a time, in the order of their addresses, each only once.

    Those of all levels together have no more bytes than the file, so that all trees end.

    Args:
        file: where they are.
        nodes: addresses of those of one level.
        size: of a node.
        seen: nodes of the levels above.
    """
    if (np.diff(nodes) == 0).any():
        raise DamagedMetadata("a node of its index is there twice")
    if not file.is_live and (seen + len(nodes)) * size > file.end:
        raise DamagedMetadata("the nodes of its index overlap")
    for first in range(0, len(nodes), _NODES_AT_ONCE):
        yield nodes[first : first + _NODES_AT_ONCE]


def _find_width(number: int) -> int:
    """Return how many bytes numbers up to this one take in a version 2 B-tree."""
    return (number.bit_length() - 1) // 8 + 1
