"""Files that are watched for whoever listens: one poll a file, however many listen.

A file has no task of its own, since a service may be without a lifespan: of those who listen one
polls, and another one goes on when that one leaves.
"""

import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import time_ns

import anyio

from asgihive.concurrency import run_in_worker
from asgihive.errors import FileMissing
from asgihive.hdf5.sandbox import Identity, Sandbox

Shape = tuple[int, ...]

AskShape = Callable[[str, str], Awaitable[Shape | None]]
"""Returns the shape of a dataset by its file and path, None of what has no shape.

Raises ShapeUnknown, and whatever says that there is no such thing.
"""


class ShapeUnknown(Exception):
    """The shape of a dataset cannot be told now, but later."""


class WatchEnded(Exception):
    """The server is about to stop."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen of a file by a poll."""

    number: int
    """Of the changes so far."""
    version: str | None
    """Names the content of the file; None where there is no file."""


class WatchedFile:
    """One file, which is polled while somebody waits for a change of it.

    Args:
        name: relative to the served directory.
        sandbox: the served directory.
        ask_shape: is asked for each path that is listened to, when the file has changed; once more
            if it is asked so early that the next change may not show in the file's identity.
        seconds: between two polls.
        is_stopping: whether the server is about to stop, asked at each poll.
    """

    def __init__(
        self,
        name: str,
        sandbox: Sandbox,
        ask_shape: AskShape,
        seconds: float,
        is_stopping: Callable[[], bool],
    ) -> None:
        self.name = name
        self.users = 0
        """How many hold it."""
        self._sandbox = sandbox
        self._ask_shape = ask_shape
        self._seconds = seconds
        self._is_stopping = is_stopping
        self._sight = Sight(0, None)
        self._identity: Identity | None = None
        self._is_polled = False
        self._due = -math.inf
        """When the next poll is made, on the clock of the event loop."""
        self._moved = anyio.Event()
        self._looking = anyio.Lock()
        self._listeners = Counter[str]()
        self._shapes: dict[str, Shape | None] = {}
        self._problems: dict[str, Exception] = {}
        """Why there is no shape of a path."""
        self._asked_again: set[str] = set()
        """Paths whose shape the next poll asks for, although the file is as it was.

        It could not be told, or the file may have grown since then within one tick of its clock.
        """

    def get_shape(self, path: str) -> Shape | None:
        """Return the shape of a dataset that is listened to; None where it is not known."""
        return self._shapes.get(path)

    @contextmanager
    def listening(self, path: str) -> Iterator[None]:
        """Keep the shape of a dataset up to date."""
        self._listeners[path] += 1
        try:
            yield
        finally:
            self._listeners[path] -= 1
            if not self._listeners[path]:
                del self._listeners[path]
                self._shapes.pop(path, None)
                self._problems.pop(path, None)
                self._asked_again.discard(path)

    async def look(self, path: str) -> Sight:
        """Return what the file is now, and learn the shape of a dataset that is listened to.

        Raises:
            FileMissing: it is not there.
            Exception: what asking for the shape raises, if it is not that it is unknown now.
        """
        async with self._looking:  # many may begin to listen at once
            if not self._is_polled and anyio.current_time() >= self._due:
                await self._poll()
            if self._sight.version is None:
                raise FileMissing(self.name)
            if path not in self._shapes:
                await self._learn_shape(path)
        if path in self._problems:
            raise self._problems[path]
        return self._sight

    async def wait(self, sight: Sight) -> Sight:
        """Return what is seen next, after `sight`; polls unless another one does.

        Raises:
            WatchEnded
        """
        while self._sight.number == sight.number:
            if self._is_polled:
                await self._moved.wait()
                continue
            self._is_polled = True
            try:
                while self._sight.number == sight.number:
                    # Not for so long: whoever polls stops to wait now and then, and goes on.
                    await anyio.sleep_until(self._due)
                    if self._is_stopping():
                        raise WatchEnded
                    await self._poll()
            finally:
                self._is_polled = False
                self._wake()  # so that another one polls
        return self._sight

    def _wake(self) -> None:
        moved, self._moved = self._moved, anyio.Event()
        moved.set()

    async def _poll(self) -> None:
        self._identity = identity = await run_in_worker(self._sandbox.identify, self.name)
        self._due = anyio.current_time() + self._seconds
        version = None if identity is None else identity.version
        is_changed = version != self._sight.version
        has_grown = False
        for path in list(self._listeners if is_changed else self._asked_again):
            if version is not None:
                has_grown |= await self._learn_shape(path)
        # At once, last: what is seen but not told of by then is seen again.
        if is_changed or has_grown:
            self._sight = Sight(self._sight.number + 1, version)
            self._wake()

    async def _learn_shape(self, path: str) -> bool:
        """Ask for the shape of a dataset; return whether it is another one than before."""
        before = shape = self._shapes.get(path)
        problem, is_unknown = None, False
        is_early = self._identity is not None and self._identity.settles_in(time_ns()) > 0
        try:
            shape = await self._ask_shape(self.name, path)
        except ShapeUnknown:
            is_unknown = True
        except Exception as error:  # noqa: BLE001  # raised to whoever begins to listen
            shape, problem = None, error
        if path not in self._listeners:
            return False
        self._shapes[path] = shape
        self._asked_again.discard(path)
        self._problems.pop(path, None)
        if is_unknown or is_early:
            self._asked_again.add(path)
        if problem is not None:
            self._problems[path] = problem
        return shape != before
