"""Metadata of a wide group: the walk itself, and the answer when it was given before."""

import os
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks import rate, verify
from benchmarks.client import make_request
from benchmarks.data import DataFolder, Place
from benchmarks.kinds.groups import wide_groups
from benchmarks.probe import probing
from benchmarks.question import HDF5_SERVERS, Figure, Target, Turn
from benchmarks.servers import SUBJECT, Launch, Server

_TIME = "time"


@dataclass(slots=True, kw_only=True)
class MetaWide:
    """One client, one call after the other, of random files: the peer takes seconds for some.

    Args:
        cold: whether each file is touched just before it is asked for.
    """

    name: str
    asks: str
    ratio: float
    cold: bool
    environment: Mapping[str, str] = field(default_factory=dict)
    servers: Mapping[str, Launch] = field(default_factory=lambda: HDF5_SERVERS)
    heavy: bool = False
    _data: DataFolder = field(init=False)
    _places: Sequence[Place] = field(init=False, default=())

    @property
    def figures(self) -> tuple[Figure, ...]:
        target = Target(ratio=self.ratio)
        return (
            Figure(name=_TIME, unit="ms", better="lower", target=target),
            rate.make_slowest_figure(rate.SLOWEST),
        )

    def prepare(self, data: DataFolder) -> None:
        self._data, self._places = data, wide_groups(data)

    def verify(self, servers: Sequence[Server]) -> None:
        first, *others = self._places
        request = make_request(rate.metadata(first))
        verify.check_metadata([(server, request) for server in servers], self._data, first)
        if not self.cold:
            # The peer has no cache, and takes seconds for each.
            for server in servers:
                if server.name == SUBJECT:
                    for place in others:
                        server.get(rate.metadata(place))

    def measure(self, server: Server, turn: Turn) -> Mapping[str, float]:
        picks = random.Random(turn.number)
        asked = [picks.choice(self._places) for _ in range(turn.seconds)]
        measured = {_TIME: statistics.median(self._call(server, place) for place in asked)}
        if turn.probe:
            with probing(server.port) as probe:
                for place in asked:
                    self._call(server, place)
                measured[rate.SLOWEST] = max(probe.finish())
        return measured

    def _call(self, server: Server, place: Place) -> float:
        """Return the milliseconds from the request to the answer's last byte."""
        if self.cold:
            os.utime(self._data.file(place))
        with server.connect() as connection:
            start = time.perf_counter()
            connection.stream(rate.metadata(place))
            return (time.perf_counter() - start) * 1e3


COLD = MetaWide(
    name="meta_wide_cold",
    asks="`/meta` of a group of 5,000 datasets with 5 attributes each, first call, cache off",
    ratio=8,
    cold=True,
    environment={"ASGIHIVE_ANSWER_CACHE_BYTES": "0"},
)
WARM = MetaWide(
    name="meta_wide_warm",
    asks="`/meta` of the same groups, asked for before",
    ratio=50,
    cold=False,
    heavy=True,
)
