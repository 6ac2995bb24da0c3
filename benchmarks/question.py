"""What a question is: its figures, its data, how it is verified and how it is measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from benchmarks.data import DataFolder
from benchmarks.load import Load
from benchmarks.servers import CEILING, SUBJECT, Launch, Server, on_uvicorn

H5GROVE, STARLETTE = "h5grove", "Starlette"
HDF5_SERVERS: Mapping[str, Launch] = {
    SUBJECT: on_uvicorn("asgihive"),
    H5GROVE: on_uvicorn("h5grove"),
}
CEILING_SERVER: Mapping[str, Launch] = {CEILING: on_uvicorn("ceiling")}
"""The application that answers two bytes: no application is faster on the same server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What asgihive has to reach: a ratio to the peer, or a bound in the figure's unit."""

    ratio: float | None = None
    below: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured number of a question, one row of the table.

    Figures of one name and several peers are several rows about one measurement.

    Attributes:
        turns: what becomes of the turns' values: the median, or the worst of all.
        stages: where the peer is no server, but a ceiling that is computed from rates: work that
            each answer needs one after the other, on the same cores, and the servers that do each
            part of it. The fastest of them counts.
    """

    name: str
    unit: str
    better: Literal["higher", "lower"]
    target: Target | None = None
    turns: Literal["median", "worst"] = "median"
    peer: str = H5GROVE
    stages: Sequence[Sequence[str]] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of one server; `number`, from 0, is also the seed, the same for all servers.

    `probe` asks for the slowest `/` beside the load as well, where a question has that figure.
    """

    load: Load
    seconds: int
    number: int
    probe: bool = False


class Question(Protocol):
    """One question; `benchmarks.questions` lists them all.

    `servers` are those side by side, by their name in the table; `environment` is what they
    are started with. `heavy` questions get fewer turns, and none in a quick run.
    """

    @property
    def name(self) -> str: ...
    @property
    def asks(self) -> str: ...
    @property
    def figures(self) -> tuple[Figure, ...]: ...
    @property
    def servers(self) -> Mapping[str, Launch]: ...
    @property
    def environment(self) -> Mapping[str, str]: ...
    @property
    def heavy(self) -> bool: ...

    def prepare(self, data: DataFolder) -> None:
        """Make the data; called before the servers start."""

    def verify(self, servers: Sequence[Server]) -> None:
        """Hold the servers' answers against each other and against the truth.

        Raises:
            BenchmarkError: an answer is wrong.
        """

    def measure(self, server: Server, turn: Turn) -> Mapping[str, float]:
        """Measure one turn: values by their figure's name; later turns may leave figures out."""
