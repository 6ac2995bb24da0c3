"""What components keep: for the application's life, and for one request."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from asgihive.hive.errors import described

Kind = Literal["cornerstone", "endpoint"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What a component is: `self.cornerstone` or `self.endpoint` of its hooks.

    It also stands in the component's states, under `__cornerstone__` or `__endpoint__`.
    """

    kind: Kind
    container: str
    name: str
    module: str
    file: str
    requires: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """`container.name`, by which states, `requires` and overrides know it."""
        return f"{self.container}.{self.name}"


class StateKeyError(KeyError):
    """A key that is not there; the message says which are."""

    def __init__(self, key: object, where: str, known: Mapping[str, object]) -> None:
        super().__init__(key)
        self.key = key
        self.where = where
        self.known = tuple(known)

    def __str__(self) -> str:
        return f"{self.where} has no {self.key!r}; there is: {described(self.known)}"


class ComponentState(dict[str, Any]):
    """The values of one component; a wrong key names the keys there are."""

    __slots__ = ("owner",)

    def __init__(self, metadata: Metadata) -> None:
        super().__init__({f"__{metadata.kind}__": metadata})
        self.owner = metadata.key

    def __missing__(self, key: str) -> Any:
        raise StateKeyError(key, f"The state of {self.owner}", self)


class States(dict[str, ComponentState]):
    """The states of the components of one kind, by `container.name`."""

    __slots__ = ("kind",)

    def __init__(self, kind: Kind, components: Mapping[str, Metadata]) -> None:
        super().__init__({key: ComponentState(each) for key, each in components.items()})
        self.kind = kind

    def __missing__(self, key: str) -> ComponentState:
        raise StateKeyError(key, f"The hive's {self.kind}s", self)


class RequestStates(Mapping[str, ComponentState]):
    """The states of the cornerstones for one request, each made when it is first asked for."""

    __slots__ = ("_components", "_made")

    def __init__(self, components: Mapping[str, Metadata]) -> None:
        self._components = components
        self._made: dict[str, ComponentState] | None = None

    def __getitem__(self, key: str) -> ComponentState:
        if self._made is None:
            self._made = {}
        found = self._made.get(key)
        if found is None:
            if key not in self._components:
                raise StateKeyError(key, "The request's cornerstones", self._components)
            found = self._made[key] = ComponentState(self._components[key])
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._components)

    def __len__(self) -> int:
        return len(self._components)
