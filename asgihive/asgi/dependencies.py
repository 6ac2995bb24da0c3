"""Dependencies: which functions a handler needs, in which order, and how they are called."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from asgihive.asgi.binding import Call, Read, reader_of
from asgihive.asgi.bodies import BodyReader, make_body_reader
from asgihive.asgi.cleanup import Cleanups
from asgihive.asgi.markers import Dependency
from asgihive.asgi.routes import Handler, Overrides
from asgihive.asgi.signature import (
    Argument,
    Flavour,
    HandlerError,
    Signature,
    Source,
    analyse,
    find_name,
)
from asgihive.concurrency import run_in_worker

_FAILED = object()


@dataclass(frozen=True, slots=True)
class Bound:
    """A function with what reads its arguments."""

    signature: Signature
    reads: tuple[Read, ...] = field(repr=False)
    """Of every argument but the body, in their order."""

    body: tuple[int, Argument, BodyReader] | None
    """Where the body is among the arguments."""

    keywords: tuple[str, ...]
    """Names of the last arguments, which are handed over by name."""

    async def values(self, call: Call) -> list[Any] | None:
        """The arguments; None where something is wrong, which the call notes."""
        before = len(call.problems)
        values = [read(call) for read in self.reads]
        if self.body is not None:
            place, argument, reader = self.body
            values.insert(place, await call.body(argument, reader))
        # Without problems nothing has failed: the look at each value is for the rare case.
        if call.problems and (len(call.problems) > before or any(v is _FAILED for v in values)):
            return None
        return values

    def prepared(self, values: list[Any]) -> Callable[[], Any]:
        """The function with its arguments."""
        function = self.signature.function
        if not self.keywords:
            return partial(function, *values)
        count = len(values) - len(self.keywords)
        named = dict(zip(self.keywords, values[count:], strict=True))
        return partial(function, *values[:count], **named)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is called for a request, in order; made once, at registration."""

    steps: tuple[Bound, ...]
    """The dependencies: guards first, each after what it needs."""

    handler: Bound | None

    @property
    def arguments(self) -> Iterator[Argument]:
        """What a request can give, of the guards first and of the handler last."""
        bounds = self.steps if self.handler is None else (*self.steps, self.handler)
        for bound in bounds:
            yield from bound.signature.arguments

    @property
    def has_generators(self) -> bool:
        """Whether something is cleaned up after the response."""
        return any(
            each.signature.flavour in {Flavour.ASYNC_GENERATOR, Flavour.GENERATOR}
            for each in self.steps
        )

    async def enter(self, call: Call, cleanups: Cleanups) -> None:
        """Call the dependencies; what misses an argument, or a dependency that does, is not."""
        for step in self.steps:
            values = await step.values(call)
            result = _FAILED if values is None else await _called(step, values, cleanups)
            call.results.append(result)


async def _called(step: Bound, values: list[Any], cleanups: Cleanups) -> Any:
    function = step.prepared(values)
    match step.signature.flavour:
        case Flavour.COROUTINE:
            return await function()
        case Flavour.CLASS:
            return function()
        case Flavour.FUNCTION:
            return await call_in_worker(function)
        case Flavour.ASYNC_GENERATOR:
            return await cleanups.enter(asynccontextmanager(function)())
        case Flavour.GENERATOR:
            return await cleanups.enter_in_worker(contextmanager(function)())


async def call_in_worker(function: Callable[[], Any]) -> Any:
    """What a plain function returns, or the awaitable that it returns, as wrappers do."""
    # In a tuple, since trio takes a coroutine from a thread for a mistake.
    (result,) = await run_in_worker(lambda: (function(),))
    return await result if inspect.isawaitable(result) else result


class Planner:
    """Makes the plan of one route.

    Args:
        convertors: of the path parameters, by name.
        websocket: whether the route is for websockets.
        overrides: the first one that has a function decides.
        max_body_bytes: a longer body is answered by 413.
    """

    def __init__(
        self,
        convertors: Mapping[str, str],
        *,
        websocket: bool,
        overrides: tuple[Overrides, ...] = (),
        max_body_bytes: int,
    ) -> None:
        self._convertors = convertors
        self._websocket = websocket
        self._overrides = overrides
        self._max_body_bytes = max_body_bytes
        self._steps: list[Bound] = []
        self._slots: dict[Handler | int, int] = {}
        self._pending: list[Handler] = []
        self._body: Argument | None = None

    def plan(self, guards: tuple[Dependency, ...], handler: Handler | None) -> Plan:
        """The plan of a handler, or, without one, of the guards of an ASGI application.

        Raises:
            HandlerError: a parameter that no request can give, a second body, a dependency
                that needs itself, or a body that is an application's to read.
        """
        for guard in guards:
            self._slot(guard.function)
        if handler is None and self._body is not None:
            reason = "the body belongs to the application that is guarded"
            raise HandlerError(guards[-1].function, self._body.name, reason)
        bound = None if handler is None else self._bound(handler)
        return Plan(tuple(self._steps), bound)

    def _slot(self, function: Handler) -> int:
        """Where the result of a dependency will be."""
        function = self._overridden(function)
        key = _identity(function)
        if key not in self._slots:
            if function in self._pending:
                circle = " → ".join(find_name(each) for each in (*self._pending, function))
                raise HandlerError(function, None, f"it depends on itself: {circle}")
            self._pending.append(function)
            bound = self._bound(function)
            self._pending.pop()
            self._slots[key] = len(self._steps)
            self._steps.append(bound)
        return self._slots[key]

    def _overridden(self, function: Handler) -> Handler:
        for each in self._overrides:
            if function in each:
                return each[function]
        return function

    def _bound(self, function: Handler) -> Bound:
        signature = analyse(function, self._convertors, websocket=self._websocket)
        reads: list[Read] = []
        body = None
        for place, argument in enumerate(signature.arguments):
            if argument.source is Source.BODY:
                self._claim_body(function, argument)
                body = place, argument, make_body_reader(argument.annotation, self._max_body_bytes)
            elif argument.dependency is not None:
                reads.append(_result_reader(self._slot(argument.dependency.function)))
            else:
                reads.append(reader_of(argument))
        keywords = tuple(each.name for each in signature.arguments if each.keyword_only)
        return Bound(signature, tuple(reads), body, keywords)

    def _claim_body(self, function: Handler, argument: Argument) -> None:
        if self._body is not None:
            reason = (
                f"the parameter {self._body.name!r} is the body already; "
                "make one structure that has both"
            )
            raise HandlerError(function, argument.name, reason)
        self._body = argument


def _result_reader(slot: int) -> Read:
    return lambda call: call.results[slot]


def _identity(function: Handler) -> Handler | int:
    try:
        hash(function)
    except TypeError:
        return id(function)
    return function
