"""What components say about exceptions: `statuses`, and `answer(context, error)`."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from asgihive.asgi import Route, send_error
from asgihive.asgi.errors import Statuses, find_http_exception, send_as_denial, unwrap_group
from asgihive.asgi.layers import AnsweringRoute
from asgihive.hive.contexts import HOOKED, ErrorContext, HookedRequest, LifeContext
from asgihive.hive.hooks import run_hook

_logger = logging.getLogger("asgihive.hive")

AnswerFunction = Callable[[ErrorContext, Exception], Any]


@dataclass(slots=True)
class ErrorRules:
    """What one component, or several, say about exceptions."""

    answers: list[tuple[LifeContext, AnswerFunction]] = field(default_factory=list)
    """In the order in which they are asked."""
    statuses: dict[type[Exception], int] = field(default_factory=dict)
    """HTTP status by class of exception; the nearest class of an exception counts."""

    def add(
        self, context: LifeContext, answers: Sequence[AnswerFunction], statuses: Statuses
    ) -> None:
        """Add those of one component, which are asked before those that are there."""
        self.answers[:0] = [(context, answer) for answer in answers]
        self.statuses.update(statuses)


class ErrorAnswers:
    """Answers exceptions: of an endpoint first by its own rules, then by those for the whole hive.

    Of each, functions are asked before statuses. What none of them knows is answered by
    `send_error`.
    """

    def __init__(self) -> None:
        self.common = ErrorRules()
        """Of the cornerstones."""
        self.of_targets: dict[int, ErrorRules] = {}
        """Of endpoints, by the `id` of what is registered as their routes."""

    def add_endpoint(self, targets: Iterable[object], rules: ErrorRules) -> None:
        """Let rules apply to some routes, by their targets."""
        if rules.answers or rules.statuses:
            self.of_targets.update((id(each), rules) for each in targets)

    async def send(  # as `send_error`
        self, error: Exception, scope: Scope, receive: Receive, send: Send, *, phase: str = "new"
    ) -> None:
        """Do as `send_error`, by what the components say.

        Raises:
            Exception: as `send_error`.
        """
        own = self._find_own(scope)
        known = unwrap_group(error)
        if phase == "new" and not isinstance(known, ClientDisconnect | WebSocketDisconnect):
            try:
                response = await self._ask(own, known, scope, receive, send)
            except Exception as raised:  # noqa: BLE001  # then that is the error
                error = known = raised
            else:
                if response is not None:
                    await _send_response(response, known, scope, receive, send)
                    return
        statuses: Mapping[type[Exception], int] = self.common.statuses
        if own is not None and find_http_exception(known, own.statuses) is not None:
            statuses = own.statuses
        await send_error(error, scope, receive, send, statuses=statuses, phase=phase)

    async def refuse(self, error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a path or a method that no route has."""
        await self.send(error, scope, receive, send)

    def _find_own(self, scope: Scope) -> ErrorRules | None:
        """Return the rules of the endpoint whose route answers."""
        route = scope.get("route")
        if isinstance(route, AnsweringRoute):
            route = route.mount or route.route
        # A route of FastAPI has a function, too.
        target = route.target if isinstance(route, Route) else getattr(route, "endpoint", None)
        return self.of_targets.get(id(target))

    async def _ask(  # the three of ASGI, and two of the error
        self,
        own: ErrorRules | None,
        error: Exception,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> Any:
        """Return the response of the first function that has one, else None.

        Raises:
            Exception: what a function raised.
        """
        if scope["type"] != "http" and "websocket.http.response" not in (
            scope.get("extensions") or {}
        ):
            return None
        if "cornerstones" not in scope.get("state", ()):  # the hive is stopping, or has stopped
            return None
        hooked = scope.get(HOOKED)
        for context, answer in self._list_answers(own, error):
            if hooked is None:
                hooked = HookedRequest(scope, receive, send)
            call = partial(answer, ErrorContext(context, hooked, error), error)
            response = await run_hook(call)
            if response is None:
                continue
            if not callable(response):
                name = context._metadata.key  # noqa: SLF001  # of the component
                text = f"answer of {name} returned {response!r}: a response or None is accepted"
                raise TypeError(text) from error
            return response
        return None

    def _list_answers(
        self, own: ErrorRules | None, error: Exception
    ) -> Iterator[tuple[LifeContext, AnswerFunction]]:
        if own is not None:
            yield from own.answers
            if any(each in own.statuses for each in type(error).__mro__):
                return
        yield from self.common.answers


async def _send_response(
    response: Any, error: Exception, scope: Scope, receive: Receive, send: Send
) -> None:
    """Send the response to an error, which is logged if nobody but a programmer can mend it."""
    status = getattr(response, "status_code", getattr(response, "status", None))
    if isinstance(status, int) and status >= 500 and find_http_exception(error) is None:
        _logger.error("Unexpected error at %r", scope["path"], exc_info=error)
    if scope["type"] == "websocket":
        scope = {**scope, "type": "http", "method": "GET"}
        send = send_as_denial(send)
    await response(scope, receive, send)
