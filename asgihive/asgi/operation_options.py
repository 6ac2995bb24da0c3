"""What a decorator says of an operation for OpenAPI alone: other responses, and security."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from asgihive.asgi.shapes import MISSING

Document = dict[str, Any]

_STATUS_RANGES = ("1XX", "2XX", "3XX", "4XX", "5XX", "default")
_SCHEME_TYPES = ("apiKey", "http", "mutualTLS", "oauth2", "openIdConnect")
_RESPONSE_MEMBERS = ("description", "headers", "content", "links", "model")


@dataclass(frozen=True, slots=True)
class ResponseDescription:
    """One response of an operation, as its decorator says."""

    status: str
    model: Any
    """The type of its body; MISSING if the decorator does not say."""

    members: Mapping[str, Any]
    """OpenAPI's own, with a description."""


def describe_responses(responses: Mapping[Any, Any]) -> tuple[ResponseDescription, ...]:
    """Return the responses that a decorator says.

    Args:
        responses: by status, or range of them (`"4XX"`): a description, the type of the body,
            or a mapping with `description`, `model`, and what OpenAPI has.

    Raises:
        TypeError: no status, or no response.
    """
    described = []
    for status, said in responses.items():
        number = str(status)
        is_status = number in _STATUS_RANGES or (number.isdigit() and 100 <= int(number) <= 599)
        if not is_status:
            raise TypeError(f"responses: {status!r} is no status; 404 and '4XX' are")
        members: dict[str, Any] = {}
        model: Any = MISSING
        if isinstance(said, str):
            members["description"] = said
        elif isinstance(said, Mapping):
            if unknown := said.keys() - {*_RESPONSE_MEMBERS}:
                accepted = ", ".join(_RESPONSE_MEMBERS)
                reason = f"{', '.join(map(repr, unknown))} is not known; accepted are {accepted}"
                raise TypeError(f"responses: {status!r}: {reason}")
            model = said.get("model", MISSING)
            members = {name: each for name, each in said.items() if name != "model"}
        else:
            model = said
        members.setdefault("description", _find_phrase(number))
        described.append(ResponseDescription(number, model, members))
    return tuple(described)


def _find_phrase(status: str) -> str:
    try:
        return HTTPStatus(int(status)).phrase
    except ValueError:
        return "As the operation answers"


@dataclass(frozen=True, slots=True)
class SecurityScheme:
    """A security scheme that an operation asks for, under a name."""

    name: str
    scheme: Mapping[str, Any]
    scopes: tuple[str, ...] = ()


Requirement = tuple[SecurityScheme, ...]
"""Schemes that are asked for together."""


def list_requirements(security: Any) -> tuple[Requirement, ...]:
    """Return what a decorator says of security: alternatives, each of schemes asked for together.

    Args:
        security: by name a security scheme of OpenAPI, or a scheme and its scopes; several such
            mappings are alternatives.

    Raises:
        TypeError: no scheme.
    """
    alternatives = [security] if isinstance(security, Mapping) else [*security]
    requirements = []
    for each in alternatives:
        if not isinstance(each, Mapping):
            raise TypeError(f'security: {each!r} is no mapping: write {{"name": scheme}}')
        requirements.append(tuple(_read_scheme(name, said) for name, said in each.items()))
    return tuple(requirements)


def _read_scheme(name: str, said: Any) -> SecurityScheme:
    scheme, scopes = said if isinstance(said, Sequence) and len(said) == 2 else (said, ())
    if not isinstance(scheme, Mapping) or scheme.get("type") not in _SCHEME_TYPES:
        accepted = ", ".join(_SCHEME_TYPES)
        reason = f"{scheme!r} is no security scheme of OpenAPI, whose type is one of {accepted}"
        raise TypeError(f"security: {name!r}: {reason}")
    return SecurityScheme(name, scheme, tuple(scopes))


class SecuritySchemes:
    """The security schemes of a document, each under a name of its own."""

    def __init__(self) -> None:
        self.components: Document = {}

    def describe(self, requirements: Iterable[Requirement]) -> list[Document]:
        """Return OpenAPI's `security` of an operation, and keep the schemes."""
        return [
            {self._add(each): [*each.scopes] for each in requirement}
            for requirement in requirements
        ]

    def _add(self, asked: SecurityScheme) -> str:
        name, number = asked.name, 2
        while self.components.setdefault(name, dict(asked.scheme)) != asked.scheme:
            name = f"{asked.name}-{number}"  # another scheme has that name
            number += 1
        return name


def find_fastapi_schemes(functions: Iterable[Any]) -> tuple[SecurityScheme, ...]:
    """Return the schemes of FastAPI's security objects, as `HTTPBearer()`, among dependencies."""
    found = []
    for each in functions:
        model, name = getattr(each, "model", None), getattr(each, "scheme_name", None)
        if type(each).__module__.startswith("fastapi.security") and model is not None:
            scheme = model.model_dump(mode="json", by_alias=True, exclude_none=True)
            found.append(SecurityScheme(str(name), scheme))
    return tuple(found)
