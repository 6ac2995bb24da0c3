"""Format `npy`: what `numpy.save` writes (NumPy Enhancement Proposal 1)."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from asgihive.encoders.protocol import Values, is_fixed_length, list_members, view_bytes

_ALIGNMENT = 64
"""The length of a header is a multiple of so many bytes."""


class Npy:
    """Numbers, booleans, fixed-length strings and compounds of these, of any shape.

    Byte for byte as `numpy.save`, and read without pickle. NumPy describes the members of a
    compound in the order of their offsets, and the bytes between them as padding.
    """

    name = "npy"
    media_type = "application/octet-stream"
    extension = "npy"
    is_raw = True
    is_compressible = False
    block_elements = 1 << 22  # nothing is computed

    def refusal(self, values: Values) -> str | None:
        if values.shape is None:
            return "the dataspace is empty"
        if values.dtype.hasobject:
            return "their elements are of variable length"
        if not is_fixed_length(values.dtype):
            return "they are neither numbers nor text, nor compounds of these"
        return _find_fault(values.dtype)

    def length(self, values: Values) -> int | None:
        return len(self.head(values)) + values.nbytes

    def head(self, values: Values) -> bytes:
        header = {
            "descr": _describe(values.dtype),
            "fortran_order": False,
            "shape": values.shape,
        }
        # As `numpy.save`: the earliest version of the format that holds the header.
        for write in (np.lib.format.write_array_header_1_0, np.lib.format.write_array_header_2_0):
            with io.BytesIO() as file:
                try:
                    write(file, header)
                except UnicodeEncodeError:  # a name of a member
                    break
                except ValueError:  # more than 64 KiB
                    continue
                return file.getvalue()
        return _make_header_3_0(header)

    def block(self, values: Values, array: npt.NDArray[Any], first: int) -> memoryview:  # noqa: ARG002
        return view_bytes(array)

    def tail(self, values: Values) -> bytes:  # noqa: ARG002
        return b""


ENCODER = Npy()


def _describe(dtype: np.dtype[Any]) -> Any:
    """Return what `numpy.lib.format.dtype_to_descr` says of a dtype, without metadata."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return _describe(base), shape
    if dtype.names is None:
        return dtype.str
    described: list[tuple[Any, ...]] = []
    end = 0
    for name, member, offset in _sort_members(dtype):
        if offset > end:
            described.append(("", f"|V{offset - end}"))
        inner = _describe(member)
        described.append((name, *inner) if isinstance(inner, tuple) else (name, inner))
        end = offset + member.itemsize
    if dtype.itemsize > end:
        described.append(("", f"|V{dtype.itemsize - end}"))
    return described


def _sort_members(dtype: np.dtype[Any]) -> list[tuple[str, np.dtype[Any], int]]:
    """Return the members of a compound by their offsets."""
    return sorted(list_members(dtype), key=lambda member: member[2])


def _find_fault(dtype: np.dtype[Any]) -> str | None:
    """Return why a header cannot describe a dtype; None when it can."""
    if dtype.subdtype is not None:
        return _find_fault(dtype.subdtype[0])
    end = 0
    for name, member, offset in _sort_members(dtype):
        if offset < end:
            return "members of them share bytes"
        try:
            name.encode()
        except UnicodeEncodeError:
            return "the name of a member is not UTF-8"
        reason = _find_fault(member)
        if reason is not None:
            return reason
        end = offset + member.itemsize
    return None


def _make_header_3_0(header: dict[str, Any]) -> bytes:
    """Return a header with names beyond Latin-1, in version 3.0 of the format."""
    items = "".join(f"'{key}': {value!r}, " for key, value in sorted(header.items()))
    # As `numpy.save`, which leaves room for a longer first axis.
    length = header["shape"][0] if header["shape"] else 0
    room = 21 - len(repr(length)) if header["shape"] else 0
    text = f"{{{items}}}{' ' * room}".encode()
    before = len(np.lib.format.MAGIC_PREFIX) + 2 + 4
    padding = _ALIGNMENT - (before + len(text) + 1) % _ALIGNMENT
    size = len(text) + padding + 1
    magic = np.lib.format.magic(3, 0)
    return magic + size.to_bytes(4, "little") + text + b" " * padding + b"\n"
