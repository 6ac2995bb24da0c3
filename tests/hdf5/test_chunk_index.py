"""Chunk indexes read from the file's bytes: what h5py reads of each dataset is the oracle."""

import dataclasses
import itertools
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5d, h5f, h5p, h5s, h5t
from hypothesis import given, settings
from hypothesis import strategies as st

from asgihive.hdf5 import chunk_index, file_bytes, pool
from asgihive.hdf5.chunk_arrays import ExtensibleArrayChunks, FixedArrayChunks, ImplicitChunks
from asgihive.hdf5.chunk_grid import (
    ChunkGrid,
    ChunkTable,
    count_touched,
    cut_by_chunks,
    cut_by_stored_chunks,
    number_touched,
)
from asgihive.hdf5.chunk_index import ChunkIndex, DamagedChunk, list_by_library
from asgihive.hdf5.chunk_trees import ChunkTree1, ChunkTree2
from asgihive.hdf5.chunks import ChunkedStorage
from asgihive.hdf5.datasets import Dataset
from asgihive.hdf5.open_file import OpenFile
from asgihive.hdf5.opening import find_dataset
from asgihive.hdf5.plan import parse_selection, select_all
from tests.efforts import at_most
from tests.hdf5.serving import dataset_of, leased, selected
from tests.hdf5.strategies import selections
from tests.zoo import FILES, build

EXTENTS = (7, 5, 4, 3)
CHUNKS = (3, 2, 3, 2)
FILTERS = ("none", "deflate", "fletcher32")
# What libhdf5 writes by default, since 1.10, and since 2.0 (layout messages of version 5).
FORMATS = {
    "earliest": (h5f.LIBVER_EARLIEST, h5f.LIBVER_LATEST),
    "v110": (h5f.LIBVER_V110, h5f.LIBVER_V110),
    "latest": (h5f.LIBVER_LATEST, h5f.LIBVER_LATEST),
}
SIZES = ((8, 8), (4, 4), (8, 4), (4, 8))
ALL = (1 << 63) - 1


def go_on() -> None:
    """The request is not over."""


def create_file(path: Path, libver: str, *, user_block: int = 0, sizes: tuple[int, int]) -> Any:
    creation, access = h5p.create(h5p.FILE_CREATE), h5p.create(h5p.FILE_ACCESS)
    creation.set_userblock(user_block)
    creation.set_sizes(*sizes)
    access.set_libver_bounds(*FORMATS[libver])
    return h5py.File(h5f.create(bytes(path), h5f.ACC_TRUNC, creation, access))


def create_dataset(
    file: Any,
    name: str,
    extents: tuple[tuple[int, ...], tuple[int | None, ...]],
    chunks: tuple[int, ...],
    filters: str = "none",
    *,
    early: bool = False,
) -> h5py.Dataset:
    """A dataset of that shape, and of the one that it may grow to; None = of any."""
    shape, most = extents
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_chunk(chunks)
    properties.set_fill_value(np.array(-3, "<i4"))
    if early:
        properties.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    if filters == "deflate":
        properties.set_shuffle()
        properties.set_deflate(4)
    elif filters == "fletcher32":
        properties.set_fletcher32()
    bounds = tuple(h5s.UNLIMITED if each is None else each for each in most)
    space = h5s.create_simple(shape, bounds)
    return h5py.Dataset(h5d.create(file.id, name.encode(), h5t.STD_I32LE, space, properties))


def fill(data: h5py.Dataset, seed: int) -> None:
    """Write about half of the chunks."""
    random = np.random.default_rng(seed)
    for slices in data.iter_chunks():
        if random.random() < 0.6:
            shape = tuple(each.stop - each.start for each in slices)
            data[slices] = random.integers(1 << 20, size=shape)


def write_past_filters(data: h5py.Dataset) -> None:
    """Store the first chunk as if no filter was given it, and the last one as if one was."""
    filters = data.id.get_create_plist().get_nfilters()
    if not filters:
        return
    raw = np.arange(np.prod(data.chunks), dtype="<i4")
    last = tuple((n - 1) // chunk * chunk for n, chunk in zip(data.shape, data.chunks, strict=True))
    if filters == 2:
        shuffled = raw.view("u1").reshape(-1, 4).T.tobytes()
        data.id.write_direct_chunk(last, shuffled, filter_mask=0b10)
    data.id.write_direct_chunk((0,) * data.ndim, raw.tobytes(), filter_mask=0b11)


def write_combinations(path: Path, libver: str, sizes: tuple[int, int]) -> dict[str, Any]:
    """Every combination of unlimited, larger and fixed axes, of ranks 1 to 4; what h5py reads."""
    with create_file(path, libver, user_block=1024, sizes=sizes) as file:
        for rank in range(1, 5):
            kinds = itertools.product(("fixed", "larger", "growing"), repeat=rank)
            for number, kind in enumerate(kinds):
                # Of rank 4 each third is enough: 27 of them.
                if rank == 4 and number % 3:
                    continue
                shape, chunks = EXTENTS[:rank], CHUNKS[:rank]
                most = tuple(
                    {"fixed": extent, "larger": extent + 5, "growing": None}[each]
                    for extent, each in zip(shape, kind, strict=True)
                )
                filters = FILTERS[number % 3]
                name = f"{'-'.join(kind)} {filters}"
                data = create_dataset(file, name, (shape, most), chunks, filters)
                fill(data, number)
                if number % 4 == 1 and "fixed" not in kind:
                    # Shrunk, so that chunks lie outside, and grown again.
                    data.resize(tuple(max(1, extent - 2) for extent in shape))
                    data.resize(shape)
                elif number % 4 == 2:
                    data.resize(tuple(max(1, extent - 2) for extent in shape))
                write_past_filters(data)
            shape = EXTENTS[:rank]
            for filters in FILTERS:
                name = f"single {rank} {filters}"
                data = create_dataset(file, name, (shape, shape), shape, filters)
                if filters != "none":
                    data[...] = np.arange(np.prod(shape)).reshape(shape)
            name = f"implicit {rank}"
            larger = tuple(extent + 3 for extent in shape)
            data = create_dataset(file, name, (shape, larger), CHUNKS[:rank], early=True)
            data[...] = np.arange(np.prod(shape)).reshape(shape)
            create_dataset(file, f"never written {rank}", (shape, larger), CHUNKS[:rank])
    # Only another handle reads what went past the filters.
    with h5py.File(path) as file:
        # With lengths of 4 bytes, libhdf5 opens no extensible array again.
        return {name: data[...] for name, data in file.items() if data is not None}


def storage(dataset: Dataset) -> ChunkedStorage:
    assert dataset.chunked is not None
    return dataset.chunked


@contextmanager
def looking(patch: pytest.MonkeyPatch, way: str) -> Iterator[None]:
    """How chunks are looked for: all of them listed, some gathered, or each by itself."""
    with patch.context() as inner:
        if way != "listed":
            inner.setattr(ChunkIndex, "is_worth_listing", lambda *_: False)
        if way != "alone":
            inner.setattr(chunk_index, "LOOKED_FOR_ALONE", 0)
        if way == "alone":
            inner.setattr(chunk_index, "LOOKED_FOR_ALONE", ALL)
        yield


@pytest.mark.parametrize(
    ("libver", "sizes"),
    [
        pytest.param(libver, sizes, marks=[pytest.mark.slow] * (row != column))
        for row, libver in enumerate(FORMATS)
        for column, sizes in enumerate(SIZES)
    ],
)
def test_every_index_and_combination_of_axes(
    root: Path, monkeypatch: pytest.MonkeyPatch, libver: str, sizes: tuple[int, int]
) -> None:
    expected = write_combinations(root / "main.h5", libver, sizes)
    kinds: set[type] = set()
    for way in ("listed", "gathered", "alone"):
        with leased(root, max_open=2) as lease, looking(monkeypatch, way):
            file = lease.open_asked("main.h5")
            for name, content in expected.items():
                dataset = find_dataset(lease, file, name)
                assert not storage(dataset).index.needs_library, name
                kinds.add(type(storage(dataset).index.stored))
                read = dataset.read(lease, select_all(content.shape).axes)
                np.testing.assert_array_equal(read, content, err_msg=name)
                assert (storage(dataset).index.table is not None) == (way == "listed")
    trees: set[type] = {ChunkTree1} if libver == "earliest" else {ChunkTree2}
    arrays: set[type] = set() if libver == "earliest" else {FixedArrayChunks, ImplicitChunks}
    if arrays and sizes[1] == 8:
        arrays.add(ExtensibleArrayChunks)
    assert kinds == trees | arrays


@pytest.mark.parametrize(
    "libver", ["earliest", pytest.param("v110", marks=pytest.mark.slow), "latest"]
)
def test_by_libhdf5_it_is_the_same(
    root: Path, monkeypatch: pytest.MonkeyPatch, libver: str
) -> None:
    expected = write_combinations(root / "main.h5", libver, (8, 8))
    monkeypatch.setattr(pool, "bytes_of_file", refuse)
    with leased(root) as lease:
        file = lease.open_asked("main.h5")
        for name, content in expected.items():
            dataset = find_dataset(lease, file, name)
            assert storage(dataset).index.needs_library
            read = dataset.read(lease, select_all(content.shape).axes)
            np.testing.assert_array_equal(read, content, err_msg=name)
            assert not storage(dataset).index.needs_library


def refuse(*_: object, **__: object) -> Any:
    raise file_bytes.NotPlain


@dataclass(frozen=True)
class Large:
    """A dataset with so many chunks that its index has several levels, and what is written."""

    shape: tuple[int, ...]
    most: tuple[int | None, ...]
    written: tuple[int, ...]
    filters: str = "none"


# Behind 131,072 elements, data blocks of extensible arrays are in pages of 1,024.
FAR = (0, 3, 4, 19, 20, 21, 100, 1023, 1024, 5000, 131_055, 131_060, 131_100, 135_000, 150_000)
LARGE = {
    "pages": Large((1 << 14, 2), (1 << 14, 2), (*range(1024, 1030), 2047, 8192, 16_383)),
    "last page": Large((5000,), (5000,), (0, 1023, 1024, 4095, 4096, 4999), "deflate"),
    "many pages": Large((200_000,), (300_000,), tuple(range(0, 200_000, 4999))),
    "far": Large((160_000,), (None,), FAR),
    "far filtered": Large((160_000,), (None,), FAR, "deflate"),
    "far second": Large((3, 60_000), (4, None), (*range(60), 25_000, 55_555, 59_999, 179_999)),
    "farther": Large((1 << 22,), (None,), (*FAR, 1 << 20, (1 << 21) + 7, (1 << 22) - 1)),
    "records": Large((90, 90), (None, None), tuple(range(0, 8100, 1))),
    "records filtered": Large((90, 90), (None, None), tuple(range(0, 8100, 3)), "deflate"),
}


@pytest.fixture(
    scope="module", params=["earliest", pytest.param("v110", marks=pytest.mark.slow), "latest"]
)
def large(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    root = tmp_path_factory.mktemp("large")
    with create_file(root / "main.h5", request.param, sizes=(8, 8)) as file:
        for name, each in LARGE.items():
            chunks = (1,) * len(each.shape)
            data = create_dataset(file, name, (each.shape, each.most), chunks, each.filters)
            for number in each.written:
                corner = np.unravel_index(number, each.shape)
                raw = np.int32(number + 1).tobytes()
                if each.filters == "deflate":
                    raw = zlib.compress(raw)
                data.id.write_direct_chunk(tuple(map(int, corner)), raw)
    return root, request.param


@pytest.mark.parametrize("name", LARGE)
def test_large_indexes(large: tuple[Path, str], name: str) -> None:
    root, _ = large
    each = LARGE[name]
    with dataset_of(root, "main.h5", name) as (_, dataset):
        index = storage(dataset).index
        stored, grid = index.stored, index.grid
        assert stored is not None
        table = stored.gather(None, ALL, go_on)
        assert table is not None
        assert table.numbers.tolist() == sorted(each.written)
        assert stored.at_most >= len(each.written)
        random = np.random.default_rng(1)
        some = random.choice(each.written, 200).tolist()
        some += random.integers(grid.size, size=50).tolist()
        for number in some:
            coordinates = tuple(map(int, np.unravel_index(number, each.shape)))
            assert stored.find(coordinates) == table.get(number)
        for wanted in (
            np.unique(some),
            np.arange(min(grid.size, 1 << 15)),
            np.array([each.written[-1]]),
        ):
            found = stored.gather(wanted, ALL, go_on)
            assert found is not None
            np.testing.assert_array_equal(
                found.numbers, np.intersect1d(wanted, np.array(each.written))
            )
            for number in found.numbers[:50].tolist():
                assert found.get(number) == table.get(number)
        assert stored.gather(None, len(each.written) - 1, go_on) is None


@pytest.mark.parametrize("name", LARGE)
def test_values_of_large_indexes(large: tuple[Path, str], name: str) -> None:
    root, _ = large
    each = LARGE[name]
    wanted = np.full(int(np.prod(each.shape)), -3, "<i4")
    wanted[list(each.written)] = np.array(each.written) + 1
    wanted = wanted.reshape(each.shape)
    with dataset_of(root, "main.h5", name) as (lease, dataset):
        for text in (None, "::7", "3::2", "5:60"):
            selection = parse_selection(text, each.shape)
            index = eval(f"numpy.s_[{text or '...'}]", {"numpy": np})
            np.testing.assert_array_equal(selected(lease, dataset, selection), wanted[index])


@pytest.mark.parametrize("track", [False, True])
def test_sampled_chunks_of_the_zoo_are_where_libhdf5_finds_them(
    tmp_path_factory: pytest.TempPathFactory, *, track: bool
) -> None:
    root = tmp_path_factory.mktemp("zoo")
    build(root)
    if track:
        # The same content in the newest format, where libhdf5 can copy it.
        for file in FILES:
            copied = root / file
            rewritten(copied)
    compared = 0
    with leased(root, max_open=64) as lease:
        for file in FILES:
            opened = lease.open_asked(file)
            names: list[str] = []
            h5py.Group(opened.root).visititems(partial(note_chunked, names))
            for name in names:
                compared += compare_with_libhdf5(find_dataset(lease, opened, name))
    assert compared > 100


def note_chunked(names: list[str], name: str, thing: Any) -> None:
    if isinstance(thing, h5py.Dataset):
        layout = thing.id.get_create_plist().get_layout()
        if layout == h5d.CHUNKED and thing.shape is not None:
            names.append(name)


def rewritten(path: Path) -> None:
    """Copy a file's objects into one of the latest format."""
    with (
        h5py.File(path, locking=False) as old,
        h5py.File(path.with_suffix(".new"), "w", libver="latest") as new,
    ):
        for name in old:
            if old.get(name, getclass=True, getlink=True) is h5py.HardLink:
                old.copy(name, new)
    path.with_suffix(".new").replace(path)


def compare_with_libhdf5(dataset: Dataset) -> int:
    """How many chunks lie where libhdf5 says that they lie."""
    index = storage(dataset).index
    if index.stored is None or 0 in (dataset.shape or (0,)):
        return 0
    most = dataset.id.get_space().get_simple_extent_dims(True)
    is_rotated = h5s.UNLIMITED in most[1:] and most[0] != h5s.UNLIMITED
    compared = 0
    for number in range(0, index.grid.size, max(1, index.grid.size // 7)):
        coordinates = tuple(map(int, np.unravel_index(number, index.grid.counts)))
        found = index.stored.find(coordinates)
        if isinstance(index.stored, ExtensibleArrayChunks) and is_rotated:
            continue
        corner = tuple(at * chunk for at, chunk in zip(coordinates, index.grid.chunks, strict=True))
        info = dataset.id.get_chunk_info_by_coord(corner)
        if info.byte_offset is None:
            assert found is None
        else:
            assert found is not None
            assert (found.offset, found.size, found.filter_mask) == (
                info.byte_offset,
                info.size,
                info.filter_mask,
            )
            compared += 1
    return compared


@given(data=st.data())
@settings(max_examples=at_most(300))
def test_cut_by_chunks_stored_chunks_are_those_of_all(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=3)))
    chunks = tuple(data.draw(st.integers(1, 5)) for _ in shape)
    text = data.draw(selections(shape))
    axes = parse_selection(text, shape).axes
    grid = ChunkGrid(shape, chunks)
    stored = np.array(sorted(data.draw(st.sets(st.integers(0, grid.size - 1)))), np.int64)
    no = np.zeros(len(stored), np.uint64)
    table = ChunkTable(stored, no, no, no.astype(np.uint32))
    if not all(axis.count for axis in axes):
        return
    every = list(cut_by_chunks(axes, chunks))
    expected = [part for part in every if grid.number(part.coordinates) in set(stored.tolist())]
    assert list(cut_by_stored_chunks(axes, grid, table)) == expected
    numbers = number_touched(axes, grid).tolist()
    assert numbers == [grid.number(part.coordinates) for part in every]
    assert count_touched(axes, chunks) == len(numbers)


def set_live(file: OpenFile) -> None:
    """Let a file count as one that a writer is writing."""
    file.live = True
    if file.metadata is not None:
        file.metadata = dataclasses.replace(file.metadata, is_live=True)


LIVE = np.arange(24, dtype="<i4").reshape(4, 6)


@pytest.mark.parametrize("by_library", [False, True])
@pytest.mark.parametrize("most", [(4, None), (None, 6), (None, None), (4, 6)])
def test_of_a_live_file_chunks_are_found_anew(
    root: Path, monkeypatch: pytest.MonkeyPatch, most: tuple[int | None, ...], *, by_library: bool
) -> None:
    with h5py.File(root / "main.h5", "w", libver="latest") as file:
        file.create_dataset("data", data=LIVE, chunks=(2, 3), maxshape=most)
    if by_library:
        monkeypatch.setattr(pool, "bytes_of_file", refuse)
    with leased(root) as lease:
        opened = lease.open_asked("main.h5")
        set_live(opened)
        live = storage(find_dataset(lease, opened, "data"))
        axes = select_all((4, 6)).axes
        for _ in range(2):
            read = live.read(axes, live.index.locate(axes, go_on), go_on, keep=False)
            np.testing.assert_array_equal(read, LIVE)
        assert live.index.table is None
        assert live.index.needs_library == by_library


@pytest.mark.parametrize("is_live", [False, True])
def test_a_structure_of_a_live_file_is_read_again_while_it_is_written(
    root: Path, monkeypatch: pytest.MonkeyPatch, *, is_live: bool
) -> None:
    with h5py.File(root / "main.h5", "w", libver="latest") as file:
        file.create_dataset("data", data=LIVE, chunks=(2, 3), maxshape=(None, 6))
    pread, torn = os.pread, [3]

    def tearing(descriptor: int, size: int, offset: int) -> bytes:
        read = pread(descriptor, size, offset)
        if read.startswith(b"EAIB") and torn[0]:
            torn[0] -= 1
            return read[:-9] + bytes(9)
        return read

    with leased(root) as lease:
        opened = lease.open_asked("main.h5")
        if is_live:
            set_live(opened)
        live = storage(find_dataset(lease, opened, "data"))
        monkeypatch.setattr(os, "pread", tearing)
        if not is_live:
            with pytest.raises(DamagedChunk, match="checksum of the EAIB"):
                live.index.locate(select_all((4, 6)).axes, go_on)
            return
        axes = select_all((4, 6)).axes
        np.testing.assert_array_equal(
            live.read(axes, live.index.locate(axes, go_on), go_on, keep=False), LIVE
        )
        assert torn == [0]


def test_a_listing_by_libhdf5_ends_with_its_request(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        file.create_dataset("data", data=np.arange(3000, dtype="u1"), chunks=(1,))
    calls = []

    class OverError(Exception):
        pass

    def over() -> None:
        calls.append(1)
        if len(calls) > 1:
            raise OverError

    with dataset_of(root, "main.h5", "data") as (_, dataset):
        grid = storage(dataset).index.grid
        with pytest.raises(OverError):
            list_by_library(dataset.id, grid, None, ALL, over)
        assert list_by_library(dataset.id, grid, None, 2999, go_on) is None
        some = list_by_library(dataset.id, grid, np.array([5, 7]), ALL, go_on)
        assert some is not None
        assert some.numbers.tolist() == [5, 7]
