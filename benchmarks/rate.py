"""The most common kind of question: how many requests a second, varied over many places."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.client import BenchmarkError, make_request
from benchmarks.data import DataFolder, Place
from benchmarks.probe import probing
from benchmarks.question import H5GROVE, HDF5_SERVERS, Figure, Target, Turn
from benchmarks.servers import Launch, Server
from benchmarks.verify import Check

# The figures' names in each rate question.
FIRST, REQUESTS, SLOWEST = "first, one client", "requests", "slowest `/` beside"

SLOWEST_TARGET = Target(below=100)

Requests = Callable[[Server, Sequence[Place]], Sequence[bytes]]
"""How a peer of another interface is asked for places."""


class WithoutHttp(Protocol):
    """A ceiling that is no server: it does the work in the measuring process."""

    def decoded(self, data: DataFolder, place: Place) -> bytes:
        """Return what it makes of a place."""

    def frames_per_second(
        self, data: DataFolder, places: Sequence[Place], seconds: float, seed: int
    ) -> float:
        """Return how many random places it does in a second."""


def values(place: Place) -> str:
    """Return the target that asks for the bytes of a place's values."""
    return place.target("/data", format="bin")


def metadata(place: Place) -> str:
    """Return the target that asks for a place's metadata."""
    return place.target("/meta")


def numbers(place: Place) -> str:
    """Return the target that asks for a place's values as JSON."""
    return place.target("/data", format="json")


@dataclass(slots=True, kw_only=True)
class RateQuestion:
    """A `Question` under load: every connection asks for random ones of `make`'s places.

    Args:
        targets: what is to be reached, by peer (None: for information): a row of the table each.
        asked: the peers that are not asked for `target_of`.
        without_http: the peers that are no servers.
        stages: the peers that are computed from the rates of servers (`Figure.stages`).
        probed: whether the slowest `/` beside the load is a figure, too.
    """

    name: str
    asks: str
    make: Callable[[DataFolder], Sequence[Place]]
    target_of: Callable[[Place], str]
    check: Check
    targets: Mapping[str, Target | None]
    servers: Mapping[str, Launch] = field(default_factory=lambda: HDF5_SERVERS)
    asked: Mapping[str, Requests] = field(default_factory=dict)
    without_http: Mapping[str, WithoutHttp] = field(default_factory=dict)
    stages: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    heavy: bool = False
    probed: bool = True
    _data: DataFolder = field(init=False)
    _places: Sequence[Place] = field(init=False, default=())

    @property
    def figures(self) -> tuple[Figure, ...]:
        first, *_ = self.targets
        rates = [
            Figure(
                name=REQUESTS,
                unit="/s",
                better="higher",
                target=target,
                peer=peer,
                stages=self.stages.get(peer, ()),
            )
            for peer, target in self.targets.items()
        ]
        return (
            Figure(name=FIRST, unit="ms", better="lower", peer=first),
            *rates,
            *([make_slowest_figure(SLOWEST)] if self.probed else []),
        )

    def prepare(self, data: DataFolder) -> None:
        self._data, self._places = data, self.make(data)
        data.bring_to_memory(self._places)

    def verify(self, servers: Sequence[Server]) -> None:
        some = self._places[:: max(len(self._places) // 8, 1)]
        for place in some:
            asked = [
                (server, self._requests(server, [place])[0])
                for server in servers
                if server.name not in self.without_http
            ]
            self.check(asked, self._data, place)
            for server in servers:
                if server.name in self.without_http:
                    self._verify_without_http(server.name, place)

    def measure(self, server: Server, turn: Turn) -> Mapping[str, float]:
        alone = self.without_http.get(server.name)
        if alone is not None:
            rate = alone.frames_per_second(self._data, self._places, turn.seconds, turn.number)
            return {REQUESTS: rate}
        requests = self._requests(server, self._places)
        # Every place is asked for once before the load: a short turn would else measure a
        # mixture of first and later answers that depends on its length.
        measured = {FIRST: measure_median_latency(server, requests)} if turn.number == 0 else {}
        measured[REQUESTS] = turn.load.requests_per_second(
            server.port, requests, turn.seconds, turn.number
        )
        if self.probed and turn.probe and server.name in HDF5_SERVERS:
            with probing(server.port) as probe:
                turn.load.requests_per_second(server.port, requests, turn.seconds, turn.number)
                measured[SLOWEST] = max(probe.finish())
        return measured

    def _requests(self, server: Server, places: Sequence[Place]) -> Sequence[bytes]:
        if server.name in self.asked:
            return self.asked[server.name](server, places)
        return [make_request(self.target_of(place)) for place in places]

    def _verify_without_http(self, name: str, place: Place) -> None:
        if self.without_http[name].decoded(self._data, place) != self._data.read(place).tobytes():
            raise BenchmarkError(f"{name}: wrong bytes for {place}")


def make_slowest_figure(name: str) -> Figure:
    """Return the row of the slowest `/` that others get beside a load."""
    return Figure(
        name=name, unit="ms", better="lower", target=SLOWEST_TARGET, turns="worst", peer=H5GROVE
    )


def measure_median_latency(server: Server, requests: Sequence[bytes]) -> float:
    """Return the median milliseconds for an answer, asked one after the other."""
    latencies = []
    with server.connect() as connection:
        for request in requests:
            start = time.perf_counter()
            connection.send(request)
            latencies.append((time.perf_counter() - start) * 1e3)
    return statistics.median(latencies)
