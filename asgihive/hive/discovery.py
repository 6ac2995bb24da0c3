"""Finds the components of a hive and imports them, wherever they lie.

`find_components` and `find_installed` look without importing; `load_component` imports what
they found, by an `Importer`, and reads what the modules offer.
"""

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

from asgihive.asgi import Router
from asgihive.errors import ComponentError, ConfigurationError, join_names
from asgihive.hive.components import Component, ModuleHooks, read_hooks, read_requires, read_router
from asgihive.hive.config import DEFAULT_CORNERSTONE_PATH, HiveConfig
from asgihive.hive.hooks import ComponentKind, Metadata

_ENDPOINT_MODULES = ("db", "router", "service")
_FIELDS: dict[ComponentKind, str] = {
    "cornerstone": "cornerstone_package_path",
    "endpoint": "endpoint_package_paths",
}

# The folders of all hives of this process that hold components, without symbolic links.
_COMPONENT_FOLDERS: set[str] = set()

# Numbers for the private packages of a tree of folders, by its path: one for each hive.
_PACKAGE_NUMBERS: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)


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
    for path in config.endpoint_paths:
        found += _find_in_path("endpoint", path, base)
    return tuple(found)


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


def load_component(found: FoundComponent, importer: "Importer") -> Component:
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
        names = {each: f"{module.__name__}.{each}" for each in _ENDPOINT_MODULES}
        modules = {
            each: importer.load(name, key, found.file)
            for each, name in names.items()
            if importlib.util.find_spec(name) is not None
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


def _refuse_useless_module(module: ModuleType, hooks: ModuleHooks, key: str, file: str) -> None:
    """Refuse a module `router` that has neither a router nor hooks."""
    if not hooks.hooks and hooks.lifespan is None and os.path.isfile(hooks.file):
        routers = [name for name, value in vars(module).items() if isinstance(value, Router)]
        there = f"; there is a Router called {join_names(routers)}" if routers else ""
        detail = f"{hooks.file} has neither hooks nor a `router`, which was looked for{there}"
        raise ComponentError(key, file, detail)


class Importer:
    """Imports for one hive, without touching `sys.path`.

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

    def name_container(self, folder: str) -> str:
        """Return the dotted name under which the modules of a package folder are imported."""
        if folder not in self._names:
            self._names[folder] = self._find_name(folder) or self._make_private_name(folder)
        return self._names[folder]

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
            place = _place_error(error)
            detail = f"importing {name} failed{place} with {type(error).__name__}: {error}"
            raise ComponentError(key, file, detail + self._advise(error)) from error

    def _find_name(self, folder: str) -> str | None:
        """Find the name by which Python can import a package folder."""
        real = os.path.realpath(folder)
        for name in self._list_candidates(real):
            try:
                spec = importlib.util.find_spec(name)  # imports the packages it is in
            except (ImportError, ValueError):
                continue
            folders = (spec and spec.submodule_search_locations) or ()
            if [os.path.realpath(each) for each in folders] == [real]:
                return name
        return None

    def _list_candidates(self, folder: str) -> Iterator[str]:
        if self._package:
            names = _split_below(os.path.realpath(self._base), folder)
            if names:
                yield ".".join((self._package, *names))
        for entry in sys.path:
            root = os.path.realpath(entry or os.curdir)
            names = _split_below(root, folder)
            # Folders without an `__init__.py` are importable too, but hardly meant so.
            if names and all(
                os.path.exists(os.path.join(root, *names[:depth], "__init__.py"))
                for depth in range(1, len(names))
            ):
                yield ".".join(names)

    def _make_private_name(self, folder: str) -> str:
        parent, container = os.path.split(folder)
        root = self._names.get(parent)
        if root is None:
            digest = hashlib.sha256(os.fsencode(parent)).hexdigest()[:12]
            number = next(_PACKAGE_NUMBERS[parent])
            root = f"asgihive_components_{digest}" + (f"_{number}" if number else "")
            spec = ModuleSpec(root, None, is_package=True)
            spec.submodule_search_locations = [parent]
            sys.modules[root] = importlib.util.module_from_spec(spec)
            self._names[parent] = root
        return f"{root}.{container}"

    def _advise(self, error: Exception) -> str:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        head = (missing or "").partition(".")[0]
        for folder, name in self._names.items():
            if head and os.path.basename(folder) == head and name != head:
                return (
                    f"; {head} lies in {os.path.dirname(folder)}, which is not on sys.path: "
                    f"import it relatively (from ...{missing} import …), or put it there"
                )
        return ""


def find_calling_frame(frame: FrameType | None) -> FrameType | None:
    """Return the first frame from `frame` outwards that is not of asgihive itself."""
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name.partition(".")[0] != __name__.partition(".")[0]:
            return frame
        frame = frame.f_back
    return None


def find_component_folder(frame: FrameType | None) -> str | None:
    """Return the folder of the file that calls, if it belongs to a component of any hive."""
    frame = find_calling_frame(frame)
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


def _split_below(root: str, folder: str) -> list[str]:
    """Return the names from a folder down to one inside it, none where it is not inside."""
    if not folder.startswith(root.rstrip(os.sep) + os.sep):
        return []
    names = os.path.relpath(folder, root).split(os.sep)
    return names if all(name.isidentifier() for name in names) else []


def _place_error(error: Exception) -> str:
    """Say which file and line raised, where that is not the import system itself."""
    if isinstance(error, SyntaxError):
        return f" at {error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    written = [each for each in frames if not each.filename.startswith("<frozen ")]
    return f" at {written[-1].filename}:{written[-1].lineno}" if len(written) > 1 else ""
