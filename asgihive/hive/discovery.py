"""Finds the components of a hive and imports them, wherever they lie.

`find_components` and `find_installed` look without importing; `load_component` imports what
they found, by an `Importer`, and reads what the modules offer.
"""

import importlib
import importlib.util
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from types import ModuleType

from asgihive.asgi import Router
from asgihive.errors import ComponentError, ConfigurationError, join_names
from asgihive.hive.components import Component, ModuleHooks, read_hooks, read_requires, read_router
from asgihive.hive.config import DEFAULT_CORNERSTONE_PATH, HiveConfig
from asgihive.hive.fastapi_routers import is_api_router
from asgihive.hive.imports import Importer
from asgihive.hive.states import ComponentKind, Metadata

_ENDPOINT_MODULES = ("db", "router", "service")
_FIELDS: dict[ComponentKind, str] = {
    "cornerstone": "cornerstone_package_path",
    "endpoint": "endpoint_package_paths",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundComponent(Metadata):
    """A component that was found and not imported yet."""

    folder: str = ""
    """The package folder it lies in; empty if it is a module with a name."""
    attribute: str = ""
    """Of the module, where an entry point names one."""


def find_components(config: HiveConfig, base: str | None) -> tuple[FoundComponent, ...]:
    """Find every component in the package paths, without importing any.

    Args:
        base: the folder that relative paths begin at; None if there is none.

    Raises:
        ConfigurationError: a path is no folder and no package.
    """
    found: list[FoundComponent] = []
    for path in config.cornerstone_paths:
        if path != DEFAULT_CORNERSTONE_PATH or _is_folder(base, path):
            found += _find_in_path("cornerstone", path, base)
        elif base is not None and config.endpoint_paths:  # else it is another hive's, around it
            _refuse_folder_of_nearly_the_name(base)
    for path in config.endpoint_paths:
        found += _find_in_path("endpoint", path, base)
    return tuple(found)


def _refuse_folder_of_nearly_the_name(base: str) -> None:
    """Refuse to leave out a folder that was surely meant, and the guards in it."""
    folder = os.path.join(base, "cornerstones")
    if os.path.isdir(folder) and any(_list_modules(folder)):
        detail = (
            f"is not given, and its default {DEFAULT_CORNERSTONE_PATH!r} is not there, but "
            f"{folder} is: write cornerstone_package_path='./cornerstones', or () for none"
        )
        raise ConfigurationError(_FIELDS["cornerstone"], detail)


def find_installed() -> tuple[FoundComponent, ...]:
    """Find the components that installed distributions name as entry points.

    The groups are `asgihive.cornerstones` and `asgihive.endpoints`; the name of an entry
    point is `name`, with the last word of the group as container, or `container.name`; its
    value is a module, or `module:attribute` where that is a `Component`.
    """
    found = []
    for kind in _FIELDS:
        for each in entry_points(group=f"asgihive.{kind}s"):
            container, _, name = each.name.rpartition(".")
            of = f" of {each.dist.name} {each.dist.version}" if each.dist else ""
            found.append(
                FoundComponent(
                    kind=kind,
                    container=container or f"{kind}s",
                    name=name,
                    file=f"entry point {each.name} = {each.value}{of}",
                    module=each.module,
                    attribute=each.attr,
                )
            )
    return tuple(found)


def _is_folder(base: str | None, path: str) -> bool:
    return (base is not None or os.path.isabs(path)) and os.path.isdir(
        os.path.join(base or "", path)
    )


def _find_in_path(kind: ComponentKind, path: str, base: str | None) -> Iterator[FoundComponent]:
    words = path.split(".")
    is_name = all(word.isidentifier() for word in words)
    if is_name and not (len(words) == 1 and _is_folder(base, path)):
        yield from _find_in_package(kind, path, base)
        return
    if base is None and not os.path.isabs(path):
        detail = f"is {path!r}, but no file builds the hive: use an absolute path, or base=…"
        raise ConfigurationError(_FIELDS[kind], detail)
    folder = os.path.normpath(os.path.join(base or "", path))
    if not os.path.isdir(folder):
        parent = os.path.dirname(folder)
        while not os.path.isdir(parent):
            parent = os.path.dirname(parent)
        there = join_names(
            each
            for each in os.listdir(parent)
            if each[0] not in "._" and os.path.isdir(os.path.join(parent, each))
        )
        detail = f"is {path!r}: there is no folder {folder}; in {parent} there is: {there}"
        raise ConfigurationError(_FIELDS[kind], detail)
    container = os.path.basename(folder)
    for name, file in _list_modules(folder):
        yield FoundComponent(kind=kind, container=container, name=name, file=file, folder=folder)


def _find_in_package(
    kind: ComponentKind, package: str, base: str | None
) -> Iterator[FoundComponent]:
    try:
        spec = importlib.util.find_spec(package)
    except Exception as error:
        detail = f"is {package!r}, which cannot be imported: {type(error).__name__}: {error}"
        raise ConfigurationError(_FIELDS[kind], detail) from error
    if spec is None or spec.submodule_search_locations is None:
        what = "is a module, not a package" if spec else "is no package that can be imported"
        beside = f", and no folder in {base}" if base and "." not in package and not spec else ""
        detail = f"is {package!r}, which {what}{beside}"
        raise ConfigurationError(_FIELDS[kind], detail)
    container = package.rpartition(".")[2]
    for folder in spec.submodule_search_locations:
        for name, file in _list_modules(folder):
            yield FoundComponent(
                kind=kind, container=container, name=name, file=file, module=f"{package}.{name}"
            )


def _list_modules(folder: str) -> Iterator[tuple[str, str]]:
    """List name and file of each package and module, by name.

    A folder is a package if it has an `__init__.py` or one of an endpoint's modules: there may
    be templates, data and the like beside the components.
    """
    for entry in sorted(os.listdir(folder)):
        path = os.path.join(folder, entry)
        name = entry.removesuffix(".py")
        if entry[0] in "._" or "." in name:
            continue
        if name != entry:
            if os.path.isfile(path):
                yield name, path
        elif os.path.isdir(path):
            inside = set(os.listdir(path))
            if "__init__.py" in inside:
                init = os.path.join(path, "__init__.py")
                yield name, init if os.path.isfile(init) else path
            elif any(each in inside or f"{each}.py" in inside for each in _ENDPOINT_MODULES):
                yield name, path


def load_component(found: FoundComponent, importer: Importer) -> Component:
    """Import a component, and of an endpoint its `db`, `router` and `service`.

    Raises:
        ComponentError: a module cannot be imported, or offers what cannot be used.
    """
    kind, key = found.kind, found.key
    name = found.module or f"{importer.name_container(found.folder)}.{found.name}"
    module = importer.load(name, key, found.file)
    if found.attribute:
        component = getattr(module, found.attribute, None)
        detail = f"{found.attribute} of {module.__name__} is "
        if not isinstance(component, Component):
            raise ComponentError(key, found.file, f"{detail}{component!r}, not a Component")
        if (component.kind, component.key) != (kind, key):
            detail += f"the {component.kind} {component.key}"
            raise ComponentError(key, found.file, detail)
        return component
    modules = {"": module}
    if kind == "endpoint" and hasattr(module, "__path__"):
        there = {name for folder in module.__path__ for name, _ in _list_modules(folder)}
        modules = {
            each: importer.load(f"{module.__name__}.{each}", key, found.file)
            for each in _ENDPOINT_MODULES
            if each in there
        } | modules
    file = module.__file__ or found.file
    hooks = {
        each: read_hooks(offers, kind, key, offers.__file__ or file)
        for each, offers in modules.items()
    }
    router = None
    if kind == "endpoint":
        where = "router" if "router" in modules else ""
        router = read_router(modules[where], key, hooks[where].file)
        if where and router is None:
            _refuse_useless_module(modules[where], hooks[where], key, found.file)
        elif router is None:
            _refuse_router_of_another_name(module, hooks, key, file)
    return Component(
        kind=kind,
        container=found.container,
        name=found.name,
        modules=tuple(hooks.values()),
        router=router,
        requires=read_requires(module, key, file),
        module=module.__name__,
        file=file,
    )


def _refuse_router_of_another_name(
    module: ModuleType, hooks: Mapping[str, ModuleHooks], key: str, file: str
) -> None:
    """Refuse an endpoint of routes that nothing mounts: it has no hooks that could do it."""
    if any(each.hooks or each.lifespan is not None for each in hooks.values()):
        return
    for name, value in vars(module).items():
        if isinstance(value, Router) or is_api_router(value):
            detail = f"{name} is a router, and what is mounted is called `router`; a module that "
            raise ComponentError(key, file, f"{detail}others import has a name that begins with _")


def _refuse_useless_module(module: ModuleType, hooks: ModuleHooks, key: str, file: str) -> None:
    """Refuse a module `router` that has neither a router nor hooks."""
    if not hooks.hooks and hooks.lifespan is None and os.path.isfile(hooks.file):
        routers = [name for name, value in vars(module).items() if isinstance(value, Router)]
        there = f"; there is a Router called {join_names(routers)}" if routers else ""
        detail = f"{hooks.file} has neither hooks nor a `router`, which was looked for{there}"
        raise ComponentError(key, file, detail)
