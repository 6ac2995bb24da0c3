"""Runs the hooks of the cornerstones around each request."""

import copy
import inspect
import logging
import math
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from functools import partial
from operator import methodcaller
from typing import Any

import anyio
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgihive.asgi import BufferedResponse, HTTPException, send_error
from asgihive.asgi.errors import SendsError, send_as_denial
from asgihive.hive.components import ModuleHooks, get_class
from asgihive.hive.contexts import (
    HOOKED,
    HookedRequest,
    LifeContext,
    ResponseHead,
    make_request_context,
)
from asgihive.hive.hooks import (
    Hooks,
    attach_context,
    has_no_await,
    is_async,
    is_overridden,
    run_hook,
)

_logger = logging.getLogger("asgihive.hive")

PRE_CALL, POST_CALL = "pre_endpoint_call", "post_endpoint_call"
BEFORE_ANSWER = "before_answer"
REQUEST_STEPS = (PRE_CALL, BEFORE_ANSWER, POST_CALL)

Caller = Callable[[Any], Awaitable[Any]]


class HookStep:
    """The calls of one hooks class around a request; a new object for each request.

    `open` makes what the others get; `before` returns a response or None, and `after` runs if
    that ran to its end.
    """

    def __init__(
        self, owner: str, life: LifeContext, hooks: type[Hooks] | Hooks, websockets: bool | None
    ) -> None:
        self.owner = owner
        self._life = life
        self._create = hooks if isinstance(hooks, type) else partial(copy.copy, hooks)
        own_class = get_class(hooks)
        # An assignment is what most classes allow, and takes a third of the time of the other way.
        self._is_assigned = own_class.__setattr__ is object.__setattr__
        self.before = _make_caller(hooks, PRE_CALL)
        self.after = _make_caller(hooks, POST_CALL, abandon=True)
        is_called = is_overridden(own_class, BEFORE_ANSWER)
        self.before_answer = _make_caller(hooks, BEFORE_ANSWER) if is_called else None
        # Then `after` needs no shield and no bound of time. An object may have other methods
        # than its class.
        self.never_waits = isinstance(hooks, type) and (
            has_no_await(hooks, POST_CALL) or not is_overridden(hooks, POST_CALL)
        )
        own = getattr(own_class, "websockets", None)
        self.websockets = websockets if own is None else own

    def open(self, hooked: HookedRequest) -> Hooks:
        hooks = self._create()
        if self._is_assigned:
            hooks.__hive_context__ = make_request_context(self._life, hooked)
        else:
            attach_context(hooks, make_request_context(self._life, hooked))
        return hooks


class ManagerStep:
    """The `request(context)` and `before_answer(context)` of a cornerstone's module.

    What went wrong is thrown into the first.
    """

    def __init__(self, owner: str, life: LifeContext, module: ModuleHooks) -> None:
        self.owner = owner
        self._life = life
        self._make = module.request
        hook = module.before_answer
        self.before_answer: Caller | None = None
        if hook is not None:
            self.before_answer = lambda opened: run_hook(partial(hook, opened[1]))
        self.never_waits = module.request is None
        self.websockets = module.websockets

    def open(self, hooked: HookedRequest) -> Any:
        context = make_request_context(self._life, hooked)
        return self._make and self._make(context), context, hooked

    async def before(self, opened: Any) -> Any:
        """Return the response that it yielded, which answers: it was meant to refuse."""
        if opened[0] is None:
            return None
        try:
            entered = await opened[0].__aenter__()
        except RuntimeError as error:
            if error.args != ("generator didn't yield",):
                raise
            text = "request(context) ended before its yield: to answer there, raise HTTPException"
            raise RuntimeError(f"{self.owner}: {text}") from None
        return entered if isinstance(entered, Response | BufferedResponse) else None

    async def after(self, opened: Any) -> None:
        manager, _, hooked = opened
        if manager is None:
            return
        error = hooked.error
        try:
            if error is None:
                await manager.__aexit__(None, None, None)
            else:
                await manager.__aexit__(type(error), error, error.__traceback__)
        except BaseException as raised:
            if raised is not error:
                raise


RequestStep = HookStep | ManagerStep


class _Steps:
    """The steps around requests of one kind, in start order; they end in reverse."""

    def __init__(self, steps: Sequence[RequestStep]) -> None:
        self.all = tuple(steps)
        waiting = [index for index, step in enumerate(steps) if not step.never_waits]
        self.never_waiting = waiting[0] if waiting else len(steps)
        """So many steps from the first one on never wait at their end."""
        self.has_before_answer = any(each.before_answer is not None for each in self.all)


class RequestHooks:
    """An ASGI application: the hooks of the cornerstones around another one.

    Before: in the order of `steps`. When the response is about to leave: `before_answer`, in
    reverse; what that raises is the answer instead. After: those whose part before ran to its
    end, in reverse, also after an error, after a cancellation (shielded from it),
    and after the last byte of a streamed response and its background tasks. What `app` and the
    hooks before it raise is answered by `send_error` before the hooks after it run.
    What those raise is logged, and the others run.

    Args:
        steps: in start order. Around websockets are those that ask for it.
        errors: what answers exceptions.
        seconds: the bound of time: after so long the hook that is running is cancelled, and
            those that are left get as long again.
        passes_errors: whether what `app` raises is raised again after the hooks, for an outer
            application to answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        steps: Sequence[RequestStep],
        errors: SendsError,
        seconds: float,
        *,
        passes_errors: bool = False,
    ) -> None:
        self._bare = app
        self._app = FailureKeeper(app) if passes_errors else app
        asking = [step for step in steps if step.websockets]
        self._steps = {"http": _Steps(steps), "websocket": _Steps(asking)}
        self._seconds = seconds
        self._errors = errors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        steps = self._steps[scope["type"]]
        if not steps.all:
            await self._bare(scope, receive, send)
            return
        hooked = scope[HOOKED] = HookedRequest(scope, receive, send)
        try:
            await self._answer(hooked, steps)
        finally:
            failure = hooked.failure
            hooked.release()
            del scope[HOOKED]
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # which refers to this frame

    async def _answer(self, hooked: HookedRequest, steps: _Steps) -> None:
        """Run the steps before, the application, and the steps after."""
        send = partial(_send_answer, hooked) if steps.has_before_answer else hooked.send
        begun = hooked.begun
        try:
            try:
                for step in steps.all:
                    opened = step.open(hooked)
                    response = await step.before(opened)
                    begun.append((step, opened))
                    if response is not None:
                        await _send_response(response, step, hooked, send)
                        break
                else:
                    await self._app(hooked.scope, hooked.receive, send)
            except Exception as error:  # noqa: BLE001  # answered or raised again
                hooked.error = error
            if hooked.error is not None or hooked.refusal is not None:
                await self._answer_error(hooked)
        except BaseException as error:
            hooked.error = hooked.error or error
            raise
        finally:
            hooked.is_over = True
            try:
                if len(begun) <= steps.never_waiting:  # a cancel scope costs as much as three hooks
                    await _run_after(begun)
            finally:
                if begun:
                    await self._run_shielded(begun, steps)

    async def _answer_error(self, hooked: HookedRequest) -> None:
        if hooked.refusal is not None:  # whatever the endpoint has made of it
            hooked.error, hooked.failure = hooked.refusal, None
        if isinstance(hooked.error, Exception) and hooked.failure is None:
            scope, receive, phase = hooked.scope, hooked.receive, hooked.passage.phase
            await self._errors(hooked.error, scope, receive, hooked.send, phase=phase)

    async def _run_shielded(self, begun: list[tuple[RequestStep, Any]], steps: _Steps) -> None:
        """Run the steps that have begun, the last one first, shielded and bounded in time."""
        cancelled: BaseException | None = None
        while begun:
            try:
                with anyio.CancelScope(shield=True) as scope:
                    await bound_once_it_waits(_run_after(begun), scope, self._seconds)
            except BaseException as error:  # noqa: BLE001  # raised below, after the others
                # A server that shuts down cancels asyncio's tasks, which no shield prevents.
                cancelled = error
            if scope.cancelled_caught:
                text = "%s of %s was cancelled: the hooks after a request have %g seconds"
                owner = steps.all[len(begun)].owner
                _logger.error(text, POST_CALL, owner, self._seconds)
        if cancelled is not None:
            raise cancelled


async def _run_after(begun: list[tuple[RequestStep, Any]]) -> None:
    """Run the steps that have begun, the last one first."""
    while begun:
        step, opened = begun.pop()
        try:
            await step.after(opened)
        except Exception:
            _logger.exception("%s of %s failed", POST_CALL, step.owner)


async def _send_answer(hooked: HookedRequest, message: Message) -> None:
    """Send for the endpoint; at the start of its response run `before_answer` of the steps.

    Raises:
        Exception: what one of them raised, also at each later message: the response is dropped.
    """
    if hooked.refusal is not None:
        raise hooked.refusal
    if message["type"] == "http.response.start":
        head = hooked.head = ResponseHead(message)
        try:
            for step, opened in reversed(hooked.begun):
                if step.before_answer is not None:
                    await step.before_answer(opened)
        except Exception as error:
            hooked.refusal = error
            raise
        finally:
            hooked.head = None
        message = {**message, "status": head.status, "headers": head.raw_headers}
    await hooked.send(message)


@types.coroutine
def bound_once_it_waits(
    work: Coroutine[Any, Any, None], scope: anyio.CancelScope, seconds: float
) -> Generator[Any, Any, None]:
    """Await `work`, and give `scope` a deadline when that waits for the first time.

    Most hooks end without waiting, and a timer costs the event loop more than they do. All else is
    as if `work` were awaited itself (PEP 380).
    """
    resume = partial(work.send, None)
    while True:
        try:
            waits_for = resume()
        except StopIteration:
            return
        if scope.deadline == math.inf:
            scope.deadline = anyio.current_time() + seconds
        try:
            resume = partial(work.send, (yield waits_for))
        except BaseException as error:  # noqa: BLE001  # the work's to handle
            resume = partial(work.throw, error)


class FailureKeeper:
    """Keeps what `app` raises for `RequestHooks` to raise again, after its hooks.

    It stands around an application whose exceptions are answered further out.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception as error:  # noqa: BLE001  # raised again by `RequestHooks`
            scope[HOOKED].failure = scope[HOOKED].error = error


def _make_caller(hooks: type[Hooks] | Hooks, name: str, *, abandon: bool = False) -> Caller:
    """Make what runs the step `name` of an object of a hooks class; `abandon` as in `run_hook`."""
    own_class = get_class(hooks)
    if is_async(own_class, name):
        function = inspect.getattr_static(own_class, name)
        # A function is called in less time than a method, of which an object may have others.
        is_plain = inspect.isfunction(function) and isinstance(hooks, type)
        return function if is_plain else methodcaller(name)
    if is_overridden(own_class, name):
        return lambda opened: run_hook(getattr(opened, name), abandon=abandon)

    async def do_nothing(opened: Any) -> None:
        """Stand for a step that the hooks class does not have."""

    return do_nothing


async def _send_response(
    response: Any, step: RequestStep, hooked: HookedRequest, send: Send
) -> None:
    """Send the response of a hook; to a handshake as a refusal, where the server can send one."""
    if not callable(response):
        text = f"{PRE_CALL} of {step.owner} returned {response!r}: a response or None is accepted"
        raise TypeError(text)
    scope, receive = hooked.scope, hooked.receive
    if scope["type"] == "http":
        await response(scope, receive, send)
        return
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send_error(HTTPException(403, "Refused"), scope, receive, send)
        return
    scope = {**scope, "type": "http", "method": "GET"}
    await response(scope, receive, send_as_denial(send))
