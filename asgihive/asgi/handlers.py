"""A handler, or a guarded application, as an ASGI application."""

import functools
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from asgihive.asgi.binding import Call
from asgihive.asgi.cleanup import Cleanups
from asgihive.asgi.dependencies import Bound, Plan, Planner, call_in_worker
from asgihive.asgi.errors import refuse_request
from asgihive.asgi.paths import Segments, parameters_of
from asgihive.asgi.results import Results
from asgihive.asgi.routes import Endpoint, Kind
from asgihive.asgi.signature import Flavour, HandlerError

# Ends a call whose dependencies stand: binds and calls the handler, and answers.
Finish = Callable[[Call], Awaitable[None]]


def plan_of(
    kind: Kind, segments: Segments, endpoint: Endpoint, *, overridden: bool = False
) -> Plan:
    """Everything that is called for a request to an endpoint.

    Args:
        overridden: with what overrides say now; else as the signatures have it.

    Raises:
        HandlerError: a signature says what no request can give.
    """
    planner = Planner(
        {each.name: each.convertor for each in parameters_of(segments)},
        websocket=kind == "websocket",
        overrides=endpoint.overrides if overridden else (),
        max_body_bytes=endpoint.options.max_body_bytes,
    )
    handler = endpoint.target if endpoint.is_handler else None
    return planner.plan(endpoint.options.dependencies, handler)


def build_application(
    kind: Kind, segments: Segments, endpoint: Endpoint, *, overridden: bool = False
) -> ASGIApp:
    """The ASGI application of an endpoint. A bare application without guards is itself.

    Raises:
        HandlerError: as `plan_of`.
    """
    plan = plan_of(kind, segments, endpoint, overridden=overridden)
    finish = _finish(kind, endpoint, plan)
    if finish is None:
        return endpoint.target
    if not plan.steps:
        application = _short_application(endpoint, plan) or _without_dependencies(finish)
    else:
        application = _with_dependencies(plan, finish)
        if not overridden:
            application = _overridable(kind, segments, endpoint, application)
    return functools.wraps(endpoint.target)(application) if plan.handler else application


def _finish(kind: Kind, endpoint: Endpoint, plan: Plan) -> Finish | None:
    """What is done when the dependencies stand; None where nothing is done before `target`."""
    if plan.handler is None:
        return _finish_application(endpoint.target) if plan.steps else None
    if kind == "websocket":
        if plan.handler.signature.flavour is not Flavour.COROUTINE:
            raise HandlerError(endpoint.target, None, "a websocket's handler is `async def`")
        return _finish_websocket(plan.handler)
    return _finish_http(plan.handler, Results(endpoint.options, plan.handler.signature))


def _short_application(endpoint: Endpoint, plan: Plan) -> ASGIApp | None:
    """The way of an `async def` handler that takes the request, or websocket, and nothing else."""
    bound, handler = plan.handler, endpoint.target
    if bound is None or bound.signature.flavour is not Flavour.COROUTINE or bound.keywords:
        return None
    match [each.annotation for each in bound.signature.arguments]:
        case [annotation] if annotation is WebSocket:

            async def for_websockets(scope: Scope, receive: Receive, send: Send) -> None:
                await handler(WebSocket(scope, receive, send))

            return for_websockets
        case [annotation] if annotation is Request:
            results = Results(endpoint.options, bound.signature)

            async def for_requests(scope: Scope, receive: Receive, send: Send) -> None:
                result = await handler(Request(scope, receive, send))
                await results.send(result, scope, receive, send)

            return for_requests
        case _:
            return None


def _without_dependencies(finish: Finish) -> ASGIApp:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await finish(Call(scope, receive, send))

    return application


def _with_dependencies(plan: Plan, finish: Finish) -> ASGIApp:
    has_generators = plan.has_generators

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope, receive, send)
        cleanups = Cleanups()
        if not has_generators:
            await plan.enter(call, cleanups)
            await finish(call)
            return
        try:
            await plan.enter(call, cleanups)
            await finish(call)
        except BaseException as error:
            await cleanups.close(error)
            raise
        await cleanups.close(None)

    return application


def _overridable(
    kind: Kind, segments: Segments, endpoint: Endpoint, application: ASGIApp
) -> ASGIApp:
    """An application that is planned anew for each request while there are overrides."""

    async def overridable(scope: Scope, receive: Receive, send: Send) -> None:
        app = application
        if any(endpoint.overrides):
            app = build_application(kind, segments, endpoint, overridden=True)
        await app(scope, receive, send)

    return overridable


def _finish_application(app: ASGIApp) -> Finish:
    async def finish(call: Call) -> None:
        if call.problems:
            raise refuse_request(call.problems)
        await app(call.scope, call.receive, call.send)

    return finish


def _finish_websocket(bound: Bound) -> Finish:
    async def finish(call: Call) -> None:
        values = await bound.values(call)
        if values is None or call.problems:
            raise refuse_request(call.problems)
        await bound.prepared(values)()

    return finish


def _finish_http(bound: Bound, results: Results) -> Finish:
    flavour = bound.signature.flavour

    async def finish(call: Call) -> None:
        values = await bound.values(call)
        if values is None or call.problems:
            raise refuse_request(call.problems)
        function = bound.prepared(values)
        if flavour is Flavour.COROUTINE:
            result = await function()
        elif flavour is Flavour.FUNCTION:
            result = await call_in_worker(function)
        else:  # a generator, which has not begun yet, or an instance
            result = function()
        await results.send(result, call.scope, call.receive, call.send)
        if call.background is not None:
            await call.background()

    return finish
