"""How an HDF5 dataset is cut into the chunks of a Zarr array, and encoded; pure.

Stored chunks that a Zarr client decodes by its own codecs go out as they lie in the file. All else
is read and encoded: by `bytes` and `blosc` or `zstd`, which all clients have without a warning.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Any, Protocol

import h5py
import numpy as np

from asgihive.hdf5.filters.builtin import DEFLATE, FLETCHER32, SHUFFLE
from asgihive.hdf5.filters.contract import has_codecs
from asgihive.hdf5.layout import Filter, Layout, LayoutKind
from asgihive.hdf5.plan import Axis
from asgihive.padding import has_padding
from asgihive.settings import H5Settings
from asgihive.zarr.data_types import has_characters
from asgihive.zarr.frames import (
    HEAD_BYTES,
    MOST_FRAME_BYTES,
    MOST_ITEM_BYTES,
    SHUFFLES,
    BloscFrame,
    StoredForm,
)

STORED_BYTES = 1 << 16
"""Decoded chunks of at least so many bytes go out as they are stored; smaller ones are merged."""

MERGED_BYTES = 1 << 20
"""What smaller chunks are merged up to."""

BLOCK_BYTES = 2 << 20
"""The most of a block of data that is not chunked."""

LARGE_BYTES = 64 << 20
"""A larger chunk that went through no filter is cut into blocks."""

MOST_TEXTS = 1 << 20
"""Strings in one chunk: larger chunks are cut into blocks, since each is an object in memory."""

TEXT_BYTES = 64
"""What a string of variable length is taken to have: its size is not known before it is read."""

ZSTD, BLOSC, LZ4, BITSHUFFLE = 32015, 32001, 32004, 32008
"""Registered numbers of the filters that the core codecs of Zarr undo, beside those of HDF5."""

_KEPT_PLANS = 1024
_HAS_BLOSC = has_codecs("BLOSC")

_BLOSC_NAMES = {0: "blosclz", 1: "lz4", 2: "lz4hc", 4: "zlib", 5: "zstd"}
_BLOSC_LEVEL, _MOST_BLOSC_LEVEL = 5, 9
_ZSTD_LEVEL, _HDF5_ZSTD_LEVEL, _MOST_ZSTD_LEVEL = 1, 3, 22

LZ4_LEVEL = 5
"""Of LZ4 in Blosc, where chunks are encoded for being sent."""


class Storage(Protocol):
    """How a dataset is stored: an open `Dataset`, or its `DatasetFacts`."""

    @property
    def layout(self) -> Layout:
        """Its layout, chunks and filters."""

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Its extent; None = empty."""

    @property
    def max_shape(self) -> tuple[int | None, ...]:
        """The largest extent; None = without a limit."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of an element in memory."""

    @property
    def item_shape(self) -> tuple[int, ...]:
        """Of an element, of an array type."""

    @property
    def is_as_stored(self) -> bool:
        """Whether an element lies in the file as in memory, once the filters are undone."""


class ChunkSource(Enum):
    """Where the bytes of a Zarr chunk come from."""

    STORED = "stored"
    """Each is one HDF5 chunk, as it is stored."""

    RUN = "run"
    """Each is a run of the file's bytes."""

    READ = "read"
    """Its elements are read, and encoded."""


@dataclass(frozen=True, slots=True)
class Codec:
    """One codec of a Zarr array."""

    name: str
    configuration: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as it stands in `zarr.json`."""
        return {"name": self.name, "configuration": dict(self.configuration)}


@dataclass(frozen=True, slots=True)
class ArrayPlan:
    """A dataset as a Zarr array."""

    shape: tuple[int, ...]
    """Of the array: the dataset's, and that of an element."""

    chunk_shape: tuple[int, ...]
    """Of a chunk, along the same axes."""

    codecs: tuple[Codec, ...]
    """From the array to the bytes of a chunk."""

    source: ChunkSource
    dtype: np.dtype[Any]
    """Of an element as it is sent, which a codec `bytes` writes down; pointers of strings."""

    is_text: bool
    """Whether elements are strings."""

    stored: "StoredChain | None" = None
    """How stored chunks become those of the array; None = they do not."""

    rank: int = 0
    """How many of the axes are those of the dataset."""

    @property
    def counts(self) -> tuple[int, ...]:
        """How many chunks there are along each axis."""
        pairs = zip(self.shape, self.chunk_shape, strict=True)
        return tuple(-(-extent // chunk) for extent, chunk in pairs)

    def has_chunk(self, coordinates: tuple[int, ...]) -> bool:
        """Return whether there is a chunk at these coordinates."""
        counts = self.counts
        if len(coordinates) != len(counts):
            return False
        return all(0 <= at < count for at, count in zip(coordinates, counts, strict=True))

    def find_axes(self, coordinates: tuple[int, ...]) -> tuple[Axis, ...]:
        """Return what is selected of the dataset for a chunk that the array has."""
        axes = []
        rows = zip(coordinates, self.chunk_shape, self.shape, strict=True)
        for at, chunk, extent in list(rows)[: self.rank]:
            start = at * chunk
            axes.append(Axis(start, 1, min(chunk, extent - start)))
        return tuple(axes)


def plan_array(storage: Storage, settings: H5Settings) -> ArrayPlan:
    """Return how a dataset is cut and encoded.

    By its metadata alone: no chunk is looked at.

    Args:
        storage: of a dataset whose dataspace is not empty.
        settings: which codecs may be used.
    """
    layout = storage.layout
    return _plan(
        storage.shape or (),
        storage.max_shape,
        storage.dtype,
        storage.item_shape,
        layout.kind,
        layout.chunks,
        layout.filters,
        # Two dtypes of objects are equal, whatever the objects are.
        is_text=has_text(storage.dtype, len(storage.shape or ())),
        is_as_stored=storage.is_as_stored,
        compression=settings.zarr_compression,
        sends_deflate=settings.zarr_stored_chunks,
    )


@lru_cache(_KEPT_PLANS)  # each request for a chunk asks for the plan of its array
def _plan(  # noqa: PLR0913, PLR0917  # all that has a say in it
    shape: tuple[int, ...],
    max_shape: tuple[int | None, ...],
    dtype: np.dtype[Any],
    item_shape: tuple[int, ...],
    kind: LayoutKind,
    chunks: tuple[int, ...] | None,
    filters: tuple[Filter, ...],
    *,
    is_text: bool,
    is_as_stored: bool,
    compression: str,
    sends_deflate: bool,
) -> ArrayPlan:
    sent, item_count = find_sent_dtype(dtype), math.prod(item_shape)
    item_bytes = dtype.itemsize * item_count
    chunk_bytes = item_bytes * math.prod(chunks or ())
    # Nothing of it is converted, nor are there bytes that nobody is to see.
    is_sent_as_stored = is_as_stored and not (is_text or dtype.hasobject or has_padding(dtype))
    is_sent_as_stored = is_sent_as_stored and sent == dtype
    if is_text:
        item_bytes = (TEXT_BYTES if dtype.hasobject else dtype.itemsize) * item_count
    is_cut = is_text and math.prod(chunks or ()) * item_count > MOST_TEXTS
    if is_cut or (not filters and chunk_bytes > LARGE_BYTES):
        chunks = None
    source = ChunkSource.READ
    chain: tuple[Codec, ...] | None = None
    stored = None
    if chunks is not None and is_sent_as_stored:
        stored = find_stored_chain(filters, chunk_bytes, sends_deflate=sends_deflate)
        # Without codecs for ever: later ones may make as many bytes of a merged chunk.
        extents = shape if stored is not None and stored.codecs else max_shape
        is_alone = all(
            extent is not None and extent <= chunk
            for extent, chunk in zip(extents, chunks, strict=True)
        )
        stored = stored if chunk_bytes >= STORED_BYTES or is_alone else None
    if chunks is None:
        chunk_shape = find_block_shape(shape, item_bytes)
        if is_sent_as_stored and kind in {LayoutKind.CONTIGUOUS, LayoutKind.COMPACT}:
            source, chain = ChunkSource.RUN, ()
    elif stored is not None:
        source, chunk_shape, chain = ChunkSource.STORED, chunks, stored.codecs
    else:
        chunk_shape = merge_chunks(chunks, shape, max_shape, item_bytes)
    if chain is None:
        encoded_bytes = item_bytes * math.prod(chunk_shape)
        can_be_blosc = _HAS_BLOSC and not is_text and encoded_bytes <= MOST_FRAME_BYTES - HEAD_BYTES
        chain = _make_chain(compression, sent.itemsize, can_be_blosc=can_be_blosc)
    return ArrayPlan(
        shape=(*shape, *item_shape),
        # A member without elements has no chunk, and a chunk has at least one.
        chunk_shape=(*chunk_shape, *(max(1, each) for each in item_shape)),
        codecs=(make_array_codec(sent, is_text=is_text), *chain),
        source=source,
        dtype=sent,
        is_text=is_text,
        stored=stored if source is ChunkSource.STORED else None,
        rank=len(shape),
    )


def has_text(dtype: np.dtype[Any], rank: int) -> bool:
    """Return whether elements are strings, of fixed or of variable length.

    Args:
        dtype: of an element in memory.
        rank: of the dataset.
    """
    return h5py.check_string_dtype(dtype) is not None and not has_characters(dtype, rank)


def find_sent_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return how an element is sent: compounds little-endian and without gaps, others as they are.

    That is what the data type `structured` of zarr-python means by a list of members.
    """
    if dtype.names is None:
        return dtype
    members = [(name, _find_member_dtype(dtype[name])) for name in dtype.names]
    return np.dtype(members)


def _find_member_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.subdtype is not None:
        base, dimensions = dtype.subdtype
        return np.dtype((_find_member_dtype(base), dimensions))
    return dtype.newbyteorder("<") if dtype.names is None else find_sent_dtype(dtype)


def make_array_codec(dtype: np.dtype[Any], *, is_text: bool) -> Codec:
    """Return the codec that makes bytes of elements."""
    if is_text:
        return Codec("vlen-utf8")
    order = "big" if dtype.str.startswith(">") else "little"
    return Codec("bytes", {"endian": order})


def _make_chain(compression: str, item_bytes: int, *, can_be_blosc: bool) -> tuple[Codec, ...]:
    """Return what compresses chunks that are encoded for being sent, by the setting."""
    if compression == "none":
        return ()
    if compression == "blosc" and can_be_blosc:
        # Frames of a detector are encoded in a sixth of the time of zstd, decoded in a third of it,
        # and have no more bytes.
        return (_make_blosc(item_bytes, "lz4", LZ4_LEVEL, "bitshuffle"),)
    return (_make_zstd(_ZSTD_LEVEL),)


def _make_zstd(level: int) -> Codec:
    return Codec("zstd", {"level": level, "checksum": False})


@dataclass(frozen=True, slots=True)
class StoredChain:
    """How clients decode chunks as they are stored."""

    codecs: tuple[Codec, ...]
    has_checksum: bool = False
    """Whether one follows, which is no part of the chain: it is checked and removed here."""
    frame: BloscFrame | None = None
    """What they are sent in, if the codec does not decode them as they are."""


def find_stored_chain(
    filters: tuple[Filter, ...], chunk_bytes: int, *, sends_deflate: bool
) -> StoredChain | None:
    """Return how clients decode stored chunks; None where some client could not.

    Args:
        filters: in the order in which they were applied.
        chunk_bytes: of a decoded chunk.
        sends_deflate: whether clients are to decode deflate, which takes them longer than Blosc.
    """
    has_checksum = bool(filters) and filters[-1].id == FLETCHER32
    match filters[:-1] if has_checksum else filters:
        case ():
            return StoredChain((), has_checksum)
        case (Filter(id=id_) as only,) if id_ in {ZSTD, BLOSC}:
            codec = _find_zstd(only) if id_ == ZSTD else _find_blosc(only.values)
            return None if codec is None else StoredChain((codec,), has_checksum)
        case (Filter(id=id_) as only,) if id_ == BITSHUFFLE:
            frame, level = _find_bitshuffle_frame(only.values), LZ4_LEVEL
        case (*before, last) if len(before) <= 1 and (sends_deflate or last.id != DEFLATE):
            frame, level = _find_frame(before[0] if before else None, last), _BLOSC_LEVEL
        case _:
            return None
    if frame is None or not 0 < frame.item_bytes <= MOST_ITEM_BYTES or not chunk_bytes:
        return None
    codec = _make_blosc(frame.item_bytes, frame.codec, level, frame.shuffle)
    return StoredChain((codec,), has_checksum, frame)


def _find_frame(before: Filter | None, last: Filter) -> BloscFrame | None:
    """Return the frame for what went through one filter, or a shuffle before it."""
    form, codec = _FRAMES.get(last.id, (None, ""))
    if form is None:
        return None
    if before is None:
        return BloscFrame(form, codec, "noshuffle", 1)
    if before.id != SHUFFLE or len(before.values) != 1:
        return None
    return BloscFrame(form, codec, "shuffle", before.values[0])


_FRAMES = {
    DEFLATE: (StoredForm.STREAM, "zlib"),
    ZSTD: (StoredForm.STREAM, "zstd"),
    LZ4: (StoredForm.BLOCKS, "lz4"),
}


def _find_bitshuffle_frame(values: tuple[int, ...]) -> BloscFrame | None:
    """Return the frame by what the filter was given (bshuf_h5filter.c).

    These are two versions, the bytes of an element, the elements of a block, and what compresses.
    """
    codec = {2: "lz4", 3: "zstd"}.get(values[4]) if len(values) > 4 else None
    if codec is None:
        return None
    return BloscFrame(StoredForm.BLOCKS, codec, "bitshuffle", values[2])


def _find_zstd(applied: Filter) -> Codec:
    """Return the codec of the filter; what it says beside its name is for writers."""
    level = applied.values[0] if applied.values else _HDF5_ZSTD_LEVEL
    return _make_zstd(level if 0 < level <= _MOST_ZSTD_LEVEL else _HDF5_ZSTD_LEVEL)


def _find_blosc(values: tuple[int, ...]) -> Codec | None:
    """Return the codec by what the filter was given (blosc_filter.c of hdf5-blosc).

    These are two versions, the bytes of an element and of a chunk, then level, shuffle and
    compressor. Each stored frame says the same of itself, and is decoded by that.
    """
    if len(values) < 4:
        return None
    level, shuffle, compressor = (*values[4:7], *(5, 1, 0)[max(0, len(values) - 4) :])
    if level > _MOST_BLOSC_LEVEL or shuffle >= len(SHUFFLES):
        return None
    if compressor not in _BLOSC_NAMES:  # Snappy, which clients leave out
        return None
    return _make_blosc(values[2], _BLOSC_NAMES[compressor], level, SHUFFLES[shuffle])


def _make_blosc(item_bytes: int, name: str, level: int, shuffle: str) -> Codec:
    configuration = {
        "typesize": item_bytes if 0 < item_bytes <= MOST_ITEM_BYTES else 1,
        "cname": name,
        "clevel": level,
        "shuffle": shuffle,
        "blocksize": 0,
    }
    return Codec("blosc", configuration)


def find_block_shape(shape: tuple[int, ...], item_bytes: int) -> tuple[int, ...]:
    """Return the shape of blocks of up to `BLOCK_BYTES` along the first axes, all about as large.

    A larger element is a block by itself.
    """
    block = [max(1, extent) for extent in shape]
    row = item_bytes * math.prod(block)
    for axis, extent in enumerate(block):
        if row <= BLOCK_BYTES:
            break
        row //= extent
        most = max(1, BLOCK_BYTES // max(1, row))
        # As many blocks as needed, so that the last one is hardly padded.
        block[axis] = -(-extent // -(-extent // min(most, extent)))
    return tuple(block)


def merge_chunks(
    chunks: tuple[int, ...],
    shape: tuple[int, ...],
    max_shape: tuple[int | None, ...],
    item_bytes: int,
) -> tuple[int, ...]:
    """Return a multiple of the shape of a chunk, of up to `MERGED_BYTES`, inside the extent.

    Along all axes alike, so that a line along none of them costs much more than along another.
    The extent only cuts it off: what it is a multiple of comes from the largest extent, which never
    changes. So as a dataset grows, no axis of a chunk gets shorter, and another shape is another
    size: a client that knows an older one gets an error and never values in a wrong order. Axes
    without a limit come last.

    Args:
        chunks: the shape of a chunk.
        shape: the extent.
        max_shape: the largest extent; None = without a limit.
        item_bytes: of an element.
    """
    # A merged chunk has no more stored ones along an axis than fit into it.
    counts = [
        MERGED_BYTES if limit is None else max(1, -(-limit // chunk))
        for limit, chunk in zip(max_shape, chunks, strict=True)
    ]
    multiples = [1] * len(chunks)
    most = MERGED_BYTES // max(1, item_bytes * math.prod(chunks))
    for is_endless in (False, True):
        axes = [axis for axis, limit in enumerate(max_shape) if (limit is None) is is_endless]
        while True:
            size = math.prod(multiples)
            # The last ones first, along which elements lie closer together.
            smaller = sorted(axes, key=lambda axis: (multiples[axis], -axis))
            for axis in smaller:
                wanted = min(2 * multiples[axis], counts[axis])
                if wanted > multiples[axis] and size // multiples[axis] * wanted <= most:
                    multiples[axis] = wanted
                    break
            else:
                break
    merged = map(int.__mul__, chunks, multiples)
    # Of an axis with a single chunk, which may reach far beyond it, only what there is.
    pairs = zip(merged, shape, strict=True)
    return tuple(min(chunk, max(1, extent)) for chunk, extent in pairs)
