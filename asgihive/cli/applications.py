"""Imports the application that APP names, and finds the applications that it consists of."""

import importlib
import inspect
import os
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Host, Mount
from starlette.routing import Router as StarletteRouter

from asgihive.asgi import Router, find_name
from asgihive.errors import join_names, suggest_name
from asgihive.hive import Hive, HiveConfig, HiveMiddleware, RouteRecord
from asgihive.hive.graph import record_foreign_routes
from asgihive.hive.lifespan_protocol import find_user_frames

_ACCEPTED = "module:attribute such as main:app, or a file such as main.py, is accepted"

# These are listed; any other object is searched if it has an `app` inside, as middleware does.
_KINDS = (Hive, HiveMiddleware, Router, Starlette, StarletteRouter)


class AppError(Exception):
    """APP cannot be shown: a line that says why, and the end of a traceback if there is one."""

    def __init__(self, message: str, cause: BaseException | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.tail = ""
        if cause is not None:
            lines = [*find_user_frames(cause).format(), *traceback.format_exception_only(cause)]
            self.tail = "".join(lines)


@dataclass(frozen=True, slots=True)
class Target:
    """The place that APP names."""

    folder: str
    """Where the search for the module begins."""
    module: str
    attribute: str
    """Its name in the module; may be dotted."""
    file: str = ""
    """The file that the module has to be, if APP names a file."""


def parse_target(text: str, app_dir: str | None) -> Target:
    """Read `module:attribute`, `file.py` or `file.py:attribute`; the attribute may be left out.

    A file is imported by its name in the package it is in, from the folder above that.

    Raises:
        AppError: there is no such file or folder, or `text` is none of these.
    """
    place, colon, attribute = text.rpartition(":")
    if not colon or os.sep in attribute:  # on Windows a colon follows the drive
        place, attribute = text, ""
    attribute = attribute or "app"
    if place.endswith(".py") or os.sep in place:
        if app_dir is not None:
            raise AppError(f"--app-dir goes with module:attribute, but {place} is a file")
        return _parse_file_target(place, attribute)
    if not all(place.split(".")):
        raise AppError(f"{text!r}: {_ACCEPTED}")
    folder = os.path.abspath(app_dir or os.curdir)
    if not os.path.isdir(folder):
        raise AppError(f"--app-dir {app_dir!r}: there is no such folder")
    return Target(folder, place, attribute)


def _parse_file_target(path: str, attribute: str) -> Target:
    file = os.path.abspath(path)
    folder, name = os.path.split(file)
    if os.path.isdir(file):
        raise AppError(f"{path!r} is a folder: {_ACCEPTED}")
    if not os.path.isfile(file):
        entries = os.listdir(folder) if os.path.isdir(folder) else []
        there = [each for each in entries if each.endswith(".py")]
        near = suggest_name(name, there)
        raise AppError(f"there is no file {file}{near}; in {folder} there is: {join_names(there)}")
    module = name.removesuffix(".py")
    if "." in module:
        raise AppError(f"{path!r} cannot be imported: the name of a module has no dot in it")
    names = [] if module == "__init__" else [module]
    while os.path.isfile(os.path.join(folder, "__init__.py")):
        folder, package = os.path.split(folder)
        names.insert(0, package)
    return Target(folder, ".".join(names or [module]), attribute, file)


@contextmanager
def importing_from(folder: str) -> Iterator[None]:
    """Let imports begin at `folder`; `sys.path` is afterwards as it was before."""
    before = list(sys.path)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path[:] = before


def load_app(target: Target, *, factory: bool) -> Any:
    """Import the module and return the attribute, or what it returns when called.

    Raises:
        AppError: there is no such module or attribute, or the module or the factory raised.
    """
    importlib.invalidate_caches()
    module = _run_user_code(
        f"importing {target.module}", lambda: importlib.import_module(target.module), target
    )
    where = getattr(module, "__file__", None) or "Python itself"
    if target.file and not (os.path.exists(where) and os.path.samefile(where, target.file)):
        text = f"{target.file} cannot be imported: the name {target.module} is taken by {where}"
        raise AppError(text)
    found = module
    for name in target.attribute.split("."):
        if not hasattr(found, name):
            raise AppError(_describe_missing_attribute(target, found, name))
        found = getattr(found, name)
    name = f"{target.module}:{target.attribute}"
    if not factory:
        if inspect.isroutine(found) or inspect.isclass(found):
            kind = "class" if inspect.isclass(found) else "function"
            raise AppError(f"{name} is a {kind}: with --factory, what it returns is taken")
        return found
    if not callable(found) or inspect.iscoroutinefunction(found):
        raise AppError(f"{name} is {found!r}: with --factory, a plain function is accepted")
    return _run_user_code(f"calling {name}", found)


def _run_user_code(doing: str, call: Callable[[], Any], target: Target | None = None) -> Any:
    try:
        return call()
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and target is not None:
            missing = str(error.name)
            if f"{target.module}.".startswith(f"{missing}."):
                raise AppError(_describe_missing_module(target, missing)) from None
        # One line: what failed, at which line of the user's, with what.
        frames, said = find_user_frames(error), str(error)
        place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        if isinstance(error, SyntaxError):
            place, said = f" at {error.filename}:{error.lineno}", error.msg
        line = f"{doing} failed{place} with {type(error).__name__}: {said}".rstrip(": ")
        raise AppError(line, error) from error


def _describe_missing_module(target: Target, missing: str) -> str:
    parent, _, name = missing.rpartition(".")
    folders = [target.folder]
    if parent:
        folders = list(getattr(sys.modules.get(parent), "__path__", ()))
        if not folders:
            return f"there is no module {missing!r}: {parent} is a module, not a package"
    there = [each.name for each in pkgutil.iter_modules(folders)]
    near, where = suggest_name(name, there), ", ".join(folders)
    return f"there is no module {missing!r} in {where}{near}; there is: {join_names(there)}"


def _describe_missing_attribute(target: Target, owner: Any, name: str) -> str:
    public = {key: value for key, value in vars(owner).items() if key[0] != "_"}
    apps = [f"{key} ({type(e).__name__})" for key, e in public.items() if isinstance(e, _KINDS)]
    where = f"{target.module} ({getattr(owner, '__file__', type(owner).__name__)})"
    near = suggest_name(name, public)
    return f"{where} has no {name!r}{near}; there is: {join_names(apps or public)}"


@dataclass(frozen=True, slots=True)
class Application:
    """One of the applications that APP consists of."""

    prefix: str
    """The beginning of its URLs."""
    name: str
    """The name of its class."""
    hive: Hive | None = None
    """The application itself, if it is a hive."""
    routes: tuple[RouteRecord, ...] = ()
    """Its routes with their whole URLs, if it is no hive."""
    has_more: bool = False
    """Whether it keeps routes that cannot be listed."""
    surrounds: bool = False
    """Whether it is the hive of a `HiveMiddleware`: its hooks run, its own routes are not there."""

    def list_routes(self) -> tuple[RouteRecord, ...]:
        """Return its routes, with their whole URLs; those of a hive import its components.

        Raises:
            ComponentError: the hive has a component that cannot be imported, ordered or mounted.
        """
        if self.hive is None:
            return self.routes
        return () if self.surrounds else _list_below(self.prefix, self.hive)


def find_applications(app: Any, prefix: str = "") -> Iterator[Application]:
    """Yield the applications in `app`, outermost first; none if `app` is of no known kind."""
    name = type(app).__name__
    if isinstance(app, Hive):
        yield Application(prefix, name, app)
    elif isinstance(app, Router):
        config = HiveConfig(cornerstone_package_path=())
        hive = Hive(config, docs=False, entry_points=False)  # with these routes, and nothing else
        hive.include_router(app)
        yield Application(prefix, name, routes=_list_below(prefix, hive))
    elif isinstance(app, Starlette | StarletteRouter):
        yield from _find_in_starlette(app, name, prefix)
    elif hasattr(app, "app"):
        if isinstance(app, HiveMiddleware):
            yield Application(prefix, type(app.hive).__name__, app.hive, surrounds=True)
        yield from find_applications(app.app, prefix)


def _list_below(prefix: str, hive: Hive) -> tuple[RouteRecord, ...]:
    return tuple(replace(each, url=prefix + each.url) for each in hive.route_records())


def _find_in_starlette(
    app: Starlette | StarletteRouter, name: str, prefix: str
) -> Iterator[Application]:
    for each in app.user_middleware if isinstance(app, Starlette) else ():
        kind: object = each.cls
        if kind is HiveMiddleware:
            for hive in (*each.args, *each.kwargs.values()):
                found: Any = hive
                yield Application(prefix, type(found).__name__, found, surrounds=True)
    own: list[RouteRecord] = []
    inner: list[Application] = []
    has_more = False
    for route in app.routes:
        if isinstance(route, Mount | Host):
            below = (
                f"{prefix}{route.path}" if isinstance(route, Mount) else f"//{route.host}{prefix}"
            )
            mounted = tuple(find_applications(route.app, below))
            inner += mounted
            if not mounted:
                target = route.app
                shown = find_name(target) if inspect.isroutine(target) else type(target).__name__
                own.append(RouteRecord(("*",), below or "/", "", shown, "", 0))
        elif hasattr(route, "effective_route_contexts") or (
            hasattr(route, "path") and hasattr(route, "endpoint")
        ):
            own += record_foreign_routes([route], prefix)
        else:
            has_more = True
    yield Application(prefix, name, routes=tuple(own), has_more=has_more)
    yield from inner
