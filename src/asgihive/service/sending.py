"""How long a client may take for what is sent to it."""

from collections.abc import Callable, Coroutine
from typing import Any

import anyio
from starlette.types import Message, Send

# Whatever is less lies in the buffers of the server and the operating system.
_LITTLE_BYTES = 1 << 16


class ClientStalled(OSError):  # as when it were gone: nobody is left to be answered
    """A client took nothing of a block for too long."""


def within(seconds: float, send: Send) -> Callable[[Message], Coroutine[Any, Any, None]]:
    """`send`, which a client may hold up for so long in one call.

    Whoever streams to it meanwhile holds files open, and blocks in memory. A server whose
    `send` cannot be cancelled (Hypercorn on trio) holds them as long as it likes.

    Raises:
        ClientStalled: by what is returned; the server then drops the connection.
    """

    async def sending(message: Message) -> None:
        if not message.get("more_body") and len(message.get("body", b"")) < _LITTLE_BYTES:
            await send(message)
            return
        with anyio.move_on_after(seconds) as scope:
            await send(message)
        if scope.cancelled_caught:
            raise ClientStalled(f"the client took no block within {seconds:g} s")

    return sending
