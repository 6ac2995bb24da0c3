"""Values of types that h5py reads wrongly, or lets a file bring into its memory."""

import ctypes
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5a, h5d, h5t

from asgihive.errors import TypeUnsupported
from asgihive.hdf5 import types
from asgihive.hdf5.attributes import read_attributes
from asgihive.hdf5.links import LinkResolution, Resolved, walk
from asgihive.lanes import run_at_once
from tests.hdf5.serving import HOPS, leased, values
from tests.zoo.low_level import create_attribute, create_dataset

ADDRESS = 0x4141414141414141  # of nothing


def opaque(size: int, tag: bytes) -> Any:
    type_id = h5t.create(h5t.OPAQUE, size)
    type_id.set_tag(tag)
    return type_id


def attribute(root: Path, file: str, name: str) -> Any:
    with leased(root) as lease:
        entity = walk(lease, lease.open_asked(file), "/", LinkResolution.ALL, HOPS)
        assert isinstance(entity, Resolved)
        return run_at_once(read_attributes(entity, [name]))[name]


@pytest.mark.parametrize("tag", [b"NUMPY:|O", b"NUMPY:T", b"NUMPY:<U2", b"PYTHON:OBJECT"])
def test_bytes_of_a_file_are_never_pointers(root: Path, tag: bytes) -> None:
    stored = np.full(3, ADDRESS, "<u8").view("V8")
    with h5py.File(root / "x.h5", "w") as file:
        type_id = opaque(8, tag)
        create_dataset(file, "plain", type_id, stored)
        create_attribute(file, b"attribute", type_id, stored[:1].reshape(()))
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((1,))
        create_dataset(file, "never_written", type_id, shape=(2,), plist=properties)
        pair = h5t.create(h5t.COMPOUND, 16)
        pair.insert(b"text", 0, h5t.py_create(h5py.string_dtype(), logical=True))
        pair.insert(b"bytes", 8, type_id)
        create_dataset(file, "pair", pair, shape=(1,))
    assert values(root, "x.h5", "/plain").tolist() == [b"AAAAAAAA"] * 3
    assert attribute(root, "x.h5", "attribute").tobytes() == b"AAAAAAAA"
    assert values(root, "x.h5", "/never_written").tobytes() == bytes(16)
    assert values(root, "x.h5", "/pair")["bytes"].tobytes() == bytes(8)


@pytest.mark.parametrize("tag", [b"NUMPY:|O", b"PYTHON:OBJECT", b"of whatever"])
def test_bytes_of_a_source_are_never_pointers_of_a_virtual_dataset(root: Path, tag: bytes) -> None:
    stored = np.full(3, ADDRESS, "<u8").view("V8")
    layout = h5py.VirtualLayout((3,), h5py.string_dtype())
    layout[:] = h5py.VirtualSource("x.h5", "source", (3,))
    with h5py.File(root / "x.h5", "w") as file:
        create_dataset(file, "source", opaque(8, tag), stored)
        file.create_virtual_dataset("virtual", layout)
    with pytest.raises(TypeUnsupported, match="variable length"):
        values(root, "x.h5", "/virtual")


@pytest.mark.parametrize("name", ["of integers", "of floats", "of times"])
def test_sequences_keep_order_and_unit(root: Path, name: str) -> None:
    """h5py 3.16 gives the bytes of big-endian elements as those of native ones."""
    moments = h5py.opaque_dtype(np.dtype("<M8[s]"))
    base, elements = {
        "of integers": (np.dtype(">i4"), [1, -2, 2**31 - 1]),
        "of floats": (np.dtype(">f8"), [1.5, np.inf, -1e-300]),
        "of times": (moments, ["2020-01-01T12:00:00", "NaT", "1969-12-31"]),
    }[name]
    expected = np.array(elements, base)
    element = h5t.py_create(base, logical=True)
    pair = h5t.create(h5t.COMPOUND, 32)
    pair.insert(b"one", 0, h5t.vlen_create(element))
    pair.insert(b"two", 16, h5t.vlen_create(h5t.vlen_create(element)))
    with h5py.File(root / "x.h5", "w") as file:
        one = Sequence.of(expected)
        inner = (Sequence * 1)(one)
        both = (Sequence * 2)(one, Sequence(1, ctypes.addressof(inner)))
        for path, type_id, stored in (
            ("plain", h5t.vlen_create(element), one),
            ("pair", pair, both),
            ("twice", h5t.array_create(h5t.vlen_create(element), (2,)), (Sequence * 2)(one, one)),
        ):
            dataset = create_dataset(file, path, type_id, shape=())
            write_as_it_is(dataset.id, type_id, stored)
            create_attribute(file, path.encode(), type_id)
            write_as_it_is(h5a.open(file.id, path.encode()), type_id, stored)
    for read in (values(root, "x.h5", "/plain")[()], attribute(root, "x.h5", "plain")):
        assert read.dtype == expected.dtype
        np.testing.assert_array_equal(read, expected)
    for read in (values(root, "x.h5", "/pair")[()], attribute(root, "x.h5", "pair")):
        np.testing.assert_array_equal(read["one"], expected)
        np.testing.assert_array_equal(read["two"][0], expected)
    for read in (values(root, "x.h5", "/twice"), attribute(root, "x.h5", "twice")):
        np.testing.assert_array_equal(np.stack(list(read)), [expected, expected])


class Sequence(ctypes.Structure):
    """hvl_t of libhdf5."""

    _fields_ = (("length", ctypes.c_size_t), ("place", ctypes.c_void_p))

    @classmethod
    def of(cls, elements: np.ndarray[Any, Any]) -> "Sequence":
        return cls(len(elements), elements.ctypes.data)


def write_as_it_is(place: Any, type_id: Any, stored: Any) -> None:
    """What lies in memory, without h5py's conversions."""
    library, content = ctypes.CDLL(h5d.__file__), ctypes.byref(stored)
    numbers = [ctypes.c_int64(each.id) for each in (place, type_id)]
    if isinstance(place, h5d.DatasetID):
        everything = [ctypes.c_int64(0)] * 3
        assert library.H5Dwrite(*numbers, *everything, content) >= 0
    else:
        assert library.H5Awrite(*numbers, content) >= 0


def test_sequences_that_h5py_gives_as_they_are_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an h5py that converts them to native ones."""
    monkeypatch.setattr(types, "_keeps_order", lambda: False)
    read = np.empty(1, object)
    read[0] = np.array([1, 2], "<i4")
    types.relabel_sequences(read, h5py.vlen_dtype(np.dtype(">i4")))
    assert read[0].tolist() == [1, 2]


def test_members_that_are_larger_in_memory_do_not_overlap(root: Path) -> None:
    """NumPy has no float of two bytes with eight bits of exponent."""
    brain_float = h5t.IEEE_F32LE.copy()
    brain_float.set_fields(15, 7, 8, 0, 7)
    brain_float.set_size(2)
    type_id = h5t.create(h5t.COMPOUND, 8)
    type_id.insert(b"third", 4, h5t.STD_I32LE)
    type_id.insert(b"first", 0, brain_float)
    type_id.insert(b"second", 2, brain_float)
    # 1.5 is 0x3fc0, -2.0 is 0xc000.
    stored = np.array([(0x3FC0, 0xC000, 7)] * 100, [("a", "<u2"), ("b", "<u2"), ("c", "<i4")])
    sequences = h5t.vlen_create(type_id)
    with h5py.File(root / "x.h5", "w") as file:
        create_dataset(file, "x", type_id, stored.view("V8"))
        create_attribute(file, b"x", type_id, stored[:1].view("V8").reshape(()))
        create_dataset(file, "sequences", sequences, shape=(1,))
    read = values(root, "x.h5", "/x")
    assert read["first"].tolist() == [1.5] * 100
    assert read["second"].tolist() == [-2.0] * 100
    assert read["third"].tolist() == [7] * 100
    assert attribute(root, "x.h5", "x").tolist() == (7, 1.5, -2.0)
    # There, h5py would take the larger ones for as large as they are stored.
    with pytest.raises(TypeUnsupported, match="sequences of variable length"):
        values(root, "x.h5", "/sequences")


@pytest.mark.parametrize("order", ["LE", "BE"])
def test_bit_fields_are_the_bits_that_count(root: Path, order: str) -> None:
    type_id = getattr(h5t, f"STD_B32{order}").copy()
    lead = h5t.create(h5t.COMPOUND, 5)
    # h5py has no way to set them; of a bit field, they are where they are of an integer.
    message = bytearray(type_id.encode())
    message[10:14] = (3).to_bytes(2, "little") + (20).to_bytes(2, "little")
    type_id = h5t.decode(bytes(message))
    lead.insert(b"x", 1, type_id)
    stored = np.array([0x00FFFFF8, 0xFF000007, 0x00000AA8], f"{'<' if order == 'LE' else '>'}u4")
    with h5py.File(root / "x.h5", "w") as file:
        create_dataset(file, "x", type_id, stored)
        create_attribute(file, b"x", type_id, stored[:1].reshape(()))
        pairs = np.array([b"\0" + stored[i : i + 1].tobytes() for i in range(3)], "V5")
        create_dataset(file, "within", lead, pairs)
    expected = [0xFFFFF, 0, 0x155]
    assert values(root, "x.h5", "/x").tolist() == expected
    assert attribute(root, "x.h5", "x") == expected[0]
    assert values(root, "x.h5", "/within")["x"].tolist() == expected


def test_compounds_whose_names_are_not_utf8(root: Path) -> None:
    type_id = h5t.create(h5t.COMPOUND, 8)
    type_id.insert(b"caf\xe9", 0, h5t.STD_I32BE)
    type_id.insert(b"b", 4, h5t.STD_I32LE)
    with h5py.File(root / "x.h5", "w") as file:
        stored = np.array([b"\0\0\0\1\2\0\0\0"] * 2, "V8")
        create_dataset(file, "x", type_id, stored)
        create_attribute(file, b"x", type_id, stored[:1].reshape(()))
    assert values(root, "x.h5", "/x").tolist() == [(1, 2)] * 2
    assert attribute(root, "x.h5", "x").tolist() == (1, 2)
