"""HDF5 types: how their values lie in memory.

A type in a file is as untrusted as the rest of it. h5py makes dtypes of tags that a file brings
(`NUMPY:|O` of an opaque type turns the file's bytes into Python pointers), reads members of
enumerations into eight bytes whatever their size, and takes members of compounds to be as large
in memory as in the file. So dtypes are built here, class by class, together with the HDF5 type
that libhdf5 converts to; both agree in size at every place, and objects stand only where h5py
itself makes them: for sequences and strings of variable length, and for references.
"""

import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import get_ident
from typing import Any, Literal

import h5py
import numpy as np
from h5py import h5f, h5p, h5s, h5t

from asgihive.hdf5.file_bytes import text

# Types nest in files as deeply as a hostile writer likes; no real data nest deeper.
MAX_NESTING = 32

# What libhdf5 and NumPy raise for a type that they cannot make.
_REFUSALS = (TypeError, ValueError, KeyError, NotImplementedError, OverflowError, RuntimeError)


class NoEquivalent(Exception):  # translated at once by those who know the entity
    """An HDF5 type that NumPy has no equivalent for; the message names it."""


# What libhdf5's refusals look like through h5py.
LIBRARY_ERRORS = (OSError, RuntimeError, ValueError, TypeError, KeyError, NoEquivalent)


@dataclass(frozen=True, slots=True)
class MemoryType:
    """How values of an HDF5 type lie in memory.

    Attributes:
        dtype: NumPy's type of one element, an array type included.
        id: the HDF5 type that libhdf5 converts them to, as large as `dtype` at every place.
        is_as_stored: whether the bytes in the file are those of `dtype`, so that there is
            nothing to convert.
        refusal: why such values are not read, though there is a dtype for them; None = they are.
        unfit: why they are not read as elements of a sequence of variable length; None = they are.
        is_mislabelled: whether there are sequences in it that h5py gives a wrong dtype, see
            `relabel_sequences`.
    """

    dtype: np.dtype[Any]
    id: h5t.TypeID
    is_as_stored: bool
    refusal: str | None = None
    unfit: str | None = None
    is_mislabelled: bool = False


def memory_type(type_id: h5t.TypeID) -> MemoryType:
    """Return how values of this type are to lie in memory.

    Raises:
        NoEquivalent: NumPy cannot hold them (reference types of HDF5 1.12, times, exotic floats),
            h5py cannot read them safely, or they are nested deeper than MAX_NESTING.
    """
    found = _translate(type_id)
    if found.refusal is not None:
        raise NoEquivalent(found.refusal)
    return found


def translated_dtype(type_id: h5t.TypeID) -> np.dtype[Any]:
    """Return the dtype of a type, also where its values are not read for another reason.

    Raises:
        NoEquivalent: there is none.
    """
    return _translate(type_id).dtype


def without_dimensions(dtype: np.dtype[Any]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Return the dtype inside an array type, however often nested, and the dimensions around it."""
    shape: tuple[int, ...] = ()
    while dtype.subdtype is not None:
        dtype, inner = dtype.subdtype
        shape += inner
    return dtype, shape


def converted_type(
    source: np.dtype[Any], wanted: np.dtype[Any], item_shape: tuple[int, ...]
) -> h5t.TypeID:
    """Return the HDF5 type of `wanted`, for values that are `source` in memory otherwise.

    Raises:
        NoEquivalent: there are objects in one of them, and libhdf5 would take what is none for
            a pointer; or there is no such type.
    """
    if source.hasobject or wanted.hasobject:
        raise NoEquivalent("values of variable length are converted to no other type")
    try:
        created = h5t.py_create(np.dtype((wanted, item_shape)))
    except _REFUSALS as error:
        raise NoEquivalent(f"values are not converted to {wanted} ({error})") from None
    if created.get_size() != wanted.itemsize * math.prod(item_shape):
        raise NoEquivalent(f"values are not converted to {wanted}")
    return created


# From an HDF5 type to one of NumPy, class by class.


def _translate(type_id: h5t.TypeID) -> MemoryType:
    """Translate as `memory_type`, also what has a `refusal`."""
    try:
        found = _translated(type_id, MAX_NESTING)
        size = found.id.get_size()
    except _REFUSALS as error:
        raise NoEquivalent(f"{_NONE} ({error})") from None
    if size != found.dtype.itemsize:
        raise NoEquivalent(f"{_NONE} ({size} bytes in HDF5, {found.dtype.itemsize} in NumPy)")
    return found


_NONE = "its HDF5 type has no NumPy equivalent"


def _translated(type_id: h5t.TypeID, levels: int) -> MemoryType:
    if levels < 0:
        raise NoEquivalent(f"its HDF5 type is nested more than {MAX_NESTING} deep")
    kind = type_id.get_class()
    if kind in _OF_PARTS:
        return _OF_PARTS[kind](type_id, levels - 1)
    if kind in _OF_ONE:
        return _OF_ONE[kind](type_id)
    named = "a time" if kind == h5t.TIME else f"of class {kind}"
    raise NoEquivalent(f"{_NONE}: it is {named}")


def _order(type_id: Any) -> str:
    order = {h5t.ORDER_LE: "<", h5t.ORDER_BE: ">"}.get(type_id.get_order())
    if order is None:
        raise NoEquivalent(f"{_NONE}: its bytes are in neither of NumPy's orders (VAX)")
    return order


def _plain(type_id: h5t.TypeID, dtype: np.dtype[Any]) -> MemoryType:
    created = h5t.py_create(dtype)
    return MemoryType(dtype, created, is_as_stored=bool(created == type_id))


def _integer_dtype(type_id: Any) -> np.dtype[Any]:
    kind = "u" if type_id.get_sign() == h5t.SGN_NONE else "i"
    return _sized(_order(type_id), kind, type_id.get_size())


def _sized(order: str, kind: str, size: int) -> np.dtype[Any]:
    if size not in {1, 2, 4, 8}:
        raise NoEquivalent(f"{_NONE}: it has integers of {size} bytes")
    return np.dtype(f"{order}{kind}{size}")


def _float_dtype(type_id: Any) -> np.dtype[Any]:
    _order(type_id)
    # The smallest of NumPy's floats that holds its mantissa and its exponent.
    dtype: np.dtype[Any] = type_id.dtype
    return dtype


def _complex(type_id: Any) -> MemoryType:
    part = type_id.get_super()
    real = _plain(part, _float_dtype(part))
    # h5py's conversion leaves the bytes as they are, whatever floats they stand for.
    if not real.is_as_stored:
        raise NoEquivalent(f"{_NONE}: its complex numbers are not made of NumPy's floats")
    dtype = np.dtype(f"{_order(part)}c{2 * real.dtype.itemsize}")
    return MemoryType(dtype, h5t.py_create(dtype), is_as_stored=True)


def _string(type_id: Any) -> MemoryType:
    encoding = {h5t.CSET_ASCII: "ascii", h5t.CSET_UTF8: "utf-8"}.get(type_id.get_cset())
    if encoding is None:
        raise NoEquivalent(f"{_NONE}: its character set is unknown")
    if type_id.is_variable_str():
        return MemoryType(h5py.string_dtype(encoding), h5t.PYTHON_OBJECT, is_as_stored=False)
    return _plain(type_id, h5py.string_dtype(encoding, type_id.get_size()))


def _bit_field(type_id: Any) -> MemoryType:
    dtype = _sized(_order(type_id), "u", type_id.get_size())
    order = "LE" if type_id.get_order() == h5t.ORDER_LE else "BE"
    # libhdf5 converts bit fields to bit fields alone, and moves the bits that count.
    bits: h5t.TypeID = getattr(h5t, f"STD_B{8 * dtype.itemsize}{order}")
    return MemoryType(dtype, bits, is_as_stored=False)


# What `h5py.opaque_dtype` notes of NumPy's own types, as far as any bytes are a value of them:
# no objects, and no Unicode, since most bytes are no character.
_HARMLESS = re.compile(
    rb"NUMPY:(?:[|<>=]?(?:b1|[iu][1248]|f(?:2|4|8|16)|c(?:8|16|32)|[SV][1-9][0-9]{0,8})"
    rb"|[<>=]?[mM]8(?:\[[0-9]{0,9}(?:Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?)"
)


def _opaque(type_id: Any) -> MemoryType:
    """Return the bytes as they are: what a tag says is taken only where it can do no harm."""
    size, tag = type_id.get_size(), type_id.get_tag()
    dtype, unfit = np.dtype(f"V{size}"), None
    if tag.startswith(b"NUMPY:"):
        unfit = "h5py would make of their tag what it says"
        if _HARMLESS.fullmatch(tag):
            noted = np.dtype(tag.removeprefix(b"NUMPY:").decode(), metadata={"h5py_opaque": True})
            if noted.itemsize == size:
                dtype, unfit = noted, None
    # As libhdf5 converts opaque values to those of the same tag alone.
    return MemoryType(dtype, type_id, is_as_stored=True, unfit=unfit)


def _reference(type_id: Any) -> MemoryType:
    # By the encoding: libhdf5 takes a type that was decoded for another one than the same type of
    # a dataset, and h5py only compares.
    message = _message_of(type_id)
    kind = message[1] & 0x0F if message else None
    if kind == 0:
        return MemoryType(h5py.ref_dtype, h5t.PYTHON_OBJECT, is_as_stored=False)
    if kind == 1:
        # h5py's conversion (3.16) counts a reference down in memory that was never written to.
        unfit = "references to regions in sequences of variable length crash h5py and libhdf5"
        dtype, created = h5py.regionref_dtype, h5t.PYTHON_OBJECT
        return MemoryType(dtype, created, is_as_stored=False, unfit=unfit)
    raise NoEquivalent(f"{_NONE}: it is a reference of HDF5 1.12 or later")


def _enumeration(type_id: Any) -> MemoryType:
    base = type_id.get_super()
    if not isinstance(base, h5t.TypeIntegerID):
        raise NoEquivalent(f"{_NONE}: it is an enumeration of other things than integers")
    integers = _plain(base, _integer_dtype(base))
    if enum_members(type_id) != _BOOLEAN:
        return integers
    dtype = np.dtype(bool)
    if integers.is_as_stored and integers.dtype.itemsize == 1:
        # Not by the names of the members, or bytes that are neither 0 nor 1 would change.
        return MemoryType(dtype, type_id, is_as_stored=True)
    return MemoryType(dtype, h5t.py_create(dtype), is_as_stored=False)


_BOOLEAN = {b"FALSE": 0, b"TRUE": 1}


def _compound(type_id: Any, levels: int) -> MemoryType:
    count, size = type_id.get_nmembers(), type_id.get_size()
    names = [type_id.get_member_name(i) for i in range(count)]
    members = [_translated(type_id.get_member_type(i), levels) for i in range(count)]
    stored_at = [type_id.get_member_offset(i) for i in range(count)]
    if not members:
        raise NoEquivalent(f"{_NONE}: it is a compound without members")
    if _are_parts_of_complex(names, members):
        part = members[0].dtype
        return _plain(type_id, np.dtype(f"{part.str[0]}c{2 * part.itemsize}"))
    offsets, itemsize = _laid_out(members, stored_at, size)
    dtype: np.dtype[Any] = np.dtype(
        {
            "names": [text(name) for name in names],
            "formats": [member.dtype for member in members],
            "offsets": offsets,
            "itemsize": itemsize,
        }
    )
    created = h5t.create(h5t.COMPOUND, itemsize)
    for name, member, offset in zip(names, members, offsets, strict=True):
        created.insert(name, offset, member.id)
    in_place = (offsets, itemsize) == (stored_at, size)
    return MemoryType(
        dtype,
        created,
        is_as_stored=in_place and all(member.is_as_stored for member in members),
        refusal=next((each.refusal for each in members if each.refusal), None),
        unfit=next((each.unfit for each in members if each.unfit), None),
        is_mislabelled=any(member.is_mislabelled for member in members),
    )


def _are_parts_of_complex(names: list[bytes], members: list[MemoryType]) -> bool:
    """Return whether two floats of one type are called `r` and `i`, as h5py has complex numbers."""
    if [text(name) for name in names] != list(h5py.get_config().complex_names):
        return False
    first, second = (member.dtype for member in members)
    return first == second and first.kind == "f" and first.itemsize in {4, 8, 16}


def _laid_out(members: list[MemoryType], stored_at: list[int], size: int) -> tuple[list[int], int]:
    """Return the offsets of the members in memory, and the size of all.

    Where they lie in the file if there is room, as h5py has it; else one after the other, since
    some floats and bit fields are larger in memory, and would overlap.
    """
    order = sorted(range(len(members)), key=stored_at.__getitem__)
    ends = [stored_at[i] + members[i].dtype.itemsize for i in order]
    nexts = [*(stored_at[i] for i in order[1:]), size]
    if all(end <= following for end, following in zip(ends, nexts, strict=True)):
        return stored_at, size
    offsets, position = [0] * len(members), 0
    for i in order:
        offsets[i] = position
        position += members[i].dtype.itemsize
    return offsets, position


def _array(type_id: Any, levels: int) -> MemoryType:
    base, dimensions = _translated(type_id.get_super(), levels), type_id.get_array_dims()
    dtype = np.dtype((base.dtype, dimensions))
    return replace(base, dtype=dtype, id=h5t.array_create(base.id, dimensions))


def _sequence(type_id: Any, levels: int) -> MemoryType:
    """Return a type of variable length; h5py converts the elements to a dtype of its choice."""
    stored = type_id.get_super()
    base = _translated(stored, levels)
    is_foreign = not base.dtype.isnative or base.dtype.kind in "mM"
    return MemoryType(
        h5py.vlen_dtype(base.dtype),
        h5t.PYTHON_OBJECT,
        is_as_stored=False,
        refusal=base.refusal or base.unfit or _refusal_of_elements(stored, base.dtype),
        is_mislabelled=base.is_mislabelled or (is_foreign and base.dtype.kind in "iufcmM"),
    )


def _refusal_of_elements(stored: h5t.TypeID, dtype: np.dtype[Any]) -> str | None:
    """Return why h5py reads no sequences of elements that are not `unfit`."""
    if isinstance(stored, h5t.TypeVlenID):
        return None  # of objects, whatever is in those
    try:
        chosen = stored.dtype
        created = h5t.py_create(chosen)
        # It takes as many bytes of either as of the other.
        fits = chosen == dtype and created.get_size() == chosen.itemsize
        converts = fits and h5t.find(stored, created) is not None
    except _REFUSALS:
        converts = False
    return None if converts else "h5py reads no such elements in sequences of variable length"


_OF_ONE: dict[int, Callable[[Any], MemoryType]] = {
    h5t.INTEGER: lambda type_id: _plain(type_id, _integer_dtype(type_id)),
    h5t.FLOAT: lambda type_id: _plain(type_id, _float_dtype(type_id)),
    h5t.STRING: _string,
    h5t.BITFIELD: _bit_field,
    h5t.OPAQUE: _opaque,
    h5t.REFERENCE: _reference,
    h5t.ENUM: _enumeration,
    11: _complex,  # H5T_COMPLEX, since HDF5 2.0
}
_OF_PARTS: dict[int, Callable[[Any, int], MemoryType]] = {
    h5t.COMPOUND: _compound,
    h5t.VLEN: _sequence,
    h5t.ARRAY: _array,
}


# The members of an enumeration.


def enum_members(type_id: Any) -> dict[bytes, int]:
    """Return names and values of the members, as the file has them.

    Raises:
        NoEquivalent: their encoding is unknown here, and h5py reads no integers as wide.
    """
    message, base = _message_of(type_id), type_id.get_super()
    count, size = type_id.get_nmembers(), base.get_size()
    names = [type_id.get_member_name(i) for i in range(count)]
    # The values are the last of the message, whatever its version (section IV.A.2.d, class 8).
    stored = message[len(message) - count * size :]
    if message and isinstance(base, h5t.TypeIntegerID) and len(stored) == count * size:
        values = [stored[i : i + size] for i in range(0, count * size, size)]
        return dict(zip(names, map(_integer_of(base), values), strict=True))
    if size > _H5PY_ENUM_BYTES:
        raise NoEquivalent(f"{_NONE}: it is an enumeration of {size} bytes")
    return {name: int(type_id.get_member_value(i)) for i, name in enumerate(names)}


# h5py has libhdf5 write each value, however wide, into a signed integer of this size.
_H5PY_ENUM_BYTES = 8


def _integer_of(base: Any) -> Callable[[bytes], int]:
    """Return what turns the bytes of an integer type into the integer."""
    order: Literal["big", "little"] = "big" if base.get_order() == h5t.ORDER_BE else "little"
    offset, precision = int(base.get_offset()), int(base.get_precision())
    is_signed = base.get_sign() != h5t.SGN_NONE

    def decode(stored: bytes) -> int:
        value = int.from_bytes(stored, order) >> offset & (1 << precision) - 1
        return value - (1 << precision) if is_signed and value >> precision - 1 else value

    return decode


def _message_of(type_id: h5t.TypeID) -> bytes:
    """Return the datatype message (HDF5 File Format Specification, IV.A.2.d) of the type.

    Of what H5Tencode writes, without the number of the message and the version of the encoding;
    empty where that is a version unknown here.
    """
    encoding: bytes = type_id.encode()
    return encoding.removeprefix(KNOWN_ENCODING) if encoding.startswith(KNOWN_ENCODING) else b""


KNOWN_ENCODING = b"\x03\x00"
"""The number of the message and the version of the encoding that H5Tencode writes first."""


# Sequences that h5py labels with a dtype that is not theirs.


def relabel_sequences(values: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> None:
    """Give the sequences in `values`, as h5py read them, the dtype that they are of.

    h5py (3.16) keeps the bytes of the elements, of either order and of times of any unit, and
    then calls them native and of no unit.

    Args:
        values: changed in place.
        dtype: from `memory_type`, whose `is_mislabelled` says that there are some.
    """
    base, _ = without_dimensions(dtype)
    for name in base.names or ():
        relabel_sequences(values[name], base[name])
    element = h5py.check_vlen_dtype(base)
    if not isinstance(element, np.dtype):
        return
    if not values.shape:
        values = values[np.newaxis]
    for position in np.ndindex(values.shape):
        sequence = values[position]
        if element.hasobject:
            relabel_sequences(sequence, element)
        elif sequence.dtype != element and _keeps_order():
            values[position] = sequence.view(element)


@functools.cache
def _keeps_order() -> bool:
    """Return whether h5py leaves the bytes of elements in the order of the file."""
    properties = h5p.create(h5p.FILE_ACCESS)
    properties.set_fapl_core(backing_store=False)
    # libhdf5 refuses a second file of one name, even in memory, and other threads may be here.
    file = h5f.create(b"byte order %d" % get_ident(), fapl=properties)
    try:
        sequences = h5py.vlen_dtype(np.dtype(">u2"))
        dataset = h5py.Group(file).create_dataset("x", (1,), sequences)
        dataset[0] = np.array([1], ">u2")
        stored = np.zeros(1, object)
        dataset.id.read(h5s.ALL, h5s.ALL, stored, h5t.PYTHON_OBJECT)
        return bool(stored[0].view(">u2")[0] == 1)
    finally:
        file.close()
