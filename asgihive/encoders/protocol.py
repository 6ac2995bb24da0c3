"""The contract between formats and the code that streams their bytes, and the formats there are.

They are the modules of this package, those of entry points, and those that `register` was given.
"""

import importlib
import math
import pkgutil
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from asgihive import encoders as package
from asgihive.errors import BadParameter, FormatMismatch

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

    column: str = ""
    """The name of the column of a compound that they are; empty where they are no such column."""

    description: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """Their HDF5 type as `/meta` shows it; of columns `members` alone; may be empty."""

    @property
    def column_name(self) -> str:
        """How they are called as one column of a table."""
        return self.column or self.name or "data"

    @property
    def size(self) -> int:
        """The number of elements."""
        return 0 if self.shape is None else math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size of the elements in memory, in bytes."""
        return 0 if self.shape is None else math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_numeric(self) -> bool:
        """Whether the elements are numbers or booleans (neither times nor objects)."""
        return is_numeric(self.dtype)


class Encoder(Protocol):
    """One format of `/data`: head + blocks + tail are the body.

    An encoder may also have `aliases`: further media types that choose it in `Accept`; `is_raw`,
    true where the body is the head and then the elements as they lie in memory, and nothing else,
    so that a range of it can be made (False where it is left out); `is_compressible`, false
    where clients want its length rather than few bytes (True where it is left out);
    `has_whole_rows`, true where values of two dimensions may be cut along the first one alone
    (False where it is left out); and `load`, which imports what takes long, in a thread, before
    values are encoded for the first time, and raises ExtraMissing where it is not installed.

    Encoders hold no state: everything follows from the arguments, so one instance serves
    all requests at once, and the body has the same values however they are cut.
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


def show_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of members as text, all different."""
    shown = tuple(as_text(encode_name(name)) for name in names)
    if len(set(shown)) == len(shown):
        return shown
    # What is not UTF-8 would be U+FFFD in several: its bytes tell the names apart.
    return tuple(encode_name(name).decode("utf-8", "backslashreplace") for name in names)


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


ENTRY_POINTS = "asgihive.encoders"
"""Group of entry points of other distributions, each naming an `Encoder`."""


@cache
def list_encoders() -> dict[str, Encoder]:
    """Return all encoders by name: built-in, then of entry points, then registered.

    A built-in one is the `ENCODER` of a module of `asgihive.encoders`, sorted by module.

    Raises:
        ValueError: two distributions bring a format of the same name.
    """
    modules = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    imported = [importlib.import_module(f"{package.__name__}.{name}") for name in modules]
    found: dict[str, Encoder] = {}
    _add(found, (module.ENCODER for module in imported if hasattr(module, "ENCODER")))
    _add(found, (each.load() for each in entry_points(group=ENTRY_POINTS)))
    return found


def list_document_encoders() -> dict[str, DocumentEncoder]:
    """Return the encoders that also hold documents, by name."""
    # Not by `isinstance`: for all formats that takes as long as a small answer, 85 microseconds.
    every: dict[str, Any] = list_encoders()
    return {name: each for name, each in every.items() if hasattr(each, "document")}


def register(encoder: Encoder) -> None:
    """Add a format for this process.

    Raises:
        ValueError: there is a format of that name already.
    """
    _add(list_encoders(), (encoder,))


def find_encoder(name: str) -> Encoder:
    """Return the encoder of the format `name`.

    Raises:
        BadParameter: there is none; says which there are.
    """
    known = list_encoders()
    if name not in known:
        raise BadParameter("format", name, f"{', '.join(known)} are accepted")
    return known[name]


def map_media_types() -> Mapping[str, Encoder]:
    """Return which encoder each media type of an `Accept` header (RFC 9110, 12.5.1) chooses.

    Of several, the first one that is shown inline (`bin`), before attachments (`npy`).
    """
    chosen: dict[str, Encoder] = {}
    for encoder in sorted(list_encoders().values(), key=lambda each: each.extension is not None):
        chosen.setdefault(encoder.media_type, encoder)
    return chosen


def map_accepted_types() -> Mapping[str, Encoder]:
    """Return `map_media_types`, and behind them the aliases: all that `Accept` may name."""
    chosen = dict(map_media_types())
    for encoder in list_encoders().values():
        for alias in get_aliases(encoder):
            chosen.setdefault(alias, encoder)
    return chosen


def get_aliases(encoder: object) -> tuple[str, ...]:
    """Return further media types that choose an encoder in `Accept`."""
    return tuple(getattr(encoder, "aliases", ()))


def check_fit(encoder: Encoder, values: Values) -> None:
    """Make sure that a format can hold these values.

    Raises:
        FormatMismatch: it cannot; says why, and which formats can.
    """
    reason = encoder.refusal(values)
    if reason is not None:
        fitting = [name for name, each in list_encoders().items() if each.refusal(values) is None]
        raise FormatMismatch(
            "format",
            encoder.name,
            f"it does not fit the values, because {reason}; "
            f"for these values, use {' or '.join(fitting) or 'a smaller selection'}",
        )


def _add(known: dict[str, Encoder], new: Iterable[Encoder]) -> None:
    for encoder in new:
        if encoder.name in known:
            raise ValueError(f"There is a format named {encoder.name!r} already")
        known[encoder.name] = encoder
