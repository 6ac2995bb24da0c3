"""Curves, tables and volumes, and selections of them."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from benchmarks.data import SEED, DataFolder, Place
from benchmarks.kinds.frames import make_detector_frame

PICKS = 64
"""Random selections of each kind."""
_ROWS, _COLUMNS = 8192, 1024
_VOLUME = (256, 1024, 1024)
_VOLUME_CHUNKS = (8, 128, 128)


def contiguous_16k(data: DataFolder, files: int = 4, datasets: int = 100) -> Sequence[Place]:
    """Make contiguous datasets of 16 KiB (float32)."""

    def write(folder: Path, random: np.random.Generator) -> None:
        for index in range(files):
            with h5py.File(folder / f"{index}.h5", "w") as file:
                for number in range(datasets):
                    file[f"curve_{number}"] = random.standard_normal(4096, dtype=np.float32)

    data.require("contiguous_16k", write)
    return [
        Place(f"contiguous_16k/{index}.h5", f"/curve_{number}")
        for index in range(files)
        for number in range(datasets)
    ]


def float_tables(data: DataFolder, files: int = 2) -> Sequence[Place]:
    """Make contiguous tables of 64 MiB (float64)."""

    def write(folder: Path, random: np.random.Generator) -> None:
        for index in range(files):
            with h5py.File(folder / f"{index}.h5", "w") as file:
                file["table"] = random.standard_normal((_ROWS, _COLUMNS))

    data.require("float_tables", write)
    return [Place(f"float_tables/{index}.h5", "/table") for index in range(files)]


def million_numbers(data: DataFolder) -> Sequence[Place]:
    """Choose 1,024 rows of 1,024 numbers, anywhere in the tables."""
    random = np.random.default_rng(SEED)
    tables = float_tables(data)
    starts = random.integers(_ROWS - 1024, size=PICKS).tolist()
    return [
        Place(tables[pick % 2].file, "/table", (slice(start, start + 1024),))
        for pick, start in enumerate(starts)
    ]


def volume(data: DataFolder) -> Place:
    """Make 512 MiB (uint16) in gzip+shuffle chunks of 256 KiB, whose borders no selection minds."""

    def write(folder: Path, random: np.random.Generator) -> None:
        frames = [make_detector_frame(random, counts=8) for _ in range(8)]
        with h5py.File(folder / "volume.h5", "w") as file:
            volume = file.create_dataset(
                "volume",
                _VOLUME,
                np.uint16,
                chunks=_VOLUME_CHUNKS,
                compression="gzip",
                shuffle=True,
            )
            for start in range(0, _VOLUME[0], _VOLUME_CHUNKS[0]):
                order = random.integers(len(frames), size=_VOLUME_CHUNKS[0])
                volume[start : start + len(order)] = np.stack([frames[index] for index in order])

    data.require("volume", write)
    return Place("volume/volume.h5", "/volume")


def slabs(data: DataFolder) -> Sequence[Place]:
    """Choose slabs of 8x512x512 (4 MiB) anywhere in the volume: 16 to 50 chunks each."""
    return _boxes(volume(data), (8, 512, 512), (1, 1, 1))


def strided(data: DataFolder) -> Sequence[Place]:
    """Choose every fourth value of boxes of 64x128x128 in the volume: 8 to 36 chunks each."""
    return _boxes(volume(data), (64, 128, 128), (4, 4, 4))


def _boxes(place: Place, box: tuple[int, ...], steps: tuple[int, ...]) -> Sequence[Place]:
    random = np.random.default_rng([SEED, *box])
    rooms = [extent - side for extent, side in zip(_VOLUME, box, strict=True)]
    return [
        Place(
            place.file,
            place.path,
            tuple(
                slice(start, start + side, None if step == 1 else step)
                for start, side, step in zip(corner, box, steps, strict=True)
            ),
        )
        for corner in random.integers(rooms, size=(PICKS, len(box))).tolist()
    ]
