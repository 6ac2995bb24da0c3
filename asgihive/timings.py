"""What the time of a request is spent on: measured where it is spent, kept for it alone."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from time import perf_counter

STAGES = ("queue", "open", "plan", "read", "decode", "encode")
"""Waiting for a thread, opening files, planning blocks, reading bytes, decoding, encoding."""


class Timings:
    """Seconds by stage, summed over all threads that work for one request. For all threads."""

    __slots__ = ("_lock", "_seconds")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: dict[str, float] = {}

    def add(self, stage: str, seconds: float) -> None:
        """Count `seconds` to one of `STAGES`."""
        with self._lock:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds

    def spent(self) -> Mapping[str, float]:
        """The stages that took time so far, in the order of `STAGES`."""
        if not self._seconds:
            return {}
        with self._lock:
            return {stage: self._seconds[stage] for stage in STAGES if self._seconds.get(stage)}


timings: ContextVar[Timings | None] = ContextVar("asgihive timings", default=None)
"""Of the request that is answered; seen by its tasks and by the threads that work for it."""

# What the stages inside the one that runs took.
_inside: ContextVar[list[float] | None] = ContextVar("asgihive inner stages", default=None)


@contextmanager
def measured(stage: str) -> Iterator[None]:
    """Count the time of a block, or of each call of a decorated function, to a stage.

    What a measured block inside of it took is that one's alone. Not around an `await`: what
    other requests do meanwhile would be counted. Costs next to nothing where no request is
    measured.
    """
    mine = timings.get()
    if mine is None:
        yield
        return
    outer = _inside.get()
    inner = [0.0]
    token = _inside.set(inner)
    began = perf_counter()
    try:
        yield
    finally:
        took = perf_counter() - began
        _inside.reset(token)
        mine.add(stage, took - inner[0])
        if outer is not None:
            outer[0] += took
