"""Finds the components that package paths and entry points name, without importing them."""

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points

from asgihive.hive.config import DEFAULT_CORNERSTONE_PATH, HiveConfig
from asgihive.hive.errors import ConfigurationError, described
from asgihive.hive.states import Kind

PARTS = ("db", "router", "service")
_FIELDS: dict[Kind, str] = {
    "cornerstone": "cornerstone_package_path",
    "endpoint": "endpoint_package_paths",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A component that was found and not imported yet.

    Args:
        folder: the package folder it lies in; empty if it is a module with a name.
        module: its dotted name; empty if it lies in a folder.
        attribute: of the module, where an entry point names one.
    """

    kind: Kind
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


def find(config: HiveConfig, base: str | None) -> tuple[Found, ...]:
    """Every component that the package paths hold, none of them imported.

    Args:
        base: the folder that relative paths begin at; None if there is none.

    Raises:
        ConfigurationError: a path is no folder and no package.
    """
    found: list[Found] = []
    for path in config.cornerstone_paths:
        if path == DEFAULT_CORNERSTONE_PATH and not _is_folder(base, path):
            continue
        found += _in_path("cornerstone", path, base)
    for path in config.endpoint_paths:
        found += _in_path("endpoint", path, base)
    return tuple(found)


def find_installed() -> tuple[Found, ...]:
    """The components of installed distributions, which name them as entry points.

    The groups are `asgihive.cornerstones` and `asgihive.endpoints`; the name of an entry
    point is `name`, with the last word of the group as container, or `container.name`; its
    value is a module, or `module:attribute` where that is a `Component`.
    """
    found = []
    kinds: tuple[Kind, ...] = ("cornerstone", "endpoint")
    for kind in kinds:
        for each in entry_points(group=f"asgihive.{kind}s"):
            container, _, name = each.name.rpartition(".")
            of = f" of {each.dist.name} {each.dist.version}" if each.dist else ""
            found.append(
                Found(
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


def _in_path(kind: Kind, path: str, base: str | None) -> Iterator[Found]:
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
        yield Found(kind=kind, container=container, name=name, file=file, folder=folder)


def _in_package(kind: Kind, package: str, base: str | None) -> Iterator[Found]:
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
            yield Found(kind=kind, container=container, name=name, file=file, module=module)


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
    return f"is {path!r}: there is no folder {folder}; in {parent} there is: {described(there)}"
