"""A gate that holds up a thread for as long as a test needs."""

import threading

import anyio.to_thread

WAIT_SECONDS = 30.0  # until a test that hangs fails instead


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
