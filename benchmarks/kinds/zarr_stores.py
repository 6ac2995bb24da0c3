"""What Zarr clients open: a file of many datasets, and the same frames as a Zarr v3 directory."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.data import DataFolder, Place
from benchmarks.kinds.frames import SHAPE

DATASETS, GROUPS = 10_000, 100
"""Of the file of many datasets: so many in all, and so many groups that they lie in."""

STORE = "zarr_frames/stack.zarr"
"""The directory that `write_store` writes, below the data's folder."""

BLOSC_STORE = "zarr_blosc_frames/stack.zarr"
"""The same of `write_blosc_store`."""

_VALUES = 16


def many_datasets(data: DataFolder) -> Place:
    """Make a file of 100 groups of 100 datasets with 2 attributes each."""

    def write(folder: Path, random: np.random.Generator) -> None:
        with h5py.File(folder / "many.h5", "w") as file:
            for number in range(DATASETS):
                group = file.require_group(f"scan_{number % GROUPS:03}")
                values = random.standard_normal(_VALUES)
                dataset = group.create_dataset(f"counter_{number // GROUPS:03}", data=values)
                dataset.attrs["units"] = "counts"
                dataset.attrs["gain"] = 1.5

    data.require("many_datasets", write)
    return Place("many_datasets/many.h5", "/")


def write_store(data: DataFolder, stack: Place) -> None:
    """Write a stack of frames as a Zarr v3 directory: one chunk a frame, zstd level 1."""
    from zarr.codecs import ZstdCodec  # noqa: PLC0415  # takes long, and others need it not

    _write_frames(data, stack, STORE, ZstdCodec(level=1))


def write_blosc_store(data: DataFolder, stack: Place) -> None:
    """Write the same by Blosc, as asgihive encodes frames: LZ4 after a bit shuffle."""
    from zarr.codecs import BloscCodec  # noqa: PLC0415  # as above

    codec = BloscCodec(typesize=2, cname="lz4", clevel=5, shuffle="bitshuffle")
    _write_frames(data, stack, BLOSC_STORE, codec)


def _write_frames(data: DataFolder, stack: Place, where: str, codec: Any) -> None:
    def write(folder: Path, _: np.random.Generator) -> None:
        import zarr  # noqa: PLC0415  # as above

        with h5py.File(data.file(stack), "r") as file:
            frames = file[stack.path]
            store = zarr.open_group(folder / Path(where).name, mode="w", zarr_format=3)
            array = store.create_array(
                "stack",
                shape=frames.shape,
                dtype=frames.dtype,
                chunks=(1, *SHAPE),
                compressors=codec,
                dimension_names=["frame", "row", "column"],
            )
            for number in range(len(frames)):
                array[number] = frames[number]
        zarr.consolidate_metadata(store.store)

    data.require(Path(where).parts[0], write)
