"""What a handler's signature says beyond types: `Depends`, `Query`, `Header`, `Cookie`, `Body`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Query:
    """`Annotated[int, Query("page-size")]`: a query parameter of another name."""

    name: str | None = None


@dataclass(frozen=True, slots=True)
class Header:
    """`Annotated[str, Header()]`: a header field, in any case.

    By default it has the parameter's name with hyphens for underscores.
    """

    name: str | None = None


@dataclass(frozen=True, slots=True)
class Cookie:
    """`Annotated[str, Cookie()]`: a cookie; by default it has the parameter's name."""

    name: str | None = None


@dataclass(frozen=True, slots=True)
class Body:
    """`Annotated[list[int], Body()]`: the request's body, whatever its type."""


@dataclass(frozen=True, slots=True)
class Dependency:
    """A function whose result a handler needs, or that guards it."""

    function: Callable[..., Any]


def Depends(function: Callable[..., Any]) -> Any:  # noqa: N802  # the name people know
    """A parameter that is what `function` returns: `Annotated[T, Depends(f)]` or `= Depends(f)`.

    `function` is called at most once per request, its own parameters bound like a handler's.
    `async def` runs on the event loop, `def` in a worker thread, a class on the event loop.

    A generator function, sync or async, yields the value once. What follows its `yield` runs
    when the response has been sent to its last byte and its background tasks are done, in
    reverse order of the calls, shielded from cancellation; the exception that ended the
    request, if any, is raised at the `yield`. So it must not hold a cancel scope or task
    group open across the `yield` (PEP 789).

    Raises:
        TypeError: `function` is not callable.
    """
    if not callable(function):
        raise TypeError(f"Depends({function!r}): a function or a class is accepted")
    return Dependency(function)
