"""`HiveConfig`: where the components are, and how their URLs and tags are made."""

import importlib
import inspect
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Annotated, Any, Self

from asgihive.errors import ConfigurationError, find_misspelt, join_names
from asgihive.settings import (
    Reading,
    Settings,
    describe_settings,
    environment_variables,
    parse_list,
    read_variables,
)

ENVIRONMENT_PREFIX = "HIVE_"
DEFAULT_CORNERSTONE_PATH = "./cornerstone"
EXTERNAL_HOOKS = (
    "pre_endpoint_setup",
    "post_endpoint_setup",
    "pre_endpoint_teardown",
    "post_endpoint_teardown",
)

PackagePath = str | os.PathLike[str]
PackagePaths = PackagePath | Sequence[PackagePath]
ExternalHook = Callable[[], object]
AsyncExternalHook = Callable[[], Awaitable[object]]

_ASYNC = "async_"


def _normalize_prefix(value: str) -> str:
    path = value.strip("/")
    return f"/{path}" if path else ""


def _as_tuple(paths: PackagePaths) -> tuple[str, ...]:
    several = (paths,) if isinstance(paths, str | os.PathLike) else paths
    return tuple(os.fspath(each) for each in several)


def _check_paths(value: object) -> str | tuple[str, ...]:
    if isinstance(value, str | os.PathLike):
        return str(os.fspath(value))
    several = isinstance(value, Iterable) and not isinstance(value, bytes | Mapping)
    paths = tuple(value) if several and isinstance(value, Iterable) else (None,)
    if not all(isinstance(each, str | os.PathLike) and str(each) for each in paths):
        message = "a path, or a tuple of paths, is accepted"
        raise ValueError(message)
    return _as_tuple(paths)


def _import_hook(text: str) -> Any:
    module_name, _, path = text.strip().partition(":")
    if not (module_name and path):
        message = "module:function is accepted"
        raise ValueError(message)
    try:
        found: Any = importlib.import_module(module_name)
        for word in path.split("."):
            found = getattr(found, word)
    except (ImportError, AttributeError) as error:
        raise ValueError(str(error)) from error
    return found


def _check_hook(name: str, value: object) -> None:
    is_async = inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(
        getattr(value, "__call__", None)  # noqa: B004  # an object may have an async one
    )
    if not callable(value):
        detail = f"is {value!r}: a function without arguments is accepted"
    elif is_async and not name.startswith(_ASYNC):
        detail = f"is a coroutine function: give it as {_ASYNC}{name}"
    elif name.startswith(_ASYNC) and not is_async:
        detail = f"is no coroutine function: give a plain function as {name.removeprefix(_ASYNC)}"
    else:
        return
    raise ConfigurationError(name, detail)


_Paths = Annotated[PackagePaths, Reading(parse=parse_list, normalize=_check_paths)]
_Hook = Annotated[ExternalHook | None, Reading(parse=_import_hook)]
_AsyncHook = Annotated[AsyncExternalHook | None, Reading(parse=_import_hook)]


class HiveConfig(Settings, frozen=True, kw_only=True):
    """Where the components of a hive are, and how they are mounted.

    Package paths are folders (absolute, or relative to the file that builds the hive) or
    dotted module names; a single word is a folder beside that file if there is one, else a
    module. `()` means none, and so does the default where there is no such folder.

    External hooks have no arguments. The plain ones are called in a worker thread, then the
    coroutine functions (`async_…`) on the event loop.

    Raises:
        ConfigurationError: a value cannot be used; the message names it and says what is
            accepted.
    """

    cornerstone_package_path: _Paths = DEFAULT_CORNERSTONE_PATH
    """Where the cornerstones are: one path or several."""
    endpoint_package_paths: _Paths = ()
    """Where the endpoints are: one path or several."""
    api_prefix: Annotated[str, Reading(normalize=_normalize_prefix)] = ""
    """Stands before every endpoint's URL; a slash at its beginning may be left out."""
    router_mount_automated: bool = True
    """Whether each endpoint's `router` is mounted; otherwise a hook does it."""
    hide_endpoint_container_in_api: bool = False
    """Whether the package folder's name is left out of the URL."""
    hide_endpoint_in_api: bool = False
    """Whether the endpoint's name is left out of the URL."""
    hide_endpoint_in_tag: bool = False
    """Whether the endpoint's name is left out of its OpenAPI tag."""
    pre_endpoint_setup: _Hook = None
    post_endpoint_setup: _Hook = None
    pre_endpoint_teardown: _Hook = None
    post_endpoint_teardown: _Hook = None
    async_pre_endpoint_setup: _AsyncHook = None
    async_post_endpoint_setup: _AsyncHook = None
    async_pre_endpoint_teardown: _AsyncHook = None
    async_post_endpoint_teardown: _AsyncHook = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in (*EXTERNAL_HOOKS, *(_ASYNC + each for each in EXTERNAL_HOOKS)):
            if (hook := getattr(self, name)) is not None:
                _check_hook(name, hook)

    @property
    def cornerstone_paths(self) -> tuple[str, ...]:
        """`cornerstone_package_path` as a tuple."""
        return _as_tuple(self.cornerstone_package_path)

    @property
    def endpoint_paths(self) -> tuple[str, ...]:
        """`endpoint_package_paths` as a tuple."""
        return _as_tuple(self.endpoint_package_paths)

    def make_prefix(self, container: str, name: str) -> str:
        """Return the path before those of an endpoint's routes."""
        words = [self.api_prefix]
        words += [] if self.hide_endpoint_container_in_api else [container]
        words += [] if self.hide_endpoint_in_api else [name]
        return "/".join(words)

    def make_tag(self, container: str, name: str) -> str:
        """Return the OpenAPI tag of an endpoint's routes."""
        return container if self.hide_endpoint_in_tag else f"{container}.{name}"

    @classmethod
    def from_object(cls, source: Mapping[str, Any] | ModuleType | object) -> Self:
        """Read the upper-case names of a mapping, a module or a class.

        Of a mapping every key counts. A module or class may have names of its own; only one
        that looks like a misspelt name of the configuration is an error.

        Raises:
            ConfigurationError: a name is unknown, or a value cannot be used.
        """
        if isinstance(source, Mapping):
            return cls(**_rename_to_fields(cls, source, ""))
        names = [name for name in dir(source) if name.isupper() and name[0] != "_"]
        values = {name: getattr(source, name) for name in names}
        return cls(**_rename_to_fields(cls, values, "", has_others=True))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None, **given: Any) -> Self:
        """Read the `HIVE_…` variables; what is given in code wins.

        Paths are separated by commas, hooks are named as `module:function`. Variables of other
        programs may begin in the same way; only one that looks misspelt is an error.

        Raises:
            ConfigurationError: a variable is misspelt or cannot be converted.
        """
        variables = environment_variables(ENVIRONMENT_PREFIX, environment)
        _rename_to_fields(cls, variables, ENVIRONMENT_PREFIX, has_others=True)  # raises
        source = os.environ if environment is None else environment
        return cls(**read_variables(cls, ENVIRONMENT_PREFIX, source, given))


def _rename_to_fields(
    cls: type[HiveConfig], values: Mapping[str, Any], prefix: str, *, has_others: bool = False
) -> dict[str, Any]:
    """Return the values by field; refuse other names, or only misspelt ones."""
    known = {each.upper(): each for each in describe_settings(cls)}
    for name in values:
        if name in known:
            continue
        free, upper = known.keys() - values.keys(), str(name).upper()
        meant = upper if upper in free else find_misspelt(upper, free)
        if meant is None and has_others:
            continue
        near = f" (did you mean {prefix}{meant}?)" if meant else ""
        accepted = join_names(prefix + each for each in known)
        detail = f"is no name of the configuration{near}; the names are {accepted}"
        raise ConfigurationError(f"{prefix}{name}", detail)
    return {known[name]: value for name, value in values.items() if name in known}
