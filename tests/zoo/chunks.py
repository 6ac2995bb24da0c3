"""Chunks crafted to show what lies in the memory of a program that trusts them."""

import bz2
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t, h5z

ITEMS = 4096
ITEM_BYTES = 4
RAW = ITEMS * ITEM_BYTES
VALUES = np.arange(ITEMS, dtype="<i4")

BOMB_BYTES = 4 << 30


@dataclass(frozen=True, slots=True)
class Crafted:
    """A dataset of one chunk that is not what it says, behind one that is whole.

    Attributes:
        filters: number → values, in the order of writing.
        stored: the bad chunk as it lies in the file.
    """

    name: str
    stored: bytes
    filters: Mapping[int, tuple[int, ...]]


def _bomb() -> bytes:
    """Gibibytes of zeros, packed a mebibyte at a time, which can be repeated."""
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    piece = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return b"\x78\x9c" + piece * (BOMB_BYTES >> 20) + packer.flush()


def _shuffled(raw: bytes) -> bytes:
    return np.frombuffer(raw, "u1").reshape(-1, ITEM_BYTES).T.tobytes()


@cache
def crafted() -> tuple[Crafted, ...]:
    """Those that need nothing beside libhdf5 and this package's own dependencies."""
    deflate = {1: (4,)}
    short = VALUES.tobytes()[: RAW - 512]
    absurd = 1 << 60
    scale_offset = (2, 0, ITEMS, 0, 4, 1, 0, 0, *[0] * 12)
    nbit = (8, 0, ITEMS, 1, 4, 0, 12, 0)
    return (
        Crafted("deflate_short", zlib.compress(short), deflate),
        Crafted("deflate_empty", zlib.compress(b""), deflate),
        Crafted("deflate_cut", zlib.compress(VALUES.tobytes())[:-20], deflate),
        Crafted("deflate_no_stream", b"no stream at all", deflate),
        Crafted("deflate_bomb", _bomb(), deflate),
        Crafted("shuffle_short", zlib.compress(short), {2: (4,), 1: (4,)}),
        Crafted("shuffle_alone_short", short, {2: (4,)}),
        Crafted("shuffle_values", zlib.compress(VALUES.tobytes()), {2: (0,), 1: (4,)}),
        Crafted("fletcher32_wrong", VALUES.tobytes() + b"\1\2\3\4", {3: ()}),
        Crafted("fletcher32_short", b"\0" * 8, {3: ()}),
        Crafted("fletcher32_tiny", b"\0", {3: ()}),
        Crafted("bzip2_short", bz2.compress(short), {307: (9,)}),
        Crafted("bzip2_bomb", bz2.compress(bytes(64 << 20)), {307: (9,)}),
        Crafted("lzf_short", b"\x1f" + b"x" * 32, {32000: (4, 261, RAW)}),
        Crafted("lz4_absurd", struct.pack(">QI", absurd, absurd >> 32), {32004: (0,)}),
        Crafted("lz4_short", struct.pack(">QII", 64, 64, 64) + bytes(64), {32004: (0,)}),
        Crafted("lz4_beyond", struct.pack(">QII", RAW, RAW, RAW - 1), {32004: (0,)}),
        Crafted("zstd_short", bytes.fromhex("28b52ffd2001090000") + b"x", {32015: (3,)}),
        Crafted("zstd_absurd", bytes.fromhex("28b52ffde0") + b"\xff" * 8, {32015: (3,)}),
        Crafted("bitshuffle_short", bytes(RAW - 64), {32008: (0, 4, 4, 0, 0)}),
        Crafted("bitshuffle_lz4_absurd", struct.pack(">QI", absurd, 8192), _BITSHUFFLE),
        Crafted("bitshuffle_lz4_beyond", struct.pack(">QII", RAW, 8192, 1 << 31), _BITSHUFFLE),
        Crafted("bitshuffle_item", bytes(RAW), {32008: (0, 4, 0, 0, 2)}),
        Crafted("blosc_absurd", struct.pack("<BBBBIII", 2, 1, 1, 4, 2**31, 64, 16), _BLOSC),
        Crafted("blosc_beyond", struct.pack("<BBBBIII", 2, 1, 1, 4, RAW, 64, 9999), _BLOSC),
        Crafted("szip_absurd", struct.pack("<I", 2**32 - 1) + bytes(64), {4: (141, 8, 32, 64)}),
        Crafted("scaleoffset_short", struct.pack("<IBQ8x", 32, 8, 0), {6: scale_offset}),
        Crafted("nbit_short", bytes(16), {5: nbit}),
        Crafted("nbit_few", bytes(ITEMS), {5: (8, 0, ITEMS // 2, 1, 4, 0, 12, 0)}),
        Crafted("twice_short", zlib.compress(zlib.compress(short)), {32015: (3,), 1: (4,)}),
    )


_BITSHUFFLE = {32008: (0, 4, 4, 0, 2)}
_BLOSC = {32001: (2, 2, 4, RAW, 5, 1, 1)}


def write(path: Path, cases: Sequence[Crafted]) -> None:
    """One dataset a case: its first chunk was never written, its second is the bad one.

    Beside them `unfiltered_short`, and `whole`, which is not bad at all.
    """
    with h5py.File(path, "w", libver=("earliest", "latest")) as file:
        for number, case in enumerate(cases):
            dataset = create(file, case.name, case.filters, number)
            dataset.write_direct_chunk((ITEMS,), case.stored)
        short = create(file, "unfiltered_short", {}, 0)
        short.write_direct_chunk((ITEMS,), VALUES.tobytes())
        whole = create(file, "whole", _WHOLE, len(cases))
        whole.write_direct_chunk((ITEMS,), zlib.compress(_shuffled(VALUES.tobytes())))
    content = bytearray(path.read_bytes())
    for number, filters in enumerate([*(case.filters for case in cases), _WHOLE]):
        forge_filters(content, filters, number)
    # The key of a version 1 B-tree: size, filter mask, offsets.
    key = struct.pack("<IIQQ", RAW, 0, ITEMS, 0)
    # Chunks of other datasets have that size, too; this one was written after them.
    at = content.rindex(key)
    content[at : at + 4] = struct.pack("<I", RAW - 512)
    path.write_bytes(content)


_WHOLE = {2: (4,), 1: (4,)}

# Numbers of no filter. libhdf5 adapts the values of its own filters to the dataset, and refuses
# others, so that the real numbers are put in behind its back.
_PLACEHOLDER = 40_000
_MOST_FILTERS = 4


def create(file: Any, name: str, filters: Mapping[int, tuple[int, ...]], number: int) -> Any:
    """A dataset of two chunks, behind the placeholders of `number` for the filters."""
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_chunk((ITEMS,))
    for position, values in enumerate(filters.values()):
        placeholder = _PLACEHOLDER + number * _MOST_FILTERS + position
        properties.set_filter(placeholder, h5z.FLAG_OPTIONAL, values)
    space = h5s.create_simple((2 * ITEMS,))
    return h5d.create(file.id, name.encode(), h5t.STD_I32LE, space, properties)


def forge_filters(content: bytearray, filters: Mapping[int, tuple[int, ...]], number: int) -> None:
    """Put the real numbers in the place of the placeholders of `number`."""
    for position, (real, values) in enumerate(filters.items()):
        placeholder = _PLACEHOLDER + number * _MOST_FILTERS + position
        message = struct.pack(f"<HHHH{len(values)}I", placeholder, 0, 1, len(values), *values)
        at = content.index(message)
        content[at : at + 2] = struct.pack("<H", real)
