"""Who is in the lanes, and in which file: for whoever has to say why a process ended."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Protocol, TypeVar

T = TypeVar("T")

Content = tuple[int, int, int, int]
"""What tells one content of a file from the next: device, inode, size, mtime in nanoseconds."""


class Visitor(Protocol):
    """Takes notes of one request. For all threads."""

    def visit(self, work: Callable[[], T]) -> T:
        """Run `work`, and note that it runs."""

    def touch(self, name: str, content: Content) -> None:
        """Note which file is read from now on; whatever this raises keeps it from being read."""


visitor: ContextVar[Visitor | None] = ContextVar("asgihive visitor", default=None)
"""Of the request that is answered; seen by its tasks and by the threads that work for it."""


def touch(name: str, content: Content) -> None:
    """Tell the visitor, if there is one, which file is read from now on."""
    mine = visitor.get()
    if mine is not None:
        mine.touch(name, content)
