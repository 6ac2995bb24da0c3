"""What a module of a component may say beside its hooks: names that have a meaning there."""

import inspect
from collections.abc import Callable, Mapping
from types import ModuleType, SimpleNamespace
from typing import Any, TypedDict

from asgihive.errors import ComponentError
from asgihive.hive.states import ComponentKind


class Conventions(TypedDict, total=False):
    """The fields of `ModuleHooks` that are read here."""

    before_answer: Callable[..., Any] | None
    websockets: bool | None
    provides: tuple[Any, ...]
    statuses: Mapping[type[Exception], int]
    answer: Callable[..., Any] | None


def read_conventions(offers: object, kind: ComponentKind, key: str, file: str) -> Conventions:
    """Read them of a module, or of an object like one.

    Raises:
        ComponentError: something has one of the names but cannot be used.
    """
    found: Conventions = {
        "statuses": _read_statuses(offers, key, file),
        "answer": _read_answer(offers, key, file),
    }
    if kind == "cornerstone":
        found["before_answer"] = _read_function(offers, "before_answer", ("context",), key, file)
        found["websockets"] = _read_websockets(offers, key, file)
        found["provides"] = _read_provides(offers, key, file)
    return found


def _read_statuses(offers: object, key: str, file: str) -> Mapping[type[Exception], int]:
    statuses = getattr(offers, "statuses", {})
    if isinstance(statuses, ModuleType):
        return {}
    if not isinstance(statuses, Mapping):
        wrong: object = statuses
    else:
        pairs = ((error, status) for error, status in statuses.items())
        wrong = next(
            (
                f"{error!r}: {status!r}"
                for error, status in pairs
                if not (
                    isinstance(error, type)
                    and issubclass(error, Exception)
                    and isinstance(status, int)
                    and 400 <= status < 600
                )
            ),
            None,
        )
    if wrong is not None:
        detail = f"statuses has {wrong}: classes of exceptions and statuses from 400 to 599 "
        raise ComponentError(key, file, f"{detail}are accepted, such as {{NotFound: 404}}")
    return {**statuses}


def _read_answer(offers: object, key: str, file: str) -> Callable[..., Any] | None:
    """Return `answer(context, error)`, which is known by the names of its parameters.

    Handlers and others may well be called `answer`.
    """
    function = getattr(offers, "answer", None)
    try:
        names = inspect.signature(function).parameters.keys()  # type: ignore[arg-type]  # or it fails
    except (TypeError, ValueError):
        return None
    if {"request", "req"} & names and {"exc", "exception", "err"} & names:
        detail = (
            f"answer({', '.join(names)}) is not asked: its parameters are called context, error"
        )
        raise ComponentError(key, file, detail)
    if not names & {"context", "error"}:
        return None
    return _read_function(offers, "answer", ("context", "error"), key, file)


def _read_provides(offers: object, key: str, file: str) -> tuple[Any, ...]:
    provides = getattr(offers, "provides", ())
    if isinstance(provides, ModuleType):
        return ()
    if not isinstance(provides, tuple | list) or any(isinstance(each, str) for each in provides):
        detail = f"provides is {provides!r}: a tuple of types, such as (AsyncSession,), is accepted"
        raise ComponentError(key, file, detail)
    return tuple(provides)


def _read_websockets(offers: object, key: str, file: str) -> bool | None:
    websockets = getattr(offers, "websockets", None)
    if websockets is None or isinstance(websockets, ModuleType):
        return None
    if not isinstance(websockets, bool):
        detail = f"websockets is {websockets!r}: True or False is accepted"
        raise ComponentError(key, file, detail)
    return websockets


def _read_function(
    offers: object, name: str, parameters: tuple[str, ...], key: str, file: str
) -> Callable[..., Any] | None:
    """Return the function of a name that the module itself defines; None if there is none."""
    function = getattr(offers, name, None)
    if function is None or not is_defined_in(offers, function):
        return None
    if not callable(function):
        problem = f"{name} is {function!r}"
    elif inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        problem = f"{name} is a generator"
    else:
        try:
            inspect.signature(function).bind(*(SimpleNamespace() for _ in parameters))
        except TypeError as error:
            problem = f"{name} cannot be called: {error}"
        else:
            return function  # type: ignore[no-any-return]  # of any result
    accepted = f"a function {name}({', '.join(parameters)}), `def` or `async def`, is accepted"
    raise ComponentError(key, file, f"{problem}; {accepted}")


def is_defined_in(offers: object, value: object) -> bool:
    """Return whether a module, or one below it, defines a value: others it only imports."""
    if not isinstance(offers, ModuleType):
        return True
    if isinstance(value, ModuleType):
        return False
    origin = str(getattr(value, "__module__", offers.__name__))
    return f"{origin}.".startswith(f"{offers.__name__}.")
