"""New entries, for all who listen."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

_MAX_WAITING = 100
"""Entries that wait for a slow listener, who misses later ones."""


class Feed:
    """Hands what is published to all that listen."""

    def __init__(self) -> None:
        self._listeners: set[MemoryObjectSendStream[Any]] = set()

    async def publish(self, item: object) -> None:
        """Hand an item to all that listen now."""
        for listener in self._listeners:
            try:
                listener.send_nowait(item)
            except anyio.WouldBlock:
                continue

    @contextmanager
    def listen(self) -> Iterator[MemoryObjectReceiveStream[Any]]:
        """Yield a stream of what is published from now on."""
        send, receive = anyio.create_memory_object_stream[Any](_MAX_WAITING)
        self._listeners.add(send)
        try:
            with send, receive:
                yield receive
        finally:
            self._listeners.discard(send)


provides = (Feed,)


@asynccontextmanager
async def lifespan(context: Any) -> AsyncIterator[None]:
    context.provide(Feed, Feed())
    yield
