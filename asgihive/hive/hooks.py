"""The hook classes, what each hook may see, and what components keep."""

import dis
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NoReturn, Protocol, TypeVar

from starlette.datastructures import State
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgihive.asgi import Route, Router
from asgihive.asgi.layers import AnsweringRoute, find_route
from asgihive.asgi.responses import PHASES
from asgihive.concurrency import run_and_keep_variables
from asgihive.errors import HookDenied, join_names
from asgihive.hive.provided import ProvidedValues, format_type

T = TypeVar("T")
ComponentKind = Literal["cornerstone", "endpoint"]

_CONTEXT = "__hive_context__"
HOOKED = "asgihive.hooked"
"""Where a scope has its `HookedRequest`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What a component is: `self.cornerstone` or `self.endpoint` of its hooks.

    It also stands in the component's states, under `__cornerstone__` or `__endpoint__`.
    """

    kind: ComponentKind
    container: str
    """The first part of its key, and of an endpoint's URL."""
    name: str
    """The second part."""
    module: str = ""
    """Its dotted name, of a component in a package."""
    file: str = "built in code"
    requires: tuple[str, ...] = ()
    """Names of its own kind, or `container.name`, that start before."""

    @property
    def key(self) -> str:
        """`container.name`, by which states, `requires` and overrides know it."""
        return f"{self.container}.{self.name}"

    @property
    def container_name(self) -> str:
        """The container, as fastapi-hive calls it."""
        return self.container

    @property
    def package_path(self) -> str:
        """The module's dotted name, as fastapi-hive calls it."""
        return self.module


class StateKeyError(KeyError):
    """A key that is not there; the message says which are."""

    def __init__(self, key: object, where: str, known: Mapping[str, object]) -> None:
        super().__init__(key)
        self.key = key
        self.where = where
        self.known = tuple(known)

    def __str__(self) -> str:
        return f"{self.where} has no {self.key!r}; there is: {join_names(self.known)}"


class ComponentState(dict[str, Any]):
    """The values of one component; a wrong key names the keys there are."""

    __slots__ = ("owner",)

    def __init__(self, metadata: Metadata) -> None:
        super().__init__({f"__{metadata.kind}__": metadata})
        self.owner = metadata.key

    def __missing__(self, key: str) -> NoReturn:
        raise StateKeyError(key, f"The state of {self.owner}", self)


class ComponentStates(dict[str, ComponentState]):
    """The states of the components of one kind, by `container.name`."""

    __slots__ = ("kind",)

    def __init__(self, kind: ComponentKind, components: Iterable[Metadata]) -> None:
        super().__init__({each.key: ComponentState(each) for each in components})
        self.kind = kind

    def __missing__(self, key: str) -> NoReturn:
        raise StateKeyError(key, f"The hive's {self.kind}s", self)


@dataclass(slots=True, eq=False)
class RequestStates(Mapping[str, ComponentState]):
    """The states of the cornerstones for one request, each made when it is first read."""

    _components: Mapping[str, Metadata]
    provided: ProvidedValues
    """By type, of the life."""
    _made: dict[str, ComponentState] = field(default_factory=dict)
    _values: dict[Any, Any] | None = None

    def __getitem__(self, key: str) -> ComponentState:
        found = self._made.get(key)
        if found is None:
            if key not in self._components:
                raise StateKeyError(key, "The request's cornerstones", self._components)
            found = self._made[key] = ComponentState(self._components[key])
        return found

    def ask(self, kind: type[T]) -> T:
        """Return the value of a type that a cornerstone provides, for this request or the life.

        Raises:
            NotProvided: there is none.
        """
        found: T
        for values in (self._values, self.provided.values):
            if values is not None and kind in values:
                found = values[kind]
                return found
        raise self.provided.refuse(kind, "for this request")

    def provide(self, owner: str, kind: Any, value: Any) -> None:
        """Keep a value for this request.

        Raises:
            HookDenied: the cornerstone does not say that it provides the type.
        """
        if self.provided.declared.get(kind) != owner:
            name = format_type(kind)
            text = f"{owner} provides {name} for a request and does not say so: write in its module"
            raise HookDenied(f"{text} provides = ({name},)")
        if self._values is None:
            self._values = {}
        self._values[kind] = value

    def __iter__(self) -> Iterator[str]:
        return iter(self._components)

    def __len__(self) -> int:
        return len(self._components)


class ResponseHead(Response):
    """Status and headers of a response that is about to leave, for `before_answer` to change.

    `headers` are Starlette's `MutableHeaders`; `set_cookie` and `delete_cookie` are those of a
    Starlette response.
    """

    def __init__(self, message: Message) -> None:
        # Not by `super().__init__`, which makes headers of its own.
        self.status_code = message["status"]
        self.raw_headers = [*message.get("headers", ())]

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.status_code

    @status.setter
    def status(self, status: int) -> None:
        self.status_code = status


class HandshakeConnection(HTTPConnection):
    """The request that opens a websocket, as its hooks see it: it cannot accept or receive."""

    method = "GET"
    """As RFC 6455 §4.1 has it."""


class HookedRequest:
    """One request: what its hooks share, what was sent, and which hooks have begun."""

    __slots__ = (
        "_receive",
        "_request",
        "_send",
        "_taken",
        "error",
        "failure",
        "head",
        "is_over",
        "opened",
        "phase",
        "refusal",
        "scope",
        "states",
        "status",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.states: RequestStates = scope["state"]["cornerstones"]
        self.error: BaseException | None = None
        """What the endpoint, or a hook before it, raised."""
        self.failure: Exception | None = None
        """What is raised again after the hooks, for an outer application to answer."""
        self.head: ResponseHead | None = None
        """Of the response while `before_answer` runs."""
        self.refusal: Exception | None = None
        """What `before_answer` raised: the answer in place of the response."""
        self.status: int | None = None
        self.phase = "new"
        self.is_over = False
        self.opened: list[Any] = []
        """What the steps have opened whose part before the endpoint ran to its end."""
        self._receive = receive
        self._send = send
        self._request: HTTPConnection | None = None
        self._taken: deque[Message] = deque()

    @property
    def request(self) -> HTTPConnection:
        """The request of all its hooks; that of a websocket cannot accept or receive."""
        if self._request is None:
            is_http = self.scope["type"] == "http"
            self._request = (
                Request(self.scope, self._take) if is_http else HandshakeConnection(self.scope)
            )
        return self._request

    @property
    def receive(self) -> Receive:
        """For the endpoint: what the hooks read of the body comes once more."""
        return self._receive if self._request is None else self._take_again

    async def send(self, message: Message) -> None:
        """Send for the endpoint, and keep the status of what is sent."""
        kind = message["type"]
        if kind in PHASES:
            self.phase = PHASES[kind]
            if "status" in message:
                self.status = message["status"]
            elif kind == "websocket.accept":
                self.status = 101
            elif self.status is None:  # closed
                self.status = 403  # what a server makes of it before the handshake
        await self._send(message)

    async def _take(self) -> Message:
        message = await self._receive()
        if not self.is_over:
            self._taken.append(message)
        return message

    async def _take_again(self) -> Message:
        return self._taken.popleft() if self._taken else await self._receive()


class HiveInterface(Protocol):
    """The hive, as its hooks see it."""

    @property
    def state(self) -> State: ...

    @property
    def router(self) -> Router: ...

    def include_router(
        self, router: Any, prefix: str = "", *, tags: Sequence[str] = (), **options: Any
    ) -> object: ...

    def mount(self, prefix: str, app: ASGIApp, name: str | None = None) -> object: ...

    def add_middleware(
        self, middleware: Callable[..., ASGIApp], *args: Any, **kwargs: Any
    ) -> None: ...


class LifeContext:
    """What `lifespan(context)` and the hooks of start-up and shutdown see.

    Reading anything else raises `HookDenied`, which says what there is.
    """

    __slots__ = ("_metadata", "_provided", "app", "app_state")
    _visible: tuple[str, ...] = ("app", "app_state")
    _visible_later: Mapping[str, str] = {}

    def __init__(
        self,
        app: HiveInterface,
        metadata: Metadata,
        state: ComponentState,
        provided: ProvidedValues,
    ) -> None:
        self._provided = provided
        self.app = app
        self.app_state = state
        """What the component keeps for the life of the application."""
        self._metadata = metadata

    @property
    def cornerstone(self) -> Metadata:
        """The cornerstone itself."""
        return self._get_metadata("cornerstone")

    @property
    def endpoint(self) -> Metadata:
        """The endpoint itself."""
        return self._get_metadata("endpoint")

    def provide(self, kind: type[T], value: T) -> None:
        """Give handlers and dependencies, which ask by `FromHive[kind]`, a value.

        For the life; in the hooks around a request for that, if the module says so by
        `provides = (kind,)`.

        Raises:
            HookDenied: an endpoint cannot, or the module does not say so.
            HiveError: another cornerstone provides the type.
        """
        self._check_provider()
        self._provided.provide(self._metadata.key, kind, value)

    def ask(self, kind: type[T]) -> T:
        """Return the value of a type that another cornerstone provides.

        Raises:
            NotProvided: there is none, or not yet: name the other one in `requires`.
        """
        values = self._provided.values
        if kind not in values:
            where = f"before {self._metadata.key} starts: name it in `requires` of that"
            raise self._provided.refuse(kind, where)
        found: T = values[kind]
        return found

    def _check_provider(self) -> None:
        if self._metadata.kind != "cornerstone":
            text = f"{self._metadata.key} is an endpoint: only cornerstones provide by type"
            raise HookDenied(text)

    def _get_metadata(self, kind: ComponentKind) -> Metadata:
        if self._metadata.kind != kind:
            raise AttributeError(kind)  # `__getattr__` says more
        return self._metadata

    if not TYPE_CHECKING:  # type checkers know what there is

        def __getattr__(self, name: str) -> NoReturn:
            if name.startswith("_"):  # for copies, which ask for special methods
                raise AttributeError(name)
            if name in self._visible_later:
                raise HookDenied(f"`{name}` is there {self._visible_later[name]}")
            there = ", ".join((*self._visible, self._metadata.kind))
            text = f"`{name}` is not there for this hook of {self._metadata.key}; there is: {there}"
            raise HookDenied(text)


class RequestHookContext(LifeContext):
    """What `request(context)` and the hooks around a request see.

    `error`, `status` and `route` are there after the endpoint, `response` in `before_answer`,
    which sees `error` (None) and `route`, too.
    """

    __slots__ = ("_hooked",)
    _visible: tuple[str, ...] = ("app", "app_state", "request", "request_state")
    _visible_later: Mapping[str, str] = {
        **dict.fromkeys(("error", "status", "route"), "after the endpoint: in post_endpoint_call"),
        "response": "while the response has not left: in before_answer",
    }

    def __init__(self, life: LifeContext, hooked: HookedRequest) -> None:
        # Not by `super().__init__`, since this is made for each hook of each request.
        self.app, self.app_state, self._metadata = life.app, life.app_state, life._metadata  # noqa: SLF001
        # Without `_provided`: the request's states have it.
        self._hooked = hooked

    @property
    def request(self) -> HTTPConnection:
        """A Starlette `Request`; of a websocket its `HTTPConnection`."""
        return self._hooked.request

    def provide(self, kind: type[T], value: T) -> None:
        """Do as that of a `LifeContext`, for this request."""
        self._check_provider()
        self._hooked.states.provide(self._metadata.key, kind, value)

    def ask(self, kind: type[T]) -> T:
        """Return the value of a type that a cornerstone provides, for this request or the life.

        Raises:
            NotProvided: there is none.
        """
        return self._hooked.states.ask(kind)

    @property
    def request_state(self) -> ComponentState:
        """What the cornerstone keeps for this request."""
        if self._metadata.kind == "endpoint":
            raise AttributeError("request_state")
        return self._hooked.states[self._metadata.key]

    @property
    def error(self) -> BaseException | None:
        """What the endpoint, or a hook before it, raised; a cancellation too."""
        if not self._hooked.is_over and self._hooked.head is None:
            raise AttributeError("error")
        return self._hooked.error

    @property
    def status(self) -> int | None:
        """The status that was sent; of a websocket 101 if it was accepted, 403 if not."""
        if not self._hooked.is_over:
            raise AttributeError("status")
        return self._hooked.status

    @property
    def route(self) -> Route | AnsweringRoute | None:
        """The route that answered: `path`, `name`, `endpoint`; None if no route did."""
        if not self._hooked.is_over and self._hooked.head is None:
            raise AttributeError("route")
        return find_route(self._hooked.scope)

    @property
    def response(self) -> ResponseHead:
        """Status and headers of the response, which can be changed in `before_answer`."""
        if self._hooked.head is None:
            raise AttributeError("response")
        return self._hooked.head


class ErrorContext(RequestHookContext):
    """What `answer(context, error)` sees; `request_state` only of a cornerstone."""

    __slots__ = ("_error",)
    _visible = (*RequestHookContext._visible, "error", "route")  # noqa: SLF001  # its own base
    _visible_later: Mapping[str, str] = {}

    def __init__(self, life: LifeContext, hooked: HookedRequest, error: Exception) -> None:
        super().__init__(life, hooked)
        self._error = error

    @property
    def error(self) -> Exception:
        """What is to be answered."""
        return self._error

    @property
    def route(self) -> Route | AnsweringRoute | None:
        """The route that was to answer; None if there was none yet."""
        return find_route(self._hooked.scope)


class _Visible(Generic[T]):
    """An attribute of hooks objects, which the table of visibility grants or denies."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, hooks: object, owner: type | None = None) -> T:
        if hooks is None:
            return self  # type: ignore[return-value]  # the class's own, for inspection
        context = hooks.__dict__.get(_CONTEXT)
        if context is None:
            text = f"`{self.name}` is not there yet: the hive gives it after `__init__`"
            raise HookDenied(text)
        value: T = getattr(context, self.name)
        return value

    def __set__(self, hooks: object, value: object) -> None:
        text = f"`{self.name}` is the hive's and cannot be set: keep yours under another name"
        raise HookDenied(text)


class Hooks:
    """What all hooks classes share: the attributes, as far as a hook may see them."""

    app = _Visible[HiveInterface]()
    app_state = _Visible[ComponentState]()
    request = _Visible[HTTPConnection]()
    request_state = _Visible[ComponentState]()
    error = _Visible[BaseException | None]()
    status = _Visible[int | None]()
    route = _Visible[Route | AnsweringRoute | None]()
    response = _Visible[ResponseHead]()
    provide = _Visible[Callable[[Any, Any], None]]()
    ask = _Visible[Callable[[Any], Any]]()
    cornerstone = _Visible[Metadata]()
    endpoint = _Visible[Metadata]()


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
    hooks.__dict__[_CONTEXT] = context


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
