"""A handler, or a guarded application, as an ASGI application."""

import functools
from collections.abc import Awaitable, Callable
from functools import partial

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from asgihive.asgi.arguments import Call
from asgihive.asgi.call_plans import READ_ARGUMENT, CallPlan, call_in_worker, plan_route
from asgihive.asgi.cleanups import Cleanups
from asgihive.asgi.errors import refuse_request
from asgihive.asgi.forms import close_form
from asgihive.asgi.responses import StreamedResponse, add_headers
from asgihive.asgi.routes import Overrides, Route
from asgihive.asgi.signatures import Flavour, HandlerError


def build_application(route: Route, plan: CallPlan, *, overridden: bool = False) -> ASGIApp:
    """Return the ASGI application of a route. A bare application without guards is itself.

    Args:
        overridden: see `plan_route`.

    Raises:
        HandlerError: a websocket's handler is not `async def`.
    """
    handler = plan.handler
    if handler is None:
        is_guarded = bool(plan.steps)
        return _make_application(route, plan, overridden=overridden) if is_guarded else route.target
    if route.kind == "websocket" and handler.signature.flavour is not Flavour.COROUTINE:
        raise HandlerError(route.target, None, "a websocket's handler is `async def`")
    application = _make_application(route, plan, overridden=overridden)
    takes_request = [each.annotation for each in handler.signature.arguments] == [Request]
    is_plain = not plan.steps and not handler.keywords
    if takes_request and is_plain and handler.signature.flavour is Flavour.COROUTINE:
        application = _make_short_application(route, plan)
    return functools.wraps(route.target)(application)


def _make_short_application(route: Route, plan: CallPlan) -> ASGIApp:
    """Return the application of an `async def` handler that takes only the request."""
    target, results = route.target, plan.results
    if results is None:  # of a websocket, which gives no request
        return target

    async def answer_request(scope: Scope, receive: Receive, send: Send) -> None:
        response = await target(Request(scope, receive, send))
        if not callable(response):
            response = await results.make_response(response, scope)
        await response(scope, receive, send)

    return answer_request


def _make_application(route: Route, plan: CallPlan, *, overridden: bool) -> ASGIApp:
    answer = _HandlerCall(route, plan)
    overrides: list[Overrides] = []
    overriding: ASGIApp | None = None
    way = _answer_after_closing if plan.closes_before_answer else _answer_before_closing
    answer_planned: Callable[[Call], Awaitable[None]] = partial(way, plan, answer)
    if plan.reads_form:
        answer_planned = partial(_answer_with_form, answer_planned)
    has_steps = bool(plan.steps) or plan.reads_form
    has_readers = any(
        each.dependency is not None and hasattr(each.dependency.function, READ_ARGUMENT)
        for each in plan.arguments
    )

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal overrides, overriding
        if not has_steps and not (has_readers and not overridden and any(route.overrides)):
            call = Call(scope, receive, send)
            await answer.send(call, await answer.prepare(call))
        elif not overridden and any(route.overrides):
            # The overrides may have changed since the last request.
            if overriding is None or overrides != [*route.overrides]:
                overrides = [dict(each) for each in route.overrides]
                other = plan_route(route, overridden=True)
                overriding = build_application(route, other, overridden=True)
            await overriding(scope, receive, send)
        else:
            await answer_planned(Call(scope, receive, send))

    return application


async def _answer_with_form(answer: Callable[[Call], Awaitable[None]], call: Call) -> None:
    """Answer, and close the files of the form."""
    try:
        await answer(call)
    finally:
        if call.form is not None:
            await close_form(call.form)


async def _answer_before_closing(plan: CallPlan, answer: "_HandlerCall", call: Call) -> None:
    async with Cleanups() as cleanups:
        await plan.call_dependencies(call, {"request": cleanups})
        await answer.send(call, await answer.prepare(call))


async def _answer_after_closing(plan: CallPlan, answer: "_HandlerCall", call: Call) -> None:
    """Answer when the dependencies of the scope "function" are closed, or by what they raise."""
    async with Cleanups() as cleanups:
        response: ASGIApp | None = None
        try:
            async with Cleanups(must_finish=True) as early:
                await plan.call_dependencies(call, {"request": cleanups, "function": early})
                response = await answer.prepare(call)
        except BaseException:
            if isinstance(response, StreamedResponse):
                async with response.body_chunks:
                    """Close the iterator, whose items nobody gets."""
            raise
        await answer.send(call, response)


class _HandlerCall:
    """Calls a handler once the results of the dependencies are there, and answers."""

    def __init__(self, route: Route, plan: CallPlan) -> None:
        self._target = route.target
        self._handler = plan.handler
        self._results = plan.results
        self._status = route.options.status

    async def prepare(self, call: Call) -> ASGIApp | None:
        """Return the response; None of a websocket.

        Raises:
            HTTPException: 422, the request does not fit.
        """
        target, handler = self._target, self._handler
        if handler is None:
            if call.problems:
                raise refuse_request(call.problems)
            return target
        arguments = await handler.read_arguments(call)
        if arguments is None or call.problems:
            raise refuse_request(call.problems)
        values, named = arguments
        flavour = handler.signature.flavour
        if flavour is Flavour.COROUTINE:
            result = await target(*values, **named)
        elif flavour is Flavour.FUNCTION:
            result = await call_in_worker(partial(target, *values, **named))
        else:  # a generator, which has not begun yet, or an instance
            result = target(*values, **named)
        if self._results is None:
            return None
        status = None if call.response is None else call.response.status_code
        status = None if status == self._status else status
        return await self._results.make_response(result, call.scope, status)

    async def send(self, call: Call, response: ASGIApp | None) -> None:
        """Send the response, and run the background tasks."""
        if response is not None:
            send = call.send
            if call.response is not None and response is not call.response:
                send = add_headers(send, call.response.raw_headers)
            await response(call.scope, call.receive, send)
            if call.background is not None:
                await call.background()
