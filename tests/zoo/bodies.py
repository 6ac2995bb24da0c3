"""Whether the body of an answer, in each format of `/data`, holds the array that it must."""

import io
from collections.abc import Callable
from typing import Any

import httpx
import msgpack
import msgpack_numpy
import numpy as np
import tifffile

Array = np.ndarray[Any, Any]


def same_bin(answer: httpx.Response, expected: Array) -> bool:
    body = answer.content
    return (
        answer.headers["content-type"] == "application/octet-stream"
        and answer.headers["content-length"] == str(expected.nbytes)
        and len(body) == expected.nbytes
        and _same_bits(np.frombuffer(body, expected.dtype).reshape(expected.shape), expected)
    )


def _same_bits(one: Array, other: Array) -> bool:
    """Equal bytes, without what lies between the members of an aligned compound."""
    if one.dtype.names is None or other.dtype.names is None:
        # The padding of a longdouble is not part of its value either.
        if one.dtype.itemsize > 8 and one.dtype.kind in "fc":
            return np.array_equal(one, other, equal_nan=True)
        return one.tobytes() == other.tobytes()
    return all(_same_bits(one[name], other[name]) for name in other.dtype.names)


def _same_npy(answer: httpx.Response, expected: Array) -> bool:
    array = np.load(io.BytesIO(answer.content))
    return (
        answer.headers["content-type"] == "application/octet-stream"
        and answer.headers["content-disposition"].startswith("attachment")
        and answer.headers["content-length"] == str(len(answer.content))
        and array.dtype == expected.dtype.base
        and array.shape == expected.shape
        and _same_bits(array, expected)
    )


def _same_csv(answer: httpx.Response, expected: Array) -> bool:
    with io.BytesIO() as buffer:
        np.savetxt(buffer, expected, delimiter=",")
        body = buffer.getvalue()
    return (
        answer.headers["content-type"].split(";")[0] == "text/csv"
        and answer.headers["content-disposition"].startswith("attachment")
        and answer.content == body
    )


def _same_tiff(answer: httpx.Response, expected: Array) -> bool:
    with tifffile.TiffFile(io.BytesIO(answer.content)) as tiff:
        array = tiff.asarray()
        pages, photometric = len(tiff.pages), tiff.pages.first.photometric
    samples = np.dtype("u1") if expected.dtype.kind == "b" else expected.dtype
    return (
        answer.headers["content-type"] == "image/tiff"
        and answer.headers["content-disposition"].startswith("attachment")
        and photometric == tifffile.PHOTOMETRIC.MINISBLACK
        and pages == (1 if expected.ndim == 2 else len(expected))
        and array.dtype.newbyteorder("=") == samples.newbyteorder("=")
        and np.array_equal(
            array.reshape(expected.shape), expected, equal_nan=expected.dtype.kind in "fc"
        )
    )


def unpack(answer: httpx.Response) -> Any:
    return msgpack.unpackb(answer.content, object_hook=msgpack_numpy.decode, strict_map_key=False)


def _same_msgpack(answer: httpx.Response, expected: Array) -> bool:
    array = np.asarray(unpack(answer))
    return (
        answer.headers["content-type"] == "application/vnd.msgpack"
        and array.shape == expected.shape
        and (expected.ndim == 0 or array.dtype == expected.dtype)
        and np.array_equal(array, expected, equal_nan=expected.dtype.kind in "fc")
    )


SAME: dict[str, Callable[[httpx.Response, Array], bool]] = {
    "bin": same_bin,
    "npy": _same_npy,
    "csv": _same_csv,
    "tiff": _same_tiff,
    "msgpack": _same_msgpack,
}
