"""What belongs to the request in hand: its client, and what its time is spent on."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from time import perf_counter

STAGES = ("queue", "open", "plan", "read", "decode", "encode")
"""Waiting for a thread, opening files, planning blocks, reading bytes, decoding, encoding."""


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
