"""Metadata of a wide group that nobody asked for before: the walk itself, no cache."""

import os
import statistics
import time
from collections.abc import Mapping, Sequence

from benchmarks import rate, verify
from benchmarks.data import DataFolder, Place, wide_groups
from benchmarks.question import HDF5_SERVERS, Figure, Target, Turn
from benchmarks.servers import Server


class MetaWideCold:
    """One client, one call after the other, each of a file that was touched just before it."""

    name = "meta_wide_cold"
    asks = "`/meta` of a group of 5,000 datasets with 5 attributes each, first call, cache off"
    figures = (Figure(name="time", unit="ms", better="lower", target=Target(ratio=8)),)
    servers = HDF5_SERVERS
    environment: Mapping[str, str] = {"ASGIHIVE_ANSWER_CACHE_BYTES": "0"}
    heavy = True

    def prepare(self, data: DataFolder) -> None:
        self._data, self._places = data, wide_groups(data)

    def verify(self, servers: Sequence[Server]) -> None:
        verify.same_metadata(servers, self._data, self._places[:1], rate.metadata)

    def measure(self, server: Server, turn: Turn) -> Mapping[str, float]:
        first = turn.number % len(self._places)
        asked = [*self._places[first:], *self._places[:first]][: turn.seconds]
        return {"time": statistics.median(self._first_call(server, place) for place in asked)}

    def _first_call(self, server: Server, place: Place) -> float:
        """Milliseconds from the request to the answer's last byte."""
        os.utime(self._data.file(place))
        with server.connect() as connection:
            start = time.perf_counter()
            connection.stream(rate.metadata(place))
            return (time.perf_counter() - start) * 1e3


QUESTION = MetaWideCold()
