"""Decoders and pipelines: libhdf5's own bytes are the oracle, and sizes are never trusted."""

import struct
import tracemalloc
import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t
from hypothesis import given
from hypothesis import strategies as st

from asgihive.hdf5.buffers import Bytes, find_bytes
from asgihive.hdf5.filters import builtin
from asgihive.hdf5.filters.contract import BadChunk, Decoder, FilterDecoder, Room, as_bytes
from asgihive.hdf5.filters.library import run_filter
from asgihive.hdf5.filters.pipeline import DECODERS, NoDecoder, make_pipeline
from asgihive.hdf5.layout import Filter
from tests.zoo import chunks as crafted_chunks

hdf5plugin = pytest.importorskip("hdf5plugin")


def fletcher32(data: bytes) -> int:
    """H5_checksum_fletcher32 as it stands in H5checksum.c."""
    first = second = 0
    words = [data[at] << 8 | data[at + 1] for at in range(0, len(data) - 1, 2)]
    for start in range(0, len(words), 360):
        for word in words[start : start + 360]:
            first += word
            second += first
        first, second = (first & 0xFFFF) + (first >> 16), (second & 0xFFFF) + (second >> 16)
    if len(data) % 2:
        first += data[-1] << 8
        second += first
        first, second = (first & 0xFFFF) + (first >> 16), (second & 0xFFFF) + (second >> 16)
    first, second = (first & 0xFFFF) + (first >> 16), (second & 0xFFFF) + (second >> 16)
    return second << 16 | first


@given(
    st.one_of(
        st.binary(max_size=2000),
        st.builds(
            lambda byte, count: bytes([byte]) * count, st.integers(0, 255), st.integers(0, 9)
        ),
        st.builds(lambda count: b"\xff" * count, st.integers(65_000, 200_000)),
    )
)
def test_the_checksum_is_that_of_libhdf5(data: bytes) -> None:
    assert builtin.compute_fletcher32(as_bytes(data)) == fletcher32(data)


@pytest.mark.parametrize("swapped", [False, True])
def test_the_sum_of_old_files_is_accepted(swapped: bool) -> None:
    data = b"some bytes of a chunk"
    written = struct.pack("<I", fletcher32(data))
    if swapped:
        written = bytes([written[1], written[0], written[3], written[2]])
    stored = as_bytes(data + written)
    assert builtin.decode_fletcher32(stored, (), Room(len(data))).tobytes() == data
    with pytest.raises(BadChunk, match="checksum is"):
        builtin.decode_fletcher32(as_bytes(data[:-1] + b"K" + written), (), Room(len(data)))


def chosen(number: int) -> Decoder:
    """The decoder of a filter that is installed."""
    decode = DECODERS[number].decode
    assert decode is not None
    return decode


SHUFFLE = {"NumPy": builtin.unshuffle_by_numpy, "chosen": chosen(2)}


@pytest.mark.parametrize("name", SHUFFLE)
@given(st.one_of(st.integers(0, 400), st.integers(4000, 40_000)), st.integers(1, 300))
def test_shuffle_keeps_the_remainder_in_place(name: str, size: int, item: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    count = len(data) // item
    shuffled = b"".join(data[at : count * item : item] for at in range(item))
    shuffled = (shuffled if count > 1 else data[: count * item]) + data[count * item :]
    raw = SHUFFLE[name](as_bytes(shuffled), (item,), Room(len(data)))
    assert raw.tobytes() == data


@pytest.mark.parametrize("name", SHUFFLE)
@pytest.mark.parametrize("size", [100, 1 << 16])
def test_shuffle_trusts_nothing(name: str, size: int) -> None:
    stored = as_bytes(bytes(size))
    with pytest.raises(BadChunk, match=f"gives {size} bytes, {size + 4} are expected"):
        SHUFFLE[name](stored, (4,), Room(size + 4))
    for values in ((), (0,), (4, 4)):
        with pytest.raises(BadChunk, match="not the size of an element"):
            SHUFFLE[name](stored, values, Room(size))


DEFLATE = {"isal": builtin.decode_deflate_by_isal, "chosen": chosen(1)}


@pytest.mark.parametrize("name", DEFLATE)
def test_deflate_streams(name: str) -> None:
    decode = DEFLATE[name]
    stream = zlib.compress(b"abc" * 9)
    assert decode(as_bytes(stream), (), Room(27)).tobytes() == b"abc" * 9
    # What follows the end of a stream is ignored, as by libhdf5.
    assert decode(as_bytes(stream + b"garbage"), (), Room(27)).tobytes() == b"abc" * 9
    assert decode(as_bytes(stream), (), Room(50, exact=False)).tobytes() == b"abc" * 9
    damaged = stream[:-1] + bytes([stream[-1] ^ 1])
    for stored, room, words in (
        (stream, Room(26), "gives more than the 26 bytes"),
        (stream, Room(28), "gives 27 bytes, 28 are expected"),
        (stream[:-3], Room(27), "ends early"),
        (damaged, Room(27), "deflate: "),
        (b"no stream", Room(27), "deflate: "),
        (b"", Room(27), "ends early"),
    ):
        with pytest.raises(BadChunk, match=words):
            decode(as_bytes(stored), (), room)


PIPELINES: dict[str, dict[str, Any]] = {
    "gzip": {"compression": "gzip"},
    "shuffle_gzip": {"compression": "gzip", "shuffle": True},
    "all": {"compression": "gzip", "shuffle": True, "fletcher32": True},
    "lzf": {"compression": "lzf", "shuffle": True},
    "szip": {"compression": "szip"},
    "scale_offset": {"scaleoffset": True},
    "lz4": {"compression": hdf5plugin.LZ4(nbytes=100)},
    "zstd": {"compression": hdf5plugin.Zstd(), "shuffle": True},
    "bitshuffle": {"compression": hdf5plugin.Bitshuffle(cname="none")},
    "bitshuffle_lz4": {"compression": hdf5plugin.Bitshuffle(nelems=16)},
    "bitshuffle_zstd": {"compression": hdf5plugin.Bitshuffle(cname="zstd")},
    "blosc": {"compression": hdf5plugin.Blosc(cname="zstd", shuffle=2)},
    "blosc2": {"compression": hdf5plugin.Blosc2()},
    "bzip2": {"compression": hdf5plugin.BZip2()},
}


def stored_by_libhdf5(
    name: str, raw: np.ndarray[tuple[int], np.dtype[np.int32]]
) -> tuple[Sequence[Filter], Bytes]:
    """The filters of such a dataset, and `raw` as its only chunk is stored."""
    with h5py.File("x", "w", driver="core", backing_store=False) as file:
        data = file.create_dataset("x", data=raw, chunks=raw.shape, **PIPELINES[name])
        properties = data.id.get_create_plist()
        found = [properties.get_filter(each) for each in range(properties.get_nfilters())]
        _, stored = data.id.read_direct_chunk((0,))
    return [Filter(each[0], each[3].decode(), each[2]) for each in found], as_bytes(stored)


# More than what is decoded in the simplest way because it is little.
RAW = (np.arange(5001, dtype="<i4") // 3).astype("<i4")


@pytest.mark.parametrize("name", PIPELINES)
def test_each_pipeline_by_itself_and_by_libhdf5(name: str) -> None:
    applied, stored = stored_by_libhdf5(name, RAW)
    pipeline = make_pipeline(tuple(applied), RAW.nbytes)
    assert pipeline.decode(stored, 0).tobytes() == RAW.tobytes()
    # What is decoded natively elsewhere goes through libhdf5 where the codecs are not installed.
    last = applied[-1]
    room = Room(RAW.nbytes * 2, exact=False)
    by_library = run_filter(last.id, last.name, stored, last.values, room)
    rest = make_pipeline(tuple(applied[:-1]), RAW.nbytes)
    assert rest.decode(by_library, 0).tobytes() == RAW.tobytes()


@pytest.mark.parametrize("name", ["shuffle_gzip", "zstd"])
def test_two_filters_undone_at_once(name: str) -> None:
    (shuffle, last), stored = stored_by_libhdf5(name, RAW)
    after = partial(builtin.decode_and_unshuffle, last.id)
    raw = after(stored, shuffle.values, Room(RAW.nbytes))
    assert raw is not None
    assert find_bytes(raw) == RAW.tobytes()
    # What is wrong is left to them one by one.
    assert after(stored[:-9], shuffle.values, Room(RAW.nbytes)) is None
    for room in (Room(RAW.nbytes + 4), Room(RAW.nbytes - 4), Room(RAW.nbytes, exact=False)):
        assert after(stored, shuffle.values, room) is None
    assert builtin.decode_and_unshuffle(3, stored, shuffle.values, Room(RAW.nbytes)) is None


@pytest.mark.parametrize("name", PIPELINES)
def test_another_size_is_never_passed_on(name: str) -> None:
    applied, stored = stored_by_libhdf5(name, RAW)
    for wrong in (RAW.nbytes - 4, RAW.nbytes + 4, RAW.nbytes * 3):
        with pytest.raises(BadChunk):
            make_pipeline(tuple(applied), wrong).decode(stored, 0)


@given(st.sampled_from(sorted(PIPELINES)), st.data())
def test_damaged_bytes_give_an_error_or_the_right_size(name: str, draw: st.DataObject) -> None:
    applied, stored = stored_by_libhdf5(name, RAW)
    damaged = stored.copy()
    for _ in range(draw.draw(st.integers(1, 4))):
        damaged[draw.draw(st.integers(0, damaged.size - 1))] = draw.draw(st.integers(0, 255))
    damaged = damaged[: draw.draw(st.integers(0, damaged.size))]
    try:
        raw = make_pipeline(tuple(applied), RAW.nbytes).decode(damaged, 0)
    except BadChunk:
        return
    assert raw.size == RAW.nbytes


# How filters are undone where the extra `codecs` is not installed.
WITHOUT_CODECS = {
    **{each.number: replace(each, decode=None) for each in DECODERS.values()},
    1: FilterDecoder(1, builtin.decode_deflate_by_isal),
    2: FilterDecoder(2, builtin.unshuffle_by_numpy),
    3: FilterDecoder(3, builtin.decode_fletcher32),
    307: DECODERS[307],
}


@pytest.mark.parametrize("case", crafted_chunks.crafted(), ids=lambda case: case.name)
@pytest.mark.parametrize("native", [True, False])
def test_crafted_chunks_with_and_without_codecs(
    case: crafted_chunks.Crafted, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not native:
        for number, each in WITHOUT_CODECS.items():
            monkeypatch.setitem(DECODERS, number, each)
    applied = tuple(Filter(each, str(each), values) for each, values in case.filters.items())
    tracemalloc.start()
    try:
        with pytest.raises(BadChunk):
            make_pipeline(applied, crafted_chunks.RAW).decode(as_bytes(case.stored), 0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * crafted_chunks.RAW + 4 * len(case.stored)


def test_a_masked_filter_is_not_undone() -> None:
    pipeline = make_pipeline((Filter(2, "shuffle", (4,)), Filter(1, "deflate", (4,))), 8)
    assert pipeline.decode(as_bytes(b"abcdefgh"), 0b11).tobytes() == b"abcdefgh"
    assert not pipeline.is_applied(0b11)
    assert pipeline.decode(as_bytes(b"aebfcgdh"), 0b10).tobytes() == b"abcdefgh"
    assert pipeline.decode(as_bytes(zlib.compress(b"abcdefgh")), 0b01).tobytes() == b"abcdefgh"
    with pytest.raises(BadChunk, match="7 bytes, 8 are expected"):
        pipeline.decode(as_bytes(b"abcdefg"), 0b11)


def test_a_missing_filter_is_named_unless_it_is_masked() -> None:
    pipeline = make_pipeline((Filter(40_001, "unknown"),), 2)
    assert pipeline.needs_library
    assert pipeline.decode(as_bytes(b"ab"), 1).tobytes() == b"ab"
    with pytest.raises(NoDecoder) as caught:
        pipeline.decode(as_bytes(b"ab"), 0)
    assert caught.value.filter.id == 40_001


def test_nbit_of_compounds() -> None:
    narrow = h5t.STD_I16LE.copy()
    narrow.set_precision(11)
    inner = h5t.array_create(narrow, (3,))
    compound = h5t.create(h5t.COMPOUND, 12)
    compound.insert(b"a", 0, inner)
    compound.insert(b"b", 8, h5t.IEEE_F32LE)
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_chunk((10,))
    properties.set_filter(h5py.h5z.FILTER_NBIT)
    with h5py.File("x", "w", driver="core", backing_store=False) as file:
        data = h5d.create(file.id, b"x", compound, h5s.create_simple((10,)), properties)
        content = np.arange(120, dtype="u1") % 3
        data.write(h5s.ALL, h5s.ALL, content, mtype=compound)
        number, _, values, _ = data.get_create_plist().get_filter(0)
        _, stored = data.read_direct_chunk((0,))
    pipeline = make_pipeline((Filter(number, "nbit", values),), 120)
    assert pipeline.decode(as_bytes(stored), 0).size == 120
    with pytest.raises(BadChunk, match="are needed"):
        pipeline.decode(as_bytes(stored[:-8]), 0)
    swollen = make_pipeline((Filter(number, "nbit", (*values[:4], 24, *values[5:])),), 120)
    with pytest.raises(BadChunk, match="gives 240 bytes, 120 are expected"):
        swollen.decode(as_bytes(stored), 0)


@pytest.mark.parametrize("shape", [(20_000,), (300, 260), (7, 70, 80), (3, 5, 4, 30)])
@pytest.mark.parametrize("dtype", ["u1", "<f8", ">i4", "<c16"])
@pytest.mark.parametrize("content", ["noise", "zeros", "sevens"])
def test_blosc2_frames_with_and_without_blocks(
    shape: tuple[int, ...], dtype: str, content: str
) -> None:
    random = np.random.default_rng(1)
    made = {"noise": random.integers(0, 9, shape), "zeros": np.zeros(shape)}
    stored = made.get(content, np.full(shape, 7)).astype(dtype)
    with h5py.File("x", "w", driver="core", backing_store=False) as file:
        data = file.create_dataset("x", data=stored, chunks=shape, **hdf5plugin.Blosc2())
        number, _, values, _ = data.id.get_create_plist().get_filter(0)
        _, chunk = data.id.read_direct_chunk((0,) * len(shape))
    pipeline = make_pipeline((Filter(number, "blosc2", values),), stored.nbytes)
    assert not pipeline.needs_library
    assert pipeline.decode(as_bytes(chunk), 0).tobytes() == stored.tobytes()


def test_zfp_reads_zeros_behind_the_end() -> None:
    values = np.random.default_rng(2).random((64, 48))
    with h5py.File("x", "w", driver="core", backing_store=False) as file:
        options = hdf5plugin.Zfp(reversible=True)
        data = file.create_dataset("x", data=values, chunks=values.shape, compression=options)
        number, _, filter_values, _ = data.id.get_create_plist().get_filter(0)
        _, stored = data.id.read_direct_chunk((0, 0))
    pipeline = make_pipeline((Filter(number, "zfp", filter_values),), values.nbytes)
    assert pipeline.decode(as_bytes(stored), 0).tobytes() == values.tobytes()
    short = stored[: len(stored) // 16 * 8]
    expected = pipeline.decode(as_bytes(short + bytes(4096)), 0).tobytes()
    for beyond in (0, 8, 24):
        junk = [b"\xab" * (len(short) + beyond) for _ in range(200)]
        del junk
        assert pipeline.decode(as_bytes(short), 0).tobytes() == expected
