"""A bound of time that costs nothing as long as nothing is waited for."""

import types
from collections.abc import Coroutine, Generator
from functools import partial
from typing import Any

import anyio


@types.coroutine
def bounded_once_it_waits(
    work: Coroutine[Any, Any, None], scope: anyio.CancelScope, seconds: float
) -> Generator[Any, Any, None]:
    """Await `work`, and give `scope` a deadline when that waits for the first time.

    What ends without waiting needs none, and a timer costs the event loop more than such
    work does. Everything else is as if `work` were awaited itself (PEP 380).

    Args:
        scope: the innermost one, entered by the calling task.
        seconds: from the first wait on.
    """
    resume = partial(work.send, None)
    is_bounded = False
    while True:
        try:
            waits_for = resume()
        except StopIteration:
            return
        if not is_bounded:
            is_bounded = True
            scope.deadline = anyio.current_time() + seconds
        try:
            resume = partial(work.send, (yield waits_for))
        except BaseException as error:  # noqa: BLE001  # the work's to handle
            resume = partial(work.throw, error)
