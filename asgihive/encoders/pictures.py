"""Formats of pictures: pixels → PNG or WebP. They hold no values, so that `/data` has none of them.

The pixels of a picture in false colours are indices into a palette, one byte each, which is a
quarter of what they would be as colours to compress.
"""

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from isal import isal_zlib

Array = np.ndarray[Any, Any]

# ISA-L's lowest level that compresses runs; the next ones take twice as long for a few per cent.
_LEVEL = 1

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_INDEXED = 3


@dataclass(frozen=True, slots=True)
class PictureFormat:
    """A format of pictures."""

    name: str
    media_type: str
    extension: str
    is_compressible: bool = False
    """Whether a content coding makes it smaller."""


PNG = PictureFormat("png", "image/png", "png")
WEBP = PictureFormat("webp", "image/webp", "webp")
SVG = PictureFormat("svg", "image/svg+xml", "svg", is_compressible=True)

IMAGE_FORMATS = {each.name: each for each in (PNG, WEBP)}


def encode_indices(picture: PictureFormat, indices: Array, palette: Array) -> bytes:
    """Return a picture whose pixels are indices into a palette, without loss.

    Args:
        picture: PNG or WebP.
        indices: of shape (h, w), uint8, each below the number of colours.
        palette: of shape (colours, 4), uint8: red, green, blue, alpha.
    """
    if picture is PNG:
        return _write_indexed_png(indices, palette)
    return _write_by_pillow(picture, palette[indices])


def encode_colours(picture: PictureFormat, pixels: Array) -> bytes:
    """Return a picture of colours, without loss.

    Args:
        picture: PNG or WebP.
        pixels: of shape (h, w, 3) or (h, w, 4), uint8: red, green, blue, alpha.
    """
    return _write_by_pillow(picture, pixels)


def _write_by_pillow(picture: PictureFormat, pixels: Array) -> bytes:
    from PIL import Image  # noqa: PLC0415  # not every service is asked for pictures

    options: dict[str, Any] = {"compress_level": _LEVEL}
    if picture is WEBP:
        # The colours of transparent pixels are kept as well, and the least effort.
        options = {"lossless": True, "exact": True, "quality": 0, "method": 0}
    with io.BytesIO() as file:
        Image.fromarray(np.ascontiguousarray(pixels)).save(file, picture.name, **options)
        return file.getvalue()


def _write_indexed_png(indices: Array, palette: Array) -> bytes:
    """Return a PNG of colour type 3 (W3C PNG, third edition, 11.2), compressed by ISA-L.

    Its rows are not filtered, as is advised for a palette (12.7). Pillow writes the same in six
    times the time, during which it holds the GIL.
    """
    height, width = indices.shape
    rows = np.zeros((height, width + 1), np.uint8)
    rows[:, 1:] = indices
    header = struct.pack(">IIBBBBB", width, height, 8, _INDEXED, 0, 0, 0)
    alpha = palette[:, 3]
    # Colours behind the last one that lets something through are opaque.
    count = int(np.flatnonzero(alpha != 255).max(initial=-1)) + 1
    chunks = [(b"IHDR", header), (b"PLTE", palette[:, :3].tobytes())]
    if count:
        chunks.append((b"tRNS", alpha[:count].tobytes()))
    chunks += [(b"IDAT", isal_zlib.compress(rows, level=_LEVEL)), (b"IEND", b"")]
    return _SIGNATURE + b"".join(_frame_chunk(kind, content) for kind, content in chunks)


def _frame_chunk(kind: bytes, content: bytes) -> bytes:
    length, checksum = len(content), zlib.crc32(content, zlib.crc32(kind))
    return b"".join((struct.pack(">I", length), kind, content, struct.pack(">I", checksum)))
