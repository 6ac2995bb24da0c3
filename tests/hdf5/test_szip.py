"""szip with scanlines of every length: whole streams are read, and of others not a byte is made up.

libaec says nothing of what a stream lacks, and its buffers hold whatever was in memory before.
"""

import struct
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5z

from asgihive.hdf5.filters.contract import BadChunk, as_bytes
from asgihive.hdf5.filters.pipeline import make_pipeline
from asgihive.hdf5.layout import Filter

pytest.importorskip("imagecodecs")
pytestmark = pytest.mark.skipif(
    not h5z.filter_avail(h5z.FILTER_SZIP), reason="this libhdf5 has no szip"
)

SHAPES = [(8, 10), (100,), (3, 37), (7, 5000), (400, 3), (1, 33), (9, 4090)]
JUNK = 0xAB


def _stored(values: Any, options: tuple[str, int]) -> tuple[tuple[int, ...], bytes] | None:
    """The filter's values and the chunk; None where libhdf5 does not compress it."""
    with h5py.File("x", "w", driver="core", backing_store=False) as file:
        try:
            data = file.create_dataset(
                "x",
                data=values,
                chunks=values.shape,
                compression="szip",
                compression_opts=options,
            )
        except (ValueError, OSError):
            return None
        mask, chunk = data.id.read_direct_chunk((0,) * values.ndim)
        if mask:
            return None
        return data.id.get_create_plist().get_filter(0)[2], chunk


def _pollute(size: int) -> None:
    junk = [bytes([JUNK]) * (size + beyond) for beyond in (-33, 0, 15, 512) for _ in range(20)]
    del junk


def _pipeline(values: tuple[int, ...], size: int) -> Any:
    return make_pipeline((Filter(4, "szip", values),), size)


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">i2", "<i4", "<f8", ">f8"])
@pytest.mark.parametrize("options", [("nn", 8), ("ec", 16), ("nn", 2), ("ec", 32), ("nn", 30)])
def test_whole_streams(dtype: str, options: tuple[str, int]) -> None:
    random, tried = np.random.default_rng(0), 0
    for shape in SHAPES:
        values = random.integers(0, 100, shape).astype(dtype)
        stored = _stored(values, options)
        if stored is not None:
            tried += 1
            pipeline = _pipeline(stored[0], values.nbytes)
            assert pipeline.decode(as_bytes(stored[1]), 0).tobytes() == values.tobytes(), shape
    # Of single bytes in pairs, nothing gets shorter.
    assert tried > 2 or (dtype, options) == ("u1", ("nn", 2))


def _forged() -> Iterator[tuple[str, tuple[int, ...], bytes, int]]:
    """Streams that end early, and scanlines of other lengths than were written."""
    for dtype in ("u1", "<u2", "<i4", "<f8"):
        values = (np.arange(6000) // 7 % 100).astype(dtype)
        stored = _stored(values, ("nn", 8))
        assert stored is not None
        options, chunk = stored
        for scanline in (7, 63, 100, 1001, 1023, 4090, options[3]):
            forged = (*options[:3], scanline)
            yield f"{dtype} {scanline}", forged, chunk, values.nbytes
            for part in (3, 2):
                short = chunk[: len(chunk) // part]
                yield f"{dtype} {scanline} short", forged, short, values.nbytes
            more = struct.pack("<I", 2 * values.nbytes) + chunk[4:]
            yield f"{dtype} {scanline} more", forged, more, 2 * values.nbytes


def test_what_a_stream_lacks_is_an_error_and_never_memory() -> None:
    refused = 0
    for name, values, chunk, size in _forged():
        pipeline = _pipeline(values, size)
        results = []
        for _ in range(2):
            _pollute(size)
            try:
                results.append(pipeline.decode(as_bytes(chunk), 0).tobytes())
            except BadChunk as error:
                results.append(str(error).encode())
                refused += 1
        assert results[0] == results[1], name
        assert results[0].count(bytes([JUNK]) * 8) == 0, name
    assert refused > 40


@pytest.mark.parametrize("values", [(169, 0, 32, 8), (169, 8, 32, 0), (169, 8, 32, 4095 * 9)])
def test_absurd_values_are_refused(values: tuple[int, ...]) -> None:
    chunk = struct.pack("<I", 4000) + bytes(100)
    with pytest.raises(BadChunk, match="szip"):
        _pipeline(values, 4000).decode(as_bytes(chunk), 0)
