"""Virtual mappings of any selections, as h5py and libhdf5 read them; and forged ones."""

import ctypes
import os
import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5s
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asgihive.errors import DamagedData, SourceRefused, TypeUnsupported
from asgihive.hdf5 import pool, virtual
from asgihive.hdf5.opening import find_dataset
from asgihive.hdf5.plan import parse_selection
from tests.efforts import at_most
from tests.hdf5.serving import dataset_of, described, leased, selected, values
from tests.hdf5.strategies import selections
from tests.hdf5.test_pairing import masks, source_masks
from tests.hdf5.test_virtual import create_virtual, one_source, read_by_libhdf5, space_of

U = h5s.UNLIMITED
Array = np.ndarray[Any, Any]


def space_of_mask(mask: Array) -> Any:
    """A dataspace in which exactly these elements are selected, run by run."""
    space = h5s.create_simple(mask.shape)
    space.select_none()
    operation = h5s.SELECT_SET
    for at in np.argwhere(mask):
        space.select_hyperslab(tuple(at), (1,) * mask.ndim, None, None, operation)
        operation = h5s.SELECT_OR
    return space


@settings(max_examples=at_most(60), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(masks(), st.data())
def test_any_selections_are_read_as_libhdf5_reads_them(
    tmp_path_factory: pytest.TempPathFactory, mask: Array, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("virtual")
    source = data.draw(source_masks(int(mask.sum())))
    with h5py.File(root / "source.h5", "w") as file:
        chunks = True if data.draw(st.booleans()) else None
        content = np.arange(source.size, dtype=data.draw(st.sampled_from([">i4", "<i2"])))
        file.create_dataset("data", data=content.reshape(source.shape), chunks=chunks)
    with h5py.File(root / "virtual.h5", "w") as file:
        mapping = (space_of_mask(mask), "source.h5", "data", space_of_mask(source))
        create_virtual(file, "data", [mapping], h5s.create_simple(mask.shape))
    expected = read_by_libhdf5(root / "virtual.h5")
    text = data.draw(selections(mask.shape))
    with dataset_of(root, "virtual.h5", "data") as (lease, dataset):
        assert dataset.shape == mask.shape
        for each in (None, text):
            selection = parse_selection(each, mask.shape)
            if selection.size:
                part = eval(f"array[{each or '...'}]", {"array": expected})
                np.testing.assert_array_equal(selected(lease, dataset, selection), part)


def test_as_h5py_makes_them(root: Path) -> None:
    """Lists of indices, masks, other shapes, nothing."""
    with h5py.File(root / "s.h5", "w") as file:
        file["d"] = np.arange(12, dtype="i2").reshape(3, 4)
        file["one"] = np.int16(5)
    source = h5py.VirtualSource("s.h5", "d", shape=(3, 4))
    with h5py.File(root / "v.h5", "w", libver="latest") as file:
        for name, shape, where, part in (
            ("nothing", (0, 4), ..., source[0:0]),
            ("rows", (5, 4), [0, 1, 4], source),
            ("columns", (3, 6), (slice(None), [0, 2, 3, 5]), source),
            ("rows of it", (2, 4), ..., source[[0, 2]]),
            ("columns to rows", (3, 7), (slice(None), [0, 3, 6]), source[:, [0, 1, 3]]),
            ("vector", (12,), ..., source),
            ("matrix", (2, 6), ..., source),
            ("every other one", (24,), slice(None, None, 2), source),
            ("scalar", (1,), 0, h5py.VirtualSource("s.h5", "one", shape=())),
        ):
            layout = h5py.VirtualLayout(shape, "i2")
            layout[where] = part
            file.create_virtual_dataset(name, layout, fillvalue=-9)
    with h5py.File(root / "v.h5") as file:
        expected = {name: file[name][()] for name in file}
    for name, array in expected.items():
        np.testing.assert_array_equal(values(root, "v.h5", name), array)
        assert described(root, "v.h5", name)["shape"] == array.shape


WIDE = (0, 1, 1, 4)


def regular(*lines: tuple[int, int, int, int]) -> Any:
    return tuple(zip(*lines, strict=True))


@pytest.mark.parametrize(
    ("virtual_lines", "growing", "source_lines"),
    [
        # Unlimited by block on both sides, on one, and along another dimension.
        ([(0, 1, 1, U), WIDE], 0, [(0, 1, 1, U), WIDE]),
        ([(1, 1, 1, U), WIDE], 0, [(2, 2, U, 1), WIDE]),
        ([(1, 3, U, 2), WIDE], 0, [(1, 1, 1, U), WIDE]),
        ([WIDE, (0, 1, 1, U)], 1, [(0, 1, 1, U), WIDE]),
        ([WIDE, (2, 3, U, 2)], 1, [(1, 1, U, 1), WIDE]),
    ],
)
def test_unlimited_by_count_and_by_block(
    root: Path, virtual_lines: Any, growing: int, source_lines: Any
) -> None:
    with h5py.File(root / "s.h5", "w") as file:
        file.create_dataset("d", data=np.arange(24).reshape(6, 4), maxshape=(None, 4))
    shape = tuple(5 if axis == growing else 4 for axis in range(2))
    with h5py.File(root / "virtual.h5", "w") as file:
        mapping = (
            space_of(shape, regular(*virtual_lines), growing),
            *("s.h5", "d"),
            space_of((6, 4), regular(*source_lines), 0),
        )
        create_virtual(file, "data", [mapping], space_of(shape, None, growing))
    expected = read_by_libhdf5(root / "virtual.h5")
    assert described(root, "virtual.h5", "data")["shape"] == expected.shape
    np.testing.assert_array_equal(values(root, "virtual.h5", "data"), expected)
    np.testing.assert_array_equal(values(root, "virtual.h5", "data", "::2,1:"), expected[::2, 1:])


def test_too_many_boxes_are_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual, "MAX_SELECTION_BOXES", 3)
    mask = np.zeros(9, bool)
    mask[[0, 2, 5, 6, 8]] = True
    with h5py.File(root / "virtual.h5", "w") as file:
        file["source"] = np.arange(5, dtype="<i4")
        mapping = (space_of_mask(mask), ".", "source", h5s.create_simple((5,)))
        create_virtual(file, "data", [mapping], h5s.create_simple((9,)))
    with pytest.raises(TypeUnsupported, match="selects 4 boxes"):
        values(root, "virtual.h5", "data")
    assert described(root, "virtual.h5", "data")["shape"] == (9,)


# Extents that depend on others


def grow(file: h5py.File, name: str, *of: str) -> None:
    layout = h5py.VirtualLayout((1,), "i1", maxshape=(None,))
    for each in of:
        layout[0:U] = h5py.VirtualSource(".", each, (1,), "i1", maxshape=(None,))[0:U]
    file.create_virtual_dataset(name, layout)


def opened_for(root: Path, name: str) -> tuple[Any, int]:
    """The extent, and how many sources were opened for it."""
    with leased(root) as lease:
        dataset = find_dataset(lease, lease.open_asked("x.h5"), name)
        return dataset.shape, lease.seen.opened


def test_each_dataset_of_a_network_is_opened_once(root: Path) -> None:
    with h5py.File(root / "x.h5", "w", libver="latest") as file:
        file.create_dataset("a0", data=np.arange(5, dtype="i1"), maxshape=(None,), chunks=(1,))
        for level in range(1, 8):
            # One under many names, so that names alone do not tell.
            for name in range(6):
                file[f"a{level - 1}n{name}"] = file[f"a{level - 1}"]
            grow(file, f"a{level}", *[f"a{level - 1}n{name}" for name in range(6)] * 3)
    shape, opened = opened_for(root, "a7")
    assert shape == (5,)
    assert opened <= 6 * 7 * 2
    assert described(root, "x.h5", "a7")["shape"] == (5,)


def test_extents_that_depend_on_themselves_end(root: Path) -> None:
    with h5py.File(root / "x.h5", "w", libver="latest") as file:
        grow(file, "a", "b")
        grow(file, "b", "a")
        grow(file, "c", "c")
    for name in "abc":
        with pytest.raises((TypeUnsupported, SourceRefused), match="made of it"):
            opened_for(root, name)
        assert described(root, "x.h5", name)["shape"] == (0,)


def test_no_more_sources_are_opened_than_may_be(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "MAX_OPENED_SOURCES", 10)
    with h5py.File(root / "x.h5", "w", libver="latest") as file:
        for number in range(11):
            file.create_dataset(f"s{number}", (3,), "i1", maxshape=(None,), chunks=(1,))
        grow(file, "ten", *[f"s{number}" for number in range(10)])
        grow(file, "eleven", *[f"s{number}" for number in range(11)])
    assert opened_for(root, "ten") == ((3,), 10)
    with pytest.raises(TypeUnsupported, match="more than 10 sources"):
        opened_for(root, "eleven")


def test_a_network_is_read_within_the_bound(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "MAX_OPENED_SOURCES", 50)
    with h5py.File(root / "x.h5", "w", libver="latest") as file:
        file["a0"] = np.arange(3, dtype="i1")
        for level in range(1, 7):
            layout = h5py.VirtualLayout((3,), "i1")
            for first in range(3):
                layout[first:] = h5py.VirtualSource(".", f"a{level - 1}", (3,))[first:]
            file.create_virtual_dataset(f"a{level}", layout)
    assert values(root, "x.h5", "a3").tolist() == [0, 1, 2]
    with pytest.raises(TypeUnsupported, match="more than 50 sources"):
        values(root, "x.h5", "a6")


# Forged


@pytest.fixture
def watched(tmp_path: Path) -> Any:
    """A folder outside, with a file and a FIFO, and what says which of them were opened."""
    outside = tmp_path / "watched"
    outside.mkdir()
    with h5py.File(outside / "secret.h5", "w") as file:
        file.create_dataset("table", data=np.arange(9, dtype="i1"), maxshape=(None,))
    os.mkfifo(outside / "fifo")
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "inotify_init1"):
        pytest.skip("inotify is Linux's")
    watch = libc.inotify_init1(os.O_NONBLOCK)
    in_open = 0x20
    assert libc.inotify_add_watch(watch, os.fsencode(outside), in_open) >= 0

    def opened() -> bytes:
        try:
            return os.read(watch, 1 << 16)
        except BlockingIOError:
            return b""

    yield outside, opened
    os.close(watch)


SPACE = struct.pack("<BBB5x", 1, 1, 1) + struct.pack("<QQ", 1, 2**64 - 1)

FORGED = {
    "as it was": SPACE,
    "scalar": struct.pack("<BBB5x", 1, 0, 0) + SPACE[8:],
    "scalar of version 2": struct.pack("<BBBB", 2, 0, 0, 0) + SPACE[4:],
    "null": struct.pack("<BBBB", 2, 0, 0, 2) + SPACE[4:],
    "two dimensions": struct.pack("<BBB5x", 1, 2, 0) + struct.pack("<QQ", 1, 3),
}


@pytest.mark.parametrize("forged", FORGED)
@pytest.mark.parametrize("target", ["secret.h5", "fifo"])
def test_libhdf5_opens_no_source_itself(root: Path, watched: Any, forged: str, target: str) -> None:
    outside, opened = watched
    with h5py.File(root / "v.h5", "w") as file:
        layout = h5py.VirtualLayout((1,), "i1", maxshape=(None,))
        source = h5py.VirtualSource(str(outside / target), "table", (1,), "i1", maxshape=(None,))
        layout[0:U] = source[0:U]
        file.create_virtual_dataset("v", layout)
    content = (root / "v.h5").read_bytes()
    assert content.count(SPACE) == 1
    (root / "v.h5").write_bytes(content.replace(SPACE, FORGED[forged]))
    # By the mapping, along the dimensions that there are. Of one that it lacks, libhdf5 tells what
    # was in its memory: it may be no selection at all, and then the extent is the written one.
    expected: dict[str, Any] = {
        "as it was": [(0,)],
        "null": [None],
        "two dimensions": [(0, 3), (1, 3)],
    }
    assert described(root, "v.h5", "v")["shape"] in expected.get(forged, [()])
    [child] = described(root, "v.h5")["children"]
    assert child["kind"] == "dataset"
    with pytest.raises((SourceRefused, DamagedData, TypeUnsupported)):
        values(root, "v.h5", "v")
    assert opened() == b""


def test_a_mapping_of_a_source_that_is_there_is_read_though_another_is_missing(
    root: Path,
) -> None:
    one_source(root, "absent.h5", "row")
    with h5py.File(root / "virtual.h5", "a") as file:
        mappings = [
            (space_of((4,), None), ".", "local", h5s.create_simple((4,))),
            (space_of((4,), None), "absent.h5", "row", h5s.create_simple((4,))),
        ]
        create_virtual(file, "both", mappings, space_of((4,), None))
    assert values(root, "virtual.h5", "both").tolist() == [0, 1, 2, 3]
