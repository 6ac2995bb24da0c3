"""The most common kind of question: how many requests a second, varied over many places."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.client import request_bytes
from benchmarks.data import DataFolder, Place
from benchmarks.question import HDF5_SERVERS, Figure, Target, Turn
from benchmarks.servers import Launch, Server

Verify = Callable[[Sequence[Server], DataFolder, Sequence[Place], Callable[[Place], str]], None]

# The figures' names in each rate question.
FIRST, REQUESTS = "first, one client", "requests"


def values(place: Place) -> str:
    """The target that asks for the bytes of a place's values."""
    return place.target("/data", format="bin")


def metadata(place: Place) -> str:
    """The target that asks for a place's metadata."""
    return place.target("/meta")


@dataclass(slots=True, kw_only=True)
class RateQuestion:
    """A `Question` under load: every connection asks for random ones of `make`'s places."""

    name: str
    asks: str
    make: Callable[[DataFolder], Sequence[Place]]
    target_of: Callable[[Place], str]
    check: Verify
    target: Target | None = None
    servers: Mapping[str, Launch] = field(default_factory=lambda: HDF5_SERVERS)
    environment: Mapping[str, str] = field(default_factory=dict)
    heavy: bool = False
    _data: DataFolder = field(init=False)
    _places: Sequence[Place] = field(init=False, default=())

    @property
    def figures(self) -> tuple[Figure, ...]:
        return (
            Figure(name=FIRST, unit="ms", better="lower"),
            Figure(name=REQUESTS, unit="/s", better="higher", target=self.target),
        )

    def prepare(self, data: DataFolder) -> None:
        self._data, self._places = data, self.make(data)

    def verify(self, servers: Sequence[Server]) -> None:
        some = self._places[:: len(self._places) // 8]
        self.check(servers, self._data, some, self.target_of)

    def measure(self, server: Server, turn: Turn) -> Mapping[str, float]:
        targets = [self.target_of(place) for place in self._places]
        # Every place is asked for once before the load: a short turn would else measure a
        # mixture of first and later answers that depends on its length.
        first = {FIRST: _median_latency(server, targets)} if turn.number == 0 else {}
        requests = [request_bytes(target) for target in targets]
        rate = turn.load.requests_per_second(server.port, requests, turn.seconds, turn.number)
        return {**first, REQUESTS: rate}


def _median_latency(server: Server, targets: Sequence[str]) -> float:
    """Milliseconds for an answer, asked one after the other."""
    latencies = []
    with server.connect() as connection:
        for target in targets:
            start = time.perf_counter()
            connection.stream(target)
            latencies.append((time.perf_counter() - start) * 1e3)
    return statistics.median(latencies)
