"""From a thousand chunks to a million: what finding one of them, or all of them, costs."""

import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np

from asgihive.hdf5.chunk_grid import ChunkTable
from asgihive.hdf5.opening import find_dataset
from asgihive.hdf5.pool import FilePool, Lease
from asgihive.hdf5.sandbox import Sandbox
from benchmarks import rate, verify
from benchmarks.client import BenchmarkError, make_request
from benchmarks.data import DataFolder
from benchmarks.kinds.large import CHUNK_COUNTS, many_chunks
from benchmarks.question import HDF5_SERVERS, Figure, Target, Turn
from benchmarks.questions.frames import CACHE_OFF
from benchmarks.servers import SUBJECT, Launch, Server, without_server

CHUNK_ITER = "chunk_iter"


# Older than that, a file is not waited for: a further change would show in its time stamps.
_SETTLED_SECONDS = 0.05

_ORDERS = ("first", "first, just written", "later")


class GrowthOfChunks:
    """One client reads single chunks: the first after the file was touched, then others.

    A file that was not just written is touched, and left alone for a moment.
    """

    name = "chunks"
    asks = (
        "one chunk of 64 bytes of a dataset of 10^3 to 10^6: the first read, of a file that was "
        "just written and of one that was not, and later ones"
    )
    figures = tuple(
        Figure(
            name=f"{order}, {chunks:,} chunks",
            unit="ms",
            better="lower",
            target=Target(ratio=1) if order == "first" else None,
        )
        for order in _ORDERS
        for chunks in CHUNK_COUNTS
    )
    servers = HDF5_SERVERS
    environment: Mapping[str, str] = CACHE_OFF
    heavy = True

    def prepare(self, data: DataFolder) -> None:
        self._data, self._places = data, many_chunks(data)

    def verify(self, servers: Sequence[Server]) -> None:
        for places in self._places:
            for place in places[::8]:
                request = make_request(rate.values(place))
                asked = [(server, request) for server in servers]
                verify.check_bytes(asked, self._data, place)

    def measure(self, server: Server, turn: Turn) -> Mapping[str, float]:
        measured = {}
        for chunks, places in zip(CHUNK_COUNTS, self._places, strict=True):
            requests = [make_request(rate.values(place)) for place in places]
            path = self._data.file(places[0])
            first, just_written, later = (f"{order}, {chunks:,} chunks" for order in _ORDERS)
            measured[first] = self._first(server, path, requests[turn.number :: 16], wait=True)
            written = requests[turn.number + 8 :: 16]
            measured[just_written] = self._first(server, path, written, wait=False)
            measured[later] = rate.measure_median_latency(server, requests)
        return measured

    def _first(self, server: Server, path: Path, requests: Sequence[bytes], *, wait: bool) -> float:
        """Return the median milliseconds of requests, each the first since its file was touched."""
        taken = []
        for request in requests:
            os.utime(path)
            if wait:
                time.sleep(_SETTLED_SECONDS)
            taken.append(rate.measure_median_latency(server, [request]))
        return statistics.median(taken)


class ListingOfChunks:
    """All chunks of a dataset of 10^6, listed in this process: by the bytes, and by libhdf5."""

    name = "chunks_listed"
    asks = "the places of 10^6 chunks, listed from the file's bytes, and by libhdf5's chunk_iter"
    figures = (
        Figure(name="listed", unit="ms", better="lower", target=Target(ratio=10), peer=CHUNK_ITER),
    )
    servers: Mapping[str, Launch] = {SUBJECT: without_server, CHUNK_ITER: without_server}
    environment: Mapping[str, str] = {}
    heavy = True

    def prepare(self, data: DataFolder) -> None:
        self._path = data.file(many_chunks(data)[-1][0])

    def verify(self, servers: Sequence[Server]) -> None:  # noqa: ARG002  # a protocol
        tables = [_table(self._path, by_library=by_library) for by_library in (False, True)]
        for one, other in zip(*(astuple(table) for table in tables), strict=True):
            if not np.array_equal(one, other):
                raise BenchmarkError(f"{self._path}: chunks lie elsewhere by libhdf5")

    def measure(self, server: Server, turn: Turn) -> Mapping[str, float]:  # noqa: ARG002
        begin = time.perf_counter()
        _table(self._path, by_library=server.name == CHUNK_ITER)
        return {"listed": (time.perf_counter() - begin) * 1e3}


def _table(path: Path, *, by_library: bool) -> ChunkTable:
    """List where all chunks of the dataset lie; opened anew, as for a first read."""
    bounds = {"max_open": 1, "idle_seconds": 1, "chunk_cache_bytes": 0, "max_chunk_bytes": 1 << 20}
    pool = FilePool(Sandbox(path.parent), **bounds)
    lease = Lease(pool)
    try:
        dataset = find_dataset(lease, lease.open_asked(path.name), "curve")
        assert dataset.chunked is not None  # it was written with chunks
        index = dataset.chunked.index
        if by_library:
            index.stored = None
        return index.list_all(lambda: None)
    finally:
        lease.release()
        pool.close()


QUESTION = GrowthOfChunks()
LISTING = ListingOfChunks()
