"""Attributes, links and texts read from the file's bytes: libhdf5, through h5py, is the oracle."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5a, h5d, h5p, h5s, h5t
from hypothesis import given
from hypothesis import strategies as st

from asgihive.concurrency import run_at_once
from asgihive.errors import NeedsThread
from asgihive.hdf5 import objects, pool
from asgihive.hdf5.entities import read_attributes
from asgihive.hdf5.file_bytes import NotPlain, read_bytes, without_waiting
from asgihive.hdf5.links import LinkResolution, Resolved, walk
from asgihive.hdf5.objects import StoredObject, find_links, find_object
from asgihive.hdf5.open_file import OpenFile
from asgihive.hdf5.plan import parse_selection
from asgihive.hdf5.stored_metadata import read_strings
from tests.hdf5.serving import dataset_of, leased, selected, values
from tests.hdf5.test_types import TYPES

FORMATS = ("earliest", "v108", "v110", "latest")
PADDINGS = (h5t.STR_NULLTERM, h5t.STR_NULLPAD, h5t.STR_SPACEPAD)
TEXTS = [b"", b"a", b"mm s", b"x" * 300, "é\U0001f389".encode(), b" padded ", b"caf\xe9"]


def refuse(*_: object, **__: object) -> Any:
    raise NotPlain


def put(owner: h5py.Dataset | h5py.Group, name: str, type_id: h5t.TypeID, raw: bytes) -> None:
    """Add an attribute of the bytes that are given, as many elements as they are."""
    count = len(raw) // type_id.get_size()
    attribute = h5a.create(owner.id, name.encode(), type_id, h5s.create_simple((count,)))
    attribute.write(np.frombuffer(raw, f"V{type_id.get_size()}"), type_id)


def write_attributes(owner: h5py.Dataset | h5py.Group) -> None:
    for number, text in enumerate(TEXTS):
        owner.attrs.create(f"text {number}", text, dtype=h5py.string_dtype())
    owner.attrs.create("texts", np.array(TEXTS, object), dtype=h5py.string_dtype("ascii"))
    owner.attrs.create(
        "table", np.array([[b"a", b""], [b"b", b"cd"]], object), (2, 2), h5py.string_dtype()
    )
    for padding in PADDINGS:
        for cset in (h5t.CSET_ASCII, h5t.CSET_UTF8):
            type_id = h5t.C_S1.copy()
            type_id.set_size(5)
            type_id.set_strpad(padding)
            type_id.set_cset(cset)
            put(owner, f"fixed {padding} {cset}", type_id, b"abcdea\0b\0 ab   \0\0\0\0\0  c  ")
    for dtype in ("<i1", ">i2", "<i4", ">i8", "<u2", ">u8", "<f2", ">f4", "<f8", "?", "<c16"):
        owner.attrs[f"number {dtype}"] = np.arange(6).astype(dtype).reshape(2, 3)
    owner.attrs["scalar"] = np.float32(1.5)
    owner.attrs["empty"] = h5py.Empty("f4")
    owner.attrs["none"] = np.zeros((0, 3), "i4")
    owner.attrs["compound"] = np.array([(1, 2.5)], [("a", "<i2"), ("b", "<f8")])
    kind = h5t.array_create(h5t.STD_I32LE, (3,))
    h5a.create(owner.id, b"array", kind, h5s.create_simple((2,)))
    kind = h5t.vlen_create(h5t.STD_I32LE)
    h5a.create(owner.id, b"sequence", kind, h5s.create_simple((2,)))
    owner.attrs["reference"] = owner.ref


def read_all(root: Path, path: str) -> dict[str, Any]:
    with leased(root) as lease:
        entity = walk(lease, lease.open_asked("main.h5"), path, LinkResolution.ALL)
        assert isinstance(entity, Resolved)
        return run_at_once(read_attributes(entity, None, 1 << 30))


@pytest.mark.parametrize("track_order", [False, True])
@pytest.mark.parametrize("libver", FORMATS)
def test_attributes_are_those_of_libhdf5(
    root: Path, monkeypatch: pytest.MonkeyPatch, libver: str, *, track_order: bool
) -> None:
    with h5py.File(root / "main.h5", "w", libver=libver) as file:
        group = file.create_group("group", track_order=track_order)
        write_attributes(group)
        data = file.create_dataset("data", data=1.0, track_order=track_order)
        # No more than are kept in the header.
        for name in ("z", "a", "é", "m"):
            data.attrs[name] = f"of {name}"
        data.attrs["numbers"] = np.arange(3)
    opened: list[int] = []
    original = objects.open_object

    def noting(file: OpenFile, address: int) -> Any:
        opened.append(address)
        return original(file, address)

    monkeypatch.setattr(objects, "open_object", noting)
    found = {path: read_all(root, path) for path in ("group", "data")}
    assert len(opened) <= 1  # the group, for what libhdf5 must read of it
    monkeypatch.setattr(pool, "bytes_of_file", refuse)
    for path, here in found.items():
        by_library = read_all(root, path)
        assert list(here) == list(by_library)
        for name, value in by_library.items():
            if isinstance(value, np.ndarray | np.generic):
                assert value.dtype == here[name].dtype, name
                assert value.shape == here[name].shape, name
            assert repr(value) == repr(here[name]), name


@pytest.mark.parametrize("layout", [h5d.CONTIGUOUS, h5d.COMPACT])
@pytest.mark.parametrize("libver", FORMATS)
def test_texts_are_those_of_libhdf5(root: Path, libver: str, layout: int) -> None:
    content = np.array([*TEXTS, b"last"] * 3, object).reshape(4, 6)
    with h5py.File(root / "main.h5", "w", libver=libver) as file:
        properties = h5p.create(h5p.DATASET_CREATE)
        properties.set_layout(layout)
        for name, data in (("texts", content), ("one", np.array(b"alone", object))):
            kind = h5t.py_create(h5py.string_dtype(), logical=True)
            space = h5s.create_simple(data.shape) if data.shape else h5s.create(h5s.SCALAR)
            h5d.create(file.id, name.encode(), kind, space, properties)
            file[name][...] = data
        expected = file["texts"][()]
    for selection in (None, "1", ":,2", "1:4:2,::3", "0:0"):
        chosen = parse_selection(selection, expected.shape)
        index = tuple(slice(a.start, a.start + a.count * a.step, a.step) for a in chosen.axes)
        wanted = expected[index].reshape(chosen.shape)
        np.testing.assert_array_equal(values(root, "main.h5", "texts", selection), wanted)
    with dataset_of(root, "main.h5", "one") as (lease, dataset), without_waiting():
        assert selected(lease, dataset, parse_selection(None, ()))[()] == b"alone"


@given(stored=st.binary(max_size=200), count=st.integers(0, 20))
def test_any_bytes_for_the_places_of_strings(
    tmp_path_factory: pytest.TempPathFactory, stored: bytes, count: int
) -> None:
    root = tmp_path_factory.mktemp("any")
    with h5py.File(root / "main.h5", "w") as file:
        file["x"] = "text"
    with leased(root) as lease:
        metadata = lease.open_asked("main.h5").metadata
        assert metadata is not None
        try:
            found = read_strings(metadata, stored, count)
        except NotPlain:
            return
        assert found.shape == (count,)


@pytest.mark.parametrize("libver", FORMATS)
@pytest.mark.parametrize("count", [3, 8, 100])
def test_links_are_those_of_libhdf5(root: Path, libver: str, count: int) -> None:
    with h5py.File(root / "main.h5", "w", libver=libver) as file:
        group = file.create_group("group")
        for number in range(count):
            name = f"{number} é" + "x" * (number % 7 * 50)
            match number % 3:
                case 0:
                    group[name] = number
                case 1:
                    group[name] = h5py.SoftLink(f"/other/{number}")
                case 2:
                    group[name] = h5py.ExternalLink(f"other{number}.h5", "/x/y")
    with leased(root) as lease:
        file = lease.open_asked("main.h5")
        root_links = find_links(objects.find_root(file))
        assert root_links is not None
        address = root_links[b"group"].address
        native = find_links(find_object(file, address))
        if native is None:
            assert count == 100  # in dense storage
            return
        by_library = StoredObject(file, address, None)
        group_id = by_library.id
        listed = run_at_once(objects.list_links(by_library))
        assert list(map(_shown, sorted(native.values()))) == list(map(_shown, listed))
        for link in native.values():
            if link.target is not None:
                assert link.target == group_id.links.get_val(link.name)


def _shown(link: Any) -> tuple[bytes, int, int]:
    return link.name, link.type, link.address if not link.type else 0


@pytest.mark.parametrize("name", sorted(TYPES))
def test_what_a_thread_must_not_wait_for(root: Path, name: str) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        h5d.create(file.id, b"x", TYPES[name], h5s.create_simple((2,)))
    with leased(root) as lease:
        file = lease.open_asked("main.h5")
        with without_waiting(), pytest.raises(NeedsThread):
            _ = file.root
        with without_waiting(), pytest.raises(NeedsThread):
            lease.open_asked("other.h5")


def test_bytes_that_are_not_in_memory(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "x").write_bytes(b"0123")

    def nothing(*_: Any) -> int:
        raise BlockingIOError

    with open(root / "x", "rb") as file:
        read: Callable[..., bytes] = read_bytes
        with without_waiting():
            assert read(file.fileno(), 10, 1) == b"123"
        monkeypatch.setattr("os.preadv", nothing)
        with without_waiting(), pytest.raises(NeedsThread):
            read(file.fileno(), 2, 0)
        assert read(file.fileno(), 2, 0) == b"01"
