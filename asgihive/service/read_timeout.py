"""How long a request may take before the first byte of its answer."""

import math
from collections.abc import Callable

import anyio
import anyio.lowlevel
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgihive.errors import ReadTimeout

AtHand = Callable[[Scope], ASGIApp | None]
"""What sends the answer to a request, if that is in memory and takes no thread."""


class TimedRoute:
    """An ASGI application: another one, which has to begin its answer in time.

    What counts is all that the service does before: waiting for a lane, for whoever makes the same
    answer, for a file to stop changing. What has begun is bounded by how long its client may take
    (`asgihive.asgi.gate`), and for each further block by the reader.

    Args:
        app: cancelled when its time is over, so that its work ends at the next step.
        seconds: until the first byte.
        at_hand: asked first, since a bound of time costs a third of an answer that is in memory.

    Raises:
        ReadTimeout: nothing was sent by then.
    """

    def __init__(self, app: ASGIApp, seconds: float, at_hand: AtHand | None = None) -> None:
        self._app = app
        self._seconds = seconds
        self._at_hand = at_hand

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ready = None if self._at_hand is None else self._at_hand(scope)
        if ready is not None:
            await ready(scope, receive, send)
            return
        with anyio.move_on_after(self._seconds) as limit:

            async def begin(message: Message) -> None:
                if limit.cancel_called:
                    # Too late by a moment: nothing may be sent of an answer that is cancelled.
                    await anyio.lowlevel.checkpoint()
                limit.deadline = math.inf
                await send(message)

            await self._app(scope, receive, begin)
        if limit.cancelled_caught:
            raise ReadTimeout(self._seconds)
