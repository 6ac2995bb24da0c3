"""What components are and what they keep: for the life of the application, and for a request."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeVar

from asgihive.errors import HookDenied, join_names
from asgihive.hive.provided import ProvidedValues, format_type

T = TypeVar("T")
ComponentKind = Literal["cornerstone", "endpoint"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What a component is: `self.cornerstone` or `self.endpoint` of its hooks.

    It also stands in the component's states, under `__cornerstone__` or `__endpoint__`.
    """

    kind: ComponentKind
    container: str
    """The first part of its key, and of an endpoint's URL."""
    name: str
    """The second part."""
    module: str = ""
    """Its dotted name, of a component in a package."""
    file: str = "built in code"
    requires: tuple[str, ...] = ()
    """Names of its own kind, or `container.name`, that start before."""

    @property
    def key(self) -> str:
        """`container.name`, by which states, `requires` and overrides know it."""
        return f"{self.container}.{self.name}"

    @property
    def container_name(self) -> str:
        """The container, as fastapi-hive calls it."""
        return self.container

    @property
    def package_path(self) -> str:
        """The module's dotted name, as fastapi-hive calls it."""
        return self.module


class StateKeyError(KeyError):
    """A key that is not there; the message says which are."""

    def __init__(self, key: object, where: str, known: Mapping[str, object]) -> None:
        super().__init__(key)
        self.key = key
        self.where = where
        self.known = tuple(known)

    def __str__(self) -> str:
        return f"{self.where} has no {self.key!r}; there is: {join_names(self.known)}"


class ComponentState(dict[str, Any]):
    """The values of one component; a wrong key names the keys there are."""

    __slots__ = ("_metadata",)

    def __init__(self, metadata: Metadata) -> None:
        # Not by `super().__init__`, since a request makes one for each cornerstone.
        self[_METADATA_KEYS[metadata.kind]] = self._metadata = metadata

    def __missing__(self, key: str) -> NoReturn:
        raise StateKeyError(key, f"The state of {self._metadata.key}", self)


_METADATA_KEYS: Mapping[ComponentKind, str] = {
    "cornerstone": "__cornerstone__",
    "endpoint": "__endpoint__",
}


class ComponentStates(dict[str, ComponentState]):
    """The states of the components of one kind, by `container.name`."""

    __slots__ = ("kind",)

    def __init__(self, kind: ComponentKind, components: Iterable[Metadata]) -> None:
        super().__init__({each.key: ComponentState(each) for each in components})
        self.kind = kind

    def __missing__(self, key: str) -> NoReturn:
        raise StateKeyError(key, f"The hive's {self.kind}s", self)


@dataclass(slots=True, eq=False)
class RequestStates(Mapping[str, ComponentState]):
    """The states of the cornerstones for one request, each made when it is first read."""

    _components: Mapping[str, Metadata]
    provided: ProvidedValues
    """By type, of the life."""
    _made: dict[str, ComponentState] | None = None
    _values: dict[Any, Any] | None = None

    def __getitem__(self, key: str) -> ComponentState:
        if self._made is None:
            self._made = {}
        found = self._made.get(key)
        if found is None:
            if key not in self._components:
                raise StateKeyError(key, "The request's cornerstones", self._components)
            found = self._made[key] = ComponentState(self._components[key])
        return found

    def ask(self, kind: type[T]) -> T:
        """Return the value of a type that a cornerstone provides, for this request or the life.

        Raises:
            NotProvided: there is none.
        """
        found: T
        for values in (self._values, self.provided.values):
            if values is not None and kind in values:
                found = values[kind]
                return found
        raise self.provided.refuse(kind, "for this request")

    def provide(self, owner: str, kind: Any, value: Any) -> None:
        """Keep a value for this request.

        Raises:
            HookDenied: the cornerstone does not say that it provides the type.
        """
        if self.provided.declared.get(kind) != owner:
            name = format_type(kind)
            text = f"{owner} provides {name} for a request and does not say so: write in its module"
            raise HookDenied(f"{text} provides = ({name},)")
        if self._values is None:
            self._values = {}
        self._values[kind] = value

    def __iter__(self) -> Iterator[str]:
        return iter(self._components)

    def __len__(self) -> int:
        return len(self._components)
