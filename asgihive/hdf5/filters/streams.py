"""Filters whose chunks are one compressed stream: bzip2, lzf and zstd."""

import bz2

from asgihive.hdf5.buffers import Bytes
from asgihive.hdf5.filters.contract import (
    BadChunk,
    FilterDecoder,
    Room,
    Values,
    as_bytes,
    call_codec,
    has_codecs,
    imagecodecs,
)


def decode_bzip2(stored: Bytes, _values: Values, room: Room) -> Bytes:
    """Decode filter 307."""
    stream = bz2.BZ2Decompressor()
    try:
        decoded = stream.decompress(stored.data, room.most + 1)
    except OSError as error:
        raise BadChunk(f"bzip2: {error}") from None
    room.check_stream("bzip2", len(decoded), ended=stream.eof)
    return as_bytes(decoded)


def decode_lzf(stored: Bytes, _values: Values, room: Room) -> Bytes:
    """Decode filter 32000, h5py's own."""
    decoded = call_codec("lzf", imagecodecs.lzf_decode, stored, out=room.most)
    room.check("lzf", decoded.size)
    return decoded


def decode_zstd(stored: Bytes, _values: Values, room: Room) -> Bytes:
    """Decode filter 32015."""
    decoded = call_codec("zstd", imagecodecs.zstd_decode, stored, out=room.most)
    room.check("zstd", decoded.size)
    return decoded


FILTERS = (
    FilterDecoder(307, decode_bzip2),
    FilterDecoder(32000, decode_lzf if has_codecs("LZF") else None),
    FilterDecoder(32015, decode_zstd if has_codecs("ZSTD") else None),
)
