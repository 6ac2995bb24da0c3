"""The seeded files that the questions read. The same seed gives the same bytes."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import h5py
import numpy as np

SEED = 20_250_701
# A folder of another version is left alone and its data is made anew beside it.
VERSION = "v1"

FRAME_SHAPE = (1024, 1024)


@dataclass(frozen=True, slots=True)
class Place:
    """One thing to ask for: an entity of a file, or one frame of a dataset."""

    file: str
    path: str
    frame: int | None = None

    def target(self, route: str, **parameters: str) -> str:
        """The request target (RFC 9112, section 3.2) that asks `route` for this place."""
        query = {"file": self.file, "path": self.path, **parameters}
        if self.frame is not None:
            query["selection"] = str(self.frame)
        return f"{route}?{urlencode(query)}"


class DataFolder:
    """The directory that the servers serve; each kind of data is a folder in it.

    A kind's folder appears under its name only when all of its files are written, so what an
    interrupted run leaves behind is never taken for data.
    """

    def __init__(self, root: Path) -> None:
        self.root = root / VERSION
        self.root.mkdir(parents=True, exist_ok=True)

    def file(self, place: Place) -> Path:
        return self.root / place.file

    def read(self, place: Place) -> np.ndarray:
        """The values at `place` as h5py reads them: the truth that answers are held against."""
        with h5py.File(self.file(place), "r") as file:
            selection = () if place.frame is None else place.frame
            return np.asarray(file[place.path][selection])

    def require(self, kind: str, write: Callable[[Path, np.random.Generator], None]) -> None:
        """Let `write` fill the folder `kind`, unless it is complete already."""
        folder = self.root / kind
        if folder.exists():
            return
        unfinished = self.root / f"{kind}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        write(unfinished, np.random.default_rng([SEED, *kind.encode()]))
        unfinished.rename(folder)


def small_groups(data: DataFolder, files: int = 4, groups: int = 50) -> Sequence[Place]:
    """Groups of 5 datasets with 3 attributes each."""

    def write(folder: Path, _: np.random.Generator) -> None:
        for index in range(files):
            with h5py.File(folder / f"{index}.h5", "w") as file:
                for number in range(groups):
                    _describe(file.create_group(f"entry_{number}"), datasets=5, attributes=3)

    data.require("small_groups", write)
    return [
        Place(f"small_groups/{index}.h5", f"/entry_{number}")
        for index in range(files)
        for number in range(groups)
    ]


def wide_groups(data: DataFolder, files: int = 4) -> Sequence[Place]:
    """In each file one group of 5,000 datasets with 5 attributes each."""

    def write(folder: Path, _: np.random.Generator) -> None:
        first = folder / "0.h5"
        with h5py.File(first, "w") as file:
            _describe(file.create_group("wide"), datasets=5_000, attributes=5)
        for index in range(1, files):
            shutil.copyfile(first, folder / f"{index}.h5")

    data.require("wide_groups", write)
    return [Place(f"wide_groups/{index}.h5", "/wide") for index in range(files)]


def contiguous_16k(data: DataFolder, files: int = 4, datasets: int = 100) -> Sequence[Place]:
    """Contiguous datasets of 16 KiB (float32)."""

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


def contiguous_4m(data: DataFolder, files: int = 4, frames: int = 16) -> Sequence[Place]:
    """Frames of 4 MiB (uint32) in contiguous stacks."""

    def write(folder: Path, random: np.random.Generator) -> None:
        for index in range(files):
            with h5py.File(folder / f"{index}.h5", "w") as file:
                stack = file.create_dataset("stack", (frames, *FRAME_SHAPE), np.uint32)
                for frame in range(frames):
                    stack[frame] = random.integers(1 << 32, size=FRAME_SHAPE, dtype=np.uint32)

    data.require("contiguous_4m", write)
    return _frames("contiguous_4m", files, frames)


def gzip_frames(data: DataFolder, files: int = 4, frames: int = 16) -> Sequence[Place]:
    """Detector-like 1024x1024 uint16 frames, each one gzip+shuffle chunk."""

    def write(folder: Path, random: np.random.Generator) -> None:
        for index in range(files):
            with h5py.File(folder / f"{index}.h5", "w") as file:
                stack = _gzip_stack(file, frames)
                for frame in range(frames):
                    stack[frame] = _detector_frame(random, counts=8)

    data.require("gzip_frames", write)
    return _frames("gzip_frames", files, frames)


def one_gib(data: DataFolder) -> Sequence[Place]:
    """1 GiB twice: contiguous and sparse on the disk, and as 512 gzip+shuffle frames."""

    def write(folder: Path, random: np.random.Generator) -> None:
        with h5py.File(folder / "contiguous.h5", "w") as file:
            # Without fill values only the pages that are written take room on the disk.
            stack = file.create_dataset(
                "stack", (256, *FRAME_SHAPE), np.uint32, fill_time="never", track_times=False
            )
            for frame in (*range(0, 256, 32), 255):
                stack[frame] = random.integers(1 << 32, size=FRAME_SHAPE, dtype=np.uint32)
        with h5py.File(folder / "gzip.h5", "w") as file:
            stack = _gzip_stack(file, 512)
            for frame in range(8):
                stack[frame] = _detector_frame(random, counts=0.1)
            chunks = [stack.id.read_direct_chunk((frame, 0, 0)) for frame in range(8)]
            for frame in range(8, 512):
                mask, stored = chunks[int(random.integers(8))]
                stack.id.write_direct_chunk((frame, 0, 0), stored, mask)

    data.require("one_gib", write)
    return [Place("one_gib/contiguous.h5", "/stack"), Place("one_gib/gzip.h5", "/stack")]


def float_tables(data: DataFolder, files: int = 2) -> Sequence[Place]:
    """Contiguous tables of 64 MiB (float64)."""

    def write(folder: Path, random: np.random.Generator) -> None:
        for index in range(files):
            with h5py.File(folder / f"{index}.h5", "w") as file:
                file["table"] = random.standard_normal((8192, 1024))

    data.require("float_tables", write)
    return [Place(f"float_tables/{index}.h5", "/table") for index in range(files)]


def _frames(kind: str, files: int, frames: int) -> Sequence[Place]:
    return [
        Place(f"{kind}/{index}.h5", "/stack", frame)
        for index in range(files)
        for frame in range(frames)
    ]


def _gzip_stack(file: h5py.File, frames: int) -> h5py.Dataset:
    return file.create_dataset(
        "stack",
        (frames, *FRAME_SHAPE),
        np.uint16,
        chunks=(1, *FRAME_SHAPE),
        compression="gzip",
        shuffle=True,
    )


def _detector_frame(random: np.random.Generator, counts: float) -> np.ndarray:
    """Counting noise on a background that falls off from `counts` to the sides."""
    rows = np.linspace(-1, 1, FRAME_SHAPE[0])[:, None]
    columns = np.linspace(-1, 1, FRAME_SHAPE[1])
    return random.poisson(counts * np.exp(-(rows**2) - columns**2)).astype(np.uint16)


def _describe(group: h5py.Group, datasets: int, attributes: int) -> None:
    """Fill `group` with small datasets of changing types that carry attributes."""
    types = (np.dtype("<f8"), np.dtype("<i4"), np.dtype("<u2"))
    text = h5py.h5t.py_create(h5py.string_dtype(), logical=True)
    scalar = h5py.h5s.create(h5py.h5s.SCALAR)
    # The low-level API writes the 25,000 attributes of a wide group ten times as fast.
    for number in range(datasets):
        dtype = types[number % len(types)]
        values = np.arange(16, dtype=dtype)
        stored = h5py.h5t.py_create(dtype)
        name = f"channel_{number}".encode()
        dataset = h5py.h5d.create(group.id, name, stored, h5py.h5s.create_simple(values.shape))
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
        for name, value in _attributes(number, attributes):
            kind = text if value.dtype.hasobject else h5py.h5t.py_create(value.dtype)
            h5py.h5a.create(dataset, name, kind, scalar).write(value, mtype=kind)


def _attributes(number: int, count: int) -> Iterator[tuple[bytes, np.ndarray]]:
    yield b"units", np.array("mm", dtype=object)
    yield b"long_name", np.array(f"Channel {number}", dtype=object)
    for index in range(count - 2):
        yield f"factor_{index}".encode(), np.array(number + index / 8)
