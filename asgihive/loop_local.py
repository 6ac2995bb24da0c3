"""What each event loop has one of: an application may be run, stopped and run again."""

from collections.abc import Callable
from itertools import count
from typing import Generic, TypeVar

from anyio.lowlevel import RunVar

T = TypeVar("T")

# Older anyio knows variables by name alone, so that each needs a name of its own.
_NUMBERS = count()


class LoopLocal(Generic[T]):
    """A value for each event loop, made when it is first asked for there."""

    def __init__(self) -> None:
        self._values: RunVar[T] = RunVar(f"asgihive {next(_NUMBERS)}")

    def here(self, make: Callable[[], T]) -> T:
        """The running event loop's; `make` makes the first. It is not kept, nor what it holds."""
        try:
            return self._values.get()
        except LookupError:
            value = make()
            self._values.set(value)
            return value
