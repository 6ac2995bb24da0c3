"""Statistics computed by workers of dask, beside one process with all lanes and with one."""

import os
import time
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection

from benchmarks import verify
from benchmarks.client import BenchmarkError, make_request
from benchmarks.data import DataFolder
from benchmarks.kinds.large import two_gib
from benchmarks.peers.dask_cluster import with_workers
from benchmarks.question import Figure, Target, Turn
from benchmarks.servers import SUBJECT, Launch, Server, on_uvicorn, with_setting

_PATIENCE_SECONDS = 600
_ALONE, _ONE_LANE = "one process", "1 lane"
_LANES = "ASGIHIVE_DECODE_LANES"


class StatsCluster:
    """One client, one call after the other; the file is touched before each, so none is known."""

    name = "stats_cluster"
    asks = (
        "`/stats` of 2 GiB (1,024 gzip+shuffle frames of 1024x1024 uint16) by 2 dask workers of "
        "one thread on this machine, beside one process with all lanes, and with one"
    )
    figures = (
        Figure(name="time", unit="s", better="lower", target=Target(ratio=1.6), peer=_ALONE),
        Figure(name="time", unit="s", better="lower", target=Target(ratio=1.6), peer=_ONE_LANE),
    )
    servers: Mapping[str, Launch] = {
        SUBJECT: with_workers(2, on_uvicorn("asgihive")),
        _ALONE: on_uvicorn("asgihive"),
        _ONE_LANE: with_setting(on_uvicorn("asgihive"), _LANES, "1"),
    }
    environment: Mapping[str, str] = {}
    heavy = True

    def prepare(self, data: DataFolder) -> None:
        self._data, self._place = data, two_gib(data)
        self._target = self._place.target("/stats")

    def verify(self, servers: Sequence[Server]) -> None:
        asked = [(each, make_request(self._target)) for each in servers if each.name == SUBJECT]
        verify.check_statistics(asked, self._data, self._place)
        bodies = set()
        for server in servers:
            os.utime(self._data.file(self._place))
            connection = HTTPConnection("127.0.0.1", server.port, timeout=_PATIENCE_SECONDS)
            connection.request("GET", self._target)
            response = connection.getresponse()
            bodies.add(response.read())
            connection.close()
            timing = response.headers["server-timing"]
            if ("cluster;dur=" in timing) is not (server.name == SUBJECT):
                raise BenchmarkError(f"{server.name}: computed elsewhere: {timing}")
        if len(bodies) != 1:
            raise BenchmarkError("the answers differ in a bit")

    def measure(self, server: Server, _turn: Turn) -> Mapping[str, float]:
        os.utime(self._data.file(self._place))
        start = time.perf_counter()
        with server.connect(_PATIENCE_SECONDS) as connection:
            connection.send(make_request(self._target))
        return {"time": time.perf_counter() - start}


QUESTION = StatsCluster()
