"""How datasets are cut into Zarr chunks, and by which codecs: against what the contract says."""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgihive.hdf5.layout import Filter, Layout, LayoutKind
from asgihive.settings import H5Settings
from asgihive.zarr import grid
from asgihive.zarr.grid import ArrayPlan, ChunkSource, find_sent_dtype, plan_array
from tests.efforts import at_most

MIB = 1 << 20
ZSTD, BLOSC, BITSHUFFLE, LZ4 = 32015, 32001, 32008, 32004
DEFLATE, SHUFFLE, FLETCHER32 = 1, 2, 3


@dataclass
class Stored:
    """How a dataset is stored, as far as the planner asks."""

    shape: tuple[int, ...] | None
    layout: Layout
    dtype: np.dtype[Any]
    item_shape: tuple[int, ...] = ()
    is_as_stored: bool = True
    max_shape: tuple[int | None, ...] = ()

    def __post_init__(self) -> None:
        if not self.max_shape:
            self.max_shape = self.shape or ()


def chunked(
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    *filters: Filter,
    dtype: str = "<u2",
    **more: Any,
) -> Stored:
    return Stored(shape, Layout(LayoutKind.CHUNKED, chunks, filters), np.dtype(dtype), **more)


def linear(shape: tuple[int, ...], dtype: str = "<u2", **more: Any) -> Stored:
    return Stored(shape, Layout(LayoutKind.CONTIGUOUS), np.dtype(dtype), **more)


def plan(stored: Stored, **given: Any) -> ArrayPlan:
    return plan_array(stored, H5Settings(**given))


def names(planned: ArrayPlan) -> list[str]:
    return [codec.name for codec in planned.codecs]


def test_a_large_chunk_of_zstd_goes_out_as_it_lies() -> None:
    planned = plan(chunked((8, 1024, 1024), (1, 512, 512), Filter(ZSTD, "zstd", (7,))))
    assert planned.source is ChunkSource.STORED
    assert planned.chunk_shape == (1, 512, 512)
    assert [codec.to_json() for codec in planned.codecs] == [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "zstd", "configuration": {"level": 7, "checksum": False}},
    ]


def test_blosc_is_named_as_its_filter_was_set() -> None:
    values = (2, 2, 2, 524288, 7, 2, 1)
    planned = plan(chunked((512, 512), (512, 512), Filter(BLOSC, "blosc", values)))
    assert planned.codecs[1].to_json() == {
        "name": "blosc",
        "configuration": {
            "typesize": 2,
            "cname": "lz4",
            "clevel": 7,
            "shuffle": "bitshuffle",
            "blocksize": 0,
        },
    }


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((2, 2, 4, 64), ("blosclz", 5, "shuffle")),
        ((2, 2, 4, 64, 3), ("blosclz", 3, "shuffle")),
        ((2, 2, 4, 64, 3, 0), ("blosclz", 3, "noshuffle")),
    ],
)
def test_blosc_with_fewer_values_has_its_filters_defaults(
    values: tuple[int, ...], expected: tuple[str, int, str]
) -> None:
    given = plan(chunked((4,), (4,), Filter(BLOSC, "blosc", values))).codecs[1].configuration
    assert (given["cname"], given["clevel"], given["shuffle"]) == expected


@pytest.mark.parametrize(
    "filters",
    [
        [Filter(DEFLATE, "deflate", (4,))],
        [Filter(SHUFFLE, "shuffle", (2,)), Filter(DEFLATE, "deflate", (4,))],
        [Filter(SHUFFLE, "shuffle", (256,)), Filter(ZSTD, "zstd", (3,))],
        [Filter(SHUFFLE, "shuffle", ()), Filter(ZSTD, "zstd", (3,))],
        [Filter(ZSTD, "zstd", (3,)), Filter(SHUFFLE, "shuffle", (2,))],
        [Filter(SHUFFLE, "s", (2,)), Filter(SHUFFLE, "s", (2,)), Filter(ZSTD, "zstd", (3,))],
        [Filter(BLOSC, "blosc", (2, 2, 2, 64, 5, 1, 3))],  # Snappy
        [Filter(BLOSC, "blosc", (2, 2, 2, 64, 99, 1, 1))],
        [Filter(BLOSC, "blosc", (2,))],
        [Filter(FLETCHER32, "fletcher32"), Filter(ZSTD, "zstd", (3,))],
        [Filter(ZSTD, "zstd", (3,)), Filter(ZSTD, "zstd", (3,))],
        [Filter(32026, "blosc2", (1, 2, 3))],
        [Filter(BITSHUFFLE, "bitshuffle", ())],
        [Filter(BITSHUFFLE, "bitshuffle", (0, 4, 2, 0, 0))],
        [Filter(BITSHUFFLE, "bitshuffle", (0, 4, 256, 0, 2))],
        [Filter(SHUFFLE, "shuffle", (2,)), Filter(BITSHUFFLE, "bitshuffle", (0, 4, 2, 0, 2))],
    ],
)
def test_what_some_client_cannot_decode_is_encoded_anew(filters: list[Filter]) -> None:
    planned = plan(chunked((1024, 1024), (1024, 1024), *filters))
    assert planned.source is ChunkSource.READ
    expected = {
        "typesize": planned.dtype.itemsize,
        "cname": "lz4",
        "clevel": 5,
        "shuffle": "bitshuffle",
        "blocksize": 0,
    }
    assert [codec.to_json() for codec in planned.codecs[1:]] == [
        {"name": "blosc", "configuration": expected}
    ]
    assert names(plan(chunked((9,), (9,), *filters), zarr_compression="none")) == ["bytes"]
    zstd = plan(chunked((9,), (9,), *filters), zarr_compression="zstd").codecs[1]
    assert zstd.to_json() == {"name": "zstd", "configuration": {"level": 1, "checksum": False}}


def test_what_blosc_cannot_have_is_zstd(monkeypatch: pytest.MonkeyPatch) -> None:
    deflate = Filter(DEFLATE, "deflate", (4,))
    # Its sizes are signed integers of 32 bits, behind a head of 16 bytes (blosc.h).
    most = chunked(((1 << 31) - 17,), ((1 << 31) - 17,), deflate, dtype="u1")
    more = chunked(((1 << 31) - 16,), ((1 << 31) - 16,), deflate, dtype="u1")
    assert names(plan(most)) == ["bytes", "blosc"]
    assert names(plan(more)) == ["bytes", "zstd"]
    monkeypatch.setattr(grid, "_HAS_BLOSC", False)
    assert names(plan(chunked((11,), (11,), deflate))) == ["bytes", "zstd"]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([Filter(SHUFFLE, "s", (2,)), Filter(ZSTD, "z", (3,))], ("zstd", "shuffle", 2)),
        ([Filter(LZ4, "l", ())], ("lz4", "noshuffle", 1)),
        ([Filter(SHUFFLE, "s", (4,)), Filter(LZ4, "l", ())], ("lz4", "shuffle", 4)),
        ([Filter(BITSHUFFLE, "b", (0, 4, 2, 0, 2))], ("lz4", "bitshuffle", 2)),
        ([Filter(BITSHUFFLE, "b", (0, 4, 2, 0, 3, 9))], ("zstd", "bitshuffle", 2)),
    ],
)
def test_what_blosc_decodes_goes_out_in_its_frame(
    filters: list[Filter], expected: tuple[str, str, int]
) -> None:
    filters = [*filters, Filter(FLETCHER32, "f")]
    planned = plan(chunked((1024, 1024), (1024, 1024), *filters))
    assert planned.source is ChunkSource.STORED
    assert planned.stored is not None
    assert planned.stored.has_checksum
    assert names(planned) == ["bytes", "blosc"]
    given = planned.codecs[1].configuration
    assert (given["cname"], given["shuffle"], given["typesize"]) == expected


def test_by_setting_deflate_goes_out_in_a_frame() -> None:
    filters = [Filter(SHUFFLE, "s", (2,)), Filter(DEFLATE, "d", (4,)), Filter(FLETCHER32, "f")]
    planned = plan(chunked((1024, 1024), (1024, 1024), *filters), zarr_stored_chunks=True)
    assert planned.source is ChunkSource.STORED
    configuration = planned.codecs[1].configuration
    assert (configuration["cname"], configuration["shuffle"]) == ("zlib", "shuffle")


def test_what_is_not_in_memory_as_in_the_file_is_read() -> None:
    zstd = Filter(ZSTD, "zstd", (3,))
    gaps = np.dtype({"names": ["a"], "formats": ["<u1"], "offsets": [0], "itemsize": 4})
    compound = np.dtype([("a", ">u2"), ("b", "<f4")])
    for stored in (
        chunked((1024, 1024), (1024, 1024), zstd, is_as_stored=False),
        Stored((9999,), Layout(LayoutKind.CHUNKED, (9999,), (zstd,)), gaps),
        Stored((9999,), Layout(LayoutKind.CHUNKED, (9999,), (zstd,)), compound),
        Stored((9999,), Layout(LayoutKind.CHUNKED, (9999,), (zstd,)), np.dtype("S8")),
        linear((9, 9), is_as_stored=False),
    ):
        assert plan(stored).source is ChunkSource.READ
    packed = np.dtype([("a", "<u2"), ("b", "<f4")])
    stored = Stored((99999,), Layout(LayoutKind.CHUNKED, (99999,), (zstd,)), packed)
    assert plan(stored).source is ChunkSource.STORED


def test_compounds_are_sent_little_endian_and_packed() -> None:
    inner = np.dtype({"names": ["x", "y"], "formats": [">f8", "u1"], "offsets": [8, 0]})
    dtype = np.dtype([("a", ">u2", (3,)), ("b", inner), ("c", "S5")], align=True)
    expected = np.dtype([("a", "<u2", (3,)), ("b", [("x", "<f8"), ("y", "u1")]), ("c", "S5")])
    assert find_sent_dtype(dtype) == expected
    assert find_sent_dtype(np.dtype(">f4")) == np.dtype(">f4")


def test_strings_are_utf8_of_variable_length() -> None:
    for dtype in (h5py.string_dtype(), h5py.string_dtype("ascii", 7)):
        planned = plan(Stored((100_000,), Layout(LayoutKind.CONTIGUOUS), np.dtype(dtype)))
        assert names(planned) == ["vlen-utf8", "zstd"]
        assert planned.source is ChunkSource.READ
        assert planned.is_text


def test_big_endian_numbers_stay_so() -> None:
    planned = plan(linear((5,), ">f8"))
    assert planned.codecs[0].configuration == {"endian": "big"}
    assert planned.dtype == np.dtype(">f8")


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [
        ((), "<f8", ()),
        ((0,), "<f8", (1,)),
        ((3, 0, 5), "<f8", (3, 1, 5)),
        ((1000, 1000), "<u2", (1000, 1000)),
        ((100, 1024, 1024), "<u2", (1, 1024, 1024)),
        ((100, 512, 512), "<u2", (4, 512, 512)),
        ((3, 2048, 2048), "<f4", (1, 256, 2048)),
        ((5_000_000,), "<f8", (250_000,)),
        ((4, 4), "V5000000", (1, 1)),
    ],
)
def test_blocks_of_contiguous_data(
    shape: tuple[int, ...], dtype: str, expected: tuple[int, ...]
) -> None:
    planned = plan(linear(shape, dtype))
    assert planned.chunk_shape == expected
    assert planned.source is ChunkSource.RUN
    assert names(planned) == ["bytes"]


@pytest.mark.parametrize(
    ("shape", "most", "chunks", "expected"),
    [
        # One dataset of 8-byte chunks took 9.8 s by one request a chunk.
        ((100_000,), (None,), (4,), (100_000,)),
        ((10,), (None,), (1024,), (10,)),
        ((0,), (None,), (1024,), (1,)),
        ((1000, 1024, 1024), (1000, 1024, 1024), (1, 64, 64), (4, 256, 512)),
        ((1000, 512, 512), (None, 512, 512), (1, 64, 64), (2, 512, 512)),
        ((3, 640, 100), (None, 640, 100), (1, 64, 100), (3, 640, 100)),
    ],
)
def test_small_chunks_are_merged(
    shape: tuple[int, ...],
    most: tuple[int | None, ...],
    chunks: tuple[int, ...],
    expected: tuple[int, ...],
) -> None:
    planned = plan(chunked(shape, chunks, Filter(DEFLATE, "deflate", (4,)), max_shape=most))
    assert planned.chunk_shape == expected


def test_a_single_small_chunk_goes_out_as_it_lies() -> None:
    zstd = Filter(ZSTD, "zstd", (3,))
    assert plan(chunked((100,), (128,), zstd, max_shape=(None,))).chunk_shape == (128,)
    assert plan(chunked((129,), (128,), zstd)).source is ChunkSource.READ
    # From 64 KiB on each by itself.
    assert plan(chunked((1 << 20,), (1 << 15,), zstd)).source is ChunkSource.STORED
    assert plan(chunked((1 << 20,), ((1 << 15) - 1,), zstd)).source is ChunkSource.READ


@pytest.mark.parametrize("most", [(None, None), (1024, 1024), (1024, None), (None, 1024)])
def test_chunks_of_a_dataset_that_grows_have_one_order(most: tuple[int | None, ...]) -> None:
    """A client that knows an older extent gets a chunk of another size, or one that it reads well.

    Along both axes, since both are merged: (256, 512) may not become (512, 256).
    """
    extents = [(rows, columns) for rows in range(64, 1025, 160) for columns in range(64, 1025, 160)]
    deflate = Filter(DEFLATE, "deflate", (4,))
    shapes = {
        each: plan(chunked(each, (64, 64), deflate, dtype="<f8", max_shape=most)).chunk_shape
        for each in (*extents, (1024, 1024))
    }
    for older, newer in itertools.product(shapes, shapes):
        if older[0] <= newer[0] and older[1] <= newer[1] and shapes[older] != shapes[newer]:
            assert math.prod(shapes[older]) < math.prod(shapes[newer]), (older, newer)


def test_a_chunk_without_a_filter_is_never_joined_by_compressed_ones() -> None:
    alone = plan(chunked((100,), (128,), max_shape=(None,)))
    assert names(alone) == names(plan(chunked((1000,), (128,), max_shape=(None,))))
    assert plan(chunked((100,), (128,), max_shape=(128,))).source is ChunkSource.STORED


@pytest.mark.parametrize("dtype", [np.dtype("S1"), h5py.string_dtype()])
def test_chunks_of_very_many_strings_are_cut(dtype: np.dtype[Any]) -> None:
    layout = Layout(LayoutKind.CHUNKED, (1 << 30,), (Filter(DEFLATE, "deflate", (4,)),))
    planned = plan(Stored((1 << 30,), layout, dtype))
    assert math.prod(planned.chunk_shape) <= 2 * grid.MOST_TEXTS


def test_an_array_type_has_its_dimensions_behind() -> None:
    planned = plan(linear((3, 4), item_shape=(5, 6)))
    assert (planned.shape, planned.chunk_shape) == ((3, 4, 5, 6), (3, 4, 5, 6))
    assert len(planned.find_axes((0, 0, 0, 0))) == 2


def test_very_large_chunks_without_a_filter_are_cut() -> None:
    planned = plan(chunked((4096, 16384), (4096, 16384), dtype="<u2"))
    assert planned.source is ChunkSource.READ
    assert math.prod(planned.chunk_shape) * 2 <= grid.BLOCK_BYTES


extents = st.integers(0, 3000)


@given(
    st.lists(st.tuples(extents, st.integers(1, 500), st.booleans()), max_size=4),
    st.sampled_from(["u1", "<f4", ">c16"]),
    st.sampled_from([(), (Filter(DEFLATE, "d", (1,)),), (Filter(ZSTD, "z", (1,)),)]),
    st.booleans(),
)
@settings(max_examples=at_most(300), deadline=None)
def test_chunks_cover_the_array_and_are_of_a_bounded_size(
    axes: list[tuple[int, int, bool]], dtype: str, filters: tuple[Filter, ...], is_chunked: bool
) -> None:
    shape = tuple(extent for extent, _, _ in axes)
    chunks = tuple(chunk for _, chunk, _ in axes)
    most = tuple(None if grows else extent for extent, _, grows in axes)
    if is_chunked and axes:
        stored = chunked(shape, chunks, *filters, dtype=dtype, max_shape=most)
    else:
        stored = linear(shape, dtype)
    planned, size = plan(stored), np.dtype(dtype).itemsize
    assert all(each >= 1 for each in planned.chunk_shape)
    bound = max(MIB, size * math.prod(chunks)) if is_chunked and axes else grid.BLOCK_BYTES
    assert math.prod(planned.chunk_shape) * size <= max(bound, grid.BLOCK_BYTES)
    pairs = zip(planned.counts, planned.chunk_shape, shape, strict=True)
    for count, chunk, extent in pairs:
        # Each element is in a chunk, and no chunk is without any.
        assert (count - 1) * chunk < extent <= count * chunk or extent == count == 0
    is_large = not filters and size * math.prod(chunks) > grid.LARGE_BYTES
    if planned.source is not ChunkSource.STORED and is_chunked and axes and not is_large:
        for zarr_chunk, chunk, extent in zip(planned.chunk_shape, chunks, shape, strict=True):
            # No HDF5 chunk is decoded for two of them.
            assert zarr_chunk % chunk == 0 or zarr_chunk == max(1, extent)
    if all(planned.counts):
        last = tuple(count - 1 for count in planned.counts)
        assert planned.has_chunk(last)
        assert tuple(axis.stop for axis in planned.find_axes(last)) == shape
        assert not planned.has_chunk(tuple(count for count in planned.counts)) or not shape
    assert not planned.has_chunk((0, *(0,) * len(shape)))
