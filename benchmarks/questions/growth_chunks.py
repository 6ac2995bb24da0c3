"""From a thousand chunks to a million: what finding one of them costs."""

import os
import statistics
from collections.abc import Mapping, Sequence

from benchmarks import rate, verify
from benchmarks.client import request_bytes
from benchmarks.data import DataFolder
from benchmarks.kinds.large import CHUNK_COUNTS, many_chunks
from benchmarks.question import HDF5_SERVERS, Figure, Turn
from benchmarks.questions.frames import CACHE_OFF
from benchmarks.servers import Server


class GrowthOfChunks:
    """One client reads single chunks: the first after the file was touched, then others."""

    name = "chunks"
    asks = "one chunk of 64 bytes of a dataset of 10^3 to 10^6: the first read, and later ones"
    figures = tuple(
        Figure(name=f"{order}, {chunks:,} chunks", unit="ms", better="lower")
        for order in ("first", "later")
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
                request = request_bytes(rate.values(place))
                asked = [(server, request) for server in servers]
                verify.same_bytes(asked, self._data, place)

    def measure(self, server: Server, turn: Turn) -> Mapping[str, float]:
        measured = {}
        for chunks, places in zip(CHUNK_COUNTS, self._places, strict=True):
            requests = [request_bytes(rate.values(place)) for place in places]
            first = []
            for request in requests[turn.number :: 16]:
                os.utime(self._data.file(places[0]))
                first.append(rate.median_latency(server, [request]))
            measured[f"first, {chunks:,} chunks"] = statistics.median(first)
            measured[f"later, {chunks:,} chunks"] = rate.median_latency(server, requests)
        return measured


QUESTION = GrowthOfChunks()
