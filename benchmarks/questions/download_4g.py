"""A whole large dataset in one answer: the speed, and the memory that it takes."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath

from benchmarks import rate, verify
from benchmarks.client import BenchmarkError, make_request
from benchmarks.data import DataFolder, Place
from benchmarks.kinds.large import download
from benchmarks.probe import probing
from benchmarks.question import HDF5_SERVERS, Figure, Target, Turn
from benchmarks.servers import SUBJECT, Server

_MEMORY = Target(below=250)
_PATIENCE_SECONDS = 600


def _figures(kind: str) -> tuple[Figure, ...]:
    return (
        Figure(name=kind, unit="MiB/s", better="higher"),
        Figure(name=f"{kind}, memory", unit="MiB", better="lower", target=_MEMORY, turns="worst"),
        rate.make_slowest_figure(f"{kind}, {rate.SLOWEST}"),
    )


class Download4G:
    """One client reads 4 GiB, contiguous and as gzip+shuffle.

    The peer has one turn: it takes twice the dataset's size of memory, and long.
    """

    name = "download_4g"
    asks = "4 GiB as bin, contiguous and gzip+shuffle; the server's peak memory (VmHWM)"
    figures = (*_figures("contiguous"), *_figures("gzip"))
    servers = HDF5_SERVERS
    environment: Mapping[str, str] = {}
    heavy = True

    def prepare(self, data: DataFolder) -> None:
        self._data, self._places = data, download(data)

    def verify(self, servers: Sequence[Server]) -> None:
        for place in self._places:
            for frame in (0, 100, -1):
                one = replace(place, selection=(frame,))
                request = make_request(rate.values(one))
                verify.check_bytes([(server, request) for server in servers], self._data, one)
            # The peer takes long for the whole of it: its length is checked when it is measured.
            for server in servers:
                if server.name == SUBJECT:
                    verify.check_long_bytes(server, self._data, place, rate.values(place))

    def measure(self, server: Server, turn: Turn) -> Mapping[str, float]:
        if server.name != SUBJECT and turn.number > 0:
            return {}
        measured = {}
        # In changing order: what the first leaves resident weighs on the second.
        for place in self._places[:: 1 if turn.number % 2 == 0 else -1]:
            kind = PurePath(place.file).stem
            server.reset_peak_memory()
            with probing(server.port) as probe:
                measured[kind] = self._download(server, place)
                measured[f"{kind}, {rate.SLOWEST}"] = max(probe.finish())
            measured[f"{kind}, memory"] = server.peak_memory() / 2**20
        return measured

    def _download(self, server: Server, place: Place) -> float:
        """Return MiB in a second."""
        start = time.perf_counter()
        with server.connect(_PATIENCE_SECONDS) as connection:
            size = connection.stream(rate.values(place))
        if size != 4 << 30:
            raise BenchmarkError(f"{server.name}: {size} bytes of {place}")
        return 4096 / (time.perf_counter() - start)


QUESTION = Download4G()
