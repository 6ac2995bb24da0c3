"""Threads: the lanes, and what a thread knows of the request that it works for.

The library lane has one token, because h5py holds one lock for all of libhdf5 and further
threads would only queue at it. That exclusiveness also makes the pool of open files safe
without locks: inside the library lane nothing else touches HDF5.

Calls that wait for a lane take turns by client: a client with a hundred calls waits for its own,
and other clients do not wait for them. Work that may be long is a generator, `Portions`, which
gives the lane up in between.
"""

import threading
import traceback
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from time import perf_counter
from typing import Any, Generic, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread
from anyio.lowlevel import RunVar

from asgihive.errors import NeedsThread, Overloaded

T = TypeVar("T")

STAGES = ("queue", "open", "plan", "read", "decode", "encode", "cluster")
"""Waiting for a thread, opening files, planning blocks, reading bytes, decoding, encoding, and what
tasks of a cluster take, which count to the others as well."""


Timings = dict[str, float]
"""Seconds by stage, summed over all threads that work for one request."""

_adding = threading.Lock()


def add_time(timings: Timings, stage: str, seconds: float) -> None:
    """Count `seconds` to one of `STAGES`; for all threads."""
    with _adding:
        timings[stage] = timings.get(stage, 0.0) + seconds


def get_spent(timings: Timings) -> Timings:
    """Return the stages that took time so far, in the order of `STAGES`."""
    spent: Timings = {}
    for stage in STAGES:
        if seconds := timings.get(stage):
            spent[stage] = seconds
    return spent


@dataclass(frozen=True, slots=True)
class RequestContext:
    """What tasks and threads that work for a request know of it."""

    client: str = ""
    """The address of the client, without its port; clients take turns at the lanes."""
    timings: Timings | None = None
    """Where times are counted; None = they are not measured."""


_NO_REQUEST = RequestContext()

request_context: ContextVar[RequestContext] = ContextVar("asgihive request", default=_NO_REQUEST)
"""Of the request that is answered; seen by its tasks and by the threads that work for it."""


class _Measuring(threading.local):
    """What a thread measures now."""

    inner: list[float] | None = None
    """The seconds that the stages inside of the one that runs took; None = none runs."""


_measuring = _Measuring()


@contextmanager
def measured(stage: str) -> Iterator[None]:
    """Count the time of a block, or of each call of a decorated function, to a stage.

    The time of a measured block inside of it counts to the inner stage only. Not around an
    `await`: the time of other requests would be counted. Costs next to nothing where no request
    is measured.
    """
    timings = request_context.get().timings
    if timings is None:
        yield
        return
    outer = _measuring.inner
    inner = _measuring.inner = [0.0]
    began = perf_counter()
    try:
        yield
    finally:
        took = perf_counter() - began
        _measuring.inner = outer
        add_time(timings, stage, took - inner[0])
        if outer is not None:
            outer[0] += took


Portions = Generator[None, None, T]
"""Work that may take long, and what it returns at the end.

It yields wherever it may be interrupted: often enough that from one `yield` to the next it takes
some milliseconds and a bounded number of objects, whatever a file holds. At each `yield` the work
may end for good, since its request has ended, or another client may have the lane for a while. So
nothing may be held across a `yield` that must not be held up, such as a lock or a block that is
`measured`; and a file may have been closed when the work goes on, which then fails or is found
out at its end (`Lease.check`).
"""

PORTION_SECONDS = 0.01
"""How long work in portions keeps a lane while others wait for that."""

# Older anyio knows variables by name alone, so that each needs a name of its own.
_NUMBERS = count()


class LoopLocal(Generic[T]):
    """A value for each event loop: an application may be run, stopped and run again."""

    def __init__(self) -> None:
        self._values: RunVar[T] = RunVar(f"asgihive {next(_NUMBERS)}")

    def get(self, make: Callable[[], T]) -> T:
        """Return the running event loop's value; `make`, which is not kept, makes the first."""
        try:
            return self._values.get()
        except LookupError:
            value = make()
            self._values.set(value)
            return value


@dataclass(slots=True, eq=False)
class _Waiting:
    """A call that waits for a token. `is_served`: True has it, False never gets one."""

    is_patient: bool
    event: anyio.Event = field(default_factory=anyio.Event)
    is_served: bool | None = None

    def serve(self, is_served: bool) -> None:
        self.is_served = is_served
        self.event.set()


@dataclass(slots=True, eq=False)
class Tokens:
    """The tokens of a lane in one event loop; all calls come from that loop.

    A token that is given back goes to the next client in turn, to its oldest call (fair
    queueing, as in RFC 970). Where as many wait as may, the client with the longest queue
    gives up its youngest call for one whose own queue is shorter.
    """

    free: int
    """A call takes one by counting it off; none is free while a call waits."""
    max_waiting: int
    waiting: int = 0
    _queues: OrderedDict[str, deque[_Waiting]] = field(default_factory=OrderedDict)
    """By client; none is empty."""

    def give(self) -> None:
        """Give a token back."""
        if not self._queues:
            self.free += 1
            return
        key, queue = next(iter(self._queues.items()))
        self._queues.move_to_end(key)
        self._leave(key, queue[0]).serve(True)

    async def wait(self, key: str, *, is_patient: bool) -> bool:
        """Wait for a token; False where too many wait already, and come before this one.

        Who is cancelled meanwhile has no token.
        """
        if not is_patient and self.waiting >= self.max_waiting and not self._make_room(key):
            return False
        waiting = _Waiting(is_patient)
        self._queues.setdefault(key, deque()).append(waiting)
        self.waiting += 1
        try:
            await waiting.event.wait()
        except BaseException:
            if waiting.is_served:
                self.give()
            elif waiting.is_served is None:
                self._leave(key, waiting)
            raise
        return bool(waiting.is_served)

    def _make_room(self, key: str) -> bool:
        longest = max(self._queues, key=lambda each: len(self._queues[each]), default=key)
        if len(self._queues.get(longest, ())) <= len(self._queues.get(key, ())) + 1:
            return False
        for waiting in reversed(self._queues[longest]):
            if not waiting.is_patient:
                self._leave(longest, waiting).serve(False)
                return True
        return False

    def _leave(self, key: str, waiting: _Waiting) -> _Waiting:
        queue = self._queues[key]
        queue.remove(waiting)
        self.waiting -= 1
        if not queue:
            del self._queues[key]
        return waiting


# The tokens of a lane, the threads that anyio may start for it, and those that may run at once.
_Limits = tuple[Tokens, anyio.CapacityLimiter, threading.Semaphore]


class Lane:
    """A bounded number of worker threads.

    Args:
        name: what the lane is for, shown when it is full.
        threads: how many calls run at once.
        max_waiting: how many calls may wait; one more raises `Overloaded`: that one, or the
            youngest of the client that has most of them waiting.
        ahead: how many calls wait in threads of their own instead, so that each begins as soon
            as another ends. The event loop, which has other things to do, would need up to a
            millisecond to begin it. Not for a lane that excludes calls which run inline.
    """

    def __init__(self, name: str, threads: int, max_waiting: int, *, ahead: int = 0) -> None:
        self.name = name
        self.threads = threads
        self.max_waiting = max_waiting
        self._ahead = ahead
        self._limits: LoopLocal[_Limits] = LoopLocal()
        self._began: dict[int, float] = {}  # by thread

    async def run(self, function: Callable[[], T], *, patient: bool = False) -> T:
        """Run `function` in one of the lane's threads and return what it returns.

        Calls that wait take turns by client, and those of one client run in order. A `patient`
        call, one for an answer that has begun, waits however many wait already.

        Cancellation frees the waiting task at once, even when the thread is stuck in a
        system call; the token stays taken until the thread is done, so that what runs in
        the lane is never more than `threads` calls.

        Raises:
            Overloaded: too many calls wait already.
        """
        asked = perf_counter()
        tokens, threads, running = self._limits.get(self._make_limits)
        request = request_context.get()
        # Mostly one is free, and a checkpoint would cost as much as a small read.
        if tokens.free:
            tokens.free -= 1
        elif not await tokens.wait(request.client, is_patient=patient):
            raise Overloaded(f"{self.max_waiting} requests wait for the {self.name} threads")
        # Who gives the token back: the waiting task, or the thread that outlived it.
        lock = threading.Lock()
        is_running = is_abandoned = False

        def in_thread() -> T:
            nonlocal is_running
            with running:
                with lock:
                    is_running = not is_abandoned
                if not is_running:
                    raise RuntimeError  # the task was cancelled before this began, and sees nothing
                thread = threading.get_ident()
                self._began[thread] = began = perf_counter()
                if request.timings is not None:
                    add_time(request.timings, "queue", began - asked)
                try:
                    return function()
                except BaseException as error:
                    _forget_locals(error)
                    raise
                finally:
                    del self._began[thread]
                    with lock:
                        is_running = False
                        has_token = is_abandoned
                    if has_token:
                        _give_from_thread(tokens)

        try:
            return await anyio.to_thread.run_sync(
                in_thread, abandon_on_cancel=True, limiter=threads
            )
        finally:
            with lock:
                is_abandoned = True
                has_token = not is_running
            if has_token:
                tokens.give()

    def try_inline(self, function: Callable[[], T]) -> T:
        """Run `function` at once on the event loop and return what it returns.

        For work of microseconds that the lane must exclude other calls from. The function must
        not block; it raises `NeedsThread` itself where it would.

        Raises:
            NeedsThread: no token of the lane is free, or `function` would block. The work is
                then to be done with `run`.
        """
        tokens, _, _ = self._limits.get(self._make_limits)
        if not tokens.free:
            raise NeedsThread
        tokens.free -= 1
        try:
            return function()
        finally:
            tokens.give()

    async def run_in_portions(self, work: Portions[T], *, patient: bool = False) -> T:
        """Run `work` in the lane's threads and return what it returns.

        While others wait, it keeps a thread for `PORTION_SECONDS` and then takes its turn behind
        them. Cancellation frees the waiting task at once; work that runs then is closed, in the
        lane, at its next `yield`. Work that waits for its turn then is left as it is: who holds
        HDF5 objects in it lets the lane drop it (`FilePool.discard`).

        Raises:
            Overloaded: too many calls wait already; not once the work has begun.
        """
        # Empty when the task has gone, and the only reference of this frame, which the event loop
        # may keep for longer than the work is to be kept.
        rest = [work]
        del work
        tokens, _, _ = self._limits.get(self._make_limits)
        try:
            while True:
                results = await self.run(partial(_portion, rest, tokens), patient=patient)
                if results:
                    return results[0]
                patient = True
        finally:
            rest.clear()

    def waiting(self) -> int:
        """Return how many calls wait for a thread now, in the running event loop."""
        tokens, _, _ = self._limits.get(self._make_limits)
        return tokens.waiting + max(self._ahead - tokens.free, 0)

    def busy(self) -> int:
        """Return how many threads are taken now, also by calls that were given up."""
        tokens, _, _ = self._limits.get(self._make_limits)
        return min(self.threads + self._ahead - tokens.free, self.threads)

    def get_call_seconds(self) -> list[float]:
        """Return for how long each call that runs in a thread has run, also those given up."""
        now = perf_counter()
        return [now - began for began in list(self._began.values())]

    def _make_limits(self) -> _Limits:
        total = self.threads + self._ahead
        # The threads of calls that were given up come on top, within reason.
        limiter = anyio.CapacityLimiter(total + 64)
        return Tokens(total, self.max_waiting), limiter, threading.Semaphore(self.threads)


def _portion(rest: list[Portions[T]], tokens: Tokens) -> list[T]:
    """Go on with the only member of `rest`; what it returns, nothing when it is to be continued."""
    [work] = rest  # none when the task has gone, and then what this raises is lost
    ends = perf_counter() + PORTION_SECONDS
    while True:
        try:
            next(work)
        except StopIteration as finished:
            return [finished.value]
        if not rest:
            work.close()
            raise RuntimeError  # the task that would see it has gone
        if tokens.waiting and perf_counter() >= ends:
            return []


def _forget_locals(error: BaseException | None) -> None:
    """Keep what failed where, but not the HDF5 objects that the frames of it hold.

    They must not live until the event loop is done with the error: see `FilePool.discard`.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _give_from_thread(tokens: Tokens) -> None:
    try:
        anyio.from_thread.run_sync(tokens.give)
    except RuntimeError:
        # The event loop ended while the thread was stuck: its tokens died with it.
        return


class Lanes:
    """The two lanes of one service."""

    def __init__(self, decode_lanes: int, max_waiting: int) -> None:
        self.library = Lane("HDF5", 1, max_waiting)
        self.decode = Lane("decoding", decode_lanes, max_waiting, ahead=decode_lanes)


def run_at_once(work: Portions[T]) -> T:
    """Run `work` in the calling thread without a break, and return what it returns."""
    while True:
        try:
            next(work)
        except StopIteration as finished:
            result: T = finished.value
            return result


async def run_in_worker(function: Callable[..., T], *args: Any, abandon: bool = False) -> T:
    """Run what may block in a worker thread, for work that belongs to no lane.

    At most as many at once as anyio's default limiter lets through (40 an event loop, shared
    with Starlette); others wait their turn. Context variables are visible in the thread;
    what it sets there stays there.

    Cancellation ends a call that waits for its turn. One that runs is waited for, and only
    then is its task cancelled: a function is never left running with what its caller then
    cleans up. With `abandon` it is left running, for calls that are bounded in time.
    """
    return await anyio.to_thread.run_sync(function, *args, abandon_on_cancel=abandon)


async def run_and_keep_variables(
    function: Callable[..., T], *args: Any, abandon: bool = False
) -> T:
    """Do as `run_in_worker`; what the function sets in context variables is set here as well."""
    compare = partial(_run_and_compare, function, args)
    result, changes = await run_in_worker(compare, abandon=abandon)
    for variable, value in changes:
        variable.set(value)
    return result


class WorkerContext:
    """A context for several calls in worker threads.

    A token of a context variable is good where it was made: what follows a `yield` can reset what
    was set before it.
    """

    def __init__(self) -> None:
        self._context = copy_context()

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Do as `run_and_keep_variables`, in this context."""
        return await run_and_keep_variables(self._run, function, args)

    def _run(self, function: Callable[..., T], args: tuple[Any, ...]) -> T:
        inner = self._context
        for variable, value in _list_changes(inner, copy_context()):
            inner.run(variable.set, value)
        try:
            return inner.run(function, *args)
        finally:
            for variable, value in _list_changes(copy_context(), inner):
                variable.set(value)


_Variables = list[tuple[ContextVar[Any], Any]]
_MISSING = object()


def _run_and_compare(function: Callable[..., T], args: tuple[Any, ...]) -> tuple[T, _Variables]:
    """Return what a function returns, and the context variables that it changed."""
    before = copy_context()
    result = function(*args)
    return result, _list_changes(before, copy_context())


def _list_changes(before: Context, after: Context) -> _Variables:
    return [
        (variable, value)
        for variable, value in after.items()
        if before.get(variable, _MISSING) is not value
    ]
