"""Runs the hooks of the cornerstones around one request."""

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import anyio
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgihive.asgi import ErrorBoundary, HTTPException, send_error
from asgihive.hive.components import RequestManager, class_of, request_factory
from asgihive.hive.hooks import (
    Hooks,
    LifeContext,
    RequestContext,
    attach,
    call,
    is_async,
    is_overridden,
)
from asgihive.hive.states import ComponentState, RequestStates

_logger = logging.getLogger("asgihive.hive")

PRE_CALL, POST_CALL = "pre_endpoint_call", "post_endpoint_call"
_EXCHANGE = "asgihive.exchange"


class Exchange:
    """One request: what its hooks share, and how far they came."""

    __slots__ = (
        "_receive",
        "_request",
        "_taken",
        "error",
        "failure",
        "is_over",
        "opened",
        "scope",
        "states",
        "status",
    )

    def __init__(self, scope: Scope, receive: Receive, states: RequestStates) -> None:
        self.scope = scope
        self.states = states
        self.error: BaseException | None = None
        self.failure: Exception | None = None
        self.status: int | None = None
        self.is_over = False
        self.opened: list[Any] = []
        self._receive = receive
        self._request: HTTPConnection | None = None
        self._taken: deque[Message] = deque()

    @property
    def request(self) -> HTTPConnection:
        """The request of all its hooks. A websocket's is of no use to accept or receive."""
        if self._request is None:
            is_http = self.scope["type"] == "http"
            self._request = (
                Request(self.scope, self._take) if is_http else HTTPConnection(self.scope)
            )
        return self._request

    @property
    def receive(self) -> Receive:
        """For the endpoint: what the hooks read of the body is there once more."""
        return self._receive if self._request is None else self._again

    def state_of(self, key: str) -> ComponentState:
        """What a cornerstone keeps for the request."""
        return self.states[key]

    def note(self, message: Message) -> None:
        """Keep the status of what is sent."""
        kind = message["type"]
        if kind in {"http.response.start", "websocket.http.response.start"}:
            self.status = message["status"]
        elif kind == "websocket.accept":
            self.status = 101
        elif kind == "websocket.close" and self.status is None:
            self.status = 403  # what a server makes of it before the handshake

    async def _take(self) -> Message:
        message = await self._receive()
        if not self.is_over:
            self._taken.append(message)
        return message

    async def _again(self) -> Message:
        return self._taken.popleft() if self._taken else await self._receive()


class RequestStep(Protocol):
    """What is done before the endpoint, and after it if that came to its end.

    `enter` adds one to `exchange.opened` once it is done, and returns an answer, if it has
    one; `leave` gets that back.
    """

    @property
    def owner(self) -> str: ...

    async def enter(self, exchange: Exchange) -> ASGIApp | None: ...

    async def leave(self, opened: Any, exchange: Exchange) -> None: ...


class HookStep:
    """The two calls of one hooks class."""

    def __init__(self, owner: str, life: LifeContext, hooks: type[Hooks] | Hooks) -> None:
        self.owner = owner
        self._life = life
        self._create = request_factory(hooks)
        of = class_of(hooks)
        self._has_pre, self._has_post = is_overridden(of, PRE_CALL), is_overridden(of, POST_CALL)
        self._pre_is_async, self._post_is_async = is_async(of, PRE_CALL), is_async(of, POST_CALL)

    async def enter(self, exchange: Exchange) -> ASGIApp | None:
        hooks: Any = self._create()
        attach(hooks, RequestContext(self._life, exchange))
        answer = None
        if self._pre_is_async:
            answer = await hooks.pre_endpoint_call()
        elif self._has_pre:
            answer = await call(hooks.pre_endpoint_call)
        exchange.opened.append(hooks)
        if answer is not None and not callable(answer):
            message = (
                f"{PRE_CALL} of {self.owner} returned {answer!r}: a response or None is accepted"
            )
            raise TypeError(message)
        response: ASGIApp | None = answer
        return response

    async def leave(self, opened: Any, exchange: Exchange) -> None:  # noqa: ARG002  # in its context
        if self._post_is_async:
            await opened.post_endpoint_call()
        elif self._has_post:
            await call(opened.post_endpoint_call, abandon=True)


class ManagerStep:
    """A `request(context)` of a cornerstone; what went wrong is thrown into it."""

    def __init__(self, owner: str, life: LifeContext, make: RequestManager) -> None:
        self.owner = owner
        self._life = life
        self._make = make

    async def enter(self, exchange: Exchange) -> ASGIApp | None:
        manager: AbstractAsyncContextManager[object] = self._make(
            RequestContext(self._life, exchange)
        )
        await manager.__aenter__()
        exchange.opened.append(manager)
        return None

    async def leave(self, opened: Any, exchange: Exchange) -> None:
        error = exchange.error
        trace = None if error is None else error.__traceback__
        try:
            await opened.__aexit__(None if error is None else type(error), error, trace)
        except BaseException as raised:
            if raised is not error:
                raise


class RequestHooks:
    """An ASGI application: the hooks of the cornerstones around another one.

    Before: in the order of `steps`. After: whatever was entered to its end, cornerstones in
    reverse, also after an error, after a cancellation (shielded from it), and after the
    last byte of a streamed answer and its background tasks. What `app` and the hooks
    before it raise is answered by an `ErrorBoundary` before the hooks after it run. What
    those raise is logged, and the others run.

    Args:
        steps: by cornerstone, in start order.
        statuses: for the `ErrorBoundary`.
        seconds: the bound of time: after so long the hook that is running is cancelled, and
            those that are left get as long again.
    """

    def __init__(
        self,
        app: ASGIApp,
        steps: Sequence[Sequence[RequestStep]],
        statuses: Mapping[type[Exception], int],
        seconds: float,
    ) -> None:
        self._app = app
        self._steps = tuple(step for group in steps for step in group)
        self._seconds = seconds
        self._boundary = ErrorBoundary(self._inside, statuses)
        self._leaving = tuple(_leaving_order(steps, count) for count in range(len(self._steps) + 1))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, scope["state"]["cornerstones"])
        scope[_EXCHANGE] = exchange

        async def noting_send(message: Message) -> None:
            exchange.note(message)
            await send(message)

        try:
            await self._boundary(scope, receive, noting_send)
        except BaseException as error:
            exchange.error = exchange.error or error
            raise
        finally:
            if exchange.opened:
                await self._leave(exchange)
        if exchange.failure is not None:
            raise exchange.failure

    async def _inside(
        self,
        scope: Scope,
        receive: Receive,  # noqa: ARG002  # the exchange knows what hooks took from it
        send: Send,
    ) -> None:
        exchange: Exchange = scope[_EXCHANGE]
        try:
            for step in self._steps:
                answer = await step.enter(exchange)
                if answer is not None:
                    await _send_answer(answer, scope, exchange.receive, send)
                    return
            await self._app(scope, exchange.receive, send)
        except BaseException as error:
            exchange.error = error
            raise

    async def _leave(self, exchange: Exchange) -> None:
        exchange.is_over = True
        left = list(self._leaving[len(exchange.opened)])
        while left:
            owner = ""
            with anyio.move_on_after(self._seconds, shield=True) as scope:
                while left:
                    index = left.pop()
                    owner = self._steps[index].owner
                    try:
                        await self._steps[index].leave(exchange.opened[index], exchange)
                    except Exception:
                        _logger.exception("%s of %s failed", POST_CALL, owner)
            if scope.cancelled_caught:
                text = "%s of %s was cancelled: the hooks after a request have %g seconds"
                _logger.error(text, POST_CALL, owner, self._seconds)


class Outer:
    """Around an application that answers its exceptions further out: they are kept for that."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception as error:  # noqa: BLE001  # raised again by `RequestHooks`
            scope[_EXCHANGE].failure = scope[_EXCHANGE].error = error


def _leaving_order(steps: Sequence[Sequence[RequestStep]], count: int) -> tuple[int, ...]:
    """The first `count` steps as a stack, whose end is left first.

    Cornerstones are left in reverse; of each the managers, then the hooks as they stand.
    """
    groups = []
    start = 0
    for group in steps:
        indices = range(start, max(start, min(start + len(group), count)))
        managers = [each for each in indices if isinstance(group[each - start], ManagerStep)]
        hooks = [each for each in indices if each not in managers]
        start += len(group)
        groups.append((*reversed(managers), *hooks))
    return tuple(index for group in groups for index in reversed(group))


async def _send_answer(answer: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """The response of a hook; to a handshake as a refusal, where the server can send one."""
    if scope["type"] == "http":
        await answer(scope, receive, send)
        return
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send_error(HTTPException(403, "Refused"), scope, receive, send)
        return

    async def send_refusal(message: Message) -> None:
        await send({**message, "type": f"websocket.{message['type']}"})

    await answer({**scope, "type": "http", "method": "GET"}, receive, send_refusal)
