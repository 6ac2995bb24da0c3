"""What is called for a request, in which order, with which arguments: planned once a route."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import Any

from asgihive.asgi.arguments import (
    BodyReader,
    Call,
    Read,
    StructureBuilder,
    make_argument_reader,
    make_body_reader,
)
from asgihive.asgi.cleanups import Cleanups
from asgihive.asgi.errors import ProblemsFound
from asgihive.asgi.forms import FormReader
from asgihive.asgi.markers import DependencyScope
from asgihive.asgi.parameters import analyse_function
from asgihive.asgi.results import ResultSender
from asgihive.asgi.routes import (
    Handler,
    PathParameter,
    Route,
    Segments,
    list_parameters,
)
from asgihive.asgi.signatures import (
    Argument,
    ArgumentSource,
    Flavour,
    HandlerError,
    Signature,
    find_name,
)
from asgihive.concurrency import run_and_keep_variables

_FAILED = object()

READ_ARGUMENT = "read_argument"
"""The method of a dependency that reads its value of a `Call` and needs not be called itself."""

# What a plan is made of; a router that includes a route changes none but the dependencies.
_LASTING_OPTIONS = attrgetter(
    "dependencies",
    "status",
    "media_type",
    "max_body_bytes",
    "max_form_bytes",
    "max_form_files",
    "max_form_fields",
)
_GENERATORS = {Flavour.ASYNC_GENERATOR, Flavour.GENERATOR}


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

    form: FormReader | None = None
    """Reads the form, if an argument is a field of it."""

    needs: tuple[tuple[Argument, int], ...] = ()
    """The arguments that are results of dependencies, with their places."""

    scope: DependencyScope = "request"
    """When what follows a generator's `yield` runs."""

    builder: StructureBuilder | None = None
    """Of a structure whose fields are the arguments."""

    async def read_arguments(self, call: Call) -> tuple[list[Any], dict[str, Any]] | None:
        """Return the arguments by place and by name; None if one is wrong, which the call knows.

        Raises:
            HTTPException: the query or the body cannot be read at all.
        """
        before = len(call.problems)
        if self.form is not None:
            await call.read_form(self.form)
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
    results: ResultSender | None
    """Sends what the handler returns; None of websockets and applications."""

    facts: tuple[Any, ...]
    """What else it was made of than the route's function."""

    @property
    def arguments(self) -> Iterator[Argument]:
        """What a request can give, of the guards first and of the handler last."""
        for bound in self.steps if self.handler is None else (*self.steps, self.handler):
            yield from bound.signature.arguments

    @property
    def reads_form(self) -> bool:
        """Whether files may have to be closed."""
        return any(each.source is ArgumentSource.FORM for each in self.arguments)

    @property
    def closes_before_answer(self) -> bool:
        """Whether a dependency has the scope "function"."""
        return any(each.scope == "function" for each in self.steps)

    async def call_dependencies(self, call: Call, scopes: dict[str, Cleanups]) -> None:
        """Call the dependencies; one without its arguments is not called, and has failed."""
        for step in self.steps:
            cleanups = scopes[step.scope]
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


def plan_route(
    route: Route, segments: Segments | None = None, *, overridden: bool = False
) -> CallPlan:
    """Plan the calls of the dependencies and of the handler of a route.

    A route that is included in another router keeps its plan, unless it got guards or path
    parameters there.

    Args:
        segments: of the whole path, whose parameters can be arguments; by default the route's.
        overridden: whether the overrides of now count; else it is as the signatures say.

    Raises:
        HandlerError: a parameter that no request can give, a second body, a dependency
            that needs itself, or a body that is an application's to read.
    """
    parameters = route.parameters if segments is None else list_parameters(segments)
    facts = (parameters, *_LASTING_OPTIONS(route.options))
    if isinstance(route.plan, CallPlan) and route.plan.facts == facts and not overridden:
        return route.plan
    planner = _CallPlanner(route, parameters, overridden=overridden)
    for guard in route.options.dependencies:
        planner.add_dependency(guard.function, guard.scope)
    if route.is_handler:
        handler, options, results = planner.bind(route.target), route.options, None
        if route.kind != "websocket":
            results = ResultSender(handler.signature, options.status, options.media_type)
        return CallPlan(tuple(planner.steps), handler, results, facts)
    plan = CallPlan(tuple(planner.steps), None, None, facts)
    if planner.body is not None:
        reason = "the body belongs to the application that is guarded"
        raise HandlerError(plan.steps[-1].signature.function, planner.body.name, reason)
    if plan.closes_before_answer:
        early = next(each for each in plan.steps if each.scope == "function")
        reason = 'an application answers by itself: leave out scope="function"'
        raise HandlerError(early.signature.function, None, reason)
    return plan


class _CallPlanner:
    """Binds the functions of one route to what reads their arguments."""

    def __init__(
        self, route: Route, parameters: Sequence[PathParameter], *, overridden: bool
    ) -> None:
        self._convertors = {each.name: each.convertor for each in parameters}
        self._is_websocket = route.kind == "websocket"
        self._takes_body = not route.is_handler or not route.methods <= {"GET", "HEAD"}
        self._overrides = route.overrides if overridden else ()
        options = route.options
        self._status = options.status
        self._max_body_bytes = options.max_body_bytes
        self._form_reader = FormReader(
            options.max_form_bytes,
            options.max_form_files,
            options.max_form_fields,
            options.max_body_bytes,
        )
        self.steps: list[BoundFunction] = []
        self._places: dict[Handler | int, int] = {}
        self._pending: list[Handler] = []
        self._closed_early: dict[int, Handler] = {}
        """By the place of a result: the dependency of the scope "function" that it may hold."""
        self.body: Argument | None = None
        """The argument that is the request's body."""

    def add_dependency(self, function: Handler, scope: DependencyScope) -> int:
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
            bound = self.bind(function, scope)
            self._pending.pop()
            place = self._places[key] = len(self.steps)
            self.steps.append(bound)
            held = self._find_closed_early(bound)
            if bound.scope == "function":
                self._closed_early[place] = function
            elif held is not None:
                self._closed_early[place] = held[1]
        place = self._places[key]
        self._check_scope(self.steps[place], scope)
        return place

    def _find_closed_early(self, bound: BoundFunction) -> tuple[Argument, Handler] | None:
        """Return the first argument that may hold a value of the scope "function", and whose."""
        for argument, place in bound.needs:
            if place in self._closed_early:
                return argument, self._closed_early[place]
        return None

    def _check_scope(self, bound: BoundFunction, scope: DependencyScope) -> None:
        """Refuse a generator in two scopes, and one that outlives what it needs."""
        function, is_generator = bound.signature.function, bound.signature.flavour in _GENERATORS
        if is_generator and bound.scope != scope:
            reason = 'it has the scopes "request" and "function" here: name one of them everywhere'
            raise HandlerError(function, None, reason)
        held = self._find_closed_early(bound)
        if is_generator and scope == "request" and held is not None:
            argument, early = held
            reason = (
                f'{find_name(early)} has the scope "function" and is closed before what follows '
                f'the `yield` here: give {find_name(function)} scope="function" as well'
            )
            raise HandlerError(function, argument.name, reason)

    def bind(self, function: Handler, scope: DependencyScope = "request") -> BoundFunction:
        """Return a function with what reads its arguments."""
        signature = analyse_function(
            function,
            self._convertors,
            websocket=self._is_websocket,
            takes_body=self._takes_body,
        )
        reads: list[Read] = []
        needs: list[tuple[Argument, int]] = []
        body = form = None
        for place, argument in enumerate(signature.arguments):
            if argument.dependency is not None:
                needed = argument.dependency.function or argument.annotation
                if (read := self._find_reader(needed)) is not None:
                    reads.append(read)
                    continue
                result_place = self.add_dependency(needed, argument.dependency.scope)
                needs.append((argument, result_place))
                reads.append(_make_result_reader(result_place))
                continue
            self._take_body(function, argument)
            form = self._form_reader if argument.source is ArgumentSource.FORM else form
            with _name_argument(function, argument):
                if argument.source is ArgumentSource.BODY:
                    reader = make_body_reader(argument.annotation, self._max_body_bytes)
                    body = place, argument, reader
                else:
                    reads.append(make_argument_reader(argument, self._status))
        keywords = tuple(each.name for each in signature.arguments if each.keyword_only)
        is_structure = signature.flavour is Flavour.STRUCTURE
        builder = StructureBuilder(signature) if is_structure else None
        scope = scope if signature.flavour in _GENERATORS else "request"
        return BoundFunction(
            signature, tuple(reads), body, keywords, form, tuple(needs), scope, builder
        )

    def _find_reader(self, needed: Handler) -> Read | None:
        """Return what reads the value of a dependency without a call, unless it is overridden."""
        read: Read | None = getattr(needed, READ_ARGUMENT, None)
        return None if read is None or any(needed in each for each in self._overrides) else read

    def _take_body(self, function: Handler, argument: Argument) -> None:
        """Note which argument is the body, or a field of the form that is the body."""
        if argument.source not in {ArgumentSource.BODY, ArgumentSource.FORM}:
            return
        are_fields = argument.source is ArgumentSource.FORM
        if self.body is not None and (not are_fields or self.body.source is not argument.source):
            way_out = "and no form" if are_fields else "make one structure that has both"
            reason = f"the parameter {self.body.name!r} is the body already; {way_out}"
            raise HandlerError(function, argument.name, reason)
        self.body = argument


@contextmanager
def _name_argument(function: Handler, argument: Argument) -> Iterator[None]:
    """Name the argument whose type raises something when its schema is asked for."""
    try:
        yield
    except Exception as error:
        reason = f"no values can be made of {argument.annotation!r}: {error}"
        raise HandlerError(function, argument.name, reason) from error


def _make_result_reader(place: int) -> Read:
    return lambda call: call.results[place]
