"""One person looks through files in h5web: nearly every request is the first of its kind."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import h5py

from benchmarks import verify
from benchmarks.client import make_request
from benchmarks.data import DataFolder, Place
from benchmarks.kinds import nexus
from benchmarks.question import CEILING_SERVER, HDF5_SERVERS, Figure, Target, Turn
from benchmarks.servers import Launch, Server

WHOLE, FIRST, META, ATTR, VALUES = (
    "whole session",
    "first of a file",
    "`/meta`",
    "`/attr`",
    "small values",
)
_RATIOS = {FIRST: 1.5, META: 2.5, ATTR: 2.5, VALUES: 2}
_MOST_VALUE_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """One request of a session, and the figure that its time counts for."""

    figure: str
    target: str

    @property
    def is_json(self) -> bool:
        """Return whether equal answers may differ in their bytes."""
        return "format=bin" not in self.target


def list_requests(data: DataFolder, root: Place) -> Sequence[SessionRequest]:
    """List what a viewer asks of a file: the root, then entities in the order of their paths.

    Of each entity it asks the metadata and the attributes; of a dataset that is not large also
    the values, as bytes where they are an array of numbers, and else as JSON.
    """
    requests = [SessionRequest(FIRST, root.target("/meta"))]
    with h5py.File(data.file(root), "r") as file:
        paths: list[str] = []
        file.visit(paths.append)
        for path in paths[: nexus.ENTITIES]:
            place = Place(root.file, f"/{path}")
            requests.append(SessionRequest(META, place.target("/meta")))
            requests.append(SessionRequest(ATTR, place.target("/attr")))
            entity = file[path]
            if isinstance(entity, h5py.Dataset) and entity.nbytes <= _MOST_VALUE_BYTES:
                is_array = entity.shape and entity.dtype.kind in "iuf"
                target = place.target("/data", format="bin" if is_array else "json")
                requests.append(SessionRequest(VALUES, target))
    return requests


@dataclass(slots=True)
class Session:
    """One client opens one file after the other; each turn has files that were never asked for.

    Args:
        make: returns the roots of the files of each session. The last session is verified,
            and lets each server do before what it does once in its life.
    """

    make: Callable[[DataFolder], Sequence[Sequence[Place]]] = nexus.make_nexus_files
    name: str = "session"
    asks: str = (
        f"one client opens {nexus.FILES} NeXus files: `/meta` of the root, then of "
        f"{nexus.ENTITIES} entities `/meta`, `/attr` and values, every request new"
    )
    figures: tuple[Figure, ...] = (
        Figure(name=WHOLE, unit="ms", better="lower", target=Target(ratio=2)),
        *(
            Figure(name=name, unit="ms", better="lower", target=Target(ratio=ratio))
            for name, ratio in _RATIOS.items()
        ),
    )
    servers: Mapping[str, Launch] = field(
        default_factory=lambda: {**HDF5_SERVERS, **CEILING_SERVER}
    )
    environment: Mapping[str, str] = field(default_factory=dict)
    heavy: bool = False
    _sessions: Sequence[Sequence[SessionRequest]] = field(init=False, default=())

    def prepare(self, data: DataFolder) -> None:
        sessions = self.make(data)
        for roots in sessions:
            data.bring_to_memory(roots)
        self._sessions = [
            [request for root in roots for request in list_requests(data, root)]
            for roots in sessions
        ]

    def verify(self, servers: Sequence[Server]) -> None:
        for request in self._sessions[-1]:
            sent = make_request(request.target)
            asked = [(server, sent) for server in servers]
            verify.check_answers(asked, is_json=request.is_json)

    def measure(self, server: Server, turn: Turn) -> Mapping[str, float]:
        latencies: defaultdict[str, list[float]] = defaultdict(list)
        # A turn beyond the prepared ones would ask for what is known.
        session = self._sessions[:-1][turn.number]
        requests = [(request.figure, make_request(request.target)) for request in session]
        with server.connect() as connection:
            begun = time.perf_counter()
            for figure, request in requests:
                start = time.perf_counter()
                connection.send(request)
                latencies[figure].append((time.perf_counter() - start) * 1e3)
            whole = (time.perf_counter() - begun) * 1e3
        medians = {figure: statistics.median(found) for figure, found in latencies.items()}
        return {WHOLE: whole, **medians}


QUESTION = Session()
