"""Format `msgpack`: arrays as the map that the package `msgpack-numpy` decodes."""

import math
import struct
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt
import orjson

from asgihive.encoders import json
from asgihive.encoders.protocol import (
    Values,
    as_text,
    is_fixed_length,
    is_numeric,
    is_text,
    pack_dtype,
    view_bytes,
)
from asgihive.padding import zero_padding

_MAX_BIN = (1 << 32) - 1
"""The most bytes of a msgpack `bin` object."""

_MAX_LENGTH = (1 << 32) - 1
"""The most members of a msgpack `array`."""


class Msgpack:
    """Numbers, text, and compounds of them, of any shape; an empty dataspace is nil.

    What has a fixed length is the map of `msgpack_numpy.encode`, keys being bytes: for an array
    `nd` (true), `type` (dtype string, or the description of a compound), `kind` (`V` of a
    compound, else empty), `shape`, `data`; for a scalar `nd` (false), `type`, `data`. The data
    come last, so that they can be streamed. Compounds come without padding, which the package
    would take for members. Text of variable length is nested arrays of strings.
    """

    name = "msgpack"
    media_type = "application/vnd.msgpack"
    aliases = ("application/msgpack", "application/x-msgpack")
    extension = None
    is_raw = False
    is_compressible = True
    block_elements = 1 << 22  # nothing is computed, or compounds are packed: 4 ms a MiB at most

    def refusal(self, values: Values) -> str | None:
        if values.shape is None:
            return None
        if is_text(values.dtype) and values.dtype.hasobject:
            return _refuse_lists(values.shape)
        if values.dtype.hasobject:
            return "their elements are of variable length"
        if not is_fixed_length(values.dtype):
            return "they are neither numbers nor text, nor compounds of these"
        if _count_data_bytes(values) > _MAX_BIN:
            return f"they are more than {_MAX_BIN} bytes"
        return None

    def length(self, values: Values) -> int | None:
        if values.shape is not None and values.dtype.hasobject:
            return None
        return len(self.head(values)) + _count_data_bytes(values)

    def head(self, values: Values) -> bytes:
        if values.shape is None:
            return _pack(None)
        if values.dtype.hasobject:
            return b"" if values.size else _pack(np.empty(values.shape).tolist())
        whole = _pack(_make_map(pack_dtype(values.dtype), values.shape, b""))
        return whole.removesuffix(_pack(b"")) + _make_bin_header(_count_data_bytes(values))

    def block(self, values: Values, array: npt.NDArray[Any], first: int) -> bytes | memoryview:
        if values.dtype.hasobject:
            return b"".join(_pack_texts(values, array, first))
        packed = pack_dtype(array.dtype)
        if packed.itemsize == array.dtype.itemsize and packed == array.dtype:
            return view_bytes(array)
        # NumPy assigns structured values member by member, in their order.
        compact = np.empty(array.shape, packed)
        compact[...] = array
        # That of long doubles is left.
        return view_bytes(zero_padding(compact))

    def tail(self, values: Values) -> bytes:  # noqa: ARG002
        return b""

    def document(self, content: Any) -> bytes:
        """Encode a document (`DocumentEncoder`). Numeric arrays and NumPy scalars become the map.

        Everything else is converted by the rules of `json`, except that NaN and ±Inf stay.
        """
        return _pack(_convert(content))


ENCODER = Msgpack()


def _pack(content: Any) -> bytes:
    packed: bytes = msgpack.packb(content)
    return packed


def _make_map(dtype: np.dtype[Any], shape: tuple[int, ...], data: bytes) -> dict[bytes, Any]:
    is_compound = dtype.names is not None
    described: Any = dtype.descr if is_compound else dtype.str
    if shape == ():
        return {b"nd": False, b"type": described, b"data": data}
    kind = b"V" if is_compound else b""
    return {b"nd": True, b"type": described, b"kind": kind, b"shape": shape, b"data": data}


def _count_data_bytes(values: Values) -> int:
    return values.size * pack_dtype(values.dtype).itemsize


def _refuse_lists(shape: tuple[int, ...]) -> str | None:
    if any(length > _MAX_LENGTH for length in shape):
        return f"an axis is longer than {_MAX_LENGTH}"
    if 0 in shape and math.prod(shape[: shape.index(0)]) > json.MAX_EMPTY_LISTS:
        return f"they are more than {json.MAX_EMPTY_LISTS} empty lists"
    return None


def _pack_texts(values: Values, array: npt.NDArray[Any], first: int) -> Iterator[bytes]:
    """Yield strings of rows of one axis, with the headers of the arrays that begin there."""
    packer = msgpack.Packer()
    shape = values.shape or ()
    # Of every axis, the position at which its rows begin.
    sizes = [math.prod(shape[axis:]) for axis in range(len(shape))]
    for position, text in enumerate(array.reshape(-1).tolist(), first):
        for size, length in zip(sizes, shape, strict=True):
            if position % size == 0:
                yield packer.pack_array_header(length)
        yield packer.pack(as_text(text))


def _make_bin_header(length: int) -> bytes:
    """Return the header of a msgpack `bin` object (specification, "bin format family")."""
    if length < 1 << 8:
        return struct.pack(">BB", 0xC4, length)
    if length < 1 << 16:
        return struct.pack(">BH", 0xC5, length)
    return struct.pack(">BI", 0xC6, length)


def _convert(value: Any) -> Any:
    match value:
        case np.ndarray() | np.generic() if is_numeric(value.dtype):
            return _make_map(value.dtype, value.shape, zero_padding(np.asarray(value)).tobytes())
        case None | bool() | float():
            return value
        case dict():
            return {_convert(str(key)): _convert(item) for key, item in value.items()}
        case list() | tuple():
            return [_convert(item) for item in value]
        case _:
            return orjson.loads(json.ENCODER.document(value))
