"""Detector-like frames, in stacks of one frame a chunk, and what such stacks are made of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.client import BenchmarkError
from benchmarks.data import DataFolder, Place

SHAPE = (1024, 1024)
FILES, FRAMES = 4, 16
"""Of each kind of frames."""


LARGE_SHAPE = (4096, 4096)
LARGE_FRAMES = 8


def large_frames(data: DataFolder) -> Sequence[Place]:
    """Make frames of 4096x4096 uint16, each one gzip+shuffle chunk of 32 MiB."""

    def write(folder: Path, random: np.random.Generator) -> None:
        with h5py.File(folder / "0.h5", "w") as file:
            stack = file.create_dataset(
                "stack",
                (LARGE_FRAMES, *LARGE_SHAPE),
                np.uint16,
                chunks=(1, *LARGE_SHAPE),
                compression="gzip",
                shuffle=True,
            )
            repeat_frames(stack, random, 2, counts=8)

    data.require("large_frames", write)
    return [Place("large_frames/0.h5", "/stack", (frame,)) for frame in range(LARGE_FRAMES)]


LONG_FRAMES = 256
"""In a file that is larger than the blocks which clients of object stores read at once."""


def long_stacks(data: DataFolder) -> Sequence[Place]:
    """Make two stacks of gzip+shuffle frames of some 120 MiB each."""

    def write(folder: Path, random: np.random.Generator) -> None:
        for index in range(2):
            with h5py.File(folder / f"{index}.h5", "w") as file:
                stack = make_frame_stack(file, LONG_FRAMES, compression="gzip", shuffle=True)
                repeat_frames(stack, random, 8, counts=8)

    data.require("long_stacks", write)
    return [
        Place(f"long_stacks/{index}.h5", "/stack", (frame,))
        for index in range(2)
        for frame in range(LONG_FRAMES)
    ]


def contiguous_4m(data: DataFolder) -> Sequence[Place]:
    """Make frames of 4 MiB (uint32) in contiguous stacks."""

    def write(folder: Path, random: np.random.Generator) -> None:
        for index in range(FILES):
            with h5py.File(folder / f"{index}.h5", "w") as file:
                stack = file.create_dataset("stack", (FRAMES, *SHAPE), np.uint32)
                for frame in range(FRAMES):
                    stack[frame] = random.integers(1 << 32, size=SHAPE, dtype=np.uint32)

    data.require("contiguous_4m", write)
    return _places("contiguous_4m")


def gzip_frames(data: DataFolder) -> Sequence[Place]:
    """Make frames of 1024x1024 uint16, each one gzip+shuffle chunk."""
    return _compressed(data, "gzip_frames", lambda: {"compression": "gzip", "shuffle": True})


def bitshuffle_lz4_frames(data: DataFolder) -> Sequence[Place]:
    """Make the same as bitshuffle-LZ4, as the detectors of today write it."""
    return _compressed(data, "bitshuffle_lz4_frames", lambda: _plugin("Bitshuffle", cname="lz4"))


def zstd_frames(data: DataFolder) -> Sequence[Place]:
    """Make the same as zstd."""
    return _compressed(data, "zstd_frames", lambda: _plugin("Zstd"))


def zarr_stored(data: DataFolder) -> Sequence[Place]:
    """Make the same as zstd, once more, whose stored chunks are also plain files."""
    return _compressed(data, "zarr_stored", lambda: _plugin("Zstd"))


def read_stored_chunk(data: DataFolder, place: Place) -> bytes:
    """Return the chunk of a frame as it is stored."""
    with h5py.File(data.file(place), "r") as file:
        stored: bytes = file[place.path].id.read_direct_chunk((*place.selection, 0, 0))[1]
        return stored


def write_plain_frames(data: DataFolder, places: Sequence[Place]) -> None:
    """Write the stacks of `places` once more, contiguous and without filters."""
    kind = locate_plain_frame(places[0]).file.partition("/")[0]

    def write(folder: Path, _: np.random.Generator) -> None:
        for path in sorted({place.file for place in places}):
            with (
                h5py.File(data.root / path, "r") as stored,
                h5py.File(folder / Path(path).name, "w") as file,
            ):
                file["stack"] = stored["stack"][()]

    data.require(kind, write)


def locate_plain_frame(place: Place) -> Place:
    """Return where `write_plain_frames` writes a frame."""
    kind, _, name = place.file.partition("/")
    return replace(place, file=f"{kind}_plain/{name}")


def make_frame_stack(file: h5py.File, frames: int, **filters: Any) -> h5py.Dataset:
    """Make an empty stack of frames, one a chunk."""
    shape = (frames, *SHAPE)
    return file.create_dataset("stack", shape, np.uint16, chunks=(1, *SHAPE), **filters)


def make_detector_frame(
    random: np.random.Generator, counts: float, shape: tuple[int, int] = SHAPE
) -> np.ndarray:
    """Make counting noise on a background that falls off from `counts` to the sides."""
    rows = np.linspace(-1, 1, shape[0])[:, None]
    columns = np.linspace(-1, 1, shape[1])
    return random.poisson(counts * np.exp(-(rows**2) - columns**2)).astype(np.uint16)


def repeat_frames(
    stack: h5py.Dataset, random: np.random.Generator, different: int, counts: float
) -> None:
    """Fill a long stack with few different frames in random order: each is compressed once."""
    for frame in range(different):
        stack[frame] = make_detector_frame(random, counts, stack.shape[1:])
    chunks = [stack.id.read_direct_chunk((frame, 0, 0)) for frame in range(different)]
    for frame in range(different, len(stack)):
        mask, stored = chunks[int(random.integers(different))]
        stack.id.write_direct_chunk((frame, 0, 0), stored, mask)


def _compressed(
    data: DataFolder, kind: str, filters: Callable[[], Mapping[str, Any]]
) -> Sequence[Place]:
    def write(folder: Path, random: np.random.Generator) -> None:
        for index in range(FILES):
            with h5py.File(folder / f"{index}.h5", "w") as file:
                stack = make_frame_stack(file, FRAMES, **filters())
                for frame in range(FRAMES):
                    stack[frame] = make_detector_frame(random, counts=8)

    data.require(kind, write)
    return _places(kind)


def _plugin(name: str, **values: Any) -> Mapping[str, Any]:
    try:
        import hdf5plugin  # noqa: PLC0415  # of the extra `codecs`: other questions need it not
    except ImportError:
        raise BenchmarkError("needs hdf5plugin: pip install 'asgihive[codecs]'") from None
    filters: Mapping[str, Any] = getattr(hdf5plugin, name)(**values)
    return filters


def _places(kind: str) -> Sequence[Place]:
    return [
        Place(f"{kind}/{index}.h5", "/stack", (frame,))
        for index in range(FILES)
        for frame in range(FRAMES)
    ]
