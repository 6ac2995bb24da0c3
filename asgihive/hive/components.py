"""A component as the hive runs it, whether a package offers it or code builds it."""

import copy
import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

from starlette.types import ASGIApp

from asgihive.asgi import Router
from asgihive.errors import ComponentError
from asgihive.hive.hooks import (
    ComponentKind,
    CornerstoneHooks,
    EndpointHooks,
    Hooks,
    LifeContext,
    Metadata,
    RequestContext,
)

Lifespan = Callable[[LifeContext], AbstractAsyncContextManager[object]]
RequestManager = Callable[[RequestContext], AbstractAsyncContextManager[object]]

_BASES: Mapping[ComponentKind, type[Hooks]] = {
    "cornerstone": CornerstoneHooks,
    "endpoint": EndpointHooks,
}
_OTHER: Mapping[ComponentKind, ComponentKind] = {
    "cornerstone": "endpoint",
    "endpoint": "cornerstone",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleHooks:
    """What one module of a component offers: hooks, and context managers.

    Args:
        file: where it is written.
        hooks: classes (one object for the life of the application, one for each request) or
            objects (used themselves for the life, copied for each request), in the order in
            which they run at each step.
        lifespan: around the life of the component.
        request: around each request; of a cornerstone.
    """

    file: str = "built in code"
    hooks: tuple[type[Hooks] | Hooks, ...] = ()
    lifespan: Lifespan | None = None
    request: RequestManager | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A cornerstone or an endpoint.

    Args:
        container: the first part of its key, and of an endpoint's URL.
        name: the second part.
        modules: what is set up, in that order: of a package its `db`, `router` and `service`,
            then its own module.
        router: of an endpoint: a `Router`, which is included, or any ASGI application, which
            is mounted; its `lifespan`, if it has one, runs with the endpoint's.
        requires: names of the own kind, or `container.name`, that start before.
        module, file: where it comes from.
        state: values that its `app_state` begins with.
        statuses: HTTP statuses of exception classes, for the whole hive.
        needs_lifespan: whether a request must not reach it before it was started. A hive
            of components that all do without answers without a lifespan.

    Raises:
        ComponentError: a cornerstone has a router, or an endpoint a `request`.
    """

    kind: ComponentKind
    container: str
    name: str
    modules: tuple[ModuleHooks, ...] = ()
    router: Router | ASGIApp | None = None
    requires: tuple[str, ...] = ()
    module: str = ""
    file: str = "built in code"
    state: Mapping[str, Any] = field(default_factory=dict)
    statuses: Mapping[type[Exception], int] = field(default_factory=dict)
    needs_lifespan: bool = True

    def __post_init__(self) -> None:
        if self.kind == "cornerstone" and self.router is not None:
            detail = "a cornerstone has no router: that is an endpoint's"
            raise ComponentError(self.key, self.file, detail)
        if self.kind == "endpoint" and any(part.request for part in self.modules):
            detail = "an endpoint has no `request` context manager: that is a cornerstone's"
            raise ComponentError(self.key, self.file, detail)

    @property
    def key(self) -> str:
        """`container.name`."""
        return f"{self.container}.{self.name}"

    @property
    def metadata(self) -> Metadata:
        """What its hooks and its states say about it."""
        return Metadata(
            kind=self.kind,
            container=self.container,
            name=self.name,
            module=self.module,
            file=self.file,
            requires=self.requires,
        )


def replacement(kind: ComponentKind, container: str, name: str, fake: object) -> Component:
    """A component of that name which a test puts in the place of the real one.

    Args:
        fake: a hooks class or object, a mapping (what its `app_state` holds), for an
            endpoint also a `Router`, or anything with the names that a module offers.

    Raises:
        ComponentError: it is none of these.
    """
    bare = Component(kind=kind, container=container, name=name, file="an override")
    if isinstance(fake, Component):
        return replace(fake, kind=kind, container=container, name=name)
    if isinstance(fake, _BASES[kind]) or _is_hooks(fake, _BASES[kind]):
        return replace(bare, modules=(ModuleHooks(file=bare.file, hooks=(fake,)),))  # type: ignore[arg-type]  # as just checked
    if isinstance(fake, Mapping):
        return replace(bare, state=fake)
    if isinstance(fake, Router) and kind == "endpoint":
        return replace(bare, router=fake)
    offered = [*_hook_names(kind), "lifespan", "request", "router", "requires"]
    is_hooks = isinstance(fake, Hooks) or _is_hooks(fake, Hooks)  # of the other kind
    if is_hooks or not any(hasattr(fake, each) for each in offered):
        detail = (
            f"{fake!r} cannot stand in for it: accepted are a subclass or an object of "
            f"{_BASES[kind].__name__}, a mapping of its state, "
            f"or an object with one of {', '.join(offered)}"
        )
        raise ComponentError(bare.key, bare.file, detail)
    own = read_part(fake, kind, bare.key, bare.file)
    router = read_router(fake, bare.key, bare.file) if kind == "endpoint" else None
    requires = read_requires(fake, bare.key, bare.file)
    return replace(bare, modules=(own,), router=router, requires=requires)


def read_part(offers: object, kind: ComponentKind, key: str, file: str) -> ModuleHooks:
    """The hooks and context managers that a module, or an object like one, offers.

    Raises:
        ComponentError: something has one of the names but cannot be used.
    """
    hooks = []
    for name in _hook_names(kind):
        found = getattr(offers, name, None)
        if found is None:
            continue
        if not _is_hooks(found, _BASES[kind]):
            detail = f"{name} is {found!r}: a subclass of {_BASES[kind].__name__} is accepted"
            raise ComponentError(key, file, detail)
        hooks.append(found)
    _refuse_lost_hooks(offers, kind, key, file, found_some=bool(hooks))
    # A module of an endpoint may well import something of that name.
    request = _manager(offers, "request", key, file) if kind == "cornerstone" else None
    lifespan = _manager(offers, "lifespan", key, file)
    return ModuleHooks(file=file, hooks=tuple(hooks), lifespan=lifespan, request=request)


def read_router(offers: object, key: str, file: str) -> Router | ASGIApp | None:
    """The router that a module offers, None if there is none.

    Raises:
        ComponentError: `router` is no ASGI application.
    """
    router = getattr(offers, "router", None)
    if router is None or isinstance(router, ModuleType):
        return None
    if not callable(router):
        detail = f"router is {router!r}: a Router, or any ASGI application, is accepted"
        raise ComponentError(key, file, detail)
    found: Router | ASGIApp = router
    return found


def read_requires(offers: object, key: str, file: str) -> tuple[str, ...]:
    """The names that a module says it needs.

    Raises:
        ComponentError: it is no tuple or list of texts.
    """
    names = getattr(offers, "requires", ())
    if not isinstance(names, tuple | list) or not all(isinstance(each, str) for each in names):
        example = f"({names!r},)" if isinstance(names, str) else '("db",)'
        detail = f"requires is {names!r}: a tuple of names, such as {example}, is accepted"
        raise ComponentError(key, file, detail)
    return tuple(names)


def life_object(hooks: type[Hooks] | Hooks) -> Hooks:
    """The object for the life of the application."""
    return hooks() if isinstance(hooks, type) else hooks


def request_factory(hooks: type[Hooks] | Hooks) -> Callable[[], Hooks]:
    """What makes the object of one request."""
    return hooks if isinstance(hooks, type) else partial(copy.copy, hooks)


def class_of(hooks: type[Hooks] | Hooks) -> type[Hooks]:
    """The class whose methods say which steps there are."""
    return hooks if isinstance(hooks, type) else type(hooks)


def _hook_names(kind: ComponentKind) -> tuple[str, str]:
    return f"{kind.capitalize()}HooksImpl", f"{kind.capitalize()}AsyncHooksImpl"


def _is_hooks(found: object, base: type[Hooks]) -> bool:
    return isinstance(found, type) and issubclass(found, base)


def _refuse_lost_hooks(
    offers: object, kind: ComponentKind, key: str, file: str, *, found_some: bool
) -> None:
    """Hooks that would never be called are a mistake that nobody would notice."""
    if not isinstance(offers, ModuleType):
        return
    wanted = " or ".join(_hook_names(kind))
    for name, found in vars(offers).items():
        if not isinstance(found, type) or found.__module__ != offers.__name__:
            continue
        if _is_hooks(found, _BASES[_OTHER[kind]]):
            base = _BASES[_OTHER[kind]].__name__
            detail = f"{name} is a subclass of {base}, but this {kind} needs {wanted}"
            raise ComponentError(key, file, detail)
        if not found_some and _is_hooks(found, _BASES[kind]):
            raise ComponentError(key, file, f"{name} has hooks, but only {wanted} is looked for")


def _manager(offers: object, name: str, key: str, file: str) -> Any:
    found = getattr(offers, name, None)
    if found is None or isinstance(found, ModuleType):
        return None
    if inspect.isasyncgenfunction(found):
        found = asynccontextmanager(found)
    accepted = f"an async context manager `{name}(context)` is accepted"
    if not callable(found):
        raise ComponentError(key, file, f"{name} is {found!r}: {accepted}")
    if inspect.iscoroutinefunction(found) or inspect.isgeneratorfunction(found):
        raise ComponentError(key, file, f"{name} is no context manager: {accepted}")
    try:
        inspect.signature(found).bind(SimpleNamespace())
    except TypeError as error:
        raise ComponentError(key, file, f"{name} cannot be called: {error}; {accepted}") from None
    return found
