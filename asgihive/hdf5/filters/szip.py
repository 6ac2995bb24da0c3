"""Filter 4, szip: four bytes of size and a stream of szip (H5Zszip.c)."""

import struct

import numpy as np

from asgihive.hdf5.buffers import Bytes
from asgihive.hdf5.filters.contract import (
    BadChunk,
    FilterDecoder,
    Room,
    Values,
    call_codec,
    has_codecs,
    imagecodecs,
)

# Of libaec and of szip themselves (szlib.h): the pixels of a scanline.
_MOST_PIXELS = 4096

# Blocks that are longer than the scanlines are sound, where they are little.
_SLACK_BYTES = 1 << 8


def check_szip(stored: Bytes, _values: Values, room: Room) -> int:
    """Return the size that the header announces.

    Raises:
        BadChunk: it is not what is expected.
    """
    if stored.size < 4:
        raise BadChunk(f"szip: {stored.size} bytes have no room for a header")
    (size,) = struct.unpack("<I", stored[:4].tobytes())
    room.check("szip", size)
    return int(size)


def decode_szip(stored: Bytes, values: Values, room: Room) -> Bytes:
    """Decode a chunk, of scanlines of any length."""
    size = check_szip(stored, values, room)
    if len(values) != 4:
        raise BadChunk(f"szip: it has {len(values)} values, not 4")
    _, block, _, scanline = values
    if not block or not scanline:
        raise BadChunk(f"szip: blocks of {block} pixels, scanlines of {scanline}")
    if scanline % block:
        return _decode_padded(stored, values, size)
    # Zeros, since of the last pixel perhaps a part is not written.
    buffer = np.zeros(size, np.uint8)
    decoded = call_codec("szip", imagecodecs.szip_decode, stored[4:], *values, out=buffer)
    Room(size).check("szip", decoded.size)
    return decoded


def _decode_padded(stored: Bytes, values: Values, size: int) -> Bytes:
    """Decode a stream whose scanlines do not end with a block, and so are padded.

    libaec takes the padding away itself, but looks nowhere whether the stream had all of the rest
    (sz_compat.c). So it decodes as if the padding belonged to the scanlines, and says how much
    there was; of pixels of 4 and 8 bytes it is given the bytes one by one, as they are coded.
    """
    mask, block, bits, scanline = values
    planes = bits // 8 if bits in {32, 64} else 1
    pixel_bits = 8 if planes > 1 else bits
    pixel = 1 if pixel_bits <= 8 else 2 if pixel_bits <= 16 else 4
    line = scanline * pixel
    padded_line = -(-scanline // block) * block * pixel
    lines = -(-size // line)
    if padded_line > 2 * line + _SLACK_BYTES:
        raise BadChunk(f"szip: scanlines of {scanline} pixels in blocks of {block}")
    buffer = np.zeros(lines * padded_line, np.uint8)
    pixels = padded_line // pixel
    if pixels > _MOST_PIXELS:
        raise BadChunk(f"szip: scanlines of {scanline} pixels are too long")
    arguments = (mask, block, pixel_bits, pixels)
    # Without the header, whose size it would say instead of what there was.
    decoded = call_codec("szip", imagecodecs.szip_decode, stored[4:], *arguments, out=buffer)
    last_line, last = divmod(size - 1, line)
    if decoded.size <= last_line * padded_line + last:
        raise BadChunk("szip: the stream ends early")
    raw = buffer.reshape(lines, padded_line)[:, :line].reshape(-1)[:size]
    if planes == 1:
        return raw
    # A remainder that is no whole pixel has no planes.
    items = np.zeros(size, np.uint8)
    count = size // planes
    whole = raw[: count * planes].reshape(planes, count).T
    items[: count * planes].reshape(count, planes)[...] = whole
    return items


FILTERS = (FilterDecoder(4, decode_szip if has_codecs("SZIP") else None, check_szip),)
