"""Questions of what a framework costs: requests a second, each answer known beforehand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from benchmarks.client import BenchmarkError
from benchmarks.data import DataFolder
from benchmarks.question import Figure, Target, Turn
from benchmarks.servers import Launch, Server

REQUESTS = "requests"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request as bytes, and the JSON document that is the right answer."""

    request: bytes
    answer: Any


@dataclass(slots=True, kw_only=True)
class ExchangeQuestion:
    """A `Question` under load: every connection sends random ones of the requests.

    Args:
        targets: what is to be reached, by peer: a row of the table each.
    """

    name: str
    asks: str
    exchanges: Sequence[Exchange]
    targets: Mapping[str, Target]
    servers: Mapping[str, Launch]
    environment: Mapping[str, str] = field(default_factory=dict)
    heavy: bool = False

    @property
    def figures(self) -> tuple[Figure, ...]:
        return tuple(
            Figure(name=REQUESTS, unit="/s", better="higher", target=target, peer=peer)
            for peer, target in self.targets.items()
        )

    def prepare(self, data: DataFolder) -> None:
        """Do nothing: the servers need no files."""

    def verify(self, servers: Sequence[Server]) -> None:
        for each in self.exchanges:
            for server in servers:
                answer = server.answer(each.request)
                if orjson.loads(answer) != each.answer:
                    text = f"{server.name}: wrong answer {answer!r} to {each.request!r}"
                    raise BenchmarkError(text)

    def measure(self, server: Server, turn: Turn) -> Mapping[str, float]:
        requests = [each.request for each in self.exchanges]
        rate = turn.load.requests_per_second(server.port, requests, turn.seconds, turn.number)
        return {REQUESTS: rate}
