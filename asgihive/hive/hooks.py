"""The hook classes, and how a hook is run."""

import dis
import inspect
from collections.abc import Awaitable, Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, TypeVar

from starlette.requests import HTTPConnection

from asgihive.asgi import Route
from asgihive.asgi.layers import AnsweringRoute
from asgihive.concurrency import run_and_keep_variables
from asgihive.errors import HookDenied
from asgihive.hive.contexts import HiveInterface, LifeContext, ResponseHead
from asgihive.hive.states import ComponentState, Metadata

T = TypeVar("T")

_CONTEXT = "__hive_context__"


class _NoContext:
    """In place of a hooks object's context until the hive has attached it."""

    def __getattr__(self, name: str) -> NoReturn:
        raise HookDenied(f"`{name}` is not there yet: the hive gives it after `__init__`")


class _Visible(property, Generic[T]):
    """An attribute of hooks objects: that of their context, which may deny it."""

    def __init__(self, name: str) -> None:
        def refuse(_hooks: object, _value: object) -> NoReturn:
            text = f"`{name}` is the hive's and cannot be set: keep yours under another name"
            raise HookDenied(text)

        # Not by a function of Python, since every hook of every request reads some of them.
        read = attrgetter(f"{_CONTEXT}.{name}")
        super().__init__(read, refuse, doc=f"`{name}` of the context, if this hook may see it.")

    if TYPE_CHECKING:

        def __get__(self, hooks: object, owner: type | None = None) -> T: ...  # type: ignore[override]
        def __set__(self, hooks: object, value: object) -> None: ...


class Hooks:
    """What all hooks classes share: the attributes, as far as a hook may see them."""

    __hive_context__: Any = _NoContext()
    app = _Visible[HiveInterface]("app")
    app_state = _Visible[ComponentState]("app_state")
    request = _Visible[HTTPConnection]("request")
    request_state = _Visible[ComponentState]("request_state")
    error = _Visible[BaseException | None]("error")
    status = _Visible[int | None]("status")
    route = _Visible[Route | AnsweringRoute | None]("route")
    response = _Visible[ResponseHead]("response")
    provide = _Visible[Callable[[Any, Any], None]]("provide")
    ask = _Visible[Callable[[Any], Any]]("ask")
    cornerstone = _Visible[Metadata]("cornerstone")
    endpoint = _Visible[Metadata]("endpoint")


class CornerstoneHooks(Hooks):
    """The hooks of a cornerstone: subclass it as `CornerstoneHooksImpl` in its package.

    Each method is `def`, and runs in a worker thread, or `async def`, and runs on the event
    loop; what it does to context variables is seen by what follows either way. One object
    lives as long as the application and gets the four first calls; another one for each
    request gets the three last. `post_endpoint_call` runs whenever its `pre_endpoint_call`
    ran to the end, shielded from cancellation; `pre_endpoint_call` may answer by raising
    `HTTPException` or by returning a response. The teardown hooks run whenever
    `pre_endpoint_setup` ran to the end.

    Attributes: `app`, `cornerstone`, `app_state`; in the last three also `request` and
    `request_state`, `response` in `before_answer`, and `error`, `status` and `route` in the very
    last. Any other raises `HookDenied`.
    """

    websockets: ClassVar[bool | None] = None
    """Whether the calls around a request are for websockets, too, whose `request` is the
    handshake. None = as the module says, which is no unless it has `websockets = True`."""
    provides: ClassVar[tuple[Any, ...]] = ()
    """Types of which `pre_endpoint_call` provides a value for each request, besides those that the
    module says."""

    def pre_endpoint_setup(self) -> Awaitable[None] | None:
        """Run before the endpoints are set up, in the order of the cornerstones."""

    def post_endpoint_setup(self) -> Awaitable[None] | None:
        """Run after the endpoints are set up and mounted."""

    def pre_endpoint_teardown(self) -> Awaitable[None] | None:
        """Run before the endpoints are torn down, in reverse order."""

    def post_endpoint_teardown(self) -> Awaitable[None] | None:
        """Run after the endpoints are torn down, in reverse order."""

    def pre_endpoint_call(self) -> Any:
        """Run before the endpoint answers."""

    def before_answer(self) -> Any:
        """Run when the endpoint's response is known and before its first byte leaves.

        It can change `response`; what it raises is the answer instead. It does not run where an
        exception is answered, nor for websockets.
        """

    def post_endpoint_call(self) -> Any:
        """Run after the last byte of the response, or after what ended it early."""


class CornerstoneAsyncHooks(CornerstoneHooks):
    """The same, under the name `CornerstoneAsyncHooksImpl`, for a package that has both.

    The one called `CornerstoneHooksImpl` runs first on the way in, and last on the way out.
    """


class EndpointHooks(Hooks):
    """The hooks of an endpoint: subclass it as `EndpointHooksImpl` in its package, or in its
    `db`, `router` or `service`.

    `def` runs in a worker thread, `async def` on the event loop. One object gets both calls;
    `teardown` runs whenever `setup` ran to the end.

    Attributes: `app`, `endpoint`, `app_state`. Any other raises `HookDenied`.
    """

    def setup(self) -> Awaitable[None] | None:
        """Run at start-up: db, router, service, package; before the routers are mounted."""

    def teardown(self) -> Awaitable[None] | None:
        """Run at shutdown, in reverse order."""


class EndpointAsyncHooks(EndpointHooks):
    """The same, under the name `EndpointAsyncHooksImpl`, for a package that has both."""


def attach_context(hooks: Hooks, context: LifeContext) -> None:
    """Let a hooks object see what the context has."""
    object.__setattr__(hooks, _CONTEXT, context)  # whatever the class makes of assignments


def is_overridden(hooks: type[Hooks], name: str) -> bool:
    """Return whether a hooks class has a method of its own for the step `name`."""
    found = getattr(hooks, name, None)
    return found is not None and all(
        found is not getattr(base, name, None) for base in (CornerstoneHooks, EndpointHooks)
    )


def is_async(hooks: type[Hooks], name: str) -> bool:
    """Return whether the step `name` of a hooks class is an `async def` of its own."""
    return is_overridden(hooks, name) and inspect.iscoroutinefunction(getattr(hooks, name))


def has_no_await(hooks: type[Hooks], name: str) -> bool:
    """Return whether the step `name` is an `async def` that awaits nothing.

    It has no `await`, `async for` or `async with`. Such a coroutine ends at its first step, so
    that no cancellation ever reaches it.
    """
    code = getattr(getattr(hooks, name), "__code__", None)
    if code is None or not code.co_flags & inspect.CO_COROUTINE:
        return False
    return not any(each.opname.startswith("YIELD") for each in dis.get_instructions(code))


async def run_hook(hook: Callable[[], Any], *, abandon: bool = False) -> Any:
    """Run a hook where it belongs: `async def` on the loop, anything else in a worker thread.

    What a function sets in context variables in the worker is set here as well.

    Args:
        abandon: whether cancellation leaves a worker behind instead of waiting for it.
    """
    if inspect.iscoroutinefunction(hook):
        return await hook()
    result = await run_and_keep_variables(hook, abandon=abandon)
    return await result if inspect.isawaitable(result) else result
