"""Values of types that h5py reads wrongly, or lets a file bring into its memory."""

import ctypes
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5a, h5d, h5p, h5s, h5t

from asgihive.concurrency import run_at_once
from asgihive.errors import LibraryRefused, Overloaded, SourceRefused, TypeUnsupported
from asgihive.hdf5 import types
from asgihive.hdf5.entities import read_attributes
from asgihive.hdf5.links import LinkResolution, Resolved, walk
from asgihive.hdf5.open_file import refusal_of
from tests.hdf5.serving import described, leased, values
from tests.zoo.low_level import create_attribute, create_dataset

ADDRESS = 0x4141414141414141  # of nothing


def opaque(size: int, tag: bytes) -> Any:
    type_id = h5t.create(h5t.OPAQUE, size)
    type_id.set_tag(tag)
    return type_id


def attributes(root: Path, file: str, path: str, names: list[str] | None = None) -> dict[str, Any]:
    with leased(root) as lease:
        entity = walk(lease, lease.open_asked(file), path, LinkResolution.ALL)
        assert isinstance(entity, Resolved)
        return run_at_once(read_attributes(entity, names, 1 << 30))


def attribute(root: Path, file: str, name: str) -> Any:
    return attributes(root, file, "/", [name])[name]


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
    with pytest.raises((TypeUnsupported, SourceRefused), match=r"variable length|no conversion"):
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
    # It asks the h5py that is here, which answers the same at all times.
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


class Pair(ctypes.Structure):
    _fields_ = (("text", ctypes.c_char_p), ("number", ctypes.c_int64))


def filled(kind: str) -> tuple[Any, Any, Any]:
    """A type of variable length, a fill value in memory, and the same in Python."""
    text = h5t.py_create(h5py.string_dtype(), logical=True)
    if kind == "text":
        return text, ctypes.c_char_p(b"fill"), b"fill"
    if kind == "texts":
        return h5t.array_create(text, (2,)), (ctypes.c_char_p * 2)(b"a", b"b"), [b"a", b"b"]
    if kind == "sequence":
        elements = np.array([1, 2], ">i2")
        return h5t.vlen_create(h5t.STD_I16BE), Sequence.of(elements), [1, 2]
    pair = h5t.create(h5t.COMPOUND, 16)
    pair.insert(b"text", 0, text)
    pair.insert(b"number", 8, h5t.STD_I64LE)
    return pair, Pair(b"fill", 7), (b"fill", 7)


@pytest.mark.parametrize("kind", ["text", "texts", "sequence", "pair"])
@pytest.mark.parametrize("compressed", [False, True])
def test_fill_values_of_variable_length(root: Path, kind: str, compressed: bool) -> None:
    """Beside a chunk that was written, libhdf5 fails to give them."""
    type_id, fill, expected = filled(kind)
    library = ctypes.CDLL(h5p.__file__)
    with h5py.File(root / "x.h5", "w") as file:
        properties = h5p.create(h5p.DATASET_CREATE)
        properties.set_chunk((2, 3))
        if compressed:
            properties.set_deflate(1)
        number = ctypes.c_int64
        given = library.H5Pset_fill_value(
            number(properties.id), number(type_id.id), ctypes.byref(fill)
        )
        assert given >= 0
        for name in ("some", "none"):
            create_dataset(file, name, type_id, shape=(5, 7), plist=properties)
        written = h5s.create_simple((5, 7))
        written.select_hyperslab((2, 3), (1, 1))
        memory = h5s.create_simple((5, 7))
        memory.select_hyperslab((0, 0), (1, 1))
        dataset = file["some"].id
        numbers = [number(each.id) for each in (dataset, type_id, memory, written)]
        other = {"text": ctypes.c_char_p(b"x"), "texts": (ctypes.c_char_p * 2)(b"x", b"x")}
        stored = other.get(kind, Pair(b"x", 8) if kind == "pair" else Sequence(0, None))
        assert library.H5Dwrite(*numbers, number(0), ctypes.byref(stored)) >= 0
    wrote = {"text": b"x", "texts": [b"x", b"x"], "sequence": [], "pair": (b"x", 8)}[kind]

    def plain(element: Any) -> Any:
        return element.tolist() if hasattr(element, "tolist") else element

    some, none = values(root, "x.h5", "/some"), values(root, "x.h5", "/none")
    for index in np.ndindex(5, 7):
        assert plain(none[index]) == expected
        assert plain(some[index]) == (wrote if index == (2, 3) else expected), index
    part = values(root, "x.h5", "/some", "::2,1::2")
    assert [plain(each) for each in part[1]] == [expected, wrote, expected]
    assert plain(values(root, "x.h5", "/some", "0,0")[()]) == expected


def test_a_fill_value_that_h5copy_lost(root: Path) -> None:
    """It stays a place in the heap of the other file."""
    with h5py.File(root / "source.h5", "w") as source, h5py.File(root / "x.h5", "w") as file:
        text = h5py.string_dtype()
        source.create_dataset(
            "x", (4,), text, chunks=(2,), fillvalue="fill", compression="gzip", shuffle=True
        )
        source["x"].attrs["unit"] = "mm"
        source.copy("x", file)
        file["y"] = 1
    whole = described(root, "x.h5")
    assert [child["name"] for child in whole["children"]] == ["x", "y"]
    for found in (whole["children"][0], described(root, "x.h5", "/x")):
        assert found["kind"] == "dataset"
        assert (found["shape"], found["chunks"]) == ((4,), (2,))
        assert [each["name"] for each in found["filters"]] == ["shuffle", "deflate"]
        assert [each["id"] for each in found["filters"]] == [2, 1]
        assert found["type"]["class"] == h5t.STRING
        assert found["attributes"][0]["name"] == "unit"
    with pytest.raises(TypeUnsupported, match="fill value"):
        values(root, "x.h5", "/x")
    assert values(root, "x.h5", "/y") == 1


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("tracked", [False, True])
def test_attributes_in_the_order_of_their_creation(
    root: Path,
    dense: bool,
    tracked: bool,
) -> None:
    names = [f"{letter}{number}" for letter in "zay" for number in range(5 if dense else 1)]
    with h5py.File(root / "x.h5", "w", track_order=tracked) as file:
        for owner in (
            file,
            file.create_group("group", track_order=tracked),
            file.create_dataset("dataset", data=1, track_order=tracked),
        ):
            for name in names:
                owner.attrs[name] = 1
        file["type"] = np.dtype("i4")
        for name in names:
            file["type"].attrs[name] = 1
    for path in ("/", "/group", "/dataset", "/type"):
        expected = names if tracked and path != "/type" else sorted(names)
        assert list(attributes(root, "x.h5", path)) == expected
        shown = [each["name"] for each in described(root, "x.h5", path)["attributes"]]
        assert shown == sorted(names)


def test_numbers_with_many_unused_bits(root: Path) -> None:
    """libhdf5 2.0 takes them for damage unless it is told not to."""
    placeholder, wanted = h5t.STD_I32LE.copy(), h5t.STD_I32LE.copy()
    placeholder.set_precision(29)
    wanted.set_precision(10)
    with h5py.File(root / "x.h5", "w") as file:
        file.attrs["other"] = 1
        stored = np.array([-5, 511, -512], "<i4")
        create_dataset(file, "x", placeholder, stored)
        create_attribute(file, b"few", placeholder, stored[:1].reshape(()))
    raw = (root / "x.h5").read_bytes()
    # Without the number and the version in front.
    old, new = placeholder.encode()[2:], wanted.encode()[2:]
    assert raw.count(old) == 2
    (root / "x.h5").write_bytes(raw.replace(old, new))
    found = described(root, "x.h5")
    assert [each["name"] for each in found["attributes"]] == ["few", "other"]
    assert found["children"][0]["type"]["dtype"] == "<i4"
    assert values(root, "x.h5", "/x").tolist() == [-5, 511, -512]
    assert attributes(root, "x.h5", "/") == {"other": 1, "few": -5}


def test_opaque_values_in_raw_storage(root: Path) -> None:
    (root / "raw.bin").write_bytes(b"abcdefgh")
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_external(b"raw.bin", 0, 8)
    with h5py.File(root / "x.h5", "w") as file:
        create_dataset(file, "x", opaque(4, b"a tag"), shape=(2,), plist=properties)
        pairs = h5t.array_create(opaque(2, b"a tag"), (2,))
        create_dataset(file, "pairs", pairs, shape=(2,), plist=properties)
    assert values(root, "x.h5", "/x").tolist() == [b"abcd", b"efgh"]
    assert values(root, "x.h5", "/pairs").tolist() == [[b"ab", b"cd"], [b"ef", b"gh"]]


def test_what_is_refused_is_not_called_damaged(root: Path) -> None:
    with h5py.File(root / "x.h5", "w") as file:
        file["x"] = np.arange(3, dtype="<i4")
        with pytest.raises((OSError, TypeError)) as caught:
            file["x"].id.read(h5s.ALL, h5s.ALL, np.zeros(3, "V4"), opaque(4, b"a tag"))
        file.create_dataset("text", (4,), h5py.string_dtype(), chunks=(2,), fillvalue="fill")[0] = (
            "x"
        )
    refusal = refusal_of("x.h5", "/x", caught.value)
    assert isinstance(refusal, TypeUnsupported)
    assert "no conversion" in str(refusal)
    with h5py.File(root / "x.h5") as file, pytest.raises(OSError, match="write intent") as caught:
        file["text"][...]
    assert isinstance(refusal_of("x.h5", "/text", caught.value), LibraryRefused)
    assert isinstance(refusal_of("x.h5", "/x", MemoryError("no")), Overloaded)
    # What says nothing of the kind may be damage.
    assert refusal_of("x.h5", "/x", OSError("Can't read (inflate() failed)")) is None
