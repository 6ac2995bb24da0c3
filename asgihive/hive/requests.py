"""Runs the hooks of the cornerstones around one request."""

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from operator import methodcaller
from typing import Any, Protocol

import anyio
import anyio.lowlevel
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgihive.asgi import HTTPException, send_error
from asgihive.asgi.errors import PHASES
from asgihive.hive.bounds import bounded_once_it_waits
from asgihive.hive.components import RequestManager, class_of, request_factory
from asgihive.hive.hooks import (
    ComponentState,
    Hooks,
    LifeContext,
    RequestContext,
    RequestStates,
    attach,
    call,
    is_async,
    is_overridden,
    never_waits,
)

_logger = logging.getLogger("asgihive.hive")

PRE_CALL, POST_CALL = "pre_endpoint_call", "post_endpoint_call"
_EXCHANGE = "asgihive.exchange"


class Exchange:
    """One request: what its hooks share, what was sent, and how far they came."""

    __slots__ = (
        "_receive",
        "_request",
        "_send",
        "_taken",
        "error",
        "failure",
        "is_over",
        "opened",
        "phase",
        "scope",
        "states",
        "status",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.states: RequestStates = scope["state"]["cornerstones"]
        self.error: BaseException | None = None
        self.failure: Exception | None = None
        self.status: int | None = None
        self.phase = "new"
        self.is_over = False
        self.opened: list[Any] = []
        self._receive = receive
        self._send = send
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

    async def send(self, message: Message) -> None:
        """For the endpoint: keeps the status of what is sent."""
        kind = message["type"]
        if kind in PHASES:
            self.phase = PHASES[kind]
            self._note_status(kind, message)
        await self._send(message)

    def state_of(self, key: str) -> ComponentState:
        """What a cornerstone keeps for the request."""
        return self.states[key]

    def _note_status(self, kind: str, message: Message) -> None:
        if "status" in message:
            self.status = message["status"]
        elif kind == "websocket.accept":
            self.status = 101
        elif self.status is None:  # closed
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

    `open` makes what the two others get; what `before` awaits is an answer, if there is one.
    `after` needs no shield and no bound of time where it `never_waits`.
    """

    owner: str
    never_waits: bool

    def open(self, exchange: Exchange) -> Any: ...

    def before(self, opened: Any) -> Awaitable[Any]: ...

    def after(self, opened: Any, exchange: Exchange) -> Awaitable[object]: ...


class HookStep:
    """The two calls of one hooks class."""

    def __init__(self, owner: str, life: LifeContext, hooks: type[Hooks] | Hooks) -> None:
        self.owner = owner
        self._life = life
        self._create = request_factory(hooks)
        self.before = _caller(class_of(hooks), PRE_CALL)
        self._after = _caller(class_of(hooks), POST_CALL, abandon=True)
        # An object may have other methods than its class.
        self.never_waits = isinstance(hooks, type) and (
            never_waits(hooks, POST_CALL) or not is_overridden(hooks, POST_CALL)
        )

    def open(self, exchange: Exchange) -> Hooks:
        hooks = self._create()
        attach(hooks, RequestContext(self._life, exchange))
        return hooks

    def after(self, opened: Any, exchange: Exchange) -> Awaitable[object]:  # noqa: ARG002  # in its context
        return self._after(opened)


class ManagerStep:
    """A `request(context)` of a cornerstone; what went wrong is thrown into it."""

    never_waits = False

    def __init__(self, owner: str, life: LifeContext, make: RequestManager) -> None:
        self.owner = owner
        self._life = life
        self._make = make

    def open(self, exchange: Exchange) -> AbstractAsyncContextManager[object]:
        return self._make(RequestContext(self._life, exchange))

    async def before(self, opened: Any) -> None:
        await opened.__aenter__()

    async def after(self, opened: Any, exchange: Exchange) -> None:
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
    before it raise is answered by `send_error` before the hooks after it run. What
    those raise is logged, and the others run.

    Args:
        steps: by cornerstone, in start order.
        statuses: for `send_error`.
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
        self._statuses = statuses
        self._leaving_now = 0
        self._all_left: anyio.Event | None = None
        self._leaving = tuple(_leaving_order(steps, count) for count in range(len(self._steps) + 1))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = scope[_EXCHANGE] = Exchange(scope, receive, send)
        try:
            await self._answer(exchange)
        except BaseException as error:
            exchange.error = exchange.error or error
            raise
        finally:
            try:
                if exchange.opened:
                    await self._leave(exchange)
            finally:
                # Else both would wait in cycles for the garbage collector, at each request.
                exchange.opened.clear()
                del scope[_EXCHANGE]
        if exchange.failure is not None:
            raise exchange.failure

    async def _answer(self, exchange: Exchange) -> None:
        scope = exchange.scope
        try:
            for step in self._steps:
                opened = step.open(exchange)
                answer = await step.before(opened)
                exchange.opened.append(opened)
                if answer is not None:
                    await _send_answer(_checked(answer, step), exchange)
                    return
            await self._app(scope, exchange.receive, exchange.send)
        except Exception as error:  # noqa: BLE001  # answered or raised again
            exchange.error = error
            receive, send, phase = exchange.receive, exchange.send, exchange.phase
            await send_error(error, scope, receive, send, statuses=self._statuses, phase=phase)

    async def left(self) -> None:
        """Return when no hooks after a request are running, and none is about to.

        A server that gives up its requests at shutdown does not wait for what they do then.
        """
        await anyio.lowlevel.checkpoint()
        if self._leaving_now:
            self._all_left = anyio.Event()
            await self._all_left.wait()

    async def _leave(self, exchange: Exchange) -> None:
        exchange.is_over = True
        self._leaving_now += 1
        try:
            await self._leave_steps(list(self._leaving[len(exchange.opened)]), exchange)
        finally:
            self._leaving_now -= 1
            if self._all_left is not None and not self._leaving_now:
                self._all_left.set()

    async def _leave_steps(self, left: list[int], exchange: Exchange) -> None:
        cancelled: BaseException | None = None
        while left:
            # Most of what a hook costs is a scope, and most of that its timer.
            if self._steps[left[-1]].never_waits:
                await self._leave_step(left.pop(), exchange)
                continue
            try:
                await self._leave_in_time(left, exchange)
            except BaseException as error:  # noqa: BLE001  # raised below, once all are left
                # A server that shuts down cancels asyncio's tasks, which no shield keeps off.
                cancelled = error
                del left[-1:]
        if cancelled is not None:
            raise cancelled

    async def _leave_in_time(self, left: list[int], exchange: Exchange) -> None:
        with anyio.CancelScope(shield=True) as scope:
            await bounded_once_it_waits(self._leave_all(left, exchange), scope, self._seconds)
        if scope.cancelled_caught:
            text = "%s of %s was cancelled: the hooks after a request have %g seconds"
            _logger.error(text, POST_CALL, self._steps[left.pop()].owner, self._seconds)

    async def _leave_all(self, left: list[int], exchange: Exchange) -> None:
        while left:
            await self._leave_step(left[-1], exchange)
            left.pop()

    async def _leave_step(self, index: int, exchange: Exchange) -> None:
        step = self._steps[index]
        try:
            await step.after(exchange.opened[index], exchange)
        except Exception:
            _logger.exception("%s of %s failed", POST_CALL, step.owner)


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


def _caller(
    hooks: type[Hooks], name: str, *, abandon: bool = False
) -> Callable[[Any], Awaitable[Any]]:
    """What calls the step `name` of an object of a hooks class; `abandon` as in `call`."""
    if is_async(hooks, name):
        return methodcaller(name)
    if is_overridden(hooks, name):
        return lambda opened: call(getattr(opened, name), abandon=abandon)
    return _nothing


async def _nothing(_opened: Any) -> None:
    """Of a step that a hooks class does not have."""


def _checked(answer: Any, step: RequestStep) -> ASGIApp:
    if not callable(answer):
        text = f"{PRE_CALL} of {step.owner} returned {answer!r}: a response or None is accepted"
        raise TypeError(text)
    response: ASGIApp = answer
    return response


async def _send_answer(answer: ASGIApp, exchange: Exchange) -> None:
    """The response of a hook; to a handshake as a refusal, where the server can send one."""
    scope, receive, send = exchange.scope, exchange.receive, exchange.send
    if scope["type"] == "http":
        await answer(scope, receive, send)
        return
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send_error(HTTPException(403, "Refused"), scope, receive, send)
        return

    async def send_refusal(message: Message) -> None:
        await send({**message, "type": f"websocket.{message['type']}"})

    await answer({**scope, "type": "http", "method": "GET"}, receive, send_refusal)
