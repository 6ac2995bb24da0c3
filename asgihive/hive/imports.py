"""Imports the modules of components, wherever they lie, without touching `sys.path`."""

import hashlib
import importlib
import importlib.util
import itertools
import os
import sys
import traceback
from collections import defaultdict
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from types import FrameType, ModuleType

from asgihive.hive.errors import ComponentError

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


def component_folder(frame: FrameType | None) -> str | None:
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
