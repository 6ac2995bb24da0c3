"""The contract between the formats and the code that streams their bytes."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

SURROGATE = re.compile("[\ud800-\udfff]")
"""Code points that UTF-8 cannot hold."""


@dataclass(frozen=True, slots=True)
class Values:
    """The values that will be encoded, as known before the first element is read."""

    name: str
    """The dataset's name, by which attachments are called; may be empty."""

    shape: tuple[int, ...] | None
    """After selection; `()` is a scalar, None an empty dataspace."""

    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """The number of elements."""
        return 0 if self.shape is None else math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size of the elements in memory, in bytes."""
        return self.size * self.dtype.itemsize

    @property
    def is_numeric(self) -> bool:
        """Whether the elements are numbers or booleans (neither times nor objects)."""
        return is_numeric(self.dtype)


class Encoder(Protocol):
    """One format of `/data`: head + blocks + tail are the body.

    An encoder may also have `aliases`: further media types that choose it in `Accept`; `is_raw`,
    true where the body is the head and then the elements as they lie in memory, and nothing else,
    so that a range of it can be made (False where it is left out); and `is_compressible`, false
    where clients want its length rather than few bytes (True where it is left out).

    Encoders hold no state: everything follows from the arguments, so one instance serves
    all requests at once, and the body is the same bytes however the values are cut.
    """

    @property
    def name(self) -> str:
        """What the parameter `format` says."""

    @property
    def media_type(self) -> str: ...

    @property
    def extension(self) -> str | None:
        """Of the file name, without a dot, when the body is an attachment; None when not."""

    @property
    def block_elements(self) -> int:
        """The most elements to encode in one call, so that no other thread waits for long."""

    def refusal(self, values: Values) -> str | None:
        """Return why the values do not fit this format, for people; None when they do."""

    def length(self, values: Values) -> int | None:
        """Return the exact bytes of the body, where they are known before the values are."""

    def head(self, values: Values) -> bytes: ...

    def block(self, values: Values, array: npt.NDArray[Any], first: int) -> bytes | memoryview:
        """Encode the elements [first, first + array.size) of the values, in C order.

        Never called for values without elements: head + tail are then the whole body.

        Args:
            values: as in the other calls.
            array: C-contiguous, maybe read-only, of `values.dtype`: n whole rows of one axis
                k that lie in one row of the axis before, shape (n, *values.shape[k + 1:]);
                or shape () for a scalar.
            first: index of the first element among the flattened values.

        Returns:
            A `memoryview` may share the array's memory.
        """

    def tail(self, values: Values) -> bytes: ...


@runtime_checkable
class DocumentEncoder(Protocol):
    """A format that also holds metadata, attributes, statistics and paths."""

    @property
    def name(self) -> str: ...

    @property
    def media_type(self) -> str: ...

    def document(self, content: Any) -> bytes:
        """Encode plain Python content, and NumPy arrays and scalars of any dtype inside it.

        Never fails on what an HDF5 file can hold: text that is not Unicode shows U+FFFD,
        and what has no equivalent in the format appears as its `str`.
        """


def cut(array: npt.NDArray[Any], most: int) -> Iterator[npt.NDArray[Any]]:
    """Yield parts of at most `most` elements, in order, each whole rows of one axis."""
    if array.size <= most:
        yield array
    elif rows := most * len(array) // array.size:
        for start in range(0, len(array), rows):
            yield array[start : start + rows]
    else:
        for row in array:
            yield from cut(row, most)


def is_numeric(dtype: np.dtype[Any]) -> bool:
    """Return whether a dtype is of numbers or booleans, as h5grove's `is_numeric_data`."""
    return dtype.kind in "biufc"


def is_text(dtype: np.dtype[Any]) -> bool:
    """Return whether a dtype is of strings, of fixed or variable length (as h5py marks those)."""
    if dtype.kind in "SU":
        return True
    vlen = None if dtype.metadata is None else dtype.metadata.get("vlen")
    return dtype.kind == "O" and vlen in (str, bytes)


def list_members(dtype: np.dtype[Any]) -> list[tuple[str, np.dtype[Any], int]]:
    """Return name, dtype and offset of each member of a compound; none of other dtypes."""
    # By `names`: among the keys of `fields` are titles, too.
    fields = dtype.fields
    if fields is None or dtype.names is None:
        return []
    return [(name, fields[name][0], fields[name][1]) for name in dtype.names]


def is_fixed_length(dtype: np.dtype[Any]) -> bool:
    """Return whether elements are numbers, fixed-length strings, or compounds of these."""
    if dtype.subdtype is not None:
        return is_fixed_length(dtype.subdtype[0])
    if dtype.names is not None:
        return all(is_fixed_length(member) for _, member, _ in list_members(dtype))
    return dtype.kind in "biufcSU"


def pack_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the same members in the same order, without padding and without metadata."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return np.dtype((pack_dtype(base), shape))
    if dtype.names is None:
        return np.dtype(dtype.str)
    return np.dtype([(name, pack_dtype(member)) for name, member, _ in list_members(dtype)])


def encode_name(name: str) -> bytes:
    """Return the bytes of a member's name, in which surrogates stand for what is not UTF-8."""
    return name.encode("utf-8", "surrogateescape")


def as_text(value: Any) -> str:
    """Return the Unicode text of a string element; what is not UTF-8 is U+FFFD."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return SURROGATE.sub("\ufffd", str(value))


def view_bytes(array: npt.NDArray[Any]) -> memoryview:
    """Return the bytes of a C-contiguous array without objects; shares its memory."""
    if not array.nbytes:
        return memoryview(b"")
    # Not `array.data`: the buffer protocol knows neither datetime64 nor float128.
    return array.reshape(-1).view(np.uint8).data
