"""Finds the components that package paths and entry points name, without importing them."""

import hashlib
import importlib
import importlib.util
import itertools
import os
import sys
import traceback
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.metadata import entry_points
from types import FrameType, ModuleType

from starlette.types import ASGIApp

from asgihive.asgi import Router
from asgihive.errors import ComponentError, ConfigurationError, join_names
from asgihive.hive.components import Component, ModuleHooks, read_part, read_requires, read_router
from asgihive.hive.config import DEFAULT_CORNERSTONE_PATH, HiveConfig
from asgihive.hive.hooks import ComponentKind

PARTS = ("db", "router", "service")
_FIELDS: dict[ComponentKind, str] = {
    "cornerstone": "cornerstone_package_path",
    "endpoint": "endpoint_package_paths",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundComponent:
    """A component that was found and not imported yet.

    Args:
        folder: the package folder it lies in; empty if it is a module with a name.
        module: its dotted name; empty if it lies in a folder.
        attribute: of the module, where an entry point names one.
    """

    kind: ComponentKind
    container: str
    name: str
    file: str
    folder: str = ""
    module: str = ""
    attribute: str = ""

    @property
    def key(self) -> str:
        """`container.name`."""
        return f"{self.container}.{self.name}"


def find(config: HiveConfig, base: str | None) -> tuple[FoundComponent, ...]:
    """Every component that the package paths hold, none of them imported.

    Args:
        base: the folder that relative paths begin at; None if there is none.

    Raises:
        ConfigurationError: a path is no folder and no package.
    """
    found: list[FoundComponent] = []
    for path in config.cornerstone_paths:
        if path == DEFAULT_CORNERSTONE_PATH and not _is_folder(base, path):
            continue
        found += _in_path("cornerstone", path, base)
    for path in config.endpoint_paths:
        found += _in_path("endpoint", path, base)
    return tuple(found)


def find_installed() -> tuple[FoundComponent, ...]:
    """The components of installed distributions, which name them as entry points.

    The groups are `asgihive.cornerstones` and `asgihive.endpoints`; the name of an entry
    point is `name`, with the last word of the group as container, or `container.name`; its
    value is a module, or `module:attribute` where that is a `Component`.
    """
    found = []
    kinds: tuple[ComponentKind, ...] = ("cornerstone", "endpoint")
    for kind in kinds:
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


def _in_path(kind: ComponentKind, path: str, base: str | None) -> Iterator[FoundComponent]:
    words = path.split(".")
    is_name = all(word.isidentifier() for word in words)
    if is_name and not (len(words) == 1 and _is_folder(base, path)):
        yield from _in_package(kind, path, base)
        return
    if base is None and not os.path.isabs(path):
        detail = f"is {path!r}, but no file builds the hive: use an absolute path, or base=…"
        raise ConfigurationError(_FIELDS[kind], detail)
    folder = os.path.normpath(os.path.join(base or "", path))
    if not os.path.isdir(folder):
        raise ConfigurationError(_FIELDS[kind], _no_folder(path, folder))
    for name, file in _modules_in(folder):
        container = os.path.basename(folder)
        yield FoundComponent(kind=kind, container=container, name=name, file=file, folder=folder)


def _in_package(kind: ComponentKind, package: str, base: str | None) -> Iterator[FoundComponent]:
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
        for name, file in _modules_in(folder):
            module = f"{package}.{name}"
            yield FoundComponent(
                kind=kind, container=container, name=name, file=file, module=module
            )


def _modules_in(folder: str) -> Iterator[tuple[str, str]]:
    """Name and file of each package and module, by name."""
    for entry in sorted(os.listdir(folder)):
        path = os.path.join(folder, entry)
        name = entry.removesuffix(".py")
        if entry[0] in "._" or "." in name:
            continue
        if name != entry and os.path.isfile(path):
            yield name, path
        elif name == entry and os.path.isdir(path) and _is_component(path):
            init = os.path.join(path, "__init__.py")
            yield name, init if os.path.isfile(init) else path


def _is_component(folder: str) -> bool:
    """Whether it holds a package: templates, data and the like lie in such folders too."""
    inside = set(os.listdir(folder))
    return "__init__.py" in inside or any(
        part in inside or f"{part}.py" in inside for part in PARTS
    )


def _no_folder(path: str, folder: str) -> str:
    parent = os.path.dirname(folder)
    while not os.path.isdir(parent):
        parent = os.path.dirname(parent)
    there = [
        each
        for each in os.listdir(parent)
        if each[0] not in "._" and os.path.isdir(os.path.join(parent, each))
    ]
    return f"is {path!r}: there is no folder {folder}; in {parent} there is: {join_names(there)}"


# The folders of all hives of this process that hold components, without symbolic links.
_COMPONENT_FOLDERS: set[str] = set()

# How many hives of this process have taken a tree of folders, by its path.
_TAKEN: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)


class Importer:
    """Imports for one hive.

    A package folder that Python can import by itself (its parent is on `sys.path`, or it
    belongs to the package of the file that builds the hive) is imported by that name, so
    that `from cornerstones.db import x` gives the same module. Any other becomes part of a
    private package of this hive, named after its parent folder: relative imports work in
    it, also from one container to another (`from ...cornerstones.db import x`), and no
    other hive shares it.

    Args:
        base: the folder of the file that builds the hive.
        package: the package of that file, empty if it has none.
    """

    def __init__(self, base: str, package: str) -> None:
        self._base = base
        self._package = package
        self._names: dict[str, str] = {}

    def container_name(self, folder: str) -> str:
        """The dotted name under which the modules of a package folder are imported."""
        name = self._names.get(folder)
        if name is None:
            name = self._importable_name(folder) or self._private_name(folder)
            self._names[folder] = name
        return name

    def load(self, name: str, key: str, file: str) -> ModuleType:
        """Import a module of a component; `file` is that of the component, if it is in one.

        Raises:
            ComponentError: importing it raised; the message says where, the exception is
                the cause.
        """
        if os.path.isabs(file):
            _COMPONENT_FOLDERS.add(os.path.realpath(os.path.dirname(file)))
        try:
            return importlib.import_module(name)
        except Exception as error:
            detail = f"importing {name} failed{_place(error)} with {type(error).__name__}: {error}"
            raise ComponentError(key, file, detail + self._advice(error)) from error

    def _importable_name(self, folder: str) -> str | None:
        real = os.path.realpath(folder)
        for name in self._candidates(real):
            if _locations(name) == [real]:
                return name
        return None

    def _candidates(self, folder: str) -> Iterator[str]:
        if self._package:
            names = _names_below(os.path.realpath(self._base), folder)
            if names:
                yield ".".join((self._package, *names))
        for entry in sys.path:
            root = os.path.realpath(entry or os.curdir)
            names = _names_below(root, folder)
            # Folders without an `__init__.py` are importable too, but hardly meant so.
            if names and all(
                os.path.exists(os.path.join(root, *names[:depth], "__init__.py"))
                for depth in range(1, len(names))
            ):
                yield ".".join(names)

    def _private_name(self, folder: str) -> str:
        parent, container = os.path.split(folder)
        root = self._names.get(parent)
        if root is None:
            digest = hashlib.sha256(os.fsencode(parent)).hexdigest()[:12]
            number = next(_TAKEN[parent])
            root = f"asgihive_components_{digest}" + (f"_{number}" if number else "")
            spec = ModuleSpec(root, None, is_package=True)
            spec.submodule_search_locations = [parent]
            sys.modules[root] = importlib.util.module_from_spec(spec)
            self._names[parent] = root
        return f"{root}.{container}"

    def _advice(self, error: Exception) -> str:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        head = (missing or "").partition(".")[0]
        for folder, name in self._names.items():
            if head and os.path.basename(folder) == head and name != head:
                return (
                    f"; {head} lies in {os.path.dirname(folder)}, which is not on sys.path: "
                    f"import it relatively (from ...{missing} import …), or put it there"
                )
        return ""


def find_component_folder(frame: FrameType | None) -> str | None:
    """The folder of the file that calls, if it belongs to a component of a hive of this process.

    Args:
        frame: where the call comes from; those of asgihive itself are left out.
    """
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name.partition(".")[0] != __name__.partition(".")[0]:
            break
        frame = frame.f_back
    if frame is None:
        return None
    folder = os.path.dirname(os.path.abspath(frame.f_code.co_filename))
    real = os.path.realpath(folder)
    while real not in _COMPONENT_FOLDERS:
        parent = os.path.dirname(real)
        if parent == real:
            return None
        real = parent
    return folder


def _names_below(root: str, folder: str) -> list[str]:
    """The names from a folder down to one inside it, none where it is not inside."""
    if not folder.startswith(root.rstrip(os.sep) + os.sep):
        return []
    names = os.path.relpath(folder, root).split(os.sep)
    return names if all(name.isidentifier() for name in names) else []


def _locations(name: str) -> list[str]:
    """Where Python finds the package of that name; imports the packages it is in."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return []
    if spec is None or spec.submodule_search_locations is None:
        return []
    return [os.path.realpath(each) for each in spec.submodule_search_locations]


def _place(error: Exception) -> str:
    """File and line that raised, where that is not the import system itself."""
    if isinstance(error, SyntaxError):
        return f" at {error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    written = [each for each in frames if not each.filename.startswith("<frozen ")]
    return f" at {written[-1].filename}:{written[-1].lineno}" if len(written) > 1 else ""


def load(found: FoundComponent, importer: Importer) -> Component:
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
        modules=(*parts.values(), read_part(module, found.kind, found.key, file)),
        router=router,
        requires=read_requires(module, found.key, file),
        module=module.__name__,
        file=file,
    )


def _parts(module: ModuleType, found: FoundComponent, importer: Importer) -> dict[str, ModuleType]:
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


def _attribute(found: FoundComponent, module: ModuleType) -> Component:
    component = getattr(module, found.attribute, None)
    if not isinstance(component, Component):
        detail = f"{found.attribute} of {module.__name__} is {component!r}, not a Component"
        raise ComponentError(found.key, found.file, detail)
    if (component.kind, component.key) != (found.kind, found.key):
        detail = f"{found.attribute} of {module.__name__} is the {component.kind} {component.key}"
        raise ComponentError(found.key, found.file, detail)
    return component


def _router(
    found: FoundComponent,
    module: ModuleType,
    router_module: ModuleType | None,
    part: ModuleHooks | None,
) -> Router | ASGIApp | None:
    if router_module is None or part is None:
        return read_router(module, found.key, _file_of(module, found.file))
    file = part.file
    router = read_router(router_module, found.key, file)
    if router is None and not part.hooks and part.lifespan is None and os.path.isfile(file):
        routers = [name for name, value in vars(router_module).items() if isinstance(value, Router)]
        there = f"; there is a Router called {join_names(routers)}" if routers else ""
        detail = f"{file} has neither hooks nor a `router`, which was looked for{there}"
        raise ComponentError(found.key, found.file, detail)
    return router
