"""Reading datasets: h5py's own reading is the oracle."""

import gc
import os
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t

from asgihive.errors import (
    AsgihiveError,
    DamagedData,
    FileUnreadable,
    FilterMissing,
    KindMismatch,
    TypeUnsupported,
)
from asgihive.hdf5.links import LinkResolution, walk
from asgihive.hdf5.opening import find_dataset
from asgihive.hdf5.plan import parse_selection, select_all
from tests.hdf5.serving import dataset_of, forge, leased, selected, values

SELECTIONS = [None, "2", "-1", "1:5", "1:6:2", "::3", "0:0"]

FAST = {
    **{each: np.dtype(each) for each in ("<i1", "<u2", ">u2", "<i4", ">i4", "<i8", ">u8")},
    **{each: np.dtype(each) for each in ("<f2", "<f4", ">f4", "<f8", ">f8", "g")},
    **{each: np.dtype(each) for each in ("<c8", ">c16", "?", "S5", "V3")},
    "enum": h5py.enum_dtype({"A": 0, "B": 1}, "<i2"),
    "array": np.dtype(("<i4", (2, 3))),
    "packed": np.dtype([("a", "<i4"), ("b", ">f8"), ("c", "S3", (2,))]),
    "aligned": np.dtype([("a", "i1"), ("b", "<f8")], align=True),
}


def some(dtype: np.dtype[Any], count: int = 8) -> np.ndarray[Any, Any]:
    """Values of any type, none of them alike."""
    base = dtype.subdtype[0] if dtype.subdtype else dtype
    shape = (count, *(dtype.subdtype[1] if dtype.subdtype else ()))
    if base.kind in "SV" or base.kind == "b":
        content = np.arange(1, np.zeros(shape, base).nbytes + 1) % (2 if base.kind == "b" else 100)
        return content.astype("u1").view(base).reshape(shape)
    numbers = np.arange(int(np.prod(shape))).reshape(shape) + 1
    return (numbers % 2 if base.metadata else numbers).astype(base)


@pytest.mark.parametrize("user_block", [0, 512])
@pytest.mark.parametrize("name", FAST)
def test_contiguous_values_are_read_past_libhdf5(root: Path, name: str, user_block: int) -> None:
    dtype = FAST[name]
    with h5py.File(root / "main.h5", "w", userblock_size=user_block) as file:
        if dtype.names:
            content = np.zeros(8, dtype)
            content[dtype.names[0]] = np.arange(8)
        else:
            content = some(dtype)
        file.create_dataset("before", data=np.full(9, 255, "u1"))
        file.create_dataset("data", (8,), dtype)[...] = content
        expected = {text: file["data"][...][index(text)] for text in SELECTIONS}
    with dataset_of(root, "main.h5", "data") as (lease, dataset):
        assert dataset.dtype == expected[None].dtype
        stored = dataset.contiguous
        assert stored is not None
        assert stored.find_run(select_all((8,)).axes) == (stored.offset, 8 * dataset.item_bytes)
        assert stored.find_run(parse_selection("::3", (8,)).axes) is None
        for text in SELECTIONS:
            selection = parse_selection(text, (8,))
            if selection.size:
                read = selected(lease, dataset, selection)
                assert read.dtype == dataset.dtype
                np.testing.assert_array_equal(read, expected[text])


def index(text: str | None) -> Any:
    return eval(f"numpy.s_[{text or '...'}]", {"numpy": np})


@pytest.mark.parametrize(
    "name", ["vlen", "text", "bits", "chunked", "scale_offset", "space_padded"]
)
def test_what_does_not_lie_there_as_in_memory_is_read_by_libhdf5(root: Path, name: str) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        file.create_dataset("vlen", (3,), h5py.vlen_dtype("i4"))[0] = [1, 2]
        file.create_dataset("text", data=["a", "bc", ""], dtype=h5py.string_dtype())
        bits = h5d.create(file.id, b"bits", h5t.STD_B16LE, h5s.create_simple((3,)))
        bits.write(h5s.ALL, h5s.ALL, np.array([1, 2, 3], "<u2"), mtype=h5t.STD_B16LE)
        file.create_dataset("chunked", data=np.arange(3), chunks=(2,))
        file.create_dataset("scale_offset", data=np.arange(3), chunks=(3,), scaleoffset=True)
        padded = h5t.C_S1.copy()
        padded.set_size(4)
        padded.set_strpad(h5t.STR_SPACEPAD)
        spaces = h5d.create(file.id, b"space_padded", padded, h5s.create_simple((3,)))
        spaces.write(h5s.ALL, h5s.ALL, np.array([b"a   ", b"bc  ", b"d   "]), mtype=padded)
        expected = file[name][...]
    with dataset_of(root, "main.h5", name) as (lease, dataset):
        assert dataset.contiguous is None
        read = selected(lease, dataset, select_all((3,)))
    if name == "vlen":
        assert [each.tolist() for each in read] == [each.tolist() for each in expected]
    else:
        np.testing.assert_array_equal(read, expected)


def test_arrays_in_arrays(root: Path) -> None:
    nested = h5t.array_create(h5t.array_create(h5t.STD_I32LE, (2,)), (3,))
    with h5py.File(root / "main.h5", "w") as file:
        data = h5d.create(file.id, b"data", nested, h5s.create_simple((4,)))
        data.write(h5s.ALL, h5s.ALL, np.arange(24, dtype="<i4"), mtype=nested)
        expected = file["data"][...]
    np.testing.assert_array_equal(values(root, "main.h5", "data"), expected)
    np.testing.assert_array_equal(values(root, "main.h5", "data", "2"), expected[2])


def polluted() -> None:
    """Leave recognisable bytes in the heap's free memory."""
    junk = [bytes([0xAB]) * size for size in (200, 1000, 4000, 12_000) for _ in range(300)]
    del junk
    gc.collect()


@pytest.mark.parametrize("chunks", [None, (1000,)])
def test_never_written_without_fill_is_zeros(root: Path, chunks: tuple[int, ...] | None) -> None:
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_fill_time(h5d.FILL_TIME_NEVER)
    if chunks:
        properties.set_chunk(chunks)
    with h5py.File(root / "main.h5", "w") as file:
        h5d.create(file.id, b"data", h5t.STD_U8LE, h5s.create_simple((3000,)), properties)
    polluted()
    with dataset_of(root, "main.h5", "data") as (lease, dataset):
        axes = select_all((3000,)).axes
        assert not dataset.read(lease, axes).any()
        assert not dataset.read(lease, axes, np.dtype(">f8")).any()


def test_a_file_that_ends_early(root: Path) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        file["data"] = np.arange(1, 5001, dtype="<i4")
    content = (root / "main.h5").read_bytes()
    (root / "main.h5").write_bytes(content[:-8000])
    with pytest.raises(FileUnreadable, match="truncated"):
        values(root, "main.h5", "data")


@pytest.mark.parametrize("filters", [{"compression": "gzip"}, {"fletcher32": True}])
def test_a_damaged_chunk_is_named(root: Path, filters: dict[str, Any]) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        data = file.create_dataset("data", (9, 9), "<i4", chunks=(3, 3), **filters)
        data[...] = np.arange(81).reshape(9, 9)
        data.id.write_direct_chunk((3, 6), b"\x01" * 40)
    for text in (None, "4", "3:6,8"):
        with pytest.raises(DamagedData, match=r"chunk \(1, 2\)"):
            values(root, "main.h5", "data", text)
    assert values(root, "main.h5", "data", "0:3").tolist() == np.arange(27).reshape(3, 9).tolist()


def test_a_chunk_that_inflates_beyond_its_size(root: Path) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        data = file.create_dataset("data", (4, 10), "u1", chunks=(1, 10), compression="gzip")
        data.id.write_direct_chunk((0, 0), zlib.compress(b"\x02" * 5000))
    with pytest.raises(DamagedData, match=r"chunk \(0, 0\) .* more than the 10 bytes expected"):
        values(root, "main.h5", "data", "0")
    assert values(root, "main.h5", "data", "1").tolist() == [0] * 10


def test_a_missing_filter_is_named(root: Path) -> None:
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_chunk((4,))
    properties.set_filter(h5py.h5z.FILTER_DEFLATE, 0, (4,))
    with h5py.File(root / "main.h5", "w") as file:
        data = h5d.create(file.id, b"data", h5t.STD_I32LE, h5s.create_simple((4,)), properties)
        data.write_direct_chunk((0,), b"\x00" * 16)
    # The filter message: number 1, length of its name, flags, number of values, name.
    rest = b"\x08\x00\x00\x00\x01\x00"
    forge(root / "main.h5", b"\x01\x00" + rest + b"deflate", b"\x77\x77" + rest + b"unknown")
    with pytest.raises(FilterMissing) as caught:
        values(root, "main.h5", "data")
    assert (caught.value.number, caught.value.name) == (0x7777, "unknown")


def test_what_is_no_dataset(root: Path) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        file.create_group("group")
        file["type"] = np.dtype("i4")
        h5d.create(file.id, b"time", h5t.UNIX_D32LE, h5s.create_simple((2,)))
    for path, kind in [("/", "group"), ("group", "group"), ("type", "datatype")]:
        with pytest.raises(KindMismatch, match=f"is a {kind}, but a dataset"):
            values(root, "main.h5", path)
    with pytest.raises((TypeUnsupported, DamagedData)):
        values(root, "main.h5", "time")


def test_empty_and_scalar_dataspaces(root: Path) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        file["null"] = h5py.Empty("f4")
        file["scalar"] = 7
        file["chunkless"] = np.zeros((0, 3))
    with dataset_of(root, "main.h5", "null") as (_, dataset):
        assert dataset.shape is None
    assert values(root, "main.h5", "scalar") == 7
    with dataset_of(root, "main.h5", "chunkless") as (_, dataset):
        assert dataset.shape == (0, 3)


def test_open_datasets_are_kept_with_their_file(root: Path) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        file["a/data"] = np.arange(5)
        file["link"] = h5py.SoftLink("/a/data")
    with leased(root) as lease:
        file = lease.open_asked("main.h5")
        first = find_dataset(lease, file, "/a/data")
        assert find_dataset(lease, file, "a//data/") is first
        linked = find_dataset(lease, file, "/link")
        assert find_dataset(lease, file, "/link") is linked
        lease.pool.close()
        assert lease.pool.datasets.get((file, b"a/data")) is None
        with pytest.raises(AsgihiveError):
            first.read(lease, select_all((5,)).axes)


def test_datasets_met_through_other_files_are_not_kept(root: Path) -> None:
    with h5py.File(root / "other.h5", "w") as file:
        file["data"] = np.arange(5)
    with h5py.File(root / "main.h5", "w") as file:
        file["external"] = h5py.ExternalLink("other.h5", "data")
    with leased(root) as lease:
        file = lease.open_asked("main.h5")
        dataset = find_dataset(lease, file, "/external")
        assert dataset.read(lease, select_all((5,)).axes).tolist() == [0, 1, 2, 3, 4]
        assert lease.pool.datasets.get((file, b"external")) is None
        assert set(map(Path, lease.depends)) == {root / "main.h5", root / "other.h5"}
        assert walk(lease, file, "/external", LinkResolution.ALL).path == "/external"


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="the kernel is not Linux")
def test_what_the_page_cache_holds_is_read_at_once(root: Path) -> None:
    stored = np.arange(24, dtype=">i4").reshape(6, 4)
    with h5py.File(root / "main.h5", "w") as file:
        file["x"] = stored
    (root / "main.h5").read_bytes()
    with dataset_of(root, "main.h5", "x") as (_, dataset):
        assert dataset.contiguous is not None
        run = dataset.contiguous.find_run(parse_selection("2:5", (6, 4)).axes)
        assert run is not None
        read = dataset.contiguous.read_cached(run)
        assert read is not None
        np.testing.assert_array_equal(read.reshape(3, 4), stored[2:5])
        beyond = (root / "main.h5").stat().st_size - 4
        assert dataset.contiguous.read_cached((beyond, 8)) is None
