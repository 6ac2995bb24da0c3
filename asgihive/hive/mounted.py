"""Applications inside of a hive: their lifespans, and what their requests see of it."""

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from asgihive.asgi.layers import LayeredState, enter_layer
from asgihive.hive.lifespan_protocol import run_lifespan


class MountedApplication:
    """An ASGI application inside of a hive; its requests see what its lifespan yields.

    The lifespan is that of the application's own objects, which runs in the hive's task:
    `lifespan(app)` of a hive and its like, `lifespan_context` of Starlette's `Router`, and of
    what has one as `router`. Any other application is asked by the lifespan protocol.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.__wrapped__ = app  # `inspect.unwrap` finds where it is written
        self._app = app
        self._state: Mapping[str, Any] = {}

    def lifespan(self) -> AbstractAsyncContextManager[object]:
        """Return what starts and stops the application; nothing for a hive that runs already."""
        if getattr(self._app, "is_running", False) is True:
            return nullcontext()
        return (_find_lifespan(self._app) or partial(run_lifespan, self._app))()

    def keep_state(self, yielded: object) -> None:
        """Keep what the lifespan yielded, if it is a mapping."""
        self._state = yielded if isinstance(yielded, Mapping) else {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._state:
            state = LayeredState({**self._state}, scope["state"])
            scope = enter_layer(scope, {"state": state})
        await self._app(scope, receive, send)


def _find_lifespan(app: object) -> Callable[[], AbstractAsyncContextManager[object]] | None:
    found = getattr(app, "lifespan", None)
    if callable(found) and not inspect.iscoroutinefunction(found) and _takes_one(found):
        return partial(found, app)
    for each in (app, getattr(app, "router", None)):
        found = getattr(each, "lifespan_context", None)
        if callable(found):
            return partial(found, app)
    return None


def _takes_one(function: Callable[..., Any]) -> bool:
    """Return whether it takes the application: another framework may call another thing so."""
    try:
        inspect.signature(function).bind(None)
    except (TypeError, ValueError):
        return False
    return True
