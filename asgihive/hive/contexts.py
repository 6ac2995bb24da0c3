"""What hooks see: of the application, of a request, and of the response that is about to leave."""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

from starlette.datastructures import State
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgihive.asgi import Route, Router
from asgihive.asgi.layers import AnsweringRoute, find_route
from asgihive.asgi.responses import Passage
from asgihive.errors import HookDenied
from asgihive.hive.provided import NotProvided, ProvidedValues
from asgihive.hive.states import ComponentKind, ComponentState, Metadata, RequestStates

T = TypeVar("T")

HOOKED = "asgihive.hooked"
"""Where a scope has its `HookedRequest`."""


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

    error: BaseException | None = None
    """What the endpoint, or a hook before it, raised."""
    failure: Exception | None = None
    """What is raised again after the hooks, for an outer application to answer."""
    head: ResponseHead | None = None
    """Of the response while `before_answer` runs."""
    refusal: Exception | None = None
    """What `before_answer` raised: the answer in place of the response."""
    is_over = False
    """Whether the endpoint has answered, or has failed."""
    _request: HTTPConnection | None = None
    _taken: deque[Message] | None = None
    """What hooks have read of the body."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.states: RequestStates = scope["state"]["cornerstones"]
        self.begun: list[tuple[Any, Any]] = []
        """The steps whose part before the endpoint ran to its end, and what they have opened."""
        self.receive = self._receive = receive
        """For the endpoint: what the hooks read of the body comes once more."""
        passage = getattr(send, "__self__", None)
        if not isinstance(passage, Passage):  # there is a middleware in between
            passage = Passage(send, math.inf)
        self.passage = passage
        """Knows what was sent; that of the gate, so that messages pass only one."""
        self.send = passage.send

    @property
    def request(self) -> HTTPConnection:
        """The request of all its hooks; that of a websocket cannot accept or receive."""
        if self._request is None:
            self.receive = self._take_again
            is_http = self.scope["type"] == "http"
            self._request = (
                Request(self.scope, self._take) if is_http else HandshakeConnection(self.scope)
            )
        return self._request

    def release(self) -> None:
        """Forget what refers to this: else it would wait for the garbage collector.

        Exceptions refer to it by their tracebacks.
        """
        self._request = self.error = self.failure = self.refusal = None
        self.receive = self._receive

    async def _take(self) -> Message:
        message = await self._receive()
        if not self.is_over:
            if self._taken is None:
                self._taken = deque()
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

    __slots__ = ("_key", "_metadata", "_provided", "app", "app_state")
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
        self._key = metadata.key

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
            where = f"before {self._metadata.key} starts"
            raise self._provided.refuse(kind, where, self._metadata)
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

    __slots__ = ("_hooked", "_life")
    _visible: tuple[str, ...] = ("app", "app_state", "request", "request_state")
    _visible_later: Mapping[str, str] = {
        **dict.fromkeys(("error", "status", "route"), "after the endpoint: in post_endpoint_call"),
        "response": "while the response has not left: in before_answer",
    }

    # Not kept in each, since one is made for each hook of each request.
    app: HiveInterface = property(attrgetter("_life.app"))  # type: ignore[assignment]
    app_state: ComponentState = property(attrgetter("_life.app_state"))  # type: ignore[assignment]
    _metadata: Metadata = property(attrgetter("_life._metadata"))  # type: ignore[assignment]
    _key: str = property(attrgetter("_life._key"))  # type: ignore[assignment]

    _life: LifeContext
    _hooked: HookedRequest

    # Of C: one of Python costs a request with three hooks 1.6 % more instructions.
    __init__ = object.__init__

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
        states = self._hooked.states
        try:
            return states.ask(kind)
        except NotProvided:
            raise states.provided.refuse(kind, "for this request", self._metadata) from None

    @property
    def request_state(self) -> ComponentState:
        """What the cornerstone keeps for this request."""
        if self._metadata.kind == "endpoint":
            raise AttributeError("request_state")
        return self._hooked.states[self._key]

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
        return self._hooked.passage.answered

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


def make_request_context(life: LifeContext, hooked: HookedRequest) -> RequestHookContext:
    """Return what the hooks of one component see of a request."""
    context: RequestHookContext = RequestHookContext()
    context._life = life  # noqa: SLF001  # in place of its `__init__`
    context._hooked = hooked  # noqa: SLF001
    return context


class ErrorContext(RequestHookContext):
    """What `answer(context, error)` sees; `request_state` only of a cornerstone."""

    __slots__ = ("_error",)
    _visible = (*RequestHookContext._visible, "error", "route")  # noqa: SLF001  # its own base
    _visible_later: Mapping[str, str] = {}

    def __init__(self, life: LifeContext, hooked: HookedRequest, error: Exception) -> None:
        self._life = life
        self._hooked = hooked
        self._error = error

    @property
    def error(self) -> Exception:
        """What is to be answered."""
        return self._error

    @property
    def route(self) -> Route | AnsweringRoute | None:
        """The route that was to answer; None if there was none yet."""
        return find_route(self._hooked.scope)
