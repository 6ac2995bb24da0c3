"""The markers that say where a parameter comes from, and what to write for those of others."""

import contextlib
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Never

DependencyScope = Literal["request", "function"]


@dataclass(frozen=True, init=False, repr=False)
class _NamedMarker:
    name: str | None

    def __init__(self, name: str | None = None, **unknown: Never) -> None:
        """Name a parameter.

        Raises:
            TypeError: the name is no text, or something else is said, as FastAPI has it.
        """
        kind = type(self).__name__
        if unknown:
            said = ", ".join(f"{each}=…" for each in unknown)
            raise TypeError(
                f"{kind}({said}): only a name is accepted, as {kind}('page-size'); the default is "
                f"the parameter's own, and msgspec.Meta says constraints, descriptions and "
                f"examples: Annotated[int, {kind}(), Meta(ge=1)]"
            )
        given: object = name
        if given is not None and not isinstance(given, str):
            raise TypeError(f"{kind}({given!r}): a name is accepted; the default follows Annotated")
        object.__setattr__(self, "name", name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'' if self.name is None else repr(self.name)})"


class Query(_NamedMarker):
    """`Annotated[int, Query("page-size")]`: a query parameter of another name.

    `Annotated[Filter, Query()]` of a structure: each of its fields is a query parameter.
    """


class Header(_NamedMarker):
    """`Annotated[str, Header()]`: a header field, in any case.

    By default it has the parameter's name with hyphens for underscores.
    """


class Cookie(_NamedMarker):
    """`Annotated[str, Cookie()]`: a cookie; by default it has the parameter's name."""


class Form(_NamedMarker):
    """`Annotated[str, Form()]`: a field of a form, multipart or URL-encoded.

    Files have the annotation `UploadFile`, and need no marker.
    """


@dataclass(frozen=True, slots=True)
class Body:
    """`Annotated[list[int], Body()]`: the request's body, whatever its type."""


@dataclass(frozen=True, slots=True)
class Dependency:
    """A function whose result a handler needs, or that guards it."""

    function: Callable[..., Any] | None
    """None stands for the annotation of the parameter, a class."""

    scope: DependencyScope = "request"


def Depends(  # noqa: N802  # the name people know
    function: Callable[..., Any] | None = None, *, scope: DependencyScope = "request"
) -> Any:
    """Declare a parameter that is what `function` returns.

    Written as `Annotated[T, Depends(f)]` or `= Depends(f)`; `Annotated[T, Depends()]` calls the
    class `T`. `function` is called at most once per request, its own parameters bound like a
    handler's. `async def` runs on the event loop, `def` in a worker thread, a class on the
    event loop.

    A generator function, sync or async, yields the value once. What follows its `yield` runs
    when the response has been sent to its last byte and its background tasks are done, in
    reverse order of the calls, shielded from cancellation; the exception that ended the
    request, if any, is raised at the `yield`. So it must not hold a cancel scope or task
    group open across the `yield` (PEP 789).

    With `scope="function"` what follows the `yield` runs when the handler has returned and its
    result is encoded, before anything of the response is sent: what it raises is the answer.
    Of a stream the items that are not made yet come after it.

    Raises:
        TypeError: `function` is not callable, or a context manager; or another scope.
    """
    if scope not in typing.get_args(DependencyScope):
        raise TypeError(f"Depends(scope={scope!r}): 'request' and 'function' are accepted")
    given: object = function
    if given is not None and not callable(given):
        reason = describe_foreign_marker(given) or "a function or a class is accepted"
        raise TypeError(f"Depends({given!r}): {reason}")
    if getattr(function, "__globals__", None) is vars(contextlib):
        name = getattr(function, "__qualname__", function)
        reason = "leave the decorator out: Depends itself enters what is a generator function"
        raise TypeError(f"Depends({name}): {name} is a context manager; {reason}")
    return Dependency(function, scope)


MARKERS = (Body, Cookie, Dependency, Form, Header, Query)

# By the first name of their modules, what declares parameters in ways of its own.
_FRAMEWORKS = {
    "blacksheep": "BlackSheep",
    "dishka": "Dishka",
    "esmerald": "Esmerald",
    "fast_depends": "FastDepends",
    "fastapi": "FastAPI",
    "litestar": "Litestar",
    "ninja": "Django Ninja",
    "taskiq_dependencies": "Taskiq",
}
_DEPENDS = "asgihive.Depends(f)"
_BACKGROUND_TASKS = "starlette.background.BackgroundTasks"
_COUNTERPARTS = {
    "BackgroundTasks": _BACKGROUND_TASKS,
    "Body": "asgihive.Body() in Annotated",
    "Cookie": 'asgihive.Cookie("name") in Annotated',
    "Depends": _DEPENDS,
    "File": "the annotation asgihive.UploadFile",
    "Form": "asgihive.Form() in Annotated",
    "Header": 'asgihive.Header("name") in Annotated',
    "Path": "nothing: a parameter of the path is found by its name; msgspec.Meta(ge=1) constrains",
    "Provide": _DEPENDS,
    "Query": 'asgihive.Query("name") in Annotated',
    "Security": _DEPENDS,
    "SecurityBase": "asgihive.Depends(scheme)",
    "UploadFile": "asgihive.UploadFile",
}


# What people look for in asgihive, since FastAPI has it.
_ELSEWHERE = {
    "APIRouter": "asgihive.Router, or fastapi.APIRouter as it is",
    "BackgroundTasks": _BACKGROUND_TASKS,
    "FastAPI": "asgihive.Hive",
    "FileResponse": "starlette.responses.FileResponse",
    "File": _COUNTERPARTS["File"],
    "HTMLResponse": "starlette.responses.HTMLResponse",
    "JSONResponse": "starlette.responses.JSONResponse",
    "Path": _COUNTERPARTS["Path"],
    "PlainTextResponse": "starlette.responses.PlainTextResponse",
    "RedirectResponse": "starlette.responses.RedirectResponse",
    "Request": "starlette.requests.Request",
    "Response": "starlette.responses.Response",
    "Security": _DEPENDS,
    "StreamingResponse": "starlette.responses.StreamingResponse, or an async generator",
    "WebSocket": "starlette.websockets.WebSocket",
    "WebSocketDisconnect": "starlette.websockets.WebSocketDisconnect",
    "WebSocketException": "starlette.exceptions.WebSocketException",
    "status": "the number itself, or http.HTTPStatus",
}


def find_counterpart(name: str) -> str | None:
    """Return what to write for a name of FastAPI that asgihive has not; None for other names."""
    return _ELSEWHERE.get(name)


def describe_foreign_marker(value: object) -> str | None:
    """Say what to write for what another framework declares parameters with; None if it is none.

    Args:
        value: an object, a class or a function of that framework, which is not imported here.
    """
    is_function = inspect.isroutine(value)
    kinds = (value,) if is_function else inspect.getmro(_get_class(value))
    for each in kinds:
        root = str(getattr(each, "__module__", "")).partition(".")[0]
        if root in _FRAMEWORKS:
            name = str(getattr(each, "__name__", ""))
            others = (getattr(kind, "__name__", "") for kind in kinds)
            known = next((_COUNTERPARTS[one] for one in others if one in _COUNTERPARTS), None)
            instead = known or f"one of {', '.join(sorted({*_COUNTERPARTS.values()}))}"
            return f"{name} is {_FRAMEWORKS[root]}'s, and means nothing here; write {instead}"
    return None


def _get_class(value: object) -> type:
    return value if isinstance(value, type) else type(value)
