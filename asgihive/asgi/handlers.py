"""A handler, or a guarded application, as an ASGI application: its dependencies and its call."""

import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import anyio
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from asgihive.asgi.arguments import (
    BodyReader,
    Call,
    Read,
    StructureBuilder,
    make_argument_reader,
    make_body_reader,
)
from asgihive.asgi.errors import ProblemsFound, refuse_request
from asgihive.asgi.parameters import (
    Argument,
    ArgumentSource,
    Flavour,
    HandlerError,
    Signature,
    analyse_function,
    find_name,
)
from asgihive.asgi.results import ResultSender
from asgihive.asgi.routes import Handler, Route, Segments, list_parameters
from asgihive.concurrency import WorkerContext, run_and_keep_variables

T = TypeVar("T")

MAX_CLEANUP_SECONDS = 60.0
"""For all cleaning up of one request, after which it is cancelled and the rest is tried."""

_FAILED = object()

_logger = logging.getLogger(__name__)


class Cleanups(AsyncExitStack):
    """The open context managers of one request, which are closed after its response.

    In reverse order, shielded from cancellation, each for `MAX_CLEANUP_SECONDS` at most. Each
    sees the exception that ended the request, or the one that an earlier cleanup raised in its
    place. One that swallows it changes nothing for the others.
    """

    async def open(self, manager: AbstractAsyncContextManager[T]) -> T:
        """Open a context manager on the event loop."""
        value = await manager.__aenter__()
        self._add(manager.__aexit__)
        return value

    async def open_in_worker(self, manager: AbstractContextManager[T]) -> T:
        """Open a context manager in a worker thread; it is closed in one as well."""
        context = WorkerContext()
        value = await context.run(manager.__enter__)
        self._add(partial(context.run, manager.__exit__))
        return value

    def _add(self, leave: Callable[..., Awaitable[object]]) -> None:
        async def leave_in_time(*raised: Any) -> None:
            with anyio.move_on_after(MAX_CLEANUP_SECONDS, shield=True) as limit:
                await leave(*raised)
            if limit.cancelled_caught:
                text = "A cleanup took more than %g seconds and was cancelled"
                _logger.error(text, MAX_CLEANUP_SECONDS)

        self.push_async_exit(leave_in_time)


@dataclass(frozen=True, slots=True)
class BoundFunction:
    """A function with what reads its arguments."""

    signature: Signature
    reads: tuple[Read, ...] = field(repr=False)
    """Of every argument but the body, in their order."""

    body: tuple[int, Argument, BodyReader] | None
    """Where the body is among the arguments."""

    keywords: tuple[str, ...]
    """Names of the last arguments, which are handed over by name."""

    builder: StructureBuilder | None = None
    """Of a structure whose fields are the arguments."""

    async def read_arguments(self, call: Call) -> tuple[list[Any], dict[str, Any]] | None:
        """Return the arguments by place and by name; None if one is wrong, which the call knows.

        Raises:
            HTTPException: the query or the body cannot be read at all.
        """
        before = len(call.problems)
        values = [read(call) for read in self.reads]
        if self.body is not None:
            place, argument, reader = self.body
            values.insert(place, await call.read_body(argument, reader))
        # Without problems no dependency has failed: the look at each value is for the rare case.
        if call.problems and (len(call.problems) > before or any(v is _FAILED for v in values)):
            return None
        if not self.keywords:
            return values, {}
        count = len(values) - len(self.keywords)
        return values[:count], dict(zip(self.keywords, values[count:], strict=True))


@dataclass(frozen=True, slots=True)
class CallPlan:
    """Everything that is called for a request, in order; made once, at registration."""

    steps: tuple[BoundFunction, ...]
    """The dependencies: guards first, each after what it needs."""

    handler: BoundFunction | None

    @property
    def arguments(self) -> Iterator[Argument]:
        """What a request can give, of the guards first and of the handler last."""
        for bound in self.steps if self.handler is None else (*self.steps, self.handler):
            yield from bound.signature.arguments

    async def call_dependencies(self, call: Call, cleanups: Cleanups) -> None:
        """Call the dependencies; one without its arguments is not called, and has failed."""
        for step in self.steps:
            arguments = await step.read_arguments(call)
            if arguments is None:
                call.results.append(_FAILED)
                continue
            function: Callable[[], Any]
            function = partial(step.signature.function, *arguments[0], **arguments[1])
            result: Any
            match step.signature.flavour:
                case Flavour.COROUTINE:
                    result = await function()
                case Flavour.CLASS:
                    result = function()
                case Flavour.STRUCTURE if step.builder is not None:
                    try:
                        result = step.builder.build(call, arguments[1])
                    except ProblemsFound as found:
                        call.problems.extend(found.problems)
                        result = _FAILED
                case Flavour.FUNCTION:
                    result = await call_in_worker(function)
                case Flavour.ASYNC_GENERATOR:
                    result = await cleanups.open(asynccontextmanager(function)())
                case Flavour.GENERATOR:
                    result = await cleanups.open_in_worker(contextmanager(function)())
            call.results.append(result)


async def call_in_worker(function: Callable[[], Any]) -> Any:
    """Return what a plain function returns, or the awaitable that it returns, as wrappers do."""
    result = await run_and_keep_variables(function)
    return await result if inspect.isawaitable(result) else result


def plan_calls(route: Route, segments: Segments, *, overridden: bool = False) -> CallPlan:
    """Plan the calls of the dependencies and of the handler of a route.

    Args:
        segments: of the whole path, whose parameters can be arguments.
        overridden: whether the overrides of now count; else it is as the signatures say.

    Raises:
        HandlerError: a parameter that no request can give, a second body, a dependency
            that needs itself, or a body that is an application's to read.
    """
    planner = _CallPlanner(route, segments, overridden=overridden)
    guards = [each.function for each in route.options.dependencies]
    for guard in guards:
        planner.add_dependency(guard)
    if route.is_handler:
        handler = planner.bind(route.target)
        return CallPlan(tuple(planner.steps), handler)
    if planner.body is not None:
        reason = "the body belongs to the application that is guarded"
        raise HandlerError(guards[-1], planner.body.name, reason)
    return CallPlan(tuple(planner.steps), None)


class _CallPlanner:
    """Binds the functions of one route to what reads their arguments."""

    def __init__(self, route: Route, segments: Segments, *, overridden: bool) -> None:
        self._convertors = {each.name: each.convertor for each in list_parameters(segments)}
        self._is_websocket = route.kind == "websocket"
        self._takes_body = not route.is_handler or not route.methods <= {"GET", "HEAD"}
        self._overrides = route.overrides if overridden else ()
        self._max_body_bytes = route.options.max_body_bytes
        self.steps: list[BoundFunction] = []
        self._places: dict[Handler | int, int] = {}
        self._pending: list[Handler] = []
        self.body: Argument | None = None
        """The argument that is the request's body."""

    def add_dependency(self, function: Handler) -> int:
        """Return the place of the result of a dependency, which is bound at its first use."""
        overrides = next((each for each in self._overrides if function in each), {})
        function = overrides.get(function, function)
        try:
            key: Handler | int = function
            hash(function)
        except TypeError:
            key = id(function)
        if key not in self._places:
            if function in self._pending:
                circle = " → ".join(find_name(each) for each in (*self._pending, function))
                raise HandlerError(function, None, f"it depends on itself: {circle}")
            self._pending.append(function)
            bound = self.bind(function)
            self._pending.pop()
            self._places[key] = len(self.steps)
            self.steps.append(bound)
        return self._places[key]

    def bind(self, function: Handler) -> BoundFunction:
        """Return a function with what reads its arguments."""
        signature = analyse_function(
            function,
            self._convertors,
            websocket=self._is_websocket,
            takes_body=self._takes_body,
        )
        reads: list[Read] = []
        body = None
        for place, argument in enumerate(signature.arguments):
            if argument.source is ArgumentSource.BODY:
                if self.body is not None:
                    reason = (
                        f"the parameter {self.body.name!r} is the body already; "
                        "make one structure that has both"
                    )
                    raise HandlerError(function, argument.name, reason)
                self.body = argument
                body = place, argument, make_body_reader(argument.annotation, self._max_body_bytes)
            elif argument.dependency is not None:
                needed = argument.dependency.function or argument.annotation
                reads.append(_make_result_reader(self.add_dependency(needed)))
            else:
                reads.append(make_argument_reader(argument))
        keywords = tuple(each.name for each in signature.arguments if each.keyword_only)
        is_structure = signature.flavour is Flavour.STRUCTURE
        builder = StructureBuilder(signature) if is_structure else None
        return BoundFunction(signature, tuple(reads), body, keywords, builder)


def _make_result_reader(place: int) -> Read:
    return lambda call: call.results[place]


def build_application(route: Route, *, overridden: bool = False) -> ASGIApp:
    """Return the ASGI application of a route. A bare application without guards is itself.

    Args:
        overridden: see `plan_calls`.

    Raises:
        HandlerError: as `plan_calls`, or a websocket's handler is not `async def`.
    """
    plan = plan_calls(route, route.segments, overridden=overridden)
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
        application = _make_short_application(route, handler)
    return functools.wraps(route.target)(application)


def _make_short_application(route: Route, handler: BoundFunction) -> ASGIApp:
    """Return the application of an `async def` handler that takes only the request."""
    target, options = route.target, route.options
    results = ResultSender(handler.signature, options.status, options.media_type)

    async def answer_request(scope: Scope, receive: Receive, send: Send) -> None:
        result = await target(Request(scope, receive, send))
        await results.send(result, scope, receive, send)

    return answer_request


def _make_application(route: Route, plan: CallPlan, *, overridden: bool) -> ASGIApp:
    answer = _make_answer(route, plan.handler)
    has_dependencies = bool(plan.steps)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if not has_dependencies:
            await answer(Call(scope, receive, send))
        elif not overridden and any(route.overrides):
            # Planned anew for each request, since the overrides may have changed.
            await build_application(route, overridden=True)(scope, receive, send)
        else:
            call = Call(scope, receive, send)
            async with Cleanups() as cleanups:
                await plan.call_dependencies(call, cleanups)
                await answer(call)

    return application


def _make_answer(route: Route, handler: BoundFunction | None) -> Callable[[Call], Awaitable[None]]:
    """Return the function that answers once the results of the dependencies are there."""
    target, options = route.target, route.options

    async def answer_by_application(call: Call) -> None:
        if call.problems:
            raise refuse_request(call.problems)
        await target(call.scope, call.receive, call.send)

    if handler is None:
        return answer_by_application
    flavour = handler.signature.flavour
    is_websocket = route.kind == "websocket"
    results = ResultSender(handler.signature, options.status, options.media_type)

    async def answer(call: Call) -> None:
        arguments = await handler.read_arguments(call)
        if arguments is None or call.problems:
            raise refuse_request(call.problems)
        values, named = arguments
        if flavour is Flavour.COROUTINE:
            result = await target(*values, **named)
        elif flavour is Flavour.FUNCTION:
            result = await call_in_worker(partial(target, *values, **named))
        else:  # a generator, which has not begun yet, or an instance
            result = target(*values, **named)
        if not is_websocket:
            await results.send(result, call.scope, call.receive, call.send)
            if call.background is not None:
                await call.background()

    return answer
