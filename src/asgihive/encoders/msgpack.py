"""Format `msgpack`: arrays as the map that the package `msgpack-numpy` decodes."""

import struct
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt
import orjson

from asgihive.encoders import json
from asgihive.encoders.protocol import Values, is_numeric, raw
from asgihive.padding import zero_padding

_MAX_BIN = (1 << 32) - 1
"""Most bytes of a msgpack `bin` object."""


class Msgpack:
    """Numbers and booleans of any shape; an empty dataspace is nil.

    The map is that of `msgpack_numpy.encode`, keys being bytes: for an array `nd` (true),
    `type` (dtype string), `kind` (empty), `shape`, `data`; for a scalar `nd` (false), `type`,
    `data`. The data come last, so that they can be streamed.
    """

    name = "msgpack"
    media_type = "application/vnd.msgpack"
    extension = None
    block_elements = 1 << 22  # nothing is computed

    def refusal(self, values: Values) -> str | None:
        if not values.is_numeric:
            return "they are not numbers"
        if values.nbytes > _MAX_BIN:
            return f"they are more than {_MAX_BIN} bytes"
        return None

    def length(self, values: Values) -> int | None:
        return len(self.head(values)) + values.nbytes

    def head(self, values: Values) -> bytes:
        if values.shape is None:
            return _pack(None)
        whole = _pack(_map(values.dtype, values.shape, b""))
        return whole.removesuffix(_pack(b"")) + _bin_header(values.nbytes)

    def block(self, values: Values, array: npt.NDArray[Any], first: int) -> memoryview:  # noqa: ARG002
        return raw(array)

    def tail(self, values: Values) -> bytes:  # noqa: ARG002
        return b""

    def document(self, content: Any) -> bytes:
        """See `DocumentEncoder`. Numeric arrays and NumPy scalars become the map.

        Everything else is converted by the rules of `json`, except that NaN and ±Inf stay.
        """
        return _pack(_plain(content))


ENCODER = Msgpack()


def _pack(content: Any) -> bytes:
    packed: bytes = msgpack.packb(content)
    return packed


def _map(dtype: np.dtype[Any], shape: tuple[int, ...], data: bytes) -> dict[bytes, Any]:
    if shape == ():
        return {b"nd": False, b"type": dtype.str, b"data": data}
    return {b"nd": True, b"type": dtype.str, b"kind": b"", b"shape": shape, b"data": data}


def _bin_header(length: int) -> bytes:
    """The msgpack specification, "bin format family"."""
    if length < 1 << 8:
        return struct.pack(">BB", 0xC4, length)
    if length < 1 << 16:
        return struct.pack(">BH", 0xC5, length)
    return struct.pack(">BI", 0xC6, length)


def _plain(value: Any) -> Any:
    match value:
        case np.ndarray() | np.generic() if is_numeric(value.dtype):
            return _map(value.dtype, value.shape, zero_padding(np.asarray(value)).tobytes())
        case None | bool() | float():
            return value
        case dict():
            return {_plain(str(key)): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            return orjson.loads(json.ENCODER.document(value))
