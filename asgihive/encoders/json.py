"""Format `json`: nested lists, and all that is not values."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from asgihive.encoders.protocol import SURROGATE, Values, cut, list_members, show_names

MAX_EMPTY_LISTS = 1 << 20
"""The most `[]` in a body: for each, the file has no byte."""

_TEXT_ELEMENTS = 1 << 13
"""What is handed to orjson, which holds the GIL, at a time: 0.25 ms for float64, and a text that
fits into a core's own cache; what becomes Python objects first takes 1 ms."""


class Json:
    """Values of any dtype as nested lists in C order, a scalar bare, RFC 8259.

    NaN and ±Inf are null, complex is [re, im], a compound a list in member order, bytes are
    UTF-8 text with U+FFFD for what is not, an empty dataspace is null, and any other object
    its `str`. Integers are exact; float128 is rounded to float64.

    Args:
        by_name: compounds are objects instead, by the names of their members.
    """

    name = "json"
    media_type = "application/json"
    extension = None
    is_raw = False
    is_compressible = True
    block_elements = 1 << 16  # orjson holds the GIL: 1 ms for float64

    def __init__(self, *, by_name: bool = False) -> None:
        self.by_name = by_name

    def refusal(self, values: Values) -> str | None:
        if values.shape is None or values.size:
            return None
        if _count_empty_lists(values.shape) > MAX_EMPTY_LISTS:
            return f"they are more than {MAX_EMPTY_LISTS} empty lists"
        return None

    def length(self, values: Values) -> int | None:  # noqa: ARG002
        return None

    def estimate_length(self, values: Values) -> int:
        """Return about how many bytes the body has, from shape and dtype alone.

        Each element counts as many characters as one of its dtype usually has, with the comma
        behind it; each list counts its brackets and comma. Text of variable length is taken for
        short.
        """
        shape = values.shape or ()
        lists = sum(math.prod(shape[:axis]) for axis in range(len(shape)))
        return values.size * _estimate_item(values.dtype, by_name=self.by_name) + 3 * lists

    def head(self, values: Values) -> bytes:
        if values.shape is None:
            return b"null"
        return b"" if values.size else _encode_empty(values.shape)

    def block(self, values: Values, array: npt.NDArray[Any], first: int) -> bytes:
        if not values.shape:
            return self.array(array)
        texts: list[bytes] = []
        for piece in cut(array, max(1, _TEXT_ELEMENTS // _count_leaves(array.dtype))):
            # Every axis down to that of the rows has its bracket where a multiple of its size lies.
            axis = len(values.shape) - piece.ndim
            sizes = [math.prod(values.shape[i:]) for i in range(axis + 1)]
            opened = sum([first % size == 0 for size in sizes])
            closed = sum([(first + piece.size) % size == 0 for size in sizes])
            comma = b"," if first else b""
            # Bytes alone: joining other buffers would hold the GIL.
            texts += (comma + b"[" * opened, self.array(piece)[1:-1], b"]" * closed)
            first += piece.size
        return b"".join(texts)

    def tail(self, values: Values) -> bytes:  # noqa: ARG002
        return b""

    def document(self, content: Any) -> bytes:
        """Encode a document, see `DocumentEncoder`. Arrays inside follow the rules of the values.

        Integers beyond 64 bits keep their digits; keys that are not text become their `str`;
        an array of more than `MAX_EMPTY_LISTS` empty lists is one of them.
        """
        try:
            return orjson.dumps(content, default=self._replace)
        except orjson.JSONEncodeError:
            # Lone surrogates, large integers, other keys: rare, and a walk in Python is slow.
            return orjson.dumps(_mend(content), default=self._replace)

    def array(self, array: npt.NDArray[Any]) -> bytes:
        """Return the JSON text of an array of any dtype and shape."""
        if array.ndim == 0:
            return self.array(array.reshape(1))[1:-1]
        if not array.size:
            return _encode_empty(array.shape)
        plain = _convert(array, by_name=self.by_name)
        if isinstance(plain, np.ndarray):
            return orjson.dumps(plain, option=orjson.OPT_SERIALIZE_NUMPY)
        return self.document(plain)

    def _replace(self, value: Any) -> Any:
        """Replace a value that orjson does not know."""
        match value:
            case bytes():
                return value.decode("utf-8", "replace")
            case np.ndarray() | np.generic():
                return orjson.Fragment(self.array(np.asarray(value)))
            case complex():
                return [value.real, value.imag]
            case _:
                return str(value)


ENCODER = Json()

BY_NAME = Json(by_name=True)
"""The same with compounds as objects: `compound=object`."""


def _count_leaves(dtype: np.dtype[Any]) -> int:
    """Return how many JSON values one element makes, at least one."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return max(1, math.prod(shape)) * _count_leaves(base)
    if dtype.fields is not None:
        return max(1, sum(_count_leaves(member[0]) for member in dtype.fields.values()))
    return 2 if dtype.kind == "c" else 1


# Bytes of a number by those of its dtype, with sign and comma: integers are mostly small, floats
# have the digits that tell them from their neighbours.
_NUMBER_LENGTHS = {
    ("i", 1): 4,
    ("i", 2): 6,
    ("i", 4): 9,
    ("i", 8): 11,
    ("f", 2): 8,
    ("f", 4): 12,
    ("b", 1): 6,
}
_DOUBLE_LENGTH = 19
_OTHER_LENGTHS = {"M": 29, "m": 11, "O": 24}


def _estimate_item(dtype: np.dtype[Any], *, by_name: bool) -> int:
    """Return how many bytes one element usually is in JSON, with the comma behind it."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return math.prod(shape) * _estimate_item(base, by_name=by_name) + 3
    if dtype.names is not None:
        names = sum(len(name) + 3 for name in dtype.names) if by_name else 0
        members = (each for _, each, _ in list_members(dtype))
        return 3 + names + sum(_estimate_item(each, by_name=by_name) for each in members)
    kind, size = dtype.kind.replace("u", "i"), dtype.itemsize
    if kind == "c":
        return 2 * _NUMBER_LENGTHS.get(("f", size // 2), _DOUBLE_LENGTH) + 2
    if kind in "bif":
        return _NUMBER_LENGTHS.get((kind, size), _DOUBLE_LENGTH)
    # Of text, the quotes around it and what it has room for.
    return _OTHER_LENGTHS.get(kind, (size // 4 if kind == "U" else size) + 3)


def _count_empty_lists(shape: tuple[int, ...]) -> int:
    return math.prod(shape[: shape.index(0)])


def _encode_empty(shape: tuple[int, ...]) -> bytes:
    """Return the JSON text of an array without elements."""
    body = b"[]"
    if _count_empty_lists(shape) <= MAX_EMPTY_LISTS:
        for length in reversed(shape[: shape.index(0)]):
            body = b"[" + b",".join([body] * length) + b"]"
    return body


def _convert(array: npt.NDArray[Any], *, by_name: bool) -> npt.NDArray[Any] | list[Any]:
    """Return an equivalent that orjson takes: an array of a native dtype, or nested lists."""
    dtype = array.dtype
    match dtype.kind:
        case "b" | "i" | "u" | "f":
            if dtype.kind == "b":  # some versions of orjson take other bytes than 1 for false
                array = array.view(np.uint8) != 0
            native = dtype.newbyteorder("=") if dtype.itemsize <= 8 else np.float64
            with np.errstate(over="ignore"):  # float128 beyond float64 is infinity, thus null
                return array.astype(native, order="C", copy=False)
        case "c":
            part = np.dtype(f"{dtype.byteorder}f{dtype.itemsize // 2}")
            pairs = np.ascontiguousarray(array).view(part)
            return _convert(pairs.reshape(*array.shape, 2), by_name=by_name)
        case "m":
            return _replace_nat(np.isnat(array), array.astype(np.int64))
        case "M":
            return _convert_times(array)
        case "V" if dtype.names is not None:
            return _convert_compounds(array, dtype.names, by_name=by_name)
        case _:
            items: list[Any] = array.tolist()
            return items


def _convert_compounds(
    array: npt.NDArray[Any], names: tuple[str, ...], *, by_name: bool
) -> list[Any]:
    flat = array.reshape(-1)
    columns = []
    for name in names:
        column = _convert(flat[name], by_name=by_name)
        columns.append(column.tolist() if isinstance(column, np.ndarray) else column)
    rows: list[Any] = list(zip(*columns, strict=True)) if columns else [()] * flat.size
    if by_name:
        keys = show_names(names)
        rows = [dict(zip(keys, row, strict=True)) for row in rows]
    return _nest(rows, array.shape)


# Attoseconds of the units of one length, and months of the others.
_ATTOSECONDS = {"as": 1, "fs": 10**3, "ps": 10**6, "ns": 10**9, "us": 10**12, "ms": 10**15}
_ATTOSECONDS |= {"s": 10**18, "m": 60 * 10**18, "h": 3600 * 10**18}
_ATTOSECONDS |= {"D": 86_400 * 10**18, "W": 604_800 * 10**18}
_MONTHS = {"M": 1, "Y": 12}
_MICROSECOND = _ATTOSECONDS["us"]

# The beginnings of the years 1 and 10000, since 1970.
_FIRST_MONTH, _END_MONTH = -1969 * 12, 8030 * 12
_FIRST_SECOND, _END_SECOND = -62_135_596_800, 253_402_300_800

# Later and earlier times NumPy shows wrongly, or not at all.
_MAX_SHOWN_YEARS = 290_000


def _convert_times(array: npt.NDArray[Any]) -> npt.NDArray[Any] | list[Any]:
    """Return ISO 8601 text to the microsecond; NaT is null, other years than of four digits `str`.

    Times of no unit are their numbers, and so are those that NumPy cannot show. Computed in
    integers, since NumPy's own conversion wraps around, or fails, at the ends of 64 bits.
    """
    unit, count = np.datetime_data(array.dtype)
    missing = np.isnat(array)
    ticks = np.where(missing, 0, array.astype(np.int64))
    if unit == "generic":
        return _replace_nat(missing, ticks)
    ticks = ticks.reshape(-1)  # of no axes, NumPy would compute with scalars
    is_calendar = unit in _MONTHS
    length = (_MONTHS[unit] if is_calendar else _ATTOSECONDS[unit]) * count
    first, end = (_FIRST_MONTH, _END_MONTH) if is_calendar else (_FIRST_SECOND, _END_SECOND)
    scale = 1 if is_calendar else _ATTOSECONDS["s"]
    lowest, highest = -(-first * scale // length), (end * scale - 1) // length
    limits = np.iinfo(np.int64)
    fits = (ticks >= max(lowest, limits.min)) & (ticks <= min(highest, limits.max))
    inside = np.where(fits, ticks, 0)
    if is_calendar:
        converted = inside.view(array.dtype.newbyteorder("=")).astype("M8[us]")
    else:
        converted = _convert_to_microseconds(inside, length).view("M8[us]")
    if fits.all():
        return _replace_nat(missing, converted.reshape(array.shape))
    most = _MAX_SHOWN_YEARS * (12 if is_calendar else 31_556_952 * scale) // length
    most = min(most, limits.max // count)
    texts = [
        None if is_missing else time if does_fit else _show_time(number, unit, count, most)
        for is_missing, does_fit, time, number in zip(
            missing.reshape(-1).tolist(), fits.tolist(), converted, ticks.tolist(), strict=True
        )
    ]
    return _nest(texts, array.shape)


def _convert_to_microseconds(ticks: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
    """Return whole microseconds, rounded down; a tick is `length` attoseconds."""
    if length % _MICROSECOND == 0 and length // _MICROSECOND <= np.iinfo(np.int64).max:
        return ticks * (length // _MICROSECOND)
    if _MICROSECOND % length == 0:
        return ticks // (_MICROSECOND // length)
    # In Python's integers: the product is longer than 64 bits.
    return (ticks.astype(object) * length // _MICROSECOND).astype(np.int64)


def _show_time(ticks: int, unit: str, count: int, most: int) -> str:
    """Return a time of a year that ISO 8601 does not write; up to `most` ticks as a date."""
    if abs(ticks) <= most:
        return str(np.array(ticks, np.int64).view(f"M8[{count}{unit}]"))
    return f"{ticks * count} {unit} since 1970"


def _replace_nat(
    missing: npt.NDArray[np.bool_], converted: npt.NDArray[Any]
) -> npt.NDArray[Any] | list[Any]:
    """Return `converted`, with None where a time is `missing`."""
    if not missing.any():
        return converted
    objects = converted.astype(object)
    objects[missing] = None
    items: list[Any] = objects.tolist()
    return items


def _nest(items: list[Any], shape: tuple[int, ...]) -> list[Any]:
    for length in reversed(shape[1:]):
        items = [items[i : i + length] for i in range(0, len(items), length)]
    return items


def _mend(value: Any) -> Any:
    """Return the same content without what makes orjson give up."""
    match value:
        case str():
            return SURROGATE.sub("\ufffd", value)
        case dict():
            return {_mend(str(key)): _mend(item) for key, item in value.items()}
        case list() | tuple():
            return [_mend(item) for item in value]
        case int() if not -(1 << 63) <= value < 1 << 64:
            return orjson.Fragment(str(value))
        case _:
            return value
