"""From one client to many: nothing is to get slower in sum."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks import rate, verify
from benchmarks.client import make_request
from benchmarks.data import DataFolder, Place
from benchmarks.kinds import arrays, frames
from benchmarks.question import HDF5_SERVERS, Figure, Turn
from benchmarks.questions.frames import CACHE_OFF
from benchmarks.servers import Launch, Server

_CONNECTIONS = (1, 4, 16, 64)


def _figure(connections: int) -> str:
    return f"{connections} connection{'s' if connections > 1 else ''}"


@dataclass(slots=True, kw_only=True)
class GrowthOfConnections:
    """Random places, as in a `RateQuestion`, by a growing number of connections."""

    name: str
    asks: str
    make: Callable[[DataFolder], Sequence[Place]]
    environment: Mapping[str, str] = field(default_factory=dict)
    servers: Mapping[str, Launch] = field(default_factory=lambda: HDF5_SERVERS)
    heavy: bool = True
    _data: DataFolder = field(init=False)
    _places: Sequence[Place] = field(init=False, default=())

    @property
    def figures(self) -> tuple[Figure, ...]:
        return tuple(
            Figure(name=_figure(number), unit="/s", better="higher") for number in _CONNECTIONS
        )

    def prepare(self, data: DataFolder) -> None:
        self._data, self._places = data, self.make(data)

    def verify(self, servers: Sequence[Server]) -> None:
        for place in self._places[::8]:
            request = make_request(rate.values(place))
            verify.check_bytes([(server, request) for server in servers], self._data, place)

    def measure(self, server: Server, turn: Turn) -> Mapping[str, float]:
        requests = [make_request(rate.values(place)) for place in self._places]
        return {
            _figure(number): turn.load.requests_per_second(
                server.port, requests, turn.seconds, turn.number, number
            )
            for number in _CONNECTIONS
        }


SMALL = GrowthOfConnections(
    name="connections_16k",
    asks="16 KiB contiguous, from 1 to 64 connections",
    make=arrays.contiguous_16k,
)
GZIP = GrowthOfConnections(
    name="connections_gzip",
    asks="gzip+shuffle frames, chunk cache off, from 1 to 64 connections",
    make=frames.gzip_frames,
    environment=CACHE_OFF,
)
