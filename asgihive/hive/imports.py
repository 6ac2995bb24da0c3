"""One module, one name: how the modules of a hive's components are imported, and import each other.

A package folder has one dotted name, by which the hive imports what is in it:

1. The one under which it was imported already.
2. The one that it has in the package of the file that builds the hive: `service.endpoints`.
3. The one by which Python finds it from a folder of `sys.path`: `endpoints`.
4. One in a private package of the hive, named after the folder's parent, where Python would not
   find it, or would find something else by that name: also the folder of another hive.

Under whatever other name it is imported, it is the same module. `from cornerstones.db import x` in
a component means the hive's own `cornerstones`, and so does `from ...cornerstones.db import x`.
`sys.path` is never changed; `sys.meta_path` has one finder more.
"""

import builtins
import hashlib
import importlib
import importlib.util
import itertools
import os
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import FrameType, ModuleType, SimpleNamespace
from typing import Any

from asgihive.errors import ComponentError
from asgihive.hive.lifespan_protocol import find_user_frames

_PRIVATE = "asgihive_components_"

# The folders of all hives of this process that hold components, without symbolic links.
_COMPONENT_FOLDERS: set[str] = set()

# Numbers for the private packages of a tree of folders, by its path: one for each hive.
_PACKAGE_NUMBERS: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)


@dataclass(frozen=True, slots=True)
class Builder:
    """The file that builds a hive."""

    folder: str | None = None
    """None where there is no file."""
    package: str = ""
    """The package that it is in."""
    file: str = ""
    module: str = ""
    """The name under which it is imported: `__main__` of `python main.py`."""

    @property
    def name(self) -> str:
        """The name that the module has by its file."""
        name = os.path.basename(self.file).removesuffix(".py")
        return f"{self.package}.{name}" if self.package else name

    def is_in(self, spec: ModuleSpec) -> bool:
        """Return whether the file is that of a module."""
        return bool(self.file and spec.origin) and _is_same_file(self.file, str(spec.origin))


def find_builder(frame: FrameType | None) -> Builder:
    """Return the file whose code runs in the first frame from `frame` on outside of asgihive."""
    frame = find_calling_frame(frame)
    if frame is None or not os.path.isfile(frame.f_code.co_filename):
        return Builder()
    file = os.path.abspath(frame.f_code.co_filename)
    package = frame.f_globals.get("__package__") or ""
    return Builder(os.path.dirname(file), package, file, str(frame.f_globals.get("__name__", "")))


class Importer:
    """Imports for one hive; the module says under which names.

    Args:
        builder: the file that builds the hive.
    """

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self._containers: dict[str, _Container] = {}
        self._private_packages: dict[str, str] = {}

    def name_container(self, folder: str) -> str:
        """Return the dotted name under which the modules of a package folder are imported."""
        real = os.path.realpath(folder)
        if real not in self._containers:
            name, parent = self._find_name(real), os.path.dirname(real)
            private = "" if name else self._make_private_package(parent)
            name = name or f"{private}.{os.path.basename(real)}"
            self._containers[real] = container = _Container(name, real, self, parent, private)
            _FINDER.add(container)
            if self.builder.file and self.builder.module != self.builder.name:
                _FINDER.add_main(self.builder)
        return self._containers[real].name

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
        except (Exception, SystemExit) as error:
            place = _place_error(error)
            detail = f"importing {name} failed{place} with {type(error).__name__}: {error}"
            raise ComponentError(key, file, detail) from error

    def resolve(self, name: str, container: "_Container") -> str | None:
        """Return what an absolute name means in a module of a container, None where Python knows.

        Another container of the hive is meant before anything else of that name, and where the
        container is private, whatever lies beside it before what another folder has.
        """
        head, dot, rest = name.partition(".")
        beside = os.path.join(container.parent, head)
        found = self._containers.get(beside)
        if found is None:
            others = (each for each in self._containers.values() if each.folder_name == head)
            found = next(others, None)
        meant = found.name if found is not None else None
        if meant is None and container.private_package:
            meant = self._find_beside(head, beside, container)
        return None if meant in {None, head} else f"{meant}{dot}{rest}"

    def _find_beside(self, head: str, path: str, container: "_Container") -> str | None:
        file = next(
            (each for each in (f"{path}.py", f"{path}/__init__.py") if os.path.isfile(each)), None
        )
        if file is None or head in sys.stdlib_module_names:
            return None
        if self.builder.file and _is_same_file(self.builder.file, file):
            return self.builder.module
        try:
            spec = importlib.util.find_spec(head)
        except (ImportError, ValueError):
            spec = None
        if spec is not None and spec.origin and _is_same_file(spec.origin, file):
            return None
        return f"{container.private_package}.{head}"

    def _find_name(self, folder: str) -> str | None:
        """Find a name by which Python has, or can, import a package folder."""
        for name, module in [*sys.modules.items()]:
            if name.rpartition(".")[2] == os.path.basename(folder) and isinstance(
                module, ModuleType
            ):
                is_alias = vars(module).get("__name__") != name or name.startswith(_PRIVATE)
                # Of a package without a file the paths ask its parent, which may be gone.
                with suppress(KeyError):
                    if not is_alias and _is_first(folder, vars(module).get("__path__") or ()):
                        return name
        for name in self._list_candidates(folder):
            try:
                spec = _find_spec_of_others(name)
            except (ImportError, ValueError):
                continue
            if name not in sys.modules and spec and _is_first(folder, _list_folders(spec)):
                return name
        return None

    def _list_candidates(self, folder: str) -> Iterator[str]:
        if self.builder.package and self.builder.folder:
            names = _split_below(os.path.realpath(self.builder.folder), folder)
            if names:
                yield ".".join((self.builder.package, *names))
        for entry in sys.path:
            root = os.path.realpath(entry or os.curdir)
            names = _split_below(root, folder)
            # Folders without an `__init__.py` are importable too, but hardly meant so.
            if names and all(
                os.path.exists(os.path.join(root, *names[:depth], "__init__.py"))
                for depth in range(1, len(names))
            ):
                yield ".".join(names)

    def _make_private_package(self, folder: str) -> str:
        """Return the name of the package that stands for a folder which Python does not search."""
        if folder not in self._private_packages:
            digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
            number = next(_PACKAGE_NUMBERS[folder])
            root = f"{_PRIVATE}{digest}" + (f"_{number}" if number else "")
            spec = ModuleSpec(root, None, is_package=True)
            spec.submodule_search_locations = [folder]
            sys.modules[root] = importlib.util.module_from_spec(spec)
            self._private_packages[folder] = root
            _FINDER.add(_Container(root, folder, self, folder, root))
        return self._private_packages[folder]


@dataclass(frozen=True, slots=True)
class _Container:
    """A package folder, the name of its package, and the hive that it is of."""

    name: str
    folder: str
    importer: Importer
    parent: str
    """The folder that its neighbours lie in."""
    private_package: str = ""
    """The private package that stands for that folder; empty where Python searches it."""

    @property
    def folder_name(self) -> str:
        return os.path.basename(self.folder)


class _ComponentFinder:
    """A finder of `sys.meta_path`: gives package folders, and what is in them, their one name."""

    def __init__(self) -> None:
        self._by_name: dict[str, _Container] = {}
        self._by_folder: dict[str, _Container] = {}
        self._folder_names: set[str] = set()
        self._mains: dict[str, list[Builder]] = {}

    def add(self, container: _Container) -> None:
        if self not in sys.meta_path:
            # Behind the finders of test runners, which rewrite what they import.
            places = [str(getattr(each, "__name__", "")) for each in sys.meta_path]
            at = places.index("PathFinder") if "PathFinder" in places else len(places)
            sys.meta_path.insert(at, self)
        self._by_name[container.name] = container
        if container.name == container.private_package:
            return
        self._folder_names.add(container.folder_name)
        other = self._by_folder.get(container.folder)
        if other is None or other.private_package:
            self._by_folder[container.folder] = container

    def add_main(self, builder: Builder) -> None:
        """Note a file that is imported under another name than its own: as `__main__`, say."""
        known = self._mains.setdefault(builder.name, [])
        if builder not in known:
            known.append(builder)

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,  # noqa: ARG002  # the protocol
    ) -> ModuleSpec | None:
        parent, _, name = fullname.rpartition(".")
        package = getattr(sys.modules.get(parent), "__name__", parent)
        container = self._find_container(package)
        mains = [container.importer.builder] if container else self._mains.get(fullname, [])
        if container is None and not mains and name not in self._folder_names:
            return None
        spec = _find_spec_of_others(fullname, path)
        if spec is None:
            return None
        one_name = fullname
        main = next((e for e in mains if e.is_in(spec) and e.module in sys.modules), None)
        if main is not None:
            one_name = main.module
        elif (inner := self._find_container_of(spec, fullname)) is not None:
            container, one_name = inner, inner.name
        elif container is not None:
            one_name = f"{package}.{name}"
        if one_name != fullname:
            return _make_alias(fullname, one_name, spec)
        return spec if container is None else _let_import(spec, container)

    def _find_container_of(self, spec: ModuleSpec, fullname: str) -> _Container | None:
        """Return the container whose package a module is."""
        folder = next((os.path.realpath(each) for each in _list_folders(spec)), "")
        own = self._by_name.get(fullname)
        return own if own is not None and own.folder == folder else self._by_folder.get(folder)

    def _find_container(self, package: str) -> _Container | None:
        """Return the container that a package is, or is in."""
        while package:
            found = self._by_name.get(package)
            # Something else may have the name by now.
            paths = getattr(sys.modules.get(package), "__path__", ()) if found else ()
            if found is not None and _is_first(found.folder, paths):
                return found
            package = package.rpartition(".")[0]
        return None


_FINDER = _ComponentFinder()


class _AliasLoader:
    """Gives a module a second name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:  # noqa: ARG002  # the protocol
        module = importlib.import_module(self._name)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import system has put the second name's there


def _make_alias(name: str, of: str, spec: ModuleSpec | None) -> ModuleSpec | None:
    if spec is None:
        return None
    loader: Any = _AliasLoader(of)
    folders = spec.submodule_search_locations
    alias = ModuleSpec(name, loader, origin=spec.origin, is_package=folders is not None)
    alias.submodule_search_locations = folders
    return alias


class _ComponentLoader(SourceFileLoader):
    """Runs a module whose imports are those of its container."""

    def __init__(self, name: str, path: str, container: _Container) -> None:
        super().__init__(name, path)
        self._container = container

    def exec_module(self, module: ModuleType) -> None:
        if self._needs_own_import(module.__package__ or ""):
            own = ModuleType("builtins", builtins.__doc__)
            vars(own).update(vars(builtins), __import__=_make_import(self._container))
            vars(module)["__builtins__"] = own
        super().exec_module(module)

    def _needs_own_import(self, package: str) -> bool:
        """Return whether it imports what Python would not find by that name.

        All others keep Python's own builtins, which it finds faster.
        """
        source = self.get_data(self.path).decode("utf-8", "replace")
        depth = package.count(".") + 2
        if re.search(rf"^\s*from\s+\.{{{depth}}}", source, re.MULTILINE):
            return True
        names = set(re.findall(r"^\s*from\s+(\w+)[\w.]*\s+import\b", source, re.MULTILINE))
        for line in re.findall(r"^\s*import\s+(.+)$", source, re.MULTILINE):
            names.update(re.findall(r"(?:^|,)\s*(\w+)", line))
        importer = self._container.importer
        return any(importer.resolve(each, self._container) for each in names)


def _let_import(spec: ModuleSpec, container: _Container) -> ModuleSpec:
    folders = spec.submodule_search_locations
    if spec.loader is None or (folders is not None and spec.origin is None):
        # A folder of the same name elsewhere on `sys.path` is not part of it.
        if spec.name == container.name:
            spec = ModuleSpec(spec.name, None, is_package=True)
            spec.submodule_search_locations = [container.folder]
    elif type(spec.loader) is SourceFileLoader:
        spec.loader = _ComponentLoader(spec.name, spec.loader.path, container)
    return spec


def _make_import(container: _Container) -> Callable[..., Any]:
    """Make the `__import__` of a container's modules."""

    def import_as_the_hive_does(
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002  # as that of `builtins`
        locals: Mapping[str, Any] | None = None,  # noqa: A002  # as above
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        if level and level != str((globals or {}).get("__package__")).count(".") + 2:
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        if not name:  # `from ... import cornerstones`
            modules = {each: importlib.import_module(find(each)) for each in fromlist or ()}
            return SimpleNamespace(**modules)
        found = find(name)
        module = builtins.__import__(found, globals, locals, fromlist or (), 0)
        if fromlist or found == name:
            return module
        return sys.modules[found.removesuffix(name.partition(".")[1] + name.partition(".")[2])]

    def find(name: str) -> str:
        return container.importer.resolve(name, container) or name

    return import_as_the_hive_does


def _find_spec_of_others(name: str, path: Sequence[str] | None = None) -> ModuleSpec | None:
    """Find what the other finders know of a module; import the packages it is in."""
    parent = name.rpartition(".")[0]
    if parent and path is None:
        path = importlib.import_module(parent).__path__
    for finder in sys.meta_path:
        if finder is not _FINDER:
            spec = finder.find_spec(name, path, None)
            if spec is not None:
                return spec
    return None


def _list_folders(spec: ModuleSpec) -> Iterable[str]:
    return spec.submodule_search_locations or ()


def _is_first(folder: str, paths: Iterable[str]) -> bool:
    """Return whether a package begins in `folder`, which it may have several times."""
    first = next(iter(paths), "")
    if first == folder:
        return True
    has_name = os.path.basename(first.rstrip(os.sep)) == os.path.basename(folder)
    return has_name and os.path.realpath(first) == folder


def _is_same_file(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


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


def _place_error(error: BaseException) -> str:
    """Say which file and line raised, where that is not the import system itself."""
    if isinstance(error, SyntaxError):
        return f" at {error.filename}:{error.lineno}"
    frames = find_user_frames(error)
    return f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
