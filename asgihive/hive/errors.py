"""The exceptions of the hive.

    HiveError
    ├── ConfigurationError   a field of `HiveConfig` that cannot be used (also a ValueError)
    ├── ComponentError       a component that cannot be found, imported, ordered or mounted
    ├── HookFailed           a hook, or an external function, raised
    ├── HookDenied           an attribute that this hook may not see (also an AttributeError)
    └── HiveRunning          it runs already, or not yet

They are for who writes the service, at start-up; no request is answered by one of them.
"""

import difflib
from collections.abc import Iterable

from asgihive.errors import AsgihiveError


class HiveError(AsgihiveError):
    """The root of what a hive raises on purpose."""


class ConfigurationError(HiveError, ValueError):
    """A field of the configuration: which, what came, what is accepted."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(field, detail)
        self.field = field
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.field} {self.detail}"


class ComponentError(HiveError):
    """One component, by its key `container.name`, the file it is in, and what is wrong."""

    def __init__(self, component: str, file: str, detail: str) -> None:
        super().__init__(component, file, detail)
        self.component = component
        self.file = file
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.component} ({self.file}): {self.detail}"


class HookFailed(HiveError):
    """A step of start-up or shutdown that raised; its exception is the cause."""

    def __init__(self, owner: str, file: str, hook: str, error: BaseException) -> None:
        super().__init__(owner, file, hook, error)
        self.owner = owner
        self.file = file
        self.hook = hook
        self.error = error

    def __str__(self) -> str:
        said = f"{type(self.error).__name__}: {self.error}".rstrip(": ")
        return f"{self.owner} ({self.file}): {self.hook} failed with {said}"


class HookDenied(HiveError, AttributeError):
    """An attribute that is not there for this hook, or cannot be set."""


class HiveRunning(HiveError):
    """Something that is only possible before the hive starts."""


def described(names: Iterable[str], none: str = "nothing") -> str:
    """The names there are, for a message."""
    return ", ".join(sorted(names)) or none


def suggestion(name: str, known: Iterable[str]) -> str:
    """What might have been meant, for the end of a message; empty where nothing is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""
