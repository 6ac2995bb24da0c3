"""Format `tiff`: tifffile writes the structure, the pixels are streamed into its middle."""

import io
import os
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
import tifffile

from asgihive.encoders.protocol import Values, view_bytes

MAX_PAGES = 100_000
"""The most images of a stack: the directory of the pages, 166 bytes each, is made in memory."""

_MAX_SIDE = (1 << 32) - 1
_CLASSIC_BYTES = (1 << 32) - (1 << 25)
"""From here on `tifffile.imwrite` writes BigTIFF: the directories need room below 4 GiB too."""


class Tiff:
    """Images and stacks of them, minisblack, uncompressed, in the byte order of the values.

    Byte for byte as `tifffile.imwrite(photometric="minisblack")`, so that `tifffile.imread`
    gives the same values and shape. Booleans are the exception: bytes 0 and 1, not bits,
    since a block may end anywhere in a byte of bits. Over 4 GiB it is BigTIFF.
    """

    name = "tiff"
    media_type = "image/tiff"
    extension = "tiff"
    is_raw = False
    is_compressible = False
    block_elements = 1 << 22  # nothing is computed

    def refusal(self, values: Values) -> str | None:
        if not values.is_numeric:
            return "they are not numbers"
        # TIFF knows longer floats, but tifffile reads them wrongly and other readers not at all.
        if values.dtype.itemsize > (16 if values.dtype.kind == "c" else 8):
            return f"their dtype is {values.dtype}"
        return _refuse_shape(values.shape)

    def length(self, values: Values) -> int | None:
        return _Structure(values).length

    def head(self, values: Values) -> bytes:
        return _Structure(values).head()

    def block(self, values: Values, array: npt.NDArray[Any], first: int) -> memoryview:  # noqa: ARG002
        if array.dtype.kind == "b":
            # What was stored as true may be any byte but 0.
            array = np.not_equal(array.view(np.uint8), 0)
        return view_bytes(array)

    def tail(self, values: Values) -> bytes:
        return _Structure(values).tail()


ENCODER = Tiff()


def _refuse_shape(shape: tuple[int, ...] | None) -> str | None:
    if shape is None or len(shape) not in (2, 3):
        return "they have neither two dimensions nor three"
    if 0 in shape:
        return "they have no elements"
    if max(shape) > _MAX_SIDE:
        return f"a side is longer than {_MAX_SIDE}"
    # tifffile takes (n, m, 1) for one image.
    if len(shape) == 3 and shape[2] > 1 and shape[0] > MAX_PAGES:
        return f"they are more than {MAX_PAGES} images"
    return None


class _Structure(io.RawIOBase):
    """A file that keeps only what lies before and after the pixels."""

    def __init__(self, values: Values) -> None:
        super().__init__()
        self.length = 0
        self._position = 0
        self._writes: list[tuple[int, bytes]] = []
        with tifffile.TiffWriter(
            cast("IO[bytes]", self),
            bigtiff=values.nbytes > _CLASSIC_BYTES,
            byteorder=">" if values.dtype.str.startswith(">") else "<",
        ) as writer:
            place = writer.write(
                shape=values.shape,
                dtype=np.uint8 if values.dtype.kind == "b" else values.dtype,
                photometric="minisblack",
                returnoffset=True,
            )
        # None only for data that are compressed or in tiles; the size is that of one page.
        self._pixels, _ = cast("tuple[int, int]", place)
        self._pixels_end = self._pixels + values.nbytes

    def head(self) -> bytes:
        return self._read_written(0, self._pixels)

    def tail(self) -> bytes:
        return self._read_written(self._pixels_end, self.length)

    def _read_written(self, start: int, end: int) -> bytes:
        part = bytearray(end - start)
        for position, data in self._writes:
            if start <= position < end:
                part[position - start : position - start + len(data)] = data
        return bytes(part)

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.length}
        self._position = origin[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:
        self._writes.append((self._position, bytes(data)))
        self._position += len(data)
        self.length = max(self.length, self._position)
        return len(data)
