"""Statistics of far more than fits into a cache: reading, decoding and adding up on all cores."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from benchmarks import rate, verify
from benchmarks.client import make_request
from benchmarks.data import DataFolder
from benchmarks.kinds.frames import gzip_frames
from benchmarks.kinds.large import two_gib
from benchmarks.probe import probing
from benchmarks.question import HDF5_SERVERS, Figure, Target, Turn
from benchmarks.servers import SUBJECT, Server

_PATIENCE_SECONDS = 600


class Stats2G:
    """One client, one call after the other; the file is touched before each, so none is known.

    The peer has one turn: it takes a minute or more, and 14 GiB of memory.
    """

    name = "stats_2g"
    asks = "`/stats` of 2 GiB (1,024 gzip+shuffle frames of 1024x1024 uint16), nothing cached"
    figures = (
        Figure(name="time", unit="s", better="lower", target=Target(ratio=4)),
        Figure(name="memory", unit="MiB", better="lower", target=Target(below=250), turns="worst"),
        rate.make_slowest_figure(rate.SLOWEST),
    )
    servers = HDF5_SERVERS
    environment: Mapping[str, str] = {}
    heavy = True

    def prepare(self, data: DataFolder) -> None:
        self._data, self._place = data, two_gib(data)
        self._request = make_request(self._place.target("/stats"))

    def verify(self, servers: Sequence[Server]) -> None:
        small = replace(gzip_frames(self._data)[0], selection=())
        asked = [(server, make_request(small.target("/stats"))) for server in servers]
        verify.check_statistics(asked, self._data, small)
        # The peer takes a minute or more, and many GiB, for the large one.
        alone = [(server, self._request) for server in servers if server.name == SUBJECT]
        verify.check_statistics(alone, self._data, self._place)

    def measure(self, server: Server, turn: Turn) -> Mapping[str, float]:
        if server.name != SUBJECT and turn.number > 0:
            return {}
        server.reset_peak_memory()
        os.utime(self._data.file(self._place))
        with probing(server.port) as probe:
            start = time.perf_counter()
            with server.connect(_PATIENCE_SECONDS) as connection:
                connection.send(self._request)
            seconds = time.perf_counter() - start
            slowest = max(probe.finish())
        memory = server.peak_memory() / 2**20
        return {"time": seconds, "memory": memory, rate.SLOWEST: slowest}


QUESTION = Stats2G()
