"""One request in the scopes of several layers: which route answers it, and URLs by name.

A layer is an application around or below another one. It edits the scope that it is given, as
Starlette does, so that middleware around it sees what it found; where it is inside of another
application, it works on a copy, and tells the outer scopes which route has answered.
"""

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from starlette.datastructures import URLPath
from starlette.types import Message, Scope, Send

from asgihive.asgi.responses import PHASES
from asgihive.asgi.routes import Handler, Route

LAYER = "asgihive.layer"
"""Where a scope says that it is an inner one."""


class _Layer(NamedTuple):
    """Where the scope of a layer comes from."""

    outer: Scope
    mount: Route | None
    """What is in between, if the layer is mounted."""
    root_path: str
    """What the layer was given; mounts of Starlette change it later."""
    params: Mapping[str, Any]
    """Those of the mounts around; the outer scope has those of the route later."""


class AnsweringRoute:
    """The route that answers a request, as one layer sees it: with the mounts in between."""

    __slots__ = ("endpoint", "mount", "name", "path", "path_format", "route")

    def __init__(self, route: Any, path: str, path_format: str, mount: Route | None = None) -> None:
        self.route = route
        """The `Route` itself, or that of another framework."""
        self.path = path
        """The template of the whole path, with the prefixes of all mounts."""
        self.path_format = path_format
        """The template below the `root_path` of the layer, without convertors."""
        self.mount = mount
        """The outermost mount of the layer that the request went through."""
        self.name: str = getattr(route, "name", None) or ""
        self.endpoint: Handler | None = getattr(route, "endpoint", None)


class LayeredState(MutableMapping[str, Any]):
    """The state of a request, shared with the layers around but for a few keys of one's own."""

    def __init__(self, own: dict[str, Any], shared: MutableMapping[str, Any]) -> None:
        self._own = own
        self._shared = shared

    def __getitem__(self, key: str) -> Any:
        return self._own[key] if key in self._own else self._shared[key]

    def __setitem__(self, key: str, value: Any) -> None:
        (self._own if key in self._own else self._shared)[key] = value

    def __delitem__(self, key: str) -> None:
        del (self._own if key in self._own else self._shared)[key]

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        yield from (key for key in self._shared if key not in self._own)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def copy(self) -> dict[str, Any]:
        """Return a dictionary of what is there now."""
        return dict(self)


def enter_layer(
    scope: Scope, changes: Mapping[str, Any] = MappingProxyType({}), mount: Route | None = None
) -> Scope:
    """Return a copy of a scope for an inner layer, which tells the outer one what has answered.

    Args:
        changes: what the copy holds instead.
        mount: what is in between, if the layer is mounted.
    """
    inner = {**scope, **changes}
    params = scope.get("path_params", {})
    inner[LAYER] = _Layer(scope, mount, inner.get("root_path", ""), params)
    return inner


def announce_route(
    scope: Scope, route: Any, params: Mapping[str, Any], *, is_foreign: bool = False
) -> None:
    """Tell the scopes of all layers, from the innermost one outwards, which route answers.

    Args:
        route: a `Route`, or one of another framework, in the scope that it was found in.
        params: its path parameters, with those of the mounts around it.
        is_foreign: whether the innermost scope is another framework's, and is left alone.
    """
    # A mount of Starlette has its prefix in `root_path`.
    path = path_format = str(getattr(route, "path", "")) if hasattr(route, "endpoint") else ""
    if path:
        path_format = str(getattr(route, "path_format", path))
    endpoint = getattr(route, "endpoint", scope.get("endpoint"))
    mount: Route | None = None
    outer_params = scope.get("path_params", {})
    seen: list[tuple[Scope, str, Route | None]] = [(scope, path_format, mount)]
    while (layer := scope.get(LAYER)) is not None:
        prefix = scope.get("root_path", "").removeprefix(layer.root_path)
        path, path_format = prefix + path, prefix + path_format
        if layer.mount is not None:
            mount = layer.mount
            path, path_format = layer.mount.path + path, layer.mount.path_format + path_format
        scope, outer_params = layer.outer, layer.params
        seen.append((scope, path_format, mount))
    path = _find_mount_template(scope, outer_params) + path
    for each, below, through in seen[1:] if is_foreign else seen:
        each["route"] = AnsweringRoute(route, path, below, through)
        each["endpoint"] = endpoint
        each["path_params"] = params


def forget_route(scope: Scope) -> None:
    """Tell the scopes of all layers that no route answers."""
    found: Scope | None = scope
    while found is not None:
        found.pop("route", None)
        found.pop("endpoint", None)
        layer: _Layer | None = found.get(LAYER)
        found = None if layer is None else layer.outer


def adopt_route(inner: Scope) -> None:
    """Tell which route of a mounted application of another framework has answered.

    Args:
        inner: what the application was given, and has edited.
    """
    route = inner.get("route")
    if route is None or isinstance(route, AnsweringRoute):
        return
    told = inner[LAYER].outer.get("route")
    if not isinstance(told, AnsweringRoute) or told.route is not route:
        announce_route(inner, route, inner.get("path_params", {}), is_foreign=True)


def adopt_before_answer(adopt: Callable[[Scope], None], inner: Scope, send: Send) -> Send:
    """Return a `send` that calls `adopt(inner)` before a response starts: hooks look then."""

    async def adopt_and_send(message: Message) -> None:
        if message["type"] in PHASES:
            adopt(inner)
        await send(message)

    return adopt_and_send


def find_route(scope: Scope) -> Route | AnsweringRoute | None:
    """Return the route that a scope says has answered, also one of another framework."""
    route = scope.get("route")
    if route is None or isinstance(route, Route | AnsweringRoute):
        return route
    path = str(getattr(route, "path", ""))
    path_format = str(getattr(route, "path_format", path))
    return AnsweringRoute(route, find_mount_prefix(scope) + path, path_format)


def find_mount_prefix(scope: Scope) -> str:
    """Return the path between the application that the server runs and the one that answers."""
    root_path: str = scope.get("root_path", "")
    return root_path.removeprefix(scope.get("app_root_path", root_path))


def _find_mount_template(scope: Scope, params: Mapping[str, Any]) -> str:
    """Return the same with the parameters of the mounts, which are in its segments."""
    prefix = find_mount_prefix(scope)
    names = {str(value): f"{{{name}}}" for name, value in params.items()}
    if not prefix or not names:
        return prefix
    return "/".join(names.get(each, each) for each in prefix.split("/"))


class FindsUrls(Protocol):
    """What `request.url_for` asks: `scope["router"]`."""

    def url_path_for(self, name: str, /, **path_params: Any) -> URLPath: ...


class LayeredUrls:
    """URLs by name in one layer: its own routes first, then those that are around."""

    def __init__(self, own: FindsUrls, scope: Scope) -> None:
        self.own = own
        self._outer: FindsUrls = scope["router"]
        self._prefix = find_mount_prefix(scope)

    def url_path_for(self, name: str, /, **path_params: Any) -> URLPath:
        """Return the path of a route, below the application that the server runs.

        Raises:
            NoMatchFound: no layer has a route of that name and those parameters.
        """
        path = find_url(self.own, name, path_params)
        if path is None:
            return self._outer.url_path_for(name, **path_params)
        return URLPath(self._prefix + path, protocol=path.protocol, host=path.host)


class NamedRoutes:
    """Stands for all routes of an application among the `routes` of Starlette's `Mount`.

    So `url_for("mount:name")` of an application around finds them.
    """

    def __init__(self, own: FindsUrls) -> None:
        self.url_path_for = own.url_path_for


def find_url(routes: FindsUrls, name: str, params: Mapping[str, Any]) -> URLPath | None:
    """Return the path of a route of these; None if none has this name and these parameters."""
    from starlette.routing import NoMatchFound  # noqa: PLC0415  # only where URLs are made

    try:
        return routes.url_path_for(name, **params)
    except NoMatchFound:
        return None
