"""What a server tells of a client that is gone."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from starlette.types import Receive

T = TypeVar("T")


async def cancel_on_disconnect(receive: Receive, scope: anyio.CancelScope) -> None:
    """Cancel `scope` once the client is gone; what it still sends is let go of."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def while_connected(receive: Receive, work: Callable[[], Awaitable[T]]) -> T | None:
    """What `work` returns; None when the client went away first, and `work` was cancelled."""
    results: list[T] = []
    failure: Exception | None = None
    async with anyio.create_task_group() as watching:
        watching.start_soon(cancel_on_disconnect, receive, watching.cancel_scope)
        try:
            results.append(await work())
        except Exception as error:  # noqa: BLE001  # raised below, outside of the group
            failure = error
        watching.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return results.pop() if results else None
