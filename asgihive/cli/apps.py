"""Finds the application that APP names, as uvicorn would, or by the path of a file."""

import importlib
import inspect
import os
import pkgutil
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from asgihive.cli.listing import KINDS
from asgihive.errors import join_names, suggest_name

_ACCEPTED = "module:attribute such as main:app, or a file such as main.py, is accepted"
_PACKAGE_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# How many of the user's own frames are shown of an exception.
_FRAMES = 6


class AppError(Exception):
    """APP cannot be shown: a line that says why, and the end of a traceback if there is one."""

    def __init__(self, message: str, cause: BaseException | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.tail = "" if cause is None else _tail(cause)


@dataclass(frozen=True, slots=True)
class Target:
    """What APP names.

    Args:
        folder: where the search for the module begins.
        module: its dotted name.
        attribute: of the module; may be dotted.
        file: which the module has to be, if a file was named.
    """

    folder: str
    module: str
    attribute: str
    file: str = ""


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
        return _file_target(place, attribute)
    if not all(place.split(".")):
        raise AppError(f"{text!r}: {_ACCEPTED}")
    folder = os.path.abspath(app_dir or os.curdir)
    if not os.path.isdir(folder):
        raise AppError(f"--app-dir {app_dir!r}: there is no such folder")
    return Target(folder, place, attribute)


@contextmanager
def search_path(folder: str) -> Iterator[None]:
    """Let imports begin at `folder`; `sys.path` is afterwards as it was before."""
    before = list(sys.path)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path[:] = before


def load(target: Target, *, factory: bool) -> Any:
    """Import the module and take the attribute, or what it returns when called.

    Raises:
        AppError: there is no such module or attribute, or the module or the factory raised.
    """
    module = _import(target)
    found: Any = module
    for name in target.attribute.split("."):
        if not hasattr(found, name):
            raise AppError(_no_attribute(target, found, name))
        found = getattr(found, name)
    name = f"{target.module}:{target.attribute}"
    if not factory:
        if inspect.isroutine(found) or inspect.isclass(found):
            kind = "class" if inspect.isclass(found) else "function"
            raise AppError(f"{name} is a {kind}: with --factory, what it returns is taken")
        return found
    if not callable(found) or inspect.iscoroutinefunction(found):
        raise AppError(f"{name} is {found!r}: with --factory, a plain function is accepted")
    return _guarded(f"calling {name}", found)


def _file_target(path: str, attribute: str) -> Target:
    file = os.path.abspath(path)
    folder, name = os.path.split(file)
    if os.path.isdir(file):
        raise AppError(f"{path!r} is a folder: {_ACCEPTED}")
    if not os.path.isfile(file):
        there = [each for each in _entries(folder) if each.endswith(".py")]
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


def _import(target: Target) -> ModuleType:
    importlib.invalidate_caches()
    module: ModuleType = _guarded(
        f"importing {target.module}", lambda: importlib.import_module(target.module), target
    )
    if target.file and not _is_same(module, target.file):
        where = getattr(module, "__file__", None) or "Python itself"
        text = f"{target.file} cannot be imported: the name {target.module} is taken by {where}"
        raise AppError(text)
    return module


def _guarded(doing: str, call: Any, target: Target | None = None) -> Any:
    """The result of running code of the user."""
    try:
        return call()
    except ModuleNotFoundError as error:
        if target is not None and f"{target.module}.".startswith(f"{error.name}."):
            raise AppError(_no_module(target, str(error.name))) from None
        raise AppError(_failure(doing, error), error) from error
    except (Exception, SystemExit) as error:
        raise AppError(_failure(doing, error), error) from error


def _failure(doing: str, error: BaseException) -> str:
    """One line: what failed, at which line of the user's, with what."""
    frames = _frames(error)
    if isinstance(error, SyntaxError):
        place, said = f" at {error.filename}:{error.lineno}", error.msg
    else:
        place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        said = str(error)
    return f"{doing} failed{place} with {type(error).__name__}: {said}".rstrip(": ")


def _frames(error: BaseException) -> traceback.StackSummary:
    """Without those of the import system and of asgihive."""
    return traceback.StackSummary.from_list(
        [
            each
            for each in traceback.extract_tb(error.__traceback__)
            if not each.filename.startswith("<frozen ")
            and each.filename != importlib.__file__
            and not os.path.abspath(each.filename).startswith(_PACKAGE_FOLDER + os.sep)
        ][-_FRAMES:]
    )


def _tail(error: BaseException) -> str:
    lines = [*_frames(error).format(), *traceback.format_exception_only(error)]
    return "".join(lines)


def _is_same(module: ModuleType, file: str) -> bool:
    found = getattr(module, "__file__", None)
    return found is not None and os.path.exists(found) and os.path.samefile(found, file)


def _no_module(target: Target, missing: str) -> str:
    parent, _, name = missing.rpartition(".")
    folders = [target.folder]
    if parent:
        folders = list(getattr(sys.modules.get(parent), "__path__", ()))
        if not folders:
            return f"there is no module {missing!r}: {parent} is a module, not a package"
    there = [each.name for each in pkgutil.iter_modules(folders)]
    where = ", ".join(folders)
    near = suggest_name(name, there)
    return f"there is no module {missing!r} in {where}{near}; there is: {join_names(there)}"


def _no_attribute(target: Target, owner: Any, name: str) -> str:
    public = {key: value for key, value in vars(owner).items() if key[0] != "_"}
    applications = [
        f"{key} ({type(value).__name__})"
        for key, value in public.items()
        if isinstance(value, KINDS)
    ]
    there = join_names(applications or public)
    where = f"{target.module} ({getattr(owner, '__file__', type(owner).__name__)})"
    return f"{where} has no {name!r}{suggest_name(name, public)}; there is: {there}"


def _entries(folder: str) -> list[str]:
    return os.listdir(folder) if os.path.isdir(folder) else []
