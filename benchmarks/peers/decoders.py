"""asgihive's decoders without HTTP: random chunks, read and decoded in as many threads as lanes.

They share nothing and wait for nothing, so no server of the same decoders is faster.
"""

import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import h5py
import numpy as np

from asgihive.hdf5.filters.pipeline import Pipeline, make_pipeline
from asgihive.hdf5.layout import Filter
from asgihive.settings import H5Settings
from benchmarks.data import DataFolder, Place

NAME = "decoders"


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Where a frame's one chunk lies, and how it is decoded."""

    descriptor: int
    offset: int
    size: int
    filter_mask: int
    pipeline: Pipeline

    def decode(self) -> np.ndarray:
        stored = np.frombuffer(os.pread(self.descriptor, self.size, self.offset), np.uint8)
        return self.pipeline.decode(stored, self.filter_mask)


def decoded(data: DataFolder, place: Place) -> bytes:
    """Return the bytes of one frame, to be held against h5py's."""
    with _located(data, [place]) as (chunk,):
        return chunk.decode().tobytes()


def frames_per_second(
    data: DataFolder, places: Sequence[Place], seconds: float, seed: int
) -> float:
    """Return how many frames all lanes decode in a second."""
    lanes = H5Settings.from_environment().decode_lanes
    with _located(data, places) as chunks, ThreadPoolExecutor(lanes) as threads:
        start = time.perf_counter()
        end = start + seconds
        counts = [
            threads.submit(_decode_until, end, chunks, random.Random(f"{seed} {lane}"))
            for lane in range(lanes)
        ]
        decoded_frames = sum(count.result() for count in counts)
        return decoded_frames / (time.perf_counter() - start)


def _decode_until(end: float, chunks: Sequence[_Chunk], picks: random.Random) -> int:
    # At least one, however long it takes.
    picks.choice(chunks).decode()
    count = 1
    while time.perf_counter() < end:
        picks.choice(chunks).decode()
        count += 1
    return count


@contextmanager
def _located(data: DataFolder, places: Sequence[Place]) -> Iterator[Sequence[_Chunk]]:
    files = {place.file: data.file(place) for place in places}
    with ExitStack() as stack:
        tables = {}
        for name, path in files.items():
            descriptor = os.open(path, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            with h5py.File(path, "r") as file:
                tables[name] = _chunks(descriptor, file["stack"])
        yield [tables[place.file][place.selection] for place in places]


def _chunks(descriptor: int, stack: h5py.Dataset) -> Mapping[tuple[object, ...], _Chunk]:
    plist = stack.id.get_create_plist()
    filters = []
    for index in range(plist.get_nfilters()):
        number, _, values, name = plist.get_filter(index)
        filters.append(Filter(number, name.decode(), tuple(values)))
    frame_bytes = stack.nbytes // len(stack)
    pipeline = make_pipeline(tuple(filters), frame_bytes)
    found: dict[tuple[object, ...], _Chunk] = {}

    def add(info: h5py.h5d.StoreInfo) -> None:
        chunk = _Chunk(descriptor, info.byte_offset, info.size, info.filter_mask, pipeline)
        found[info.chunk_offset[:1]] = chunk

    stack.id.chunk_iter(add)
    return found
