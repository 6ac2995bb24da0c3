"""Headers read from the file's bytes: libhdf5, through h5py, is the oracle."""

import ctypes
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5a, h5d, h5f, h5g, h5o, h5p, h5s, h5t
from hypothesis import given
from hypothesis import strategies as st

from asgihive.errors import FileUnreadable
from asgihive.hdf5 import file_bytes, headers, objects, pool
from asgihive.hdf5.file_bytes import NotPlain
from asgihive.hdf5.headers import ObjectHeader, read_header
from asgihive.hdf5.layout import LayoutKind
from asgihive.hdf5.open_file import OpenFile
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.stored_metadata import interpret_dataset
from tests.hdf5.serving import described, leased
from tests.hdf5.test_types import TYPES

# More than 8 attributes are stored densely in new files; the long names make long messages.
WIDE = np.dtype([(f"a member with a rather long name {i}", "<f4") for i in range(12)])


def write(file: h5py.File) -> None:
    file.create_group("group/below")
    file["type"] = np.dtype([("a", "<i4")])
    file.create_dataset("committed", (3,), file["type"])
    for name, value in {
        "contiguous": np.arange(6).reshape(2, 3),
        "scalar": 1.5,
        "null": h5py.Empty("i2"),
        "zero": np.zeros((0, 4)),
        "text": "é",
        "wide": np.zeros(2, WIDE),
        "deep": np.zeros((1,) * 32, "i1"),
    }.items():
        file[name] = value
    file.create_dataset("chunked", data=np.arange(9), chunks=(2,), compression="gzip")
    file.create_dataset("filtered", (5, 6), "f8", chunks=(2, 3), shuffle=True, fletcher32=True)
    file.create_dataset("growing", (2, 2), "f4", maxshape=(None, 4))
    file.create_dataset("two ends", (2, 2), "f4", maxshape=(None, None), chunks=(1, 300))
    file.create_dataset("unwritten", (7,), "<f4")
    file.create_dataset("outside", (3,), "i1", external=[("raw", 0, 3)])
    source = h5py.VirtualSource(file["contiguous"])
    virtual = h5py.VirtualLayout((2, 3), "i8")
    virtual[...] = source
    file.create_virtual_dataset("virtual", virtual)
    compact = h5p.create(h5p.DATASET_CREATE)
    compact.set_layout(h5d.COMPACT)
    h5d.create(file.id, b"compact", h5t.STD_I16BE, h5s.create_simple((4,)), compact)
    file["soft"] = h5py.SoftLink("/contiguous")
    for owner in (file, file["group"], file["contiguous"], file["chunked"], file["type"]):
        owner.attrs["scalar"] = 1
        owner.attrs["null"] = h5py.Empty("f4")
        owner.attrs["array"] = np.arange(6).reshape(3, 2)
        owner.attrs["wide"] = np.zeros((), WIDE)
        owner.attrs["é"] = "text"
    file["contiguous"].attrs.create(
        "committed", np.zeros(2, file["type"].dtype), dtype=file["type"]
    )
    many = file.create_group("many attributes")
    for number, type_id in enumerate(TYPES.values()):
        h5a.create(many.id, f"{number} caf".encode() + b"\xe9", type_id, h5s.create(h5s.SCALAR))
        one = h5g.create(file.id, f"one attribute {number}".encode())
        h5a.create(one, b"x", type_id, h5s.create_simple((2, 3), (h5s.UNLIMITED, 3)))
        h5d.create(file.id, f"of type {number}".encode(), type_id, h5s.create_simple((2, 3)))


@pytest.fixture(params=["earliest", "v108", "latest"])
def written(request: pytest.FixtureRequest, root: Path) -> Path:
    with h5py.File(root / "main.h5", "w", libver=request.param) as file:
        write(file)
    return root


def refuse(*_: object, **__: object) -> Any:
    raise NotPlain


def by_libhdf5(root: Path, path: str = "/") -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "bytes_of_file", refuse)
        return described(root, "main.h5", path)


@contextmanager
def counted_opening() -> Iterator[list[int]]:
    """The addresses of the objects that libhdf5 had to open."""
    opened: list[int] = []
    original = objects.open_object

    def noting(file: OpenFile, address: int) -> Any:
        opened.append(address)
        return original(file, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objects, "open_object", noting)
        yield opened


def read(lease: Lease, address: int) -> ObjectHeader:
    """The header at an address of the file."""
    file = lease.open_asked("main.h5").metadata
    assert file is not None
    return read_header(file, address)


def test_descriptions_are_those_of_libhdf5(written: Path) -> None:
    for path in ("/", "/group"):
        assert described(written, "main.h5", path) == by_libhdf5(written, path)
    kinds = {child["kind"] for child in described(written, "main.h5")["children"]}
    assert kinds == {"group", "dataset", "datatype"}


def test_what_one_child_taught_holds_for_the_next(written: Path) -> None:
    with h5py.File(written / "main.h5", "r+") as file:
        for number in range(50):
            data = file.create_dataset(
                f"many/{number}", (number + 1, 2), "f4", chunks=(number + 1, 2), compression="gzip"
            )
            data.attrs["units"] = "mm"
            data.attrs[f"its own {number}"] = np.zeros(number)
            group = file.create_group(f"many/group {number}")
            group.attrs["units"] = "m"
    with counted_opening() as opened:
        found = described(written, "main.h5", "/many")
    assert found == by_libhdf5(written, "/many")
    # All of these types are known from the start; libhdf5 lists what is many links of the new kind.
    assert len(opened) <= 1


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_each_header_is_read_as_libhdf5_reads_it(root: Path, libver: str) -> None:
    with h5py.File(root / "main.h5", "w", libver=libver, userblock_size=512) as file:
        write(file)
        # What is added later continues the header elsewhere.
        for number in range(7):
            file["scalar"].attrs[f"later {number}" * 20] = "x" * number * 100
    left_to_libhdf5 = {"type", "committed"}
    with leased(root) as lease:
        opened = lease.open_asked("main.h5")
        assert opened.metadata is not None
        for name, thing in h5py.File(opened.handle.library()[0]).items():
            address = h5o.get_info(thing.id).addr
            if name in {"outside", "virtual"}:
                with pytest.raises(NotPlain):
                    interpret_dataset(opened.metadata, read(lease, address))
                continue
            if name in left_to_libhdf5 or (libver == "latest" and name == "many attributes"):
                with pytest.raises(NotPlain):
                    read(lease, address)
                continue
            header = read(lease, address)
            assert header.kind == ("group" if isinstance(thing, h5py.Group) else "dataset")
            assert len(header.attributes) == len(thing.attrs)
            if isinstance(thing, h5py.Dataset):
                stored = interpret_dataset(opened.metadata, header)
                assert (stored.shape, stored.chunks) == (thing.shape, thing.chunks)
                assert stored.max_shape == (thing.maxshape or ())
                properties = thing.id.get_create_plist()
                filters = [properties.get_filter(i) for i in range(properties.get_nfilters())]
                assert [(each.id, each.values) for each in stored.filters] == [
                    (number, values) for number, _, values, _ in filters
                ]
                size = thing.id.get_storage_size()
                if stored.kind is LayoutKind.CONTIGUOUS:
                    # h5py's offset of what was never written is one behind the user block.
                    place = (thing.id.get_offset() - 512, size) if size else None
                    assert stored.place == place


def creation(**given: Any) -> h5p.PropFCID:
    properties = h5p.create(h5p.FILE_CREATE)
    for name, arguments in given.items():
        getattr(properties, name)(*arguments)
    return properties


@pytest.mark.parametrize("sizes", [(4, 4), (4, 8), (8, 4)])
def test_files_with_other_address_sizes(root: Path, sizes: tuple[int, int]) -> None:
    h5f.create(bytes(root / "main.h5"), fcpl=creation(set_sizes=sizes)).close()
    with h5py.File(root / "main.h5", "r+") as file:
        write(file)
    for path in ("/", "/group", "/contiguous"):
        assert described(root, "main.h5", path) == by_libhdf5(root, path)


@pytest.mark.parametrize("track_order", [False, True])
def test_attributes_with_their_creation_order(root: Path, *, track_order: bool) -> None:
    with h5py.File(root / "main.h5", "w", libver="latest", track_order=track_order) as file:
        for number in range(3):
            data = file.create_dataset(str(number), data=number, track_order=track_order)
            for name in ("b", "a", "c"):
                data.attrs[name] = number
            del data.attrs["a"]
    with counted_opening() as opened:
        found = described(root, "main.h5")
    assert found == by_libhdf5(root)
    assert not opened


def test_names_that_are_long_or_not_utf8(root: Path) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        for number in range(2):
            data = file.create_dataset(str(number), data=1)
            for name in (b"n" * 10_000, b"caf\xe9", "é".encode()):
                h5a.create(data.id, name, h5t.STD_I8LE, h5s.create(h5s.SCALAR))
            # Shown like another one.
            h5a.create(data.id, b"caf\xea", h5t.IEEE_F32BE, h5s.create(h5s.SCALAR))
    assert described(root, "main.h5") == by_libhdf5(root)


def small(root: Path, libver: str) -> tuple[int, bytes]:
    """A file with one dataset; where its header lies, and the content."""
    with h5py.File(root / "main.h5", "w", libver=libver) as file:
        file["bad"] = np.arange(3)
        for name in ("x", "y"):
            file["bad"].attrs[name] = np.zeros(2)
        address = h5o.get_info(file["bad"].id).addr
    return address, (root / "main.h5").read_bytes()


@given(data=st.data())
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_damaged_headers_are_refused_or_told(
    tmp_path_factory: pytest.TempPathFactory, libver: str, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("damaged")
    address, content = small(root, libver)
    changed = bytearray(content)
    place = data.draw(st.integers(address, min(address + 400, len(content)) - 1))
    changed[place] ^= data.draw(st.integers(1, 255))
    (root / "main.h5").write_bytes(changed)
    with leased(root) as lease:
        try:
            header = read(lease, address)
            for message in header.attributes:
                headers.parse_attribute(message)
            file = lease.open_asked("main.h5").metadata
            assert file is not None
            stored = interpret_dataset(file, header)
        except (NotPlain, FileUnreadable):
            return
    # The version with checksums is certain, the older one as certain as libhdf5 is.
    if libver == "latest":
        assert stored.shape == (3,)


@given(content=st.binary(max_size=600), libver=st.sampled_from(["earliest", "latest"]))
def test_any_bytes_for_a_header(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, libver: str
) -> None:
    root = tmp_path_factory.mktemp("any")
    address, whole = small(root, libver)
    start = b"OHDR\x02" if libver == "latest" else b"\x01\x00"
    forged = start + content
    (root / "main.h5").write_bytes(whole[:address] + forged + whole[address + len(forged) :])
    with leased(root) as lease:
        try:
            read(lease, address)
        except (NotPlain, FileUnreadable):
            return


def test_a_header_that_continues_itself_ends(root: Path) -> None:
    address, content = small(root, "earliest")
    reach = 16
    message = b"\x10\x00\x10\x00\x00\x00\x00\x00"
    here = (address + 16).to_bytes(8, "little") + (reach + 8).to_bytes(8, "little")
    prefix = b"\x01\x00\x01\x00\x01\x00\x00\x00" + (reach + 8).to_bytes(4, "little") + bytes(4)
    forged = prefix + message + here
    (root / "main.h5").write_bytes(content[:address] + forged + content[address + len(forged) :])
    with leased(root) as lease, pytest.raises(NotPlain):
        read(lease, address)


@pytest.mark.parametrize("address", [1 << 40, (1 << 64) - 1])
def test_addresses_outside_of_the_file(root: Path, address: int) -> None:
    small(root, "earliest")
    with leased(root) as lease, pytest.raises(NotPlain):
        read(lease, address)


def test_without_libhdf5s_checksum_its_headers_are_left_to_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(root, "latest")

    def absent(_: str) -> object:
        raise OSError

    with monkeypatch.context() as patch:
        patch.setattr(ctypes, "PyDLL", absent)
        assert file_bytes.find_in_libhdf5("H5_checksum_metadata", None) is None
    monkeypatch.setattr(file_bytes, "checksum", None)
    with leased(root) as lease:
        assert lease.open_asked("main.h5").metadata is None
    assert described(root, "main.h5")["children"][0]["shape"] == (3,)


def test_one_page_is_read_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        for number in range(500):
            file[f"{number:03}"] = zlib.crc32(bytes([number % 256]))
    size = (root / "main.h5").stat().st_size
    monkeypatch.setattr(file_bytes, "MAX_PAGES", 3)  # drops some on the way
    reads: list[int] = []
    original = os.pread

    def counting(descriptor: int, size: int, offset: int) -> bytes:
        reads.append(offset)
        return original(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", counting)
    found = described(root, "main.h5")
    assert [each["shape"] for each in found["children"]] == [()] * 500
    assert len(reads) <= 2 * (size // (1 << 14) + 1) + 20


@pytest.mark.parametrize("kind", [headers.LINK_INFO, headers.ATTRIBUTE_INFO])
def test_an_empty_message_is_not_plain(root: Path, kind: int) -> None:
    address, content = small(root, "earliest")
    table = struct.pack("<HHBxxxQQ", headers.SYMBOL_TABLE, 16, 0, 0, 0)
    messages = table + struct.pack("<HHBxxx", kind, 0, 0)
    forged = struct.pack("<BxHIIxxxx", 1, 2, 1, len(messages)) + messages
    (root / "main.h5").write_bytes(content[:address] + forged + content[address + len(forged) :])
    with leased(root) as lease, pytest.raises(NotPlain):
        read(lease, address)
