"""A whole large dataset in one answer: the speed, and the memory that it takes."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath

from benchmarks import rate, verify
from benchmarks.client import BenchmarkError
from benchmarks.data import DataFolder, one_gib
from benchmarks.question import HDF5_SERVERS, Figure, Target, Turn
from benchmarks.servers import SUBJECT, Server

_MEMORY = Target(below=250)


class Download1G:
    """One client reads 1 GiB, contiguous and as gzip+shuffle."""

    name = "download_1g"
    asks = "1 GiB as bin, contiguous and gzip+shuffle; the server's peak memory (VmHWM)"
    figures = (
        Figure(name="contiguous", unit="MiB/s", better="higher"),
        Figure(
            name="contiguous, memory", unit="MiB", better="lower", target=_MEMORY, turns="worst"
        ),
        Figure(name="gzip", unit="MiB/s", better="higher"),
        Figure(name="gzip, memory", unit="MiB", better="lower", target=_MEMORY, turns="worst"),
    )
    servers = HDF5_SERVERS
    environment: Mapping[str, str] = {}
    heavy = True

    def prepare(self, data: DataFolder) -> None:
        self._data, self._places = data, one_gib(data)

    def verify(self, servers: Sequence[Server]) -> None:
        for place in self._places:
            frames = [replace(place, frame=frame) for frame in (0, 100, -1)]
            verify.same_bytes(servers, self._data, frames, rate.values)
            # The peer takes long for the whole of it: its length is checked when it is measured.
            for server in servers:
                if server.name == SUBJECT:
                    verify.same_long_bytes(server, self._data, place, rate.values(place))

    def measure(self, server: Server, turn: Turn) -> Mapping[str, float]:
        measured = {}
        # In changing order: what the first leaves resident weighs on the second.
        for place in self._places[:: 1 if turn.number % 2 == 0 else -1]:
            kind = PurePath(place.file).stem
            server.reset_peak_memory()
            start = time.perf_counter()
            with server.connect() as connection:
                size = connection.stream(rate.values(place))
            if size != 1 << 30:
                raise BenchmarkError(f"{server.name}: {size} bytes of {place}")
            measured[kind] = 1024 / (time.perf_counter() - start)
            measured[f"{kind}, memory"] = server.peak_memory() / 2**20
        return measured


QUESTION = Download1G()
