"""What operators ask: `/`, whether it is there, `/health`, whether it can do its work, `/metrics`.

Metrics are in Prometheus' text format. Several processes of one service share their numbers through
files in the directory that `PROMETHEUS_MULTIPROC_DIR` names, as `prometheus_client` has it:
each process answers for all of them, and what a process counted stays counted after
its end.
"""

import errno
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple, Self

import anyio
from starlette.types import Receive, Scope, Send

from asgihive.asgi import BufferedResponse, HTTPException, answer_error, send_error
from asgihive.asgi.request_fields import join_headers
from asgihive.concurrency import Lane, RequestContext, request_context, run_in_worker
from asgihive.errors import Overloaded, RootUnreadable, StoreError
from asgihive.service.store import Store
from asgihive.settings import H5Settings

TIMEOUT_SECONDS = 5.0
"""How long the directory and the lanes may take to answer."""

HEALTH = "/health"
"""The path of the route."""

KEPT_SECONDS = 1.0
"""How often the directory is looked at, however many requests ask for `/health`."""

_CONTEXT = RequestContext(client="asgihive health")
_HEADERS = {"cache-control": "no-store"}
_WELL = BufferedResponse(
    b'{"status":"ok"}', headers={"content-type": "application/json", **_HEADERS}
)

OK = BufferedResponse(b"ok", headers={"content-type": "text/plain; charset=utf-8"})
"""The answer of `/` to programs."""


async def answer_ok(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer `/` where there is no page."""
    await OK(scope, receive, send)


class Health:
    """An ASGI application: 200 while the directory is readable and the lanes answer, else 503.

    Asked often, it looks once a second. A look that is stuck, in a network file system that
    hangs, is the only one: no further thread follows it there.

    Args:
        store: whose directory and lanes.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._timeout = TIMEOUT_SECONDS
        self._problem: str | None = None
        self._looked = -KEPT_SECONDS
        self._looking: anyio.Event | None = None
        self._is_stuck = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = await self.find_problem()
        response = _WELL
        if problem is not None:
            response = answer_error(HTTPException(503, problem, _HEADERS))
        await response(scope, receive, send)

    async def find_problem(self) -> str | None:
        """Return why the service cannot do its work, None when it can; at most a second old."""
        while self._looking is not None:
            await self._looking.wait()
        if time.monotonic() - self._looked >= KEPT_SECONDS:
            self._looking = anyio.Event()
            # It takes no longer than the bound, and others wait for it, too.
            with anyio.CancelScope(shield=True):
                self._problem = await self._look()
            self._looked = time.monotonic()
            self._looking.set()
            self._looking = None
        return self._problem

    async def _look(self) -> str | None:
        problems: list[str] = []

        async def ask(lane: Lane) -> None:
            # A turn of its own, whatever the client who asks has waiting.
            request_context.set(_CONTEXT)
            try:
                with anyio.fail_after(self._timeout):
                    await lane.run(_do_nothing)
            except TimeoutError:
                problems.append(f"The {lane.name} threads do not answer in {self._timeout:g} s")
            except Overloaded as error:
                problems.append(f"Overloaded: {error}")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, self._store.lanes.library)
            tasks.start_soon(ask, self._store.lanes.decode)
            directory = await self._ask_directory()
        self._store.note_root(directory, by_health=True)
        if directory is not None:
            problems.insert(0, str(RootUnreadable(directory)))
        return "; ".join(problems) or None

    async def _ask_directory(self) -> str | None:
        """Return why the directory cannot be read, None when it can."""
        text = f"it does not answer in {self._timeout:g} s"
        if self._is_stuck:
            return text
        reasons: list[str | None] = []
        with anyio.move_on_after(self._timeout):
            reasons.append(await run_in_worker(self._read_directory, abandon=True))
        return reasons[0] if reasons else text

    def _read_directory(self) -> str | None:
        """Return why the directory cannot be read, None when it can; in a thread."""
        self._is_stuck = True
        try:
            # A directory that is mounted on demand is, by this.
            self._store.sandbox.read_root()
            return self._store.sandbox.root_problem()
        except OSError as error:
            return os.strerror(error.errno or errno.EIO)
        except StoreError as error:
            return str(error)
        finally:
            self._is_stuck = False


def _do_nothing() -> None:
    """Do nothing, which a lane that answers has done at once."""


try:
    import prometheus_client as prometheus
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
except ImportError:  # the extra `metrics`
    is_installed = False
else:
    is_installed = True

METRICS = "/metrics"
"""The path of the route."""

SHARED_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"

# Up to the longest download that anyone would wait for.
_BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
# How old what another process says of its lanes, files and requests under way may be.
_REFRESH_SECONDS = 1.0


class Figures(NamedTuple):
    """What files, lanes and caches have come to: of one process, or the sums of several.

    Hits and misses count from the beginning; the rest is of now, bytes included.
    """

    open_files: int = 0
    library_threads: int = 0
    library_busy: int = 0
    library_waiting: int = 0
    decode_threads: int = 0
    decode_busy: int = 0
    decode_waiting: int = 0
    chunk_bytes: int = 0
    chunk_hits: int = 0
    chunk_misses: int = 0
    answer_bytes: int = 0
    answer_hits: int = 0
    answer_misses: int = 0

    @classmethod
    def read(cls, store: Store) -> Self:
        """Return those of now."""
        library, decode = store.lanes.library, store.lanes.decode
        chunks, answers = store.pool.chunks, store.answers
        return cls(
            *(len(store.pool),),
            *(library.threads, library.busy(), library.waiting()),
            *(decode.threads, decode.busy(), decode.waiting()),
            *(chunks.bytes, chunks.hits, chunks.misses),
            *(answers.bytes, answers.hits, answers.misses),
        )

    @classmethod
    def sum(cls, parts: Iterable[Self]) -> Self:
        """Return those of several processes."""
        return cls(*map(sum, zip(cls(), *parts, strict=True)))

    def keep_counts(self) -> Self:
        """Return what is left when the process has ended: what it counted."""
        return type(self)(
            chunk_hits=self.chunk_hits,
            chunk_misses=self.chunk_misses,
            answer_hits=self.answer_hits,
            answer_misses=self.answer_misses,
        )


class Instruments:
    """The families of metrics, in a registry of their own."""

    def __init__(self) -> None:
        registry = self.registry = prometheus.CollectorRegistry()
        gauge = partial(prometheus.Gauge, registry=registry, multiprocess_mode="livesum")
        self.requests = prometheus.Counter(
            "asgihive_requests", "Answered requests.", ("route", "status"), registry=registry
        )
        self.sent = prometheus.Counter(
            "asgihive_sent_bytes", "Bytes of bodies handed to the server.", ("route",),
            registry=registry,
        )  # fmt: skip
        self.seconds = prometheus.Histogram(
            "asgihive_request_seconds", "From the request to its last byte.", ("route",),
            buckets=_BUCKETS, registry=registry,
        )  # fmt: skip
        self.in_progress = gauge("asgihive_requests_in_progress", "Requests being answered.")
        self.open_files = gauge("asgihive_open_files", "HDF5 files that are open.")
        self.threads = gauge("asgihive_lane_threads", "Threads of a lane.", ("lane",))
        self.busy = gauge("asgihive_lane_busy_threads", "Threads at work.", ("lane",))
        self.waiting = gauge("asgihive_lane_waiting_calls", "Calls that wait.", ("lane",))
        self.hits = prometheus.Counter(
            "asgihive_cache_hits", "Found in memory.", ("cache",), registry=registry
        )
        self.misses = prometheus.Counter(
            "asgihive_cache_misses", "Not found in memory.", ("cache",), registry=registry
        )
        self.kept = gauge("asgihive_cache_bytes", "Bytes kept in memory.", ("cache",))

    async def format(self, accept: str) -> tuple[bytes, str]:
        """Return the text and its media type, as the client accepts it."""
        encode, media_type = choose_encoder(accept)
        registry = self.registry
        if os.environ.get(SHARED_DIRECTORY):
            registry = prometheus.CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # partly typed
        return await run_in_worker(encode, registry), media_type


@cache
def _share_instruments() -> Instruments:
    """Return those of all services of this process: its files hold each number once."""
    return Instruments()


@dataclass(slots=True)
class _Followed:
    """A number that is kept elsewhere, and by how much an instrument is to be changed."""

    change: Callable[[float], object]
    last: float = 0.0

    def refresh(self, now: float) -> None:
        if now != self.last:
            self.change(now - self.last)
            self.last = now


class Metrics:
    """The numbers of one service.

    Args:
        figures: of its files, lanes and caches, asked on the event loop.
    """

    def __init__(self, figures: Callable[[], Figures]) -> None:
        is_shared = bool(os.environ.get(SHARED_DIRECTORY))
        self.instruments = _share_instruments() if is_shared else Instruments()
        self.in_progress = 0
        """Requests that came in and are not yet answered."""
        self._progress = _Followed(self.instruments.in_progress.inc)
        self._figures = figures
        self._followed = _follow(self.instruments)

    @classmethod
    def make(cls, settings: H5Settings, figures: Callable[[], Figures]) -> Self | None:
        """Return metrics if the settings want them, and `prometheus-client` is installed."""
        return cls(figures) if settings.metrics and is_installed else None

    def refresh(self) -> None:
        """Take over what lanes, files and caches have come to. On the event loop."""
        self._progress.refresh(self.in_progress)
        for name, now in self._figures()._asdict().items():
            self._followed[name].refresh(now)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep what the other processes can see of this one up to date."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._refresh_often)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    async def _refresh_often(self) -> None:
        while os.environ.get(SHARED_DIRECTORY):
            self.refresh()
            await anyio.sleep(_REFRESH_SECONDS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.refresh()
        body, media_type = await self.instruments.format(join_headers(scope, b"accept"))
        headers = {"content-type": media_type, "cache-control": "no-store"}
        await BufferedResponse(body, headers=headers)(scope, receive, send)


async def refuse_metrics(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer `/metrics` where `prometheus-client` is not installed."""
    message = "Metrics need the package prometheus-client: pip install 'asgihive[metrics]'"
    await send_error(HTTPException(501, message), scope, receive, send)


def _follow(instruments: Instruments) -> dict[str, _Followed]:
    """Return what follows each figure, by its name."""
    followed = {"open_files": _Followed(instruments.open_files.inc)}
    for lane in ("library", "decode"):
        followed |= {
            f"{lane}_threads": _Followed(instruments.threads.labels(lane).inc),
            f"{lane}_busy": _Followed(instruments.busy.labels(lane).inc),
            f"{lane}_waiting": _Followed(instruments.waiting.labels(lane).inc),
        }
    for one, cache_name in (("chunk", "chunks"), ("answer", "answers")):
        followed |= {
            f"{one}_bytes": _Followed(instruments.kept.labels(cache_name).inc),
            f"{one}_hits": _Followed(instruments.hits.labels(cache_name).inc),
            f"{one}_misses": _Followed(instruments.misses.labels(cache_name).inc),
        }
    return followed


def forget_process(pid: int | None) -> None:
    """Drop what a process that ended was doing then; what it counted stays."""
    if is_installed and os.environ.get(SHARED_DIRECTORY):
        mark_process_dead(pid)  # type: ignore[no-untyped-call]  # partly typed
