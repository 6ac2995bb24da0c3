"""Datasets that are larger than any memory budget, yet small on the disk."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from benchmarks.data import SEED, DataFolder, Place
from benchmarks.kinds.frames import SHAPE, make_frame_stack, repeat_frames

PICKS = 64
CHUNK_COUNTS = (10**3, 10**4, 10**5, 10**6)
_CHUNK_VALUES = 16
_DOWNLOAD_BYTES = 4 << 30


def download(data: DataFolder) -> Sequence[Place]:
    """Make 4 GiB twice: contiguous and sparse on the disk, and as 2,048 gzip+shuffle frames."""

    def write(folder: Path, random: np.random.Generator) -> None:
        frames = _DOWNLOAD_BYTES >> 22
        with h5py.File(folder / "contiguous.h5", "w") as file:
            # Without fill values only the pages that are written take room on the disk.
            stack = file.create_dataset(
                "stack", (frames, *SHAPE), np.uint32, fill_time="never", track_times=False
            )
            for frame in (*range(0, frames, 128), frames - 1):
                stack[frame] = random.integers(1 << 32, size=SHAPE, dtype=np.uint32)
        with h5py.File(folder / "gzip.h5", "w") as file:
            stack = make_frame_stack(file, 2 * frames, compression="gzip", shuffle=True)
            repeat_frames(stack, random, different=8, counts=0.1)

    data.require("download", write)
    return [Place("download/contiguous.h5", "/stack"), Place("download/gzip.h5", "/stack")]


def two_gib(data: DataFolder) -> Place:
    """Make 2 GiB as 1,024 gzip+shuffle frames with the noise of a detector."""

    def write(folder: Path, random: np.random.Generator) -> None:
        with h5py.File(folder / "gzip.h5", "w") as file:
            stack = make_frame_stack(file, 1024, compression="gzip", shuffle=True)
            repeat_frames(stack, random, different=32, counts=8)

    data.require("two_gib", write)
    return Place("two_gib/gzip.h5", "/stack")


def many_chunks(data: DataFolder) -> Sequence[Sequence[Place]]:
    """Choose, by number of chunks: random chunks of 16 values each, of one dataset."""

    def write(folder: Path, random: np.random.Generator) -> None:
        for chunks in CHUNK_COUNTS:
            with h5py.File(folder / f"{chunks}.h5", "w") as file:
                curve = file.create_dataset(
                    "curve",
                    chunks * _CHUNK_VALUES,
                    np.float32,
                    chunks=_CHUNK_VALUES,
                    compression="gzip",
                )
                values = random.standard_normal((64, _CHUNK_VALUES), dtype=np.float32)
                curve[: values.size] = values.reshape(-1)
                stored = [
                    curve.id.read_direct_chunk((index * _CHUNK_VALUES,))[1] for index in range(64)
                ]
                for chunk in range(len(values), chunks):
                    content = stored[(chunk * 37) % 64]
                    curve.id.write_direct_chunk((chunk * _CHUNK_VALUES,), content)

    data.require("many_chunks", write)
    return [_chunks(chunks) for chunks in CHUNK_COUNTS]


def _chunks(chunks: int) -> Sequence[Place]:
    picks = np.random.default_rng([SEED, chunks]).integers(chunks, size=PICKS).tolist()
    return [
        Place(
            f"many_chunks/{chunks}.h5",
            "/curve",
            (slice(pick * _CHUNK_VALUES, (pick + 1) * _CHUNK_VALUES),),
        )
        for pick in picks
    ]
