"""Format `arrow`: a table as an Arrow IPC stream, one record batch or more for each block."""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from asgihive.encoders.protocol import (
    Values,
    as_text,
    encode_name,
    is_text,
    list_members,
    show_names,
)
from asgihive.errors import AnswerTooLarge, ExtraMissing

MAX_COLUMNS = 1 << 14
"""The most columns of two dimensions, each of which is an array of its own in each batch."""

MAX_OFFSET = (1 << 31) - 1
"""The most bytes of text, and elements of lists, in one column of a batch: offsets are int32."""

# Texts that become bytes at a time, which holds the GIL for 1 ms.
_TEXTS = 1 << 13

# The end of a stream (Arrow columnar format, "IPC Streaming Format").
_END = b"\xff\xff\xff\xff\0\0\0\0"

# Units of times that Arrow has.
_UNITS = ("s", "ms", "us", "ns")

# Classes of HDF5 types in descriptions (H5T_class_t).
_ENUM, _SEQUENCE, _ARRAY = 8, 9, 10


class Arrow:
    """Compounds as rows, and numbers, text or times in one dimension or two as columns.

    Values are what they are in the file, in native byte order. A member of a compound is a column;
    one dimension is a column by the dataset's name, or that of its one column that was asked for;
    of two dimensions each index of the second is a column, `name[0]`. A scalar is one row.

    Integers, floats of 2, 4 and 8 bytes and booleans are Arrow's; text is utf8, with U+FFFD for
    what is not UTF-8; complex is a struct of `re` and `im`, a compound in a compound a struct, an
    array a fixed_size_list, a list of variable length a list, opaque bytes fixed_size_binary.
    Times of seconds to nanoseconds are timestamps and durations, NaT is null. An enumeration is
    its integers, and the field's metadata has the names in `enum`, as JSON.
    """

    name = "arrow"
    media_type = "application/vnd.apache.arrow.stream"
    extension = "arrows"
    is_raw = False
    is_compressible = False
    has_whole_rows = True
    block_elements = 1 << 20  # NumPy copies numbers, texts are encoded a few at a time

    def load(self) -> None:
        """Import pyarrow, which takes 0.1 s. Raises ExtraMissing."""
        if not _is_installed():
            raise ExtraMissing("Format `arrow`", "pyarrow", "arrow")
        _import_pyarrow()

    def refusal(self, values: Values) -> str | None:
        if not _is_installed():
            return "pyarrow is not installed on the server"
        shape = values.shape
        if shape is None:
            return "the dataspace is empty"
        if values.dtype.names is not None and len(shape) > 1:
            return "they are compounds in more than one dimension"
        if len(shape) > 2:
            return "they have more than two dimensions"
        if len(shape) == 2 and not 1 <= shape[1] <= MAX_COLUMNS:
            return f"they have {shape[1]} columns, and from 1 to {MAX_COLUMNS} are accepted"
        return _find_fault(values.dtype)

    def length(self, values: Values) -> int | None:  # noqa: ARG002
        return None

    def head(self, values: Values) -> bytes:
        schema = _import_pyarrow().schema(_make_fields(values))
        return bytes(schema.serialize())

    def block(self, values: Values, array: npt.NDArray[Any], first: int) -> bytes:  # noqa: ARG002
        columns = _count_columns(values)
        fields = _make_fields(values) if columns is None else [_make_field(values)]
        rows = array.reshape(-1) if columns is None else array.reshape(-1, columns)
        # By the dtype of the values, which has what h5py notes of objects, and not of the array.
        batches = _make_batches(rows, values.dtype, [each.type for each in fields])
        return b"".join(map(bytes, batches))

    def tail(self, values: Values) -> bytes:  # noqa: ARG002
        return _END


ENCODER = Arrow()


@cache
def _is_installed() -> bool:
    return find_spec("pyarrow") is not None


@cache
def _import_pyarrow() -> Any:
    # When it is first needed: it takes 40 MB, too.
    return importlib.import_module("pyarrow")


def _find_fault(dtype: np.dtype[Any], name: str = "") -> str | None:
    """Return why Arrow cannot hold elements; None when it can."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        if max(shape) > MAX_OFFSET:
            return f"they hold arrays of more than {MAX_OFFSET} elements"
        return _find_fault(base, name)
    if dtype.names is not None:
        faults = (_find_fault(member, each) for each, member, _ in list_members(dtype))
        return next((each for each in faults if each), None)
    if dtype.kind == "O" and (element := _find_element(dtype)) is not None:
        return _find_fault(element, name)
    fault = None if is_text(dtype) else _find_plain_fault(dtype)
    if fault is None or not name:
        return None if fault is None else f"they are {fault}"
    return f"`{as_text(encode_name(name))}` is of {fault}"


def _find_plain_fault(dtype: np.dtype[Any]) -> str | None:
    """Return what elements are that Arrow has no type for, neither compounds, lists nor text."""
    if dtype.kind == "O":
        return "references"
    if dtype.kind in "mM":
        unit, count = np.datetime_data(dtype)
        is_known = unit in _UNITS and count == 1
        return None if is_known else f"{dtype}, a time of no unit that Arrow has"
    if dtype.kind in "fc" and dtype.itemsize > (8 if dtype.kind == "f" else 16):
        return f"{dtype}, and Arrow has no floats of more than 8 bytes"
    return None


def _find_element(dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    """Return the dtype of the elements of lists of variable length, as h5py notes it."""
    element = None if dtype.metadata is None else dtype.metadata.get("vlen")
    return element if isinstance(element, np.dtype) else None


def _count_columns(values: Values) -> int | None:
    """Return the columns of two dimensions, 1 of one dimension; None of compounds."""
    if values.dtype.names is not None:
        return None
    return values.shape[1] if values.shape and len(values.shape) == 2 else 1


# The schema: a pyarrow.Field each.


def _make_fields(values: Values) -> list[Any]:
    """Return the columns of a table."""
    if values.dtype.names is not None:
        return _make_member_fields(values.dtype, values.description)
    one = _make_field(values)
    if not values.shape or len(values.shape) == 1:
        return [one]
    return [one.with_name(f"{one.name}[{i}]") for i in range(values.shape[1])]


def _make_field(values: Values) -> Any:
    name = as_text(encode_name(values.column_name))
    return _make_field_of(name, values.dtype, values.description)


def _make_member_fields(dtype: np.dtype[Any], described: Mapping[str, Any]) -> list[Any]:
    known = {each["name"]: each for each in described.get("members", ())}
    names = show_names([name for name, _, _ in list_members(dtype)])
    return [
        _make_field_of(shown, member, known.get(name, {}))
        for shown, (name, member, _) in zip(names, list_members(dtype), strict=True)
    ]


def _make_field_of(name: str, dtype: np.dtype[Any], described: Mapping[str, Any]) -> Any:
    """Return a field; `described` is the type as `/meta` shows it, or less of it."""
    pa, metadata = _import_pyarrow(), None
    while described.get("class") == _ARRAY:  # NumPy makes one array type of nested ones
        described = described.get("base", {})
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        field = _make_field_of("item", base, described)
        for length in reversed(shape):
            field = pa.field("item", pa.list_(field, length))
        return field.with_name(name)
    if dtype.names is not None:
        kind = pa.struct(_make_member_fields(dtype, described))
    elif is_text(dtype):
        kind = pa.utf8()
    elif (element := _find_element(dtype)) is not None:
        inner = described.get("base", {}) if described.get("class") == _SEQUENCE else {}
        kind = pa.list_(_make_field_of("item", element, inner))
    elif dtype.kind == "c":
        part = pa.float32() if dtype.itemsize == 8 else pa.float64()
        kind = pa.struct([("re", part), ("im", part)])
    elif dtype.kind == "V":
        kind = pa.binary(dtype.itemsize)
    else:
        kind = pa.from_numpy_dtype(dtype.newbyteorder("="))
        if described.get("class") == _ENUM and dtype.kind != "b":
            metadata = {"enum": orjson.dumps(described.get("members", {}))}
    return pa.field(name, kind, metadata=metadata)


# The record batches: a pyarrow.Array each column.


class _TooLong(Exception):  # divided into more batches
    """A column has more text, or longer lists, than the offsets of a batch reach."""


def _make_batches(
    rows: npt.NDArray[Any], dtype: np.dtype[Any], kinds: Sequence[Any]
) -> Iterator[Any]:
    """Yield the buffers of rows in as few batches as can be, usually one.

    Args:
        rows: compounds, of shape (n,), or other elements of shape (n, columns).
        dtype: of the elements.
        kinds: the Arrow types of the members of compounds, or the one of all columns.

    Raises:
        AnswerTooLarge: a row by itself is too much.
    """
    pa = _import_pyarrow()
    try:
        if dtype.names is not None:
            columns = _make_member_arrays(rows, dtype, kinds)
        else:
            # Of one array of all: to make one takes longer than to divide it.
            turned = _make_array(np.ascontiguousarray(rows.T).reshape(-1), dtype, kinds[0])
            count = len(rows)
            columns = [turned.slice(i * count, count) for i in range(rows.shape[1])]
    except _TooLong:
        if len(rows) == 1:
            raise AnswerTooLarge(
                MAX_OFFSET + 1, MAX_OFFSET, "ask for it in another format"
            ) from None
        half = len(rows) // 2
        yield from _make_batches(rows[:half], dtype, kinds)
        yield from _make_batches(rows[half:], dtype, kinds)
        return
    # The schema has their names.
    batch = pa.RecordBatch.from_arrays(columns, [""] * len(columns))
    yield batch.serialize()


def _make_member_arrays(
    rows: npt.NDArray[Any], dtype: np.dtype[Any], kinds: Sequence[Any]
) -> list[Any]:
    members = zip(list_members(dtype), kinds, strict=True)
    return [_make_array(rows[name], member, kind) for (name, member, _), kind in members]


def _make_array(column: npt.NDArray[Any], dtype: np.dtype[Any], kind: Any) -> Any:
    """Return a column of an Arrow type; it may share the memory of `column`.

    Args:
        column: of shape (n,); of an array type (n, *dimensions).
        dtype: of its elements, or an array type of them.
        kind: from `_make_field_of`.
    """
    pa, count = _import_pyarrow(), len(column)
    if column.ndim > 1:
        length, *rest = column.shape[1:]
        items = _make_array(column.reshape(count * length, *rest), dtype, kind.value_type)
        return pa.FixedSizeListArray.from_arrays(items, type=kind)
    while dtype.subdtype is not None:
        dtype = dtype.base
    if dtype.names is not None:
        fields = list(kind)
        members = _make_member_arrays(column, dtype, [each.type for each in fields])
        return pa.StructArray.from_arrays(members, fields=fields)
    if is_text(dtype):
        return _make_texts(column, kind)
    if dtype.kind == "O":
        return _make_lists(column, dtype, kind)
    return _make_plain(column, dtype, kind)


def _make_plain(column: npt.NDArray[Any], dtype: np.dtype[Any], kind: Any) -> Any:
    """Return a column of numbers, booleans, times or bytes."""
    pa, count = _import_pyarrow(), len(column)
    if dtype.kind == "b":
        # A file may store true as any byte but 0.
        bits = np.packbits(np.not_equal(column.view(np.uint8), 0), bitorder="little")
        return _wrap(kind, count, None, bits)
    native = np.ascontiguousarray(column, dtype.newbyteorder("="))
    if dtype.kind == "c":
        parts = native.view(np.dtype(f"f{dtype.itemsize // 2}")).reshape(count, 2)
        halves = [_make_plain(parts[:, i], parts.dtype, kind.field(i).type) for i in range(2)]
        return pa.StructArray.from_arrays(halves, fields=list(kind))
    if dtype.kind in "mM" and (missing := np.isnat(native)).any():
        return _wrap(kind, count, np.packbits(~missing, bitorder="little"), native)
    return _wrap(kind, count, None, native)


def _wrap(kind: Any, count: int, *parts: npt.NDArray[Any] | bytes | None) -> Any:
    """Return an array of buffers: what is there, and then as the type has them."""
    pa = _import_pyarrow()
    buffers = []
    for part in parts:
        plain = part.view(np.uint8) if isinstance(part, np.ndarray) else part
        buffers.append(None if plain is None else pa.py_buffer(plain))
    return pa.Array.from_buffers(kind, count, buffers)


def _make_offsets(lengths: Any) -> npt.NDArray[np.int32]:
    """Return where each item begins, and where the last one ends. Raises _TooLong."""
    ends = np.cumsum(lengths, dtype=np.int64)
    if ends.size and ends[-1] > MAX_OFFSET:
        raise _TooLong
    return np.concatenate([[0], ends]).astype(np.int32)


def _make_texts(column: npt.NDArray[Any], kind: Any) -> Any:
    count = len(column)
    if column.dtype.kind == "S":
        octets = np.ascontiguousarray(column).view(np.uint8).reshape(count, column.dtype.itemsize)
        if octets.max(initial=0) < 0x80:
            # As NumPy has it, NULs at the end are none of the text.
            lengths = np.strings.str_len(column)
            is_text = np.arange(octets.shape[1]) < lengths[:, np.newaxis]
            return _wrap(kind, count, None, _make_offsets(lengths), octets[is_text])
    texts: list[bytes] = []
    for start in range(0, count, _TEXTS):
        texts += [as_text(each).encode() for each in column[start : start + _TEXTS].tolist()]
    return _wrap(kind, count, None, _make_offsets(list(map(len, texts))), b"".join(texts))


def _make_lists(column: npt.NDArray[Any], dtype: np.dtype[Any], kind: Any) -> Any:
    pa, element = _import_pyarrow(), _find_element(dtype)
    items = [np.asarray(each, element).reshape(-1) for each in column]
    offsets = _make_offsets(list(map(len, items)))
    joined = np.empty(offsets[-1], element)
    if items:
        np.concatenate(items, out=joined)
    values = _make_array(joined, joined.dtype if element is None else element, kind.value_type)
    # Not by `pyarrow.array`, which imports pandas where it is installed: that takes seconds.
    begins = _wrap(pa.int32(), len(offsets), None, offsets)
    return pa.ListArray.from_arrays(begins, values, type=kind)
