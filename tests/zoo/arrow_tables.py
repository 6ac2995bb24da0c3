"""Arrow tables back as NumPy arrays, to compare them bit by bit with what HDF5 holds."""

from importlib.util import find_spec
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

IS_INSTALLED = find_spec("pyarrow") is not None

ARROW = ("arrow",) if IS_INSTALLED else ()
"""For tests of all formats: pyarrow is an extra."""


def read_table(body: bytes) -> Any:
    """The `pyarrow.Table` that is the body of an answer."""
    import pyarrow.ipc  # noqa: PLC0415  # where it is installed

    with pyarrow.ipc.open_stream(body) as stream:
        table = stream.read_all()
    table.validate(full=True)
    return table


def holds(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Whether Arrow has a table of such elements."""
    if len(shape) > (2 if dtype.names is None else 1) or shape[1:] == (0,):
        return False
    return _has_type(dtype)


def _has_type(dtype: np.dtype[Any]) -> bool:
    dtype = dtype.base
    if dtype.names is not None:
        return all(_has_type(dtype[name]) for name in dtype.names)
    if dtype.kind == "O":
        element = None if dtype.metadata is None else dtype.metadata.get("vlen")
        return element in (str, bytes) or (isinstance(element, np.dtype) and _has_type(element))
    if dtype.kind in "mM":
        return np.datetime_data(dtype) in {(unit, 1) for unit in ("s", "ms", "us", "ns")}
    return dtype.itemsize <= {"f": 8, "c": 16}.get(dtype.kind, dtype.itemsize)


def is_same_table(table: Any, expected: Array, name: str | None = None) -> bool:
    """Whether a table holds `expected`: compounds of up to one dimension, others of up to two.

    Args:
        name: of a column that is no member of a compound; None = any.
    """
    if expected.dtype.names is not None:
        rows = expected.reshape(-1)
        named = zip(table.columns, rows.dtype.names or (), strict=True)
        return table.num_rows == len(rows) and all(
            _is_same(each.combine_chunks(), rows[member], rows.dtype[member])
            for each, member in named
        )
    columns = expected.shape[1] if expected.ndim == 2 else 1
    cells = expected.reshape(-1, columns)
    if name is None:
        name = table.column_names[0].removesuffix("[0]" if expected.ndim == 2 else "")
    names = [f"{name}[{i}]" for i in range(columns)] if expected.ndim == 2 else [name]
    return (
        table.column_names == names
        and table.num_rows == len(cells)
        and all(
            _is_same(each.combine_chunks(), cells[:, i], expected.dtype)
            for i, each in enumerate(table.columns)
        )
    )


def show_text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _is_same(column: Any, expected: Array, dtype: np.dtype[Any]) -> bool:
    while dtype.subdtype is not None:
        dtype = dtype.base
    if expected.ndim > 1:
        if column.type.list_size != expected.shape[1]:
            return False
        return _is_same(column.flatten(), expected.reshape(-1, *expected.shape[2:]), dtype)
    if dtype.names is not None:
        members = zip(range(column.type.num_fields), dtype.names, strict=True)
        return all(_is_same(column.field(i), expected[n], dtype[n]) for i, n in members)
    if dtype.kind == "c":
        parts = [column.field(0), column.field(1)]
        halves = zip(parts, (expected.real, expected.imag), strict=True)
        return all(_is_same(each, half, half.dtype) for each, half in halves)
    if dtype.kind in "biufmM":
        return _is_same_numbers(column.to_numpy(zero_copy_only=False), expected)
    return _is_same_items(column, expected, dtype)


def _is_same_numbers(found: Array, expected: Array) -> bool:
    if expected.dtype.kind == "b":
        return bool(np.array_equal(found, expected.astype(bool)))
    native = expected.astype(expected.dtype.newbyteorder("="))
    return bool(found.dtype == native.dtype and found.tobytes() == native.tobytes())


def _is_same_items(column: Any, expected: Array, dtype: np.dtype[Any]) -> bool:
    """Compare texts, lists of variable length, and bytes."""
    element = None if dtype.metadata is None else dtype.metadata.get("vlen")
    if dtype.kind in "SU" or element in (str, bytes):
        return bool(column.to_pylist() == [show_text(each) for each in expected.tolist()])
    if element is None:
        return bool(column.to_pylist() == [bytes(each) for each in expected])
    lists = zip(column, expected, strict=True)
    return all(_is_same(each.values, np.asarray(e, element), element) for each, e in lists)
