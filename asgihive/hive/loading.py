"""Makes a component of what was found: imports its modules and reads what they offer."""

import importlib.util
import os
from types import ModuleType

from starlette.types import ASGIApp

from asgihive.asgi import Router
from asgihive.hive.components import Component, Part, read_part, read_requires, read_router
from asgihive.hive.discovery import PARTS, Found
from asgihive.hive.errors import ComponentError, described
from asgihive.hive.imports import Importer


def load(found: Found, importer: Importer) -> Component:
    """Import a component, and of an endpoint its `db`, `router` and `service`.

    Raises:
        ComponentError: a module cannot be imported, or offers what cannot be used.
    """
    folder = found.folder
    name = found.module or f"{importer.container_name(folder)}.{found.name}"
    module = importer.load(name, found.key, found.file)
    if found.attribute:
        return _attribute(found, module)
    file = _file_of(module, found.file)
    modules = _parts(module, found, importer) if found.kind == "endpoint" else {}
    parts = {
        part: read_part(each, found.kind, found.key, _file_of(each, file))
        for part, each in modules.items()
    }
    router = None
    if found.kind == "endpoint":
        router = _router(found, module, modules.get("router"), parts.get("router"))
    return Component(
        kind=found.kind,
        container=found.container,
        name=found.name,
        parts=(*parts.values(), read_part(module, found.kind, found.key, file)),
        router=router,
        requires=read_requires(module, found.key, file),
        module=module.__name__,
        file=file,
    )


def _parts(module: ModuleType, found: Found, importer: Importer) -> dict[str, ModuleType]:
    if not hasattr(module, "__path__"):
        return {}
    names = {part: f"{module.__name__}.{part}" for part in PARTS}
    return {
        part: importer.load(name, found.key, found.file)
        for part, name in names.items()
        if importlib.util.find_spec(name) is not None
    }


def _file_of(module: ModuleType, otherwise: str) -> str:
    return module.__file__ or otherwise


def _attribute(found: Found, module: ModuleType) -> Component:
    component = getattr(module, found.attribute, None)
    if not isinstance(component, Component):
        detail = f"{found.attribute} of {module.__name__} is {component!r}, not a Component"
        raise ComponentError(found.key, found.file, detail)
    if (component.kind, component.key) != (found.kind, found.key):
        detail = f"{found.attribute} of {module.__name__} is the {component.kind} {component.key}"
        raise ComponentError(found.key, found.file, detail)
    return component


def _router(
    found: Found, module: ModuleType, router_module: ModuleType | None, part: Part | None
) -> Router | ASGIApp | None:
    if router_module is None or part is None:
        return read_router(module, found.key, _file_of(module, found.file))
    file = part.file
    router = read_router(router_module, found.key, file)
    if router is None and not part.hooks and part.lifespan is None and os.path.isfile(file):
        routers = [name for name, value in vars(router_module).items() if isinstance(value, Router)]
        there = f"; there is a Router called {described(routers)}" if routers else ""
        detail = f"{file} has neither hooks nor a `router`, which was looked for{there}"
        raise ComponentError(found.key, found.file, detail)
    return router
