"""Gates that hold up a thread for as long as a test needs, and waiting for other processes."""

import threading
from collections.abc import Callable

import anyio
import anyio.to_thread

WAIT_SECONDS = 30.0  # until a test that hangs fails instead

# Who asks all the time takes the processor from the process that is waited for.
AGAIN_SECONDS = 0.005


async def until(is_so: Callable[[], object]) -> None:
    """Wait until something is so that no event tells of, as what another process does."""
    while not is_so():  # noqa: ASYNC110  # which event there is not
        await anyio.sleep(AGAIN_SECONDS)


class Gate:
    """A call that says when it has begun, and ends when the gate is opened."""

    def __init__(self) -> None:
        self._begun, self._opened = threading.Event(), threading.Event()
        self.ended = threading.Event()

    def __call__(self) -> None:
        self._begun.set()
        opened = self._opened.wait(WAIT_SECONDS)
        self.ended.set()
        assert opened

    def open(self) -> None:
        self._opened.set()

    async def begun(self) -> None:
        assert await anyio.to_thread.run_sync(self._begun.wait, WAIT_SECONDS)

    def begins(self, seconds: float) -> bool:
        """Wait in this thread, which may be the event loop's, until the call has begun."""
        return self._begun.wait(seconds)

    @property
    def has_begun(self) -> bool:
        return self._begun.is_set()
