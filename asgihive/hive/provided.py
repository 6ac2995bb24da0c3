"""Values by type: cornerstones provide them, handlers, dependencies and hooks ask for them."""

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

from starlette.requests import HTTPConnection
from starlette.types import Scope

from asgihive.asgi import Depends, Router, list_routes
from asgihive.asgi.arguments import Call
from asgihive.asgi.call_plans import plan_route
from asgihive.errors import ComponentError, HiveError, suggest_name

if TYPE_CHECKING:
    from asgihive.hive.states import Metadata

T = TypeVar("T")


class NotProvided(HiveError, LookupError):
    """A value of a type was asked for that is not there; the message says which are."""


class ProvidedValues:
    """What the cornerstones of one life provide by type."""

    def __init__(self) -> None:
        self.declared: dict[Any, str] = {}
        """By the types in `provides`: the cornerstone that says so."""
        self.values: dict[Any, Any] = {}
        """Those that live as long as the hive runs."""
        self._owners: dict[Any, str] = {}

    @property
    def owners(self) -> Mapping[Any, str]:
        """By type: the cornerstone that provides it."""
        return {**self.declared, **self._owners}

    def declare(self, kind: Any, owner: str, file: str) -> None:
        """Note that a cornerstone says it provides a type.

        Raises:
            ComponentError: another one does.
        """
        other = self.declared.setdefault(kind, owner)
        if other != owner:
            detail = f"provides {format_type(kind)}, which {other} provides already"
            raise ComponentError(owner, file, detail)

    def provide(self, owner: str, kind: Any, value: Any) -> None:
        """Keep a value for the life.

        Raises:
            HiveError: another cornerstone provides the type.
        """
        other = self.owners.get(kind, owner)
        if other != owner:
            raise HiveError(f"{owner} provides {format_type(kind)}, which {other} provides already")
        self._owners[kind] = owner
        self.values[kind] = value

    def refuse(self, kind: Any, where: str, asking: "Metadata | None" = None) -> NotProvided:
        """Return what says that there is no value of a type.

        Args:
            asking: the component that asks in a hook, which may come before what provides it.
        """
        name = format_type(kind)
        owner = self.declared.get(kind)
        said = f"No cornerstone provides {name}"
        if owner is not None:
            said = f"{owner} says that it provides {name}, and has not done so {where}"
        elif asking is not None:
            said = f"{said} {where}"
        if asking is not None and owner != asking.key:
            name = f"{owner!r}" if owner is not None else "what provides it"
            said = f"{said}; name {name} in `requires` of {asking.key}, so that it comes before"
        return NotProvided(said if owner is not None else f"{said}; {self.list_types(name)}")

    def list_types(self, name: str) -> str:
        """Return which types there are, as the end of a message."""
        owners = {format_type(kind): owner for kind, owner in self.owners.items()}
        there = ", ".join(f"{each} ({owner})" for each, owner in owners.items())
        return f"there is: {there or 'nothing'}{suggest_name(name, owners)}"


class ProvidedReader:
    """A dependency: the value of a type that the hive around the request provides."""

    are_used = False
    """Whether there are any in this process, so that others need no look for them."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        ProvidedReader.are_used = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ProvidedReader) and self.kind == other.kind

    def __hash__(self) -> int:
        return hash((ProvidedReader, self.kind))

    async def __call__(self, connection: HTTPConnection) -> Any:
        return self._read(connection.scope)

    def read_argument(self, call: Call) -> Any:
        """Return the value, for a handler or dependency that has it as a parameter."""
        return self._read(call.scope)

    def _read(self, scope: Scope) -> Any:
        states = scope.get("state", {}).get("cornerstones")
        if states is None:
            raise NotProvided(f"{format_type(self.kind)} was asked for where no hive is around")
        return states.ask(self.kind)


if TYPE_CHECKING:
    FromHive = Annotated[T, ProvidedReader]
else:

    class FromHive:
        """`FromHive[AsyncSession]`: a parameter that a cornerstone provides by its type.

        For handlers and dependencies in the routers of a hive, and in FastAPI's routers where
        FastAPI is imported before. That some cornerstone provides the type is checked when the
        hive starts.
        """

        def __class_getitem__(cls, kind: Any) -> Any:
            if isinstance(kind, str):
                raise TypeError(f"FromHive[{kind!r}]: the type itself is accepted, not its name")
            reader = ProvidedReader(kind)
            foreign = getattr(sys.modules.get("fastapi"), "Depends", None)  # for its routes
            if foreign is None:
                return Annotated[kind, Depends(reader)]
            return Annotated[kind, Depends(reader), foreign(reader)]


def format_type(kind: Any) -> str:
    """Return the name of a type, for people."""
    return str(getattr(kind, "__qualname__", kind))


class Asked(NamedTuple):
    """What a parameter asks for by type."""

    function: Callable[..., Any]
    parameter: str
    kind: Any
    of_websocket: bool


def list_asked(router: Router) -> Iterator[Asked]:
    """Yield what the routes of a router ask for by type."""
    for _, route in list_routes(router):
        plan = plan_route(route, overridden=any(route.overrides))
        bound = (*plan.steps, plan.handler) if plan.handler is not None else plan.steps
        for signature in (each.signature for each in bound):
            for argument in signature.arguments:
                reader = argument.dependency and argument.dependency.function
                if isinstance(reader, ProvidedReader) and not any(
                    reader in each for each in route.overrides
                ):
                    is_websocket = route.kind == "websocket"
                    yield Asked(signature.function, argument.name, reader.kind, is_websocket)
