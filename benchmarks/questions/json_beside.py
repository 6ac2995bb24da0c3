"""Large JSON answers: does encoding them stop the other clients?"""

import itertools
import time
from collections.abc import Mapping, Sequence

from benchmarks import rate, verify
from benchmarks.client import make_request
from benchmarks.data import DataFolder
from benchmarks.kinds.arrays import float_tables
from benchmarks.probe import probing
from benchmarks.question import HDF5_SERVERS, Figure, Target, Turn
from benchmarks.servers import Server


class JsonBeside:
    """One client reads JSON without pause; a process of its own asks for `/` meanwhile."""

    name = "json_beside"
    asks = "others' `/` while one client reads 64 MiB of float64 as JSON again and again"
    figures = (
        Figure(
            name="slowest `/`", unit="ms", better="lower", target=Target(below=100), turns="worst"
        ),
        Figure(name="median `/`", unit="ms", better="lower"),
        Figure(name="JSON, raw size", unit="MiB/s", better="higher"),
    )
    servers = HDF5_SERVERS
    environment: Mapping[str, str] = {}
    heavy = True

    def prepare(self, data: DataFolder) -> None:
        self._data, self._places = data, float_tables(data)

    def verify(self, servers: Sequence[Server]) -> None:
        place = self._places[0]
        request = make_request(rate.numbers(place))
        verify.check_json_values([(server, request) for server in servers], self._data, place)

    def measure(self, server: Server, turn: Turn) -> Mapping[str, float]:
        targets = [rate.numbers(place) for place in self._places]
        reads = 0
        start = time.perf_counter()
        with server.connect() as connection, probing(server.port) as probe:
            # At least one read of each table, however slow, so that a whole one is covered.
            for target in itertools.cycle(targets):
                connection.stream(target)
                reads += 1
                seconds = time.perf_counter() - start
                if reads >= len(targets) and seconds >= turn.seconds:
                    break
            latencies = probe.finish()
        return {
            "slowest `/`": max(latencies),
            "median `/`": sorted(latencies)[len(latencies) // 2],
            "JSON, raw size": reads * 64 / seconds,
        }


QUESTION = JsonBeside()
