"""Chunked datasets read past libhdf5: h5py's own reading is the oracle."""

import ctypes
import itertools
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t
from hypothesis import given, settings
from hypothesis import strategies as st

from asgihive.errors import DamagedData, FileChanged
from asgihive.hdf5 import chunk_grid, chunk_index
from asgihive.hdf5.chunk_index import ChunkIndex
from asgihive.hdf5.chunks import ChunkedStorage
from asgihive.hdf5.datasets import Dataset
from asgihive.hdf5.opening import find_dataset
from asgihive.hdf5.plan import parse_selection, select_all
from asgihive.hdf5.pool import Lease
from tests.efforts import at_most
from tests.hdf5.serving import dataset_of, leased, selected, values
from tests.hdf5.strategies import selections

SHAPE = (23, 17)
FILTERS: dict[str, dict[str, Any]] = {
    "none": {},
    "gzip": {"compression": "gzip"},
    "shuffle_gzip": {"compression": "gzip", "shuffle": True},
    "fletcher32": {"fletcher32": True},
    "scale_offset": {"scaleoffset": 0},
}
# By each of HDF5's chunk indexes: B-trees of version 1 and 2, fixed and extensible arrays,
# a single chunk, and none at all.
LAYOUTS: dict[str, dict[str, Any]] = {
    "btree1": {"libver": "earliest", "chunks": (5, 4)},
    "fixed": {"libver": "latest", "chunks": (5, 4)},
    "extensible": {"libver": "latest", "chunks": (5, 4), "maxshape": (None, 17)},
    "btree2": {"libver": "latest", "chunks": (5, 4), "maxshape": (None, None)},
    "single": {"libver": "latest", "chunks": SHAPE},
    "implicit": {"libver": "latest", "chunks": (5, 4), "early": True},
}


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[tuple[str, str], Any]]:
    """One file a layout, behind a user block, and what h5py reads of each dataset in it."""
    root = tmp_path_factory.mktemp("layouts")
    expected: dict[tuple[str, str], Any] = {}
    for layout, given_ in LAYOUTS.items():
        options = dict(given_)
        library, early = options.pop("libver"), options.pop("early", False)
        with h5py.File(root / f"{layout}.h5", "w", libver=library, userblock_size=512) as file:
            for name, filters in FILTERS.items():
                properties = h5p.create(h5p.DATASET_CREATE)
                if early:
                    properties.set_alloc_time(h5d.ALLOC_TIME_EARLY)
                data = file.create_dataset(
                    name, SHAPE, ">i4", fillvalue=-3, dcpl=properties, **options, **filters
                )
                # The rest was never written.
                data[:12, :15] = np.arange(180).reshape(12, 15)
                expected[layout, name] = data[...]
    return root, expected


@settings(max_examples=at_most(300))
@given(
    st.sampled_from(sorted(LAYOUTS)),
    st.sampled_from(sorted(FILTERS)),
    selections(SHAPE),
    st.booleans(),
)
def test_every_layout_and_filter(
    laid_out: tuple[Path, dict[tuple[str, str], Any]],
    layout: str,
    name: str,
    text: str,
    alone: bool,
) -> None:
    root, expected = laid_out
    with pytest.MonkeyPatch.context() as patch:
        if alone:
            patch.setattr(ChunkIndex, "is_worth_listing", lambda *_: False)
        else:
            patch.setattr(chunk_index, "LOOKED_FOR_ALONE", 0)
        with dataset_of(root, f"{layout}.h5", name) as (lease, dataset):
            selection = parse_selection(text, SHAPE)
            read = selected(lease, dataset, selection)
            again = selected(lease, dataset, selection)
            stored = storage(dataset)
            assert stored.fill is not None
            assert (stored.index.table is None) == (alone or not selection.size)
            assert dataset.needs_library == (name == "scale_offset")
            assert (storage(dataset).index.table is None) == (alone or not selection.size)
    index = eval(f"numpy.s_[{text or '...'}]", {"numpy": np})
    assert read.dtype == again.dtype == expected[layout, name].dtype
    np.testing.assert_array_equal(read, expected[layout, name][index])
    np.testing.assert_array_equal(again, read)


def storage(dataset: Dataset) -> ChunkedStorage:
    assert dataset.chunked is not None
    return dataset.chunked


@pytest.mark.parametrize("fill_time", [h5d.FILL_TIME_ALLOC, h5d.FILL_TIME_NEVER])
@pytest.mark.parametrize("dtype", ["<f8", "S3", "?", [("a", "<i2"), ("b", ">f4", (2,))]])
def test_fill_values(root: Path, fill_time: int, dtype: Any) -> None:
    fill = np.ones((), dtype) if dtype != "S3" else np.array(b"abc")
    with h5py.File(root / "main.h5", "w") as file:
        data = file.create_dataset(
            "data", (6,), dtype, chunks=(2,), fillvalue=fill, fill_time="alloc"
        )
        properties = data.id.get_create_plist()
        properties.set_fill_time(fill_time)
        h5d.create(file.id, b"other", data.id.get_type(), h5s.create_simple((6,)), properties)
    read = values(root, "main.h5", "other")
    wanted = fill if fill_time == h5d.FILL_TIME_ALLOC else np.zeros((), dtype)
    np.testing.assert_array_equal(read, np.full(6, wanted, dtype))


@pytest.mark.parametrize("user_fill", [True, False])
def test_fill_values_of_array_types(root: Path, user_fill: bool) -> None:
    dtype = np.dtype(("<i4", (2, 2)))
    with h5py.File(root / "main.h5", "w") as file:
        data = file.create_dataset("data", (6,), dtype, chunks=(4,), compression="gzip")
        data[:2] = np.arange(8).reshape(2, 2, 2)
        expected = data[...]
    np.testing.assert_array_equal(values(root, "main.h5", "data", "1:6"), expected[1:])


def test_edges_that_were_not_filtered(root: Path) -> None:
    set_options = ctypes.CDLL(h5p.__file__).H5Pset_chunk_opts
    content = np.arange(42, dtype="<i4").reshape(6, 7)
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_chunk((4, 4))
    # Of the same size either way, so that nothing but the option tells.
    properties.set_shuffle()
    assert set_options(ctypes.c_int64(properties.id), 2) >= 0
    with h5py.File(root / "main.h5", "w") as file:
        space = h5s.create_simple(content.shape)
        h5d.create(file.id, b"data", h5t.STD_I32LE, space, properties).write(
            h5s.ALL, h5s.ALL, content
        )
    np.testing.assert_array_equal(values(root, "main.h5", "data"), content)
    np.testing.assert_array_equal(values(root, "main.h5", "data", "::2,6"), content[::2, 6])


def test_filter_masks(root: Path) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        data = file.create_dataset("data", (12,), "<i4", chunks=(4,), compression="gzip")
        data[:] = np.arange(12)
        data.id.write_direct_chunk((4,), np.arange(4, 8, dtype="<i4").tobytes(), filter_mask=1)
        data.id.write_direct_chunk((8,), b"\7" * 15, filter_mask=1)
    with dataset_of(root, "main.h5", "data") as (lease, dataset):
        for text in ("5", "4:8", "1:7:2"):
            selection = parse_selection(text, (12,))
            expected = np.arange(12)[eval(f"numpy.s_[{text}]", {"numpy": np})]
            np.testing.assert_array_equal(selected(lease, dataset, selection), expected)
        with pytest.raises(DamagedData, match=r"chunk \(2,\) \(it gives 15 bytes, 16 are"):
            dataset.read(lease, select_all((12,)).axes)


VARIABLE: dict[str, tuple[Any, Any]] = {
    "text": (h5py.string_dtype(), ["a", "bcd", "", "ef"] * 3),
    "lists": (h5py.vlen_dtype("<i4"), [np.arange(n % 4, dtype="<i4") for n in range(12)]),
    "compound": (np.dtype([("n", "u1"), ("text", h5py.string_dtype())]), [(1, "x"), (2, "yz")] * 6),
    "references": (h5py.ref_dtype, None),
    "regions": (h5py.regionref_dtype, None),
}


@pytest.mark.parametrize("library", ["earliest", "latest"])
@pytest.mark.parametrize("filters", [{}, {"compression": "gzip", "shuffle": True}])
@pytest.mark.parametrize("name", VARIABLE)
def test_what_libhdf5_converts_is_measured_first(
    root: Path, name: str, filters: dict[str, Any], library: str
) -> None:
    dtype, content = VARIABLE[name]
    with h5py.File(root / "main.h5", "w", libver=library) as file:
        data = file.create_dataset("data", (14,), dtype, chunks=(4,), **filters)
        target = file.create_dataset("target", data=np.arange(3))
        if content is None:
            whole_ = target.ref if name == "references" else target.regionref[1:]
            content = [whole_] * 12
        for position, value in enumerate(content):
            data[position] = value
    for text in (None, "3:9"):
        with dataset_of(root, "main.h5", "data") as (lease, dataset):
            assert dataset.needs_library
            selection = parse_selection(text, (14,))
            read = selected(lease, dataset, selection)
            assert len(read) == selection.size
            # The fourth was never written.
            assert storage(dataset).verified == {0, 1, 2}
    if not filters:
        # libhdf5 itself refuses to store such a chunk in another size.
        return
    with h5py.File(root / "main.h5", "r+") as file:
        file["data"].id.write_direct_chunk((4,), zlib.compress(b"\0" * 16))
    with pytest.raises(DamagedData, match=r"chunk \(1,\)"):
        values(root, "main.h5", "data")
    assert len(values(root, "main.h5", "data", "0:4")) == 4


def test_conversion_measures_first(root: Path) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        data = file.create_dataset("data", (8,), "<f8", chunks=(4,), compression="gzip")
        data[:] = np.arange(8) + 0.75
        data.id.write_direct_chunk((4,), zlib.compress(b"\0" * 8))
    with dataset_of(root, "main.h5", "data") as (lease, dataset):
        first = parse_selection("0:4", (8,)).axes
        assert dataset.read(lease, first, np.dtype("i2")).tolist() == [0, 1, 2, 3]
        with pytest.raises(DamagedData, match=r"chunk \(1,\)"):
            dataset.read(lease, select_all((8,)).axes, np.dtype("i2"))


def listed(lease: Lease, dataset: Dataset) -> None:
    """Read the index, so that only chunks are read from then on."""
    index = storage(dataset).index
    index.table = index.list_all(lease.go_on)


@contextmanager
def counted(patch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Sizes of what is read of files."""
    sizes: list[int] = []
    pread = os.pread

    def counting(descriptor: int, size: int, offset: int) -> bytes:
        sizes.append(size)
        return pread(descriptor, size, offset)

    with patch.context() as inner:
        inner.setattr(os, "pread", counting)
        yield sizes


@pytest.mark.parametrize(("cache_bytes", "reads"), [(1 << 20, 1), (0, 3)])
def test_a_chunk_is_decoded_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, cache_bytes: int, reads: int
) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        file.create_dataset("data", data=np.arange(4000), chunks=(2000,), compression="gzip")
        file["link"] = h5py.SoftLink("/data")
    with leased(root, chunk_cache_bytes=cache_bytes) as lease:
        file = lease.open_asked("main.h5")
        listed(lease, find_dataset(lease, file, "data"))
        listed(lease, find_dataset(lease, file, "link"))
        with counted(monkeypatch) as sizes:
            for path, index in (("data", 5), ("data", 1999), ("link", 7)):
                dataset = find_dataset(lease, file, path)
                read = dataset.read(lease, parse_selection(str(index), (4000,)).axes)
                assert read.tolist() == [index]
        assert len(sizes) == reads
        kept = lease.pool.chunks
        assert (len(kept), kept.bytes > 16_000) == ((1, True) if cache_bytes else (0, False))
        lease.pool.close()
        assert (len(kept), kept.bytes) == (0, 0)
        kept.get_or_decode((file, 0, 0), lambda: np.zeros(8, np.uint8), keep=True)
        assert len(kept) == 0


def test_only_the_rows_needed_of_plain_chunks_are_read(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        file.create_dataset("data", data=np.arange(10_000).reshape(100, 100), chunks=(100, 100))
    with dataset_of(root, "main.h5", "data") as (lease, dataset):
        listed(lease, dataset)
        with counted(monkeypatch) as sizes:
            read = dataset.read(lease, parse_selection("3:5,10", (100, 100)).axes)
        assert read.tolist() == [[310], [410]]
        assert sizes == [101 * 8]


def test_first_touch_of_very_many_chunks_lists_none(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 20_000
    with h5py.File(root / "main.h5", "w", libver="latest") as file:
        data = file.create_dataset("data", (count, 2), "<i4", chunks=(1, 2), maxshape=(None, 2))
        data[::2] = np.arange(2 * count).reshape(count, 2)[::2]
    with dataset_of(root, "main.h5", "data") as (lease, dataset):
        for row in (0, 1, 19_998):
            read = dataset.read(lease, parse_selection(str(row), (count, 2)).axes)
            assert read.tolist() == [[0, 0] if row % 2 else [2 * row, 2 * row + 1]]
        assert storage(dataset).index.table is None
        # As soon as listing is cheaper than asking on, it is done.
        dataset.read(lease, parse_selection(":1500", (count, 2)).axes)
        table = storage(dataset).index.table
        assert table is not None
        assert len(table.numbers) == count // 2
        assert storage(dataset).index.table is table


def damaged_index(change: Callable[[bytearray, int], None], root: Path) -> None:
    """One chunk of 64 raw bytes, and `change` of the place where its key is."""
    with h5py.File(root / "main.h5", "w", libver="earliest") as file:
        data = file.create_dataset("data", (16,), "<i4", chunks=(16,), compression="gzip")
        data[:] = np.arange(16)
        info = data.id.get_chunk_info(0)
    content = bytearray((root / "main.h5").read_bytes())
    key = (
        info.size.to_bytes(4, "little") + bytes(4 + 8 + 8) + info.byte_offset.to_bytes(8, "little")
    )
    change(content, content.index(key))
    (root / "main.h5").write_bytes(content)


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (0, b"\xff\xff\xff\xff", "4294967295 bytes are stored, for 64 at most"),
        (0, b"\x00\x80\x00\x00", "the file ends"),
        (0, b"\x05\x00\x00\x00", "ends early"),
        (24, b"\xff\xff\xff\xff\xff\xff\xff\x7f", r"chunk \(0,\)"),
        (24, b"\x00\x00\x00\x40\x00\x00\x00\x00", "the file ends"),
    ],
)
def test_absurd_places_in_the_index(root: Path, at: int, value: bytes, words: str) -> None:
    def change(content: bytearray, key: int) -> None:
        content[key + at : key + at + len(value)] = value

    damaged_index(change, root)
    with pytest.raises(DamagedData, match=words):
        values(root, "main.h5", "data")


def test_a_file_that_shrinks_has_changed(root: Path) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        file.create_dataset("data", data=np.arange(9), chunks=(3,), compression="gzip")
    with leased(root) as lease:
        dataset = find_dataset(lease, lease.open_asked("main.h5"), "data")
        dataset.read(lease, parse_selection("0", (9,)).axes)
        os.truncate(root / "main.h5", 1000)
        with pytest.raises(FileChanged):
            dataset.read(lease, select_all((9,)).axes)


def test_of_a_live_file_nothing_is_kept(root: Path) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        file.create_dataset("data", data=np.arange(8), chunks=(4,), compression="gzip")
    with leased(root) as lease:
        opened = lease.open_asked("main.h5")
        opened.live = True
        live = storage(find_dataset(lease, opened, "data"))
        assert live.fill is not None
        for _ in range(2):
            axes = select_all((8,)).axes
            read = live.read(axes, live.index.locate(axes, lease.go_on), lease.go_on, keep=True)
            assert read.tolist() == list(range(8))
            live.verify(axes, lease.go_on)
        assert live.index.table is None
        assert not live.verified
        assert len(lease.pool.chunks) == 0


def test_cuts_cover_each_selection() -> None:
    for start, step, chunk in itertools.product(range(4), range(1, 9), range(1, 6)):
        for stop in range(start + 1, 20):
            axis = parse_selection(f"{start}:{stop}:{step}", (20,)).axes[0]
            indices = np.arange(start, stop, step)
            covered = np.full(indices.size, -1)
            for at, inside, outside in chunk_grid.cut_axis(axis, chunk):
                covered[outside] = np.arange(at * chunk, (at + 1) * chunk)[inside]
            np.testing.assert_array_equal(covered, indices)
            assert chunk_grid.count_touched((axis,), (chunk,)) >= len(set(indices // chunk))


def test_leases_keep_their_own_descriptor(root: Path) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        file.create_dataset("data", data=np.arange(9), chunks=(3,), compression="gzip")
    with leased(root) as lease:
        dataset = find_dataset(lease, lease.open_asked("main.h5"), "data")
        dataset.read(lease, select_all((9,)).axes)
        listed(lease, dataset)
        other = Lease(lease.pool)
        assert lease.pool.at_hand("main.h5", b"data", other) is dataset
        other.release()
