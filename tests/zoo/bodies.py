"""Whether the body of an answer, in each format of `/data`, holds the array that it must."""

import csv
import io
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msgpack
import msgpack_numpy
import numpy as np
import tifffile

from tests.zoo.arrow_tables import is_same_table, read_table

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
    array = np.load(io.BytesIO(answer.content), allow_pickle=False)
    return bool(
        answer.headers["content-type"] == "application/octet-stream"
        and answer.headers["content-disposition"].startswith("attachment")
        and answer.headers["content-length"] == str(len(answer.content))
        and array.dtype.itemsize == expected.dtype.itemsize
        # NumPy writes members in the order of their places, whatever that of their names.
        and array.dtype.fields == expected.dtype.fields
        and (array.dtype.fields or array.dtype == expected.dtype.base)
        and array.shape == expected.shape
        and _same_bits(array, expected)
    )


def has_cells(dtype: np.dtype[Any]) -> bool:
    """Whether it is of numbers or text, or of compounds of these: what CSV holds."""
    if dtype.subdtype is not None:
        return has_cells(dtype.subdtype[0])
    if dtype.names is not None:
        return all(has_cells(dtype[name]) for name in dtype.names)
    is_variable = dtype.metadata is not None and dtype.metadata.get("vlen") in (str, bytes)
    return dtype.kind in "biufcSU" or is_variable


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _cells(value: Array, name: str = "") -> Iterator[tuple[str, str]]:
    """Name and text of each column of one element."""
    if value.ndim:
        for index in np.ndindex(value.shape):
            each = np.asarray(value[index], value.dtype)
            yield from _cells(each, f"{name}[{','.join(map(str, index))}]")
    elif value.dtype.names is not None:
        for each in value.dtype.names:
            inner = np.asarray(value[each], value.dtype[each].base)
            yield from _cells(inner, f"{name}.{each}" if name else each)
    elif value.dtype.kind in "biufc":
        with io.BytesIO() as buffer:
            np.savetxt(buffer, value.reshape(1))
            yield name, buffer.getvalue().decode().rstrip("\n")
    else:
        yield name, _text(value[()])


def _same_table(body: bytes, expected: Array) -> bool:
    """Rows of text, or of compounds behind a row of names."""
    rows = list(csv.reader(io.StringIO(body.decode(), newline=""), strict=True))
    if expected.dtype.names is None:
        columns = expected.shape[1] if expected.ndim == 2 else 1
        table = expected.reshape(len(expected), columns).tolist()
        return rows == [[_text(cell) for cell in row] for row in table]
    names = [name for name, _ in _cells(np.zeros((), expected.dtype))]
    cells = [[text for _, text in _cells(np.asarray(row, expected.dtype))] for row in expected]
    return rows == [names, *cells]


def _same_csv(answer: httpx.Response, expected: Array) -> bool:
    if expected.dtype.kind not in "biufc":
        return (
            answer.headers["content-type"].split(";")[0] == "text/csv"
            and answer.headers["content-disposition"].startswith("attachment")
            and _same_table(answer.content, expected)
        )
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
    if expected.dtype.hasobject:
        lists = np.frompyfunc(_text, 1, 1)(expected)
        plain = lists.tolist() if isinstance(lists, np.ndarray) else lists
        return bool(unpack(answer) == plain)
    array = np.asarray(unpack(answer))
    if expected.dtype.names is not None:
        return array.shape == expected.shape and _same_bits(array, expected)
    return (
        answer.headers["content-type"] == "application/vnd.msgpack"
        and array.shape == expected.shape
        and (expected.ndim == 0 or array.dtype == expected.dtype)
        and np.array_equal(array, expected, equal_nan=expected.dtype.kind in "fc")
    )


def _same_arrow(answer: httpx.Response, expected: Array) -> bool:
    return (
        answer.headers["content-type"] == "application/vnd.apache.arrow.stream"
        and answer.headers["content-disposition"].startswith("attachment")
        and is_same_table(read_table(answer.content), expected)
    )


SAME: dict[str, Callable[[httpx.Response, Array], bool]] = {
    "bin": same_bin,
    "npy": _same_npy,
    "csv": _same_csv,
    "tiff": _same_tiff,
    "msgpack": _same_msgpack,
    "arrow": _same_arrow,
}
