"""Frames of Blosc around stored chunks, decoded by c-blosc, against what h5py reads."""

import struct
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgihive.hdf5.layout import Filter
from asgihive.zarr.frames import BloscFrame, StoredForm, find_zstd_size
from asgihive.zarr.grid import find_stored_chain
from tests.efforts import at_most

imagecodecs = pytest.importorskip("imagecodecs", reason="has c-blosc: extra codecs")

CHUNK = (64, 96)
VALUES = np.random.default_rng(1).poisson(3, CHUNK)
OPTIONS: dict[str, dict[str, Any]] = {
    "deflate": {"compression": "gzip"},
    "shuffle_deflate": {"compression": "gzip", "shuffle": True},
    "shuffle_zstd": {"compression": 32015, "shuffle": True},
    "lz4": {"compression": 32004},
    "lz4_in_blocks": {"compression": 32004, "compression_opts": (1000,)},
    "shuffle_lz4": {"compression": 32004, "shuffle": True},
    "bitshuffle_lz4": {"compression": 32008, "compression_opts": (0, 2)},
    "bitshuffle_lz4_in_blocks": {"compression": 32008, "compression_opts": (64, 2)},
    "bitshuffle_zstd": {"compression": 32008, "compression_opts": (64, 3)},
}


def write_chunk(path: Path, values: Any, options: dict[str, Any]) -> tuple[Any, bytes]:
    """Return how a dataset of one chunk is framed, and the stored chunk."""
    is_plugin = isinstance(options["compression"], int)
    if is_plugin and not h5py.h5z.filter_avail(options["compression"]):
        pytest.skip("hdf5plugin writes such files")
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("x", data=values, chunks=values.shape, **options)
        made = dataset.id.get_create_plist()
        given = [made.get_filter(number) for number in range(made.get_nfilters())]
        filters = tuple(Filter(number, "", values) for number, _, values, _ in given)
        chain = find_stored_chain(filters, values.nbytes, sends_deflate=True)
        return chain, dataset.id.read_direct_chunk((0,) * values.ndim)[1]


def make_frame(frame: BloscFrame, stored: bytes, chunk_bytes: int) -> bytes | None:
    content = np.frombuffer(stored, np.uint8)
    if frame.form is StoredForm.BLOCKS:
        return frame.make_frame(content, chunk_bytes)
    head = frame.make_head(content, chunk_bytes)
    return None if head is None else head + stored


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">i4", "<f8", "<c16"])
@pytest.mark.parametrize("name", OPTIONS)
def test_a_stored_chunk_is_in_its_frame(tmp_path: Path, name: str, dtype: str) -> None:
    values = VALUES.astype(dtype)
    chain, stored = write_chunk(tmp_path / "x.h5", values, OPTIONS[name])
    frame = make_frame(chain.frame, stored, values.nbytes)
    assert frame is not None
    assert bytes(imagecodecs.blosc_decode(frame)) == values.tobytes()
    # What is compressed is as it was: only what stands before it is not.
    assert frame.endswith(stored[-16:])
    assert struct.unpack_from("<I", frame, 12) == (len(frame),)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        # Blosc leaves blocks unshuffled that are no eights of elements.
        ("bitshuffle_lz4", np.arange(1001, dtype="<u2")),
        ("bitshuffle_lz4_in_blocks", np.arange(66, dtype="<u4")),
        # One shuffle of several blocks.
        ("shuffle_lz4", None),
    ],
)
def test_what_blosc_would_read_otherwise_has_no_frame(
    tmp_path: Path, name: str, values: Any
) -> None:
    options = OPTIONS[name]
    if values is None:
        values, options = VALUES.astype("<u2"), {**options, "compression_opts": (1000,)}
    chain, stored = write_chunk(tmp_path / "x.h5", values, options)
    assert make_frame(chain.frame, stored, values.nbytes) is None


def test_a_block_that_blosc_would_copy_has_no_frame() -> None:
    stream = zlib.compress(bytes(range(200)), 9)
    deflate = BloscFrame(StoredForm.STREAM, "zlib", "noshuffle", 1)
    content = np.frombuffer(stream, np.uint8)
    assert deflate.make_head(content, 200) is not None
    assert deflate.make_head(content, len(stream)) is None
    bitshuffled = BloscFrame(StoredForm.BLOCKS, "lz4", "bitshuffle", 1)
    for size, is_framed in ((63, True), (64, False)):
        stored = struct.pack(">QII", 64, 64, size) + bytes(size)
        frame = make_frame(bitshuffled, stored, 64)
        assert (frame is not None) is is_framed


@given(data=st.data())
@settings(max_examples=at_most(100), deadline=None)
def test_damaged_blocks_have_no_frame_or_a_sound_one(data: st.DataObject) -> None:
    """A frame that is made says of itself how long it is, and all its blocks lie inside."""
    frame = BloscFrame(StoredForm.BLOCKS, "lz4", "noshuffle", 1)
    blocks = b"".join(struct.pack(">I", n) + bytes(n) for n in (5, 7, 64))
    stored = bytearray(struct.pack(">QI", 160, 64) + blocks)
    for _ in range(data.draw(st.integers(1, 3))):
        stored[data.draw(st.integers(0, len(stored) - 1))] = data.draw(st.integers(0, 255))
    made = make_frame(frame, bytes(stored[: data.draw(st.integers(0, len(stored)))]), 160)
    if made is not None:
        size, block, total = struct.unpack_from("<III", made, 4)
        assert (size, total) == (160, len(made))
        for number in range(-(-size // block)):
            (begin,) = struct.unpack_from("<I", made, 16 + 4 * number)
            assert begin + 4 + struct.unpack_from("<I", made, begin)[0] <= total


def test_too_many_blocks_have_no_frame() -> None:
    frame = BloscFrame(StoredForm.BLOCKS, "lz4", "noshuffle", 1)
    for count, is_framed in ((1 << 14, True), ((1 << 14) + 1, False)):
        stored = struct.pack(">QI", count, 1) + struct.pack(">IB", 1, 7) * count
        assert (make_frame(frame, stored, count) is not None) is is_framed


def test_sizes_of_zstd_frames() -> None:
    zstandard = pytest.importorskip("zstandard")
    for size in (0, 1, 255, 256, 257, 65_791, 65_792, 1 << 20):
        made = zstandard.ZstdCompressor(level=1).compress(bytes(size))
        assert find_zstd_size(made[:18]) == size
        stream = zstandard.ZstdCompressor(level=1, write_content_size=False).compress(bytes(size))
        assert find_zstd_size(stream[:18]) is None
    assert find_zstd_size(b"\x28\xb5\x2f\xfd\xe0") is None


@given(st.binary(max_size=24))
@settings(max_examples=at_most(300), deadline=None)
def test_any_bytes_as_the_head_of_a_frame(head: bytes) -> None:
    for content in (head, b"\x28\xb5\x2f\xfd" + head):
        size = find_zstd_size(content)
        assert size is None or size >= 0
