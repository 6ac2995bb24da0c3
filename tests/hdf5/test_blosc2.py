"""Frames of Blosc 2 with whatever its library offers: what the HDF5 plugin reads is read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from asgihive.hdf5.filters import pipeline as pipelines
from asgihive.hdf5.filters.contract import BadChunk, as_bytes
from asgihive.hdf5.filters.pipeline import NoDecoder, make_pipeline
from asgihive.hdf5.layout import Filter, layout_of

blosc2: Any = pytest.importorskip("blosc2")
hdf5plugin: Any = pytest.importorskip("hdf5plugin")

VALUES = (np.arange(48 * 40) * 7 % 1000).reshape(48, 40)
Codec, With = blosc2.Codec, blosc2.Filter

PIPELINES: dict[str, dict[str, Any]] = {
    "plain": {},
    "bitshuffle": {"filters": [With.BITSHUFFLE], "filters_meta": [0]},
    "delta": {"filters": [With.DELTA, With.SHUFFLE], "filters_meta": [0, 0]},
    "truncated": {"filters": [With.TRUNC_PREC, With.SHUFFLE], "filters_meta": [20, 0]},
    "truncated_alone": {"filters": [With.TRUNC_PREC], "filters_meta": [20]},
    "bytedelta": {"filters": [With.SHUFFLE, With.BYTEDELTA], "filters_meta": [0, 4]},
    "stored": {"clevel": 0},
    "lz4": {"codec": Codec.LZ4},
    "lz4hc": {"codec": Codec.LZ4HC},
    "zlib": {"codec": Codec.ZLIB},
    "zstd": {"codec": Codec.ZSTD},
    "blosclz": {"codec": Codec.BLOSCLZ},
    "dictionary": {"codec": Codec.ZSTD, "use_dict": True},
    "ndlz": {"codec": Codec.NDLZ, "codec_meta": 4, "filters": [With.NOFILTER], "typesize": 1},
    "zfp": {"codec": Codec.ZFP_ACC, "codec_meta": 0, "filters": [With.NOFILTER], "floats": True},
    "zfp_rate": {"codec": Codec.ZFP_RATE, "codec_meta": 37, "filters": [With.NOFILTER]},
    "ndcell": {"filters": [With.NDCELL, With.SHUFFLE], "filters_meta": [4, 0]},
    "ndmean": {"filters": [With.NDMEAN], "filters_meta": [4], "floats": True},
}


def _frames() -> Iterator[tuple[str, np.dtype[Any], bytes]]:
    for name, options in PIPELINES.items():
        cparams = dict(options)
        is_float = cparams.pop("floats", "zfp" in name)
        item = cparams.pop("typesize", 4)
        dtype = np.dtype("u1" if item == 1 else "<f4" if is_float else "<i4")
        values = VALUES.astype(dtype)
        cparams["typesize"] = item
        for cut, chunks in {"whole": (48, 40), "several": (24, 16)}.items():
            array = blosc2.asarray(
                values, chunks=chunks, blocks=(8, 8), contiguous=True, cparams=cparams
            )
            yield f"{name}_{cut}", dtype, array.schunk.to_cframe()
        if not name.startswith(("nd", "zfp")):
            chunk = blosc2.SChunk(
                chunksize=values.nbytes, data=values.tobytes(), contiguous=True, cparams=cparams
            )
            yield f"{name}_chunk", dtype, chunk.to_cframe()
    for chunks in [(48, 40), (24, 16)]:
        at = {"chunks": chunks, "blocks": (8, 8), "contiguous": True}
        for name, array in {
            "zeros": blosc2.zeros((48, 40), dtype="<f4", **at),
            "nans": blosc2.nans((48, 40), dtype="<f4", **at),
            "full": blosc2.full((48, 40), 7.5, dtype="<f4", **at),
        }.items():
            yield f"{name}_{chunks[0]}", np.dtype("<f4"), array.schunk.to_cframe()


FRAMES = {name: (dtype, frame) for name, dtype, frame in _frames()}


def _stored(path: Path, dtype: np.dtype[Any], frame: bytes) -> tuple[bytes, Any]:
    """What the plugin reads, and the dataset's pipeline."""
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset(
            "x", (48, 40), dtype, chunks=(48, 40), compression=hdf5plugin.Blosc2()
        )
        dataset.id.write_direct_chunk((0, 0), frame)
    with h5py.File(path) as file:
        dataset = file["x"]
        layout = layout_of(dataset.id)
        return dataset[...].tobytes(), make_pipeline(layout.filters, 48 * 40 * dtype.itemsize)


@pytest.mark.parametrize("name", FRAMES)
def test_what_the_plugin_reads_is_read(tmp_path: Path, name: str) -> None:
    dtype, frame = FRAMES[name]
    expected, pipeline = _stored(tmp_path / "x.h5", dtype, frame)
    assert pipeline.decode(as_bytes(frame), 0).tobytes() == expected


@pytest.mark.parametrize("chunks", [(48, 40), (24, 16)])
def test_what_is_not_initialised_is_zero(chunks: tuple[int, int]) -> None:
    array = blosc2.uninit((48, 40), dtype="<f4", chunks=chunks, blocks=(8, 8), contiguous=True)
    frame = array.schunk.to_cframe()
    values = (2, 2, 4, 48 * 40 * 4, 5, 1, 5, 2, 48, 40)
    pipeline = make_pipeline((Filter(32026, "blosc2", values),), 48 * 40 * 4)
    for _ in range(20):
        junk = [b"\xab" * (48 * 40 * 4 + beyond) for beyond in (-33, 0, 32)]
        del junk
        assert not pipeline.decode(as_bytes(frame), 0).any()


def test_where_there_is_no_plugin_the_filter_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    _, frame = FRAMES["bytedelta_chunk"]
    monkeypatch.setattr(Filter, "available", False)
    pipeline = make_pipeline((Filter(32026, "blosc2"),), 48 * 40 * 4)
    with pytest.raises(NoDecoder):
        pipeline.decode(as_bytes(frame), 0)


@pytest.mark.parametrize("name", ["bytedelta_chunk", "plain_several", "nans_48", "zfp_whole"])
def test_the_plugin_is_given_no_more_room(name: str) -> None:
    dtype, frame = FRAMES[name]
    size = 48 * 40 * dtype.itemsize
    for wrong in (size // 2, size - 4, size + 4, 1):
        pipeline = make_pipeline((Filter(32026, "blosc2"),), wrong)
        with pytest.raises(BadChunk, match="blosc2"):
            pipeline.decode(as_bytes(frame), 0)


def test_what_is_damaged_goes_to_no_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(pipelines, "run_filter", refuse)
    _, frame = FRAMES["lz4_chunk"]
    pipeline = make_pipeline((Filter(32026, "blosc2"),), 48 * 40 * 4)
    for broken in (frame[:40], frame[: len(frame) // 2], b"\0" * len(frame)):
        with pytest.raises(BadChunk):
            pipeline.decode(as_bytes(broken), 0)
