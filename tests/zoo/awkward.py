"""Entities that h5py's high-level API cannot read or cannot even describe."""

from pathlib import Path

import h5py
import numpy as np
from h5py import h5g, h5t

from tests.zoo.low_level import create_attribute, create_dataset

TAGGED = np.array([b"abcd", b"\x00\xff12", b"a\0\0\0"], "V4")
TAG = b"tag \xff"
_PLACEHOLDER = 0x1122334455667788


FILE = "awkward.h5"


def write(root: Path) -> None:
    with h5py.File(root / FILE, "w") as file:
        file["plain"] = np.arange(3)
        file.attrs["plain"] = 1
        create_dataset(file, "time", h5t.UNIX_D32LE)
        create_dataset(file, "quadruple", h5t.IEEE_F128LE)
        if hasattr(h5t, "COMPLEX"):
            create_dataset(file, "half_complex", h5t.COMPLEX_IEEE_F16LE)
        create_dataset(file, "bits_8_big", h5t.STD_B8BE, np.array([0, 1, 128, 255], "u1"))
        file.create_dataset("storage_missing", (4,), "<i4", external=[("no_such.bin", 0, 16)])
        _tagged_opaque(file)
        _enum_of_all_bits(file)
        _names_not_utf8(file)
        _compound_with_time(file)
        create_attribute(file, b"time", h5t.UNIX_D32LE)
        create_attribute(file, b"name \xff", h5t.STD_I32LE, np.array(5, "<i4"))
    raw = (root / FILE).read_bytes()
    placeholder = _PLACEHOLDER.to_bytes(8, "little")
    (root / FILE).write_bytes(raw.replace(placeholder, b"\xff" * 8))


def _tagged_opaque(file: h5py.File) -> None:
    """h5py asks for an untagged type, which libhdf5 refuses to convert to."""
    type_id = h5t.create(h5t.OPAQUE, 4)
    type_id.set_tag(TAG)
    create_dataset(file, "opaque_tagged", type_id, TAGGED)


def _enum_of_all_bits(file: h5py.File) -> None:
    """h5py inserts members as signed integers: the member's value is patched in afterwards."""
    type_id = h5t.enum_create(h5t.STD_U64LE)
    type_id.enum_insert(b"ALL", _PLACEHOLDER)
    type_id.enum_insert(b"NONE", 0)
    create_dataset(file, "enum_all_bits", type_id, np.full(4, 2**64 - 1, "<u8"))


def _names_not_utf8(file: h5py.File) -> None:
    compound = h5t.create(h5t.COMPOUND, 8)
    compound.insert(b"bad \xff", 0, h5t.STD_I32LE)
    compound.insert(b"good", 4, h5t.STD_I32LE)
    values = np.array([(1, 2)] * 4, [("bad", "<i4"), ("good", "<i4")]).view("V8")
    create_dataset(file, "compound_names", compound, values)
    enum = h5t.enum_create(h5t.STD_I8LE)
    enum.enum_insert(b"bad \xff", 1)
    create_dataset(file, "enum_names", enum, np.ones(4, "i1"))
    group = h5py.Group(h5g.create(file.id, b"group \xff"))
    group["child"] = 1
    create_dataset(file, b"dataset \xff", h5t.STD_I32LE, np.arange(4, dtype="<i4"))


def _compound_with_time(file: h5py.File) -> None:
    compound = h5t.create(h5t.COMPOUND, 8)
    compound.insert(b"when", 0, h5t.UNIX_D32LE)
    compound.insert(b"what", 4, h5t.STD_I32LE)
    create_dataset(file, "compound_with_time", compound)
