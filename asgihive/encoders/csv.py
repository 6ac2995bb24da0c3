"""Format `csv` (RFC 4180): numbers as `numpy.savetxt(delimiter=",")` writes them, and text."""

import math
import re
from collections.abc import Iterator
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from asgihive.encoders.protocol import (
    Values,
    as_text,
    cut,
    encode_name,
    is_numeric,
    is_text,
    list_members,
)
from asgihive.encoders.scientific import WIDTH, format_scientific

MAX_EMPTY_ROWS = 1 << 20
"""The most rows without columns: each is a byte of body for which the file has no byte."""

MAX_NAMED_COLUMNS = 1 << 14
"""The most columns of a row of names, which is made at one go; spreadsheets take as many."""

_CELLS = 1 << 13
"""So many Python objects at a time are joined, which holds the GIL for 1 ms."""

_SPECIAL = re.compile(b'[,"\r\n]')

Text = npt.NDArray[np.uint8]


class Csv:
    """One element or one row of two dimensions a line, which ends in a line feed.

    Numbers and booleans are `%.18e`, byte for byte as `numpy.savetxt`; text is UTF-8 with
    U+FFFD for what is not, and in quotes where it has a comma, quote or line break, or is an
    empty line. Nothing is done about text that a spreadsheet takes for a formula.

    A compound is a row, named by its members: `a`, those of a nested one `a.b`, the elements of
    an array `a[0]`, `a[1,2]`.

    Args:
        has_header: the first line is the names of the columns: the dataset's, or that of its one
            column that was asked for, of two dimensions with a number, `name[0]`. Compounds
            always have it.
    """

    name = "csv"
    media_type = "text/csv"
    extension = "csv"
    is_raw = False
    is_compressible = True
    block_elements = 1 << 14  # 2 to 5 ms, and NumPy lets other threads run meanwhile

    def __init__(self, *, has_header: bool = False) -> None:
        self.has_header = has_header

    def refusal(self, values: Values) -> str | None:
        if values.dtype.names is not None:
            return _refuse_compounds(values)
        if not values.is_numeric and not is_text(values.dtype):
            return "they are neither numbers nor text, nor compounds of these"
        if values.shape is None or len(values.shape) not in (1, 2):
            return "they have neither one dimension nor two"
        if not values.size and values.shape[0] > MAX_EMPTY_ROWS:
            return f"they are more than {MAX_EMPTY_ROWS} empty rows"
        if self.has_header and _count_columns(values) > MAX_NAMED_COLUMNS:
            return f"they have more than {MAX_NAMED_COLUMNS} columns to be named"
        return None

    def length(self, values: Values) -> int | None:  # noqa: ARG002
        return None

    def head(self, values: Values) -> bytes:
        names = b""
        if values.dtype.names is not None:
            names = _encode_line(name for name, _ in _walk_members("", values.dtype))
        elif self.has_header and values.shape is not None:
            name = values.column_name
            is_table = len(values.shape) == 2
            numbers = (f"{name}[{i}]" for i in range(values.shape[1])) if is_table else [name]
            names = _encode_line(numbers)
        if values.size or values.shape is None or values.dtype.names is not None:
            return names
        return names + b"\n" * values.shape[0]

    def block(self, values: Values, array: npt.NDArray[Any], first: int) -> bytes:
        if values.dtype.names is not None:
            rows = max(1, _CELLS // _count_members(values.dtype))
            return b"".join(map(_encode_compounds, cut(array, rows)))
        if values.is_numeric:
            return _encode_numbers(array, first, _count_columns(values))
        return b"".join(_encode_texts(array, first, _count_columns(values)))

    def tail(self, values: Values) -> bytes:  # noqa: ARG002
        return b""


ENCODER = Csv()

WITH_HEADER = Csv(has_header=True)
"""The same with a row of names: `header=1`."""


def _count_columns(values: Values) -> int:
    """Return the columns of numbers or text in one or two dimensions."""
    return values.shape[1] if values.shape and len(values.shape) == 2 else 1


def _encode_numbers(array: npt.NDArray[Any], first: int, columns: int) -> bytes:
    flat = array.reshape(-1)
    text = _format_complex(flat) if flat.dtype.kind == "c" else _format_real(flat)
    text[:, -1] = ord(",")
    text[(-first - 1) % columns :: columns, -1] = ord("\n")
    return text.tobytes().translate(None, b"\0")


def _encode_texts(array: npt.NDArray[Any], first: int, columns: int) -> Iterator[bytes]:
    """Yield cells with the commas and line feeds behind them."""
    flat = array.reshape(-1)
    for start in range(0, flat.size, _CELLS):
        cells = _encode_cells(flat[start : start + _CELLS], is_alone=columns == 1)
        ends = [b","] * len(cells)
        before = (-first - start - 1) % columns
        ends[before::columns] = [b"\n"] * len(range(before, len(cells), columns))
        yield b"".join(chain.from_iterable(zip(cells, ends, strict=True)))


def _encode_cells(flat: npt.NDArray[Any], *, is_alone: bool = False) -> list[bytes]:
    """Return text as it stands between separators; `is_alone` where a cell is a line."""
    return [_quote(as_text(value), is_alone=is_alone) for value in flat.tolist()]


def _quote(text: str, *, is_alone: bool = False) -> bytes:
    cell = text.encode()
    # A line without anything in it would be no row at all.
    if _SPECIAL.search(cell) or (is_alone and not cell):
        return b'"%b"' % cell.replace(b'"', b'""')
    return cell


def _encode_line(names: Iterator[str] | list[str]) -> bytes:
    cells = [_quote(as_text(encode_name(name))) for name in names]
    return b",".join(cells) + b"\n"


def _refuse_compounds(values: Values) -> str | None:
    if values.shape is None or len(values.shape) != 1:
        return "they are compounds and do not have one dimension"
    if _count_members(values.dtype) > MAX_NAMED_COLUMNS:
        return f"they have more than {MAX_NAMED_COLUMNS} columns to be named"
    if not _has_cells(values.dtype):
        return "a member of them is neither a number nor text"
    return None


def _has_cells(dtype: np.dtype[Any]) -> bool:
    """Return whether all that a compound is made of are numbers or text."""
    if dtype.subdtype is not None:
        return _has_cells(dtype.subdtype[0])
    if dtype.names is not None:
        return all(_has_cells(member) for _, member, _ in list_members(dtype))
    return is_numeric(dtype) or is_text(dtype)


def _count_members(dtype: np.dtype[Any]) -> int:
    """Return how many columns a compound has."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return math.prod(shape) * _count_members(base)
    if dtype.names is not None:
        return sum(_count_members(member) for _, member, _ in list_members(dtype))
    return 1


def _walk_members(name: str, dtype: np.dtype[Any]) -> Iterator[tuple[str, np.dtype[Any]]]:
    """Yield the columns of a compound: their names and dtypes."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        for index in np.ndindex(shape):
            yield from _walk_members(f"{name}[{','.join(map(str, index))}]", base)
    elif dtype.names is not None:
        for each, member, _ in list_members(dtype):
            yield from _walk_members(f"{name}.{each}" if name else each, member)
    else:
        yield name, dtype


def _walk_member_arrays(array: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Yield the columns of compounds in the order of `_walk_members`, each of shape (n,)."""
    if array.ndim > 1:
        width = math.prod(array.shape[1:])
        flat = array.reshape(len(array), width)
        for column in range(width):
            yield from _walk_member_arrays(flat[:, column])
    elif array.dtype.names is not None:
        for name in array.dtype.names:
            yield from _walk_member_arrays(array[name])
    else:
        yield array


def _encode_compounds(array: npt.NDArray[Any]) -> bytes:
    """Return the lines of compounds, of shape (n,)."""
    arrays = list(_walk_member_arrays(array))
    real = [column for column, each in enumerate(arrays) if each.dtype.kind in "biuf"]
    numbers = np.empty((len(real), len(array)), np.float64)
    with np.errstate(over="ignore"):
        for row, column in enumerate(real):
            numbers[row] = arrays[column]
    # All at once: a call is dear where members are many.
    texts = _split(format_scientific(numbers.reshape(-1)))
    columns: list[list[bytes]] = [[]] * len(arrays)
    for row, column in enumerate(real):
        columns[column] = texts[row * len(array) : (row + 1) * len(array)]
    for column, each in enumerate(arrays):
        if each.dtype.kind == "c":
            columns[column] = _split(_format_complex(np.ascontiguousarray(each)))
        elif each.dtype.kind not in "biuf":
            columns[column] = _encode_cells(each, is_alone=len(arrays) == 1)
    return b"\n".join(map(b",".join, zip(*columns, strict=True))) + b"\n"


def _split(rows: Text) -> list[bytes]:
    """Return the text of each row."""
    rows[:, -1] = ord("\n")
    return rows.tobytes().translate(None, b"\0").split(b"\n")[:-1]


def _format_real(flat: npt.NDArray[Any]) -> Text:
    """Return shape (n, `WIDTH`), one number a row; the last byte is for the separator."""
    if flat.dtype.itemsize > 2:
        return format_scientific(_as_float64(flat))
    pattern = np.dtype(f"u{flat.dtype.itemsize}").newbyteorder(flat.dtype.byteorder)
    return _format_every_number(flat.dtype.newbyteorder("=")).take(flat.view(pattern), axis=0)


def _format_complex(flat: npt.NDArray[Any]) -> Text:
    """Return ` (re+imj)` a row, where a minus of `im` takes the place of the plus."""
    pairs = _as_float64(flat.view(_find_part_dtype(flat.dtype)))
    parts = format_scientific(pairs).reshape(-1, 2, WIDTH)
    rows = np.zeros((flat.size, 2 * WIDTH + 6), np.uint8)
    rows[:, :2] = np.frombuffer(b" (", np.uint8)
    rows[:, 2 : 2 + WIDTH] = parts[:, 0]
    rows[:, 2 + WIDTH] = np.where(parts[:, 1, 0] == ord("-"), 0, ord("+"))
    rows[:, 3 + WIDTH : 3 + 2 * WIDTH] = parts[:, 1]
    rows[:, -3:-1] = np.frombuffer(b"j)", np.uint8)
    return rows


def _find_part_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of a complex dtype's real and imaginary parts."""
    return np.dtype(f"{dtype.byteorder}f{dtype.itemsize // 2}")


def _as_float64(array: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    # `%` turns every number into a float64 first: 2**63 - 1 loses digits, float128 may be inf.
    with np.errstate(over="ignore"):
        return array.astype(np.float64, copy=False)


@cache
def _format_every_number(dtype: np.dtype[Any]) -> Text:
    """Return the text of all numbers of one or two bytes (at most 1.8 MB), by their bit pattern."""
    patterns = np.arange(1 << 8 * dtype.itemsize, dtype=f"u{dtype.itemsize}")
    return format_scientific(_as_float64(patterns.view(dtype)))
