"""A component as the hive runs it, whether a package offers it or code builds it."""

import ast
import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from types import ModuleType, SimpleNamespace
from typing import Any

from starlette.types import ASGIApp

from asgihive.asgi import Router
from asgihive.errors import ComponentError, find_misspelt, join_names
from asgihive.hive.contexts import ErrorContext, LifeContext, RequestHookContext
from asgihive.hive.conventions import read_conventions
from asgihive.hive.hooks import CornerstoneHooks, EndpointHooks, Hooks
from asgihive.hive.states import ComponentKind, Metadata

LifespanManager = Callable[[LifeContext], AbstractAsyncContextManager[object]]
RequestManager = Callable[[RequestHookContext], AbstractAsyncContextManager[object]]

# Functions that give no async context manager where they are called.
_OTHER_FUNCTIONS = (
    inspect.iscoroutinefunction,
    inspect.isgeneratorfunction,
    inspect.isasyncgenfunction,
)

_BASES: Mapping[ComponentKind, type[Hooks]] = {
    "cornerstone": CornerstoneHooks,
    "endpoint": EndpointHooks,
}


_ARTICLES: Mapping[ComponentKind, str] = {"cornerstone": "a", "endpoint": "an"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleHooks:
    """The hooks and context managers that one module of a component offers."""

    file: str = "built in code"
    """Where it is written."""
    hooks: tuple[type[Hooks] | Hooks, ...] = ()
    """In the order in which they run at each step. Of a class, one object is made for the life
    of the application and one for each request; an object is used itself for the life, and
    copied for each request."""
    lifespan: LifespanManager | None = None
    """Around the life of the component."""
    request: RequestManager | None = None
    """Around each request; only a cornerstone has it."""
    before_answer: Callable[[RequestHookContext], Any] | None = None
    """Called, `def` or `async def`, before the first byte of a response leaves; likewise."""
    websockets: bool | None = None
    """Whether what is around requests is around websockets, too."""
    provides: tuple[Any, ...] = ()
    """Types of which a cornerstone provides values, in particular for each request."""
    statuses: Mapping[type[Exception], int] = field(default_factory=dict)
    """As those of a `Component`."""
    answer: Callable[[ErrorContext, Exception], Any] | None = None
    """Returns the response to an exception, or None if that is not its own: of an endpoint's
    routes, of a cornerstone anywhere in the hive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Component(Metadata):
    """A cornerstone or an endpoint.

    Raises:
        ComponentError: a cornerstone has a router, an endpoint a `request`, or a `lifespan` or
            `request` is no context manager.
    """

    modules: tuple[ModuleHooks, ...] = ()
    """What is set up, in that order: of a package its `db`, `router` and `service`, then its
    own module."""
    router: Router | ASGIApp | None = None
    """Of an endpoint: a `Router`, which is included, or any ASGI application, which is mounted;
    its `lifespan`, if it has one, runs with the endpoint's."""
    state: Mapping[Any, Any] = field(default_factory=dict)
    """Values that its `app_state` begins with; under types, what it provides."""
    statuses: Mapping[type[Exception], int] = field(default_factory=dict)
    """HTTP statuses of exception classes: of an endpoint for its routes, of a cornerstone for the
    whole hive."""
    needs_lifespan: bool = True
    """Whether it must be started before a request reaches it. A hive answers without a lifespan
    if none of its components needs one."""

    def __post_init__(self) -> None:
        if self.kind == "cornerstone" and self.router is not None:
            detail = "a cornerstone has no router: that is an endpoint's"
            raise ComponentError(self.key, self.file, detail)
        if self.kind == "endpoint" and any(each.request for each in self.modules):
            detail = "an endpoint has no `request` context manager: that is a cornerstone's"
            raise ComponentError(self.key, self.file, detail)
        for module in self.modules:
            for name in ("lifespan", "request"):
                manager = getattr(module, name)
                if any(each(manager) for each in _OTHER_FUNCTIONS):
                    detail = f"{name} is no context manager: decorate it by @asynccontextmanager"
                    raise ComponentError(self.key, module.file, detail)


def make_replacement(kind: ComponentKind, container: str, name: str, fake: object) -> Component:
    """Make the component that a test puts in the place of the real one.

    Args:
        fake: a hooks class or object, a mapping (what its `app_state` holds), for an
            endpoint also a `Router` or an ASGI application, or anything with the names that a
            module offers.

    Raises:
        ComponentError: it is none of these.
    """
    bare = Component(kind=kind, container=container, name=name, file="an override")
    base = _BASES[kind]
    if isinstance(fake, Component):
        return replace(fake, kind=kind, container=container, name=name)
    if isinstance(fake, base) or _is_hooks_class(fake, base):
        return replace(bare, modules=(ModuleHooks(file=bare.file, hooks=(fake,)),))  # type: ignore[arg-type]  # as just checked
    if isinstance(fake, Mapping):
        return replace(bare, state=fake)
    if kind == "endpoint" and callable(fake) and not isinstance(fake, type):
        router: Any = fake
        return replace(bare, router=router)
    offered = [
        *_name_hooks(kind),
        "lifespan",
        "request",
        "before_answer",
        "provides",
        "router",
        "requires",
    ]
    is_of_other_kind = isinstance(fake, Hooks) or _is_hooks_class(fake, Hooks)
    if is_of_other_kind or not any(hasattr(fake, each) for each in offered):
        detail = (
            f"{fake!r} cannot stand in for it: accepted are a subclass or an object of "
            f"{base.__name__}, a mapping of its state, "
            f"or an object with one of {', '.join(offered)}"
        )
        raise ComponentError(bare.key, bare.file, detail)
    return replace(
        bare,
        modules=(read_hooks(fake, kind, bare.key, bare.file),),
        router=read_router(fake, bare.key, bare.file) if kind == "endpoint" else None,
        requires=read_requires(fake, bare.key, bare.file),
    )


def read_hooks(offers: object, kind: ComponentKind, key: str, file: str) -> ModuleHooks:
    """Read the hooks and context managers that a module, or an object like one, offers.

    Raises:
        ComponentError: something has one of the names but cannot be used.
    """
    hooks = []
    for name in _name_hooks(kind):
        found = getattr(offers, name, None)
        if found is None:
            continue
        if not _is_hooks_class(found, _BASES[kind]):
            detail = f"{name} is {found!r}: a subclass of {_BASES[kind].__name__} is accepted"
            raise ComponentError(key, file, detail)
        _refuse_misspelt_hooks(found, kind, key, file)
        hooks.append(found)
    if isinstance(offers, ModuleType):
        _refuse_unused_hooks(offers, kind, key, file, has_some=bool(hooks))
        _refuse_misspelt_names(offers, kind, key, file)
        if kind == "endpoint":
            _refuse_hooks_of_cornerstones(offers, key, file)
    # A module of an endpoint may well import something of the name `request`.
    request = _read_manager(offers, "request", key, file) if kind == "cornerstone" else None
    lifespan = _read_manager(offers, "lifespan", key, file)
    return ModuleHooks(
        file=file,
        hooks=tuple(hooks),
        lifespan=lifespan,
        request=request,
        **read_conventions(offers, kind, key, file),
    )


def read_router(offers: object, key: str, file: str) -> Router | ASGIApp | None:
    """Read the router that a module offers; return None if there is none.

    Raises:
        ComponentError: `router` is no ASGI application.
    """
    router: Any = getattr(offers, "router", None)
    if router is None or isinstance(router, ModuleType):
        return None
    if not callable(router):
        detail = f"router is {router!r}: a Router, or any ASGI application, is accepted"
        raise ComponentError(key, file, detail)
    return router  # type: ignore[no-any-return]  # its signature is seen at the first request


def read_requires(offers: object, key: str, file: str) -> tuple[str, ...]:
    """Read the names of the components that a module requires.

    Raises:
        ComponentError: it is no tuple or list of texts.
    """
    names = getattr(offers, "requires", ())
    if not isinstance(names, tuple | list) or not all(isinstance(each, str) for each in names):
        example = f"({names!r},)" if isinstance(names, str) else '("db",)'
        detail = f"requires is {names!r}: a tuple of names, such as {example}, is accepted"
        raise ComponentError(key, file, detail)
    return tuple(names)


def list_provided(component: Component) -> tuple[Any, ...]:
    """Return the types that a component says it provides."""
    types = [each for module in component.modules for each in module.provides]
    hooks = [each for module in component.modules for each in module.hooks]
    types += [kind for each in hooks for kind in getattr(get_class(each), "provides", ())]
    types += [key for key in component.state if not isinstance(key, str)]
    return tuple(dict.fromkeys(types))


def get_class(hooks: type[Hooks] | Hooks) -> type[Hooks]:
    """Return the class whose methods say which steps there are."""
    return hooks if isinstance(hooks, type) else type(hooks)


def _name_hooks(kind: ComponentKind) -> tuple[str, str]:
    return f"{kind.capitalize()}HooksImpl", f"{kind.capitalize()}AsyncHooksImpl"


def _is_hooks_class(found: object, base: type[Hooks]) -> bool:
    return isinstance(found, type) and issubclass(found, base)


def _refuse_unused_hooks(
    module: ModuleType, kind: ComponentKind, key: str, file: str, *, has_some: bool
) -> None:
    """Refuse hooks that would never be called: such a mistake is easily overlooked."""
    wanted = " or ".join(_name_hooks(kind))
    for name, found in vars(module).items():
        if not isinstance(found, type) or found.__module__ != module.__name__:
            continue
        base = next((each for each in _BASES.values() if _is_hooks_class(found, each)), None)
        if base is None or (base is _BASES[kind] and has_some):
            continue
        if base is _BASES[kind]:
            detail = f"{name} has hooks, but only {wanted} is looked for"
        else:
            detail = f"{name} is a subclass of {base.__name__}, but this {kind} needs {wanted}"
        raise ComponentError(key, file, detail)


def _refuse_misspelt_hooks(hooks: type[Hooks], kind: ComponentKind, key: str, file: str) -> None:
    """Refuse methods that were meant to be hooks and would never be called."""
    steps = _list_steps(kind)
    methods = {
        name
        for each in hooks.__mro__
        if each.__module__ != Hooks.__module__
        for name, value in vars(each).items()
        if inspect.isfunction(value) and name[0] != "_"
    }
    for name in sorted(methods - steps):
        others = {step for each in _BASES for step in _list_steps(each)} - steps
        meant = find_misspelt(name, steps - methods)
        if name in others and (name.startswith(("pre_", "post_")) or not methods & steps):
            detail = f"{hooks.__name__}.{name} is no hook of {_ARTICLES[kind]} {kind}"
        elif meant is not None and not name.startswith(f"{meant}_"):
            detail = f"{hooks.__name__}.{name} is no hook (did you mean {meant}?)"
        else:
            continue
        raise ComponentError(key, file, f"{detail}; the hooks are {join_names(sorted(steps))}")


def _list_steps(kind: ComponentKind) -> set[str]:
    base = _BASES[kind]
    return {name for name, value in vars(base).items() if inspect.isfunction(value)}


def _refuse_misspelt_names(module: ModuleType, kind: ComponentKind, key: str, file: str) -> None:
    """Refuse what was meant to be read, by its kind and by a name that is nearly one of those."""
    of_kind = (
        {"request", "before_answer", "websockets", "provides"}
        if kind == "cornerstone"
        else {"router"}
    )
    names = {"requires", "statuses", "lifespan", *of_kind}
    missing = names - vars(module).keys()
    for name, value in vars(module).items():
        # Names are compared last, which takes longer than all else.
        of_its_kind = [] if name in names else [each for each in missing if _MEANT[each](value)]
        meant = find_misspelt(name, of_its_kind) if of_its_kind else None
        if meant is not None and not _is_imported(module, name, value):
            detail = f"{name} is not looked for (did you mean {meant}?)"
            raise ComponentError(key, file, detail)


def _refuse_hooks_of_cornerstones(module: ModuleType, key: str, file: str) -> None:
    """Refuse in an endpoint what only cornerstones have: a guard that would never be called.

    A handler may well be called `request`, so that they are known by their parameter.
    """
    for name in ("request", "before_answer"):
        found = vars(module).get(name)
        if not inspect.isfunction(found) or _is_imported(module, name, found):
            continue
        if [*inspect.signature(found).parameters] == ["context"]:
            detail = (
                f"{name}(context) is only looked for in cornerstones; an endpoint guards its "
                "routes by Router(dependencies=[Depends(f)])"
            )
            raise ComponentError(key, file, detail)


def _is_manager(value: object) -> bool:
    return inspect.isasyncgenfunction(inspect.unwrap(value) if callable(value) else value)


def _is_names(value: object) -> bool:
    return isinstance(value, tuple | list | set) and all(isinstance(each, str) for each in value)


def _is_statuses(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(each, type) and issubclass(each, Exception) for each in value
    )


# By name: whether a value looks as if it was meant to have it.
_MEANT: Mapping[str, Callable[[Any], bool]] = {
    "requires": _is_names,
    "statuses": _is_statuses,
    "lifespan": _is_manager,
    "request": _is_manager,
    "before_answer": inspect.isfunction,
    "websockets": lambda value: isinstance(value, bool),
    "provides": lambda value: isinstance(value, tuple | list),
    "router": lambda value: isinstance(value, Router),
}


def _is_imported(module: ModuleType, name: str, value: object) -> bool:
    """Return whether a module imports a name from outside of its own package."""
    origin = str(getattr(value, "__module__", ""))
    if f"{origin}.".startswith(f"{module.__name__}."):
        return False
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError, SyntaxError):  # there is no source
        return False
    return any(
        (each.asname or each.name.partition(".")[0]) == name
        for statement in ast.walk(tree)
        if isinstance(statement, ast.Import | ast.ImportFrom)
        for each in statement.names
    )


def _read_manager(offers: object, name: str, key: str, file: str) -> Any:
    found = getattr(offers, name, None)
    if found is None or isinstance(found, ModuleType):
        return None
    if isinstance(offers, ModuleType) and _is_imported(offers, name, found):
        return None  # another thing of that name: it was not defined for this
    if inspect.isasyncgenfunction(found):
        found = asynccontextmanager(found)
    if not callable(found):
        problem = f"is {found!r}"
    elif inspect.iscoroutinefunction(found) or inspect.isgeneratorfunction(found):
        problem = "is no context manager"
    else:
        try:
            inspect.signature(found).bind(SimpleNamespace())
        except TypeError as error:
            problem = f"cannot be called: {error}"
        else:
            return found
    accepted = f"an async context manager `{name}(context)` is accepted"
    separator = ";" if problem.startswith("cannot") else ":"
    raise ComponentError(key, file, f"{name} {problem}{separator} {accepted}")
