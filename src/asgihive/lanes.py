"""The worker threads: two kinds of lanes, and the only caller of `anyio.to_thread`.

The library lane has one token, because h5py holds one lock for all of libhdf5 and further
threads would only queue at it. That exclusiveness is also what makes the pool of open files
safe without locks: inside the library lane nothing else touches HDF5.
"""

import itertools
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread
from anyio.lowlevel import RunVar

from asgihive.errors import Overloaded

T = TypeVar("T")

_LANE_NUMBERS = itertools.count()


@dataclass(slots=True, eq=False)  # limiters hash it as the borrower of a token
class _Job:
    """Says who gives the token back: the waiting task, or the thread that outlived it."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _running: bool = False
    _abandoned: bool = False

    def begin(self) -> bool:
        """Called by the thread: may it run? Not when the task has gone already."""
        with self._lock:
            self._running = not self._abandoned
            return self._running

    def end(self) -> bool:
        """Called by the thread: is the token its own to give back?"""
        with self._lock:
            self._running = False
            return self._abandoned

    def leave(self) -> bool:
        """Called by the task, done or cancelled: is the token its own to give back?"""
        with self._lock:
            self._abandoned = True
            return not self._running


# The tokens of a lane, and the threads that anyio may start for it.
_Limiters = tuple[anyio.CapacityLimiter, anyio.CapacityLimiter]


class Lane:
    """A bounded number of worker threads.

    Args:
        name: what the lane is for, shown when it is full.
        threads: how many calls run at once.
        max_waiting: how many calls may wait; one more raises `Overloaded`.
    """

    def __init__(self, name: str, threads: int, max_waiting: int) -> None:
        self.name = name
        self.threads = threads
        self.max_waiting = max_waiting
        # Per event loop: an application may be run, stopped and run again (tests, reload).
        # Older anyio knows variables by name alone, so that each lane needs names of its own.
        number = next(_LANE_NUMBERS)
        self._limiters: RunVar[_Limiters] = RunVar(f"asgihive lane {number} {name}")

    async def run(self, function: Callable[[], T], *, patient: bool = False) -> T:
        """Run `function` in one of the lane's threads and return what it returns.

        A `patient` call, one for an answer that has begun, waits however many wait already.

        Cancellation frees the waiting task at once, even when the thread is stuck in a
        system call; the token stays taken until the thread is done, so that what runs in
        the lane is never more than `threads` calls.

        Raises:
            Overloaded: too many calls wait already.
        """
        tokens, threads = self._limiters_here()
        job = _Job()
        try:
            # Mostly one is free, and a checkpoint would cost as much as a small read.
            tokens.acquire_on_behalf_of_nowait(job)
        except anyio.WouldBlock:
            if not patient and self.waiting() >= self.max_waiting:
                message = f"{self.max_waiting} requests wait for the {self.name} threads"
                raise Overloaded(message) from None
            await tokens.acquire_on_behalf_of(job)

        def in_thread() -> T:
            if not job.begin():
                raise RuntimeError  # nobody sees it: the task was cancelled before this began
            try:
                return function()
            except BaseException as error:
                _forget_locals(error)
                raise
            finally:
                if job.end():
                    _release_from_thread(tokens, job)

        try:
            return await anyio.to_thread.run_sync(
                in_thread, abandon_on_cancel=True, limiter=threads
            )
        finally:
            if job.leave():
                tokens.release_on_behalf_of(job)

    def waiting(self) -> int:
        """How many calls wait for a thread now, in the running event loop."""
        return self._limiters_here()[0].statistics().tasks_waiting

    def _limiters_here(self) -> _Limiters:
        try:
            return self._limiters.get()
        except LookupError:
            # The threads of calls that were given up come on top, within reason.
            spare = self.threads + 64
            limiters = (anyio.CapacityLimiter(self.threads), anyio.CapacityLimiter(spare))
            self._limiters.set(limiters)
            return limiters


def _forget_locals(error: BaseException | None) -> None:
    """Keep what failed where, but not the HDF5 objects that the frames of it hold.

    They must not live until the event loop is done with the error: see `FilePool.discard`.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _release_from_thread(tokens: anyio.CapacityLimiter, job: _Job) -> None:
    try:
        anyio.from_thread.run_sync(tokens.release_on_behalf_of, job)
    except RuntimeError:
        # The event loop ended while the thread was stuck: its limiter died with it.
        return


class Lanes:
    """The two lanes of one service."""

    def __init__(self, decode_lanes: int, max_waiting: int) -> None:
        self.library = Lane("HDF5", 1, max_waiting)
        self.decode = Lane("decoding", decode_lanes, max_waiting)


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
