"""The OpenAPI document of the service: what each of its routes takes and answers.

The routes are bare ASGI applications, of which the document of a router knows path and method.
What is said of them here is made of what they work with: the formats that there are, bounds
and defaults, and the table of statuses. Tests hold the rest against what they do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from asgihive import errors
from asgihive.asgi import Documentation, Router
from asgihive.asgi.arguments import JSON, MSGPACK_TYPES
from asgihive.encoders.protocol import DocumentEncoder
from asgihive.encoders.registry import list_encoders
from asgihive.service.batch import MAX_BATCH_REQUESTS
from asgihive.service.files import MEDIA_TYPE
from asgihive.service.gate import STATUSES, is_open
from asgihive.service.openapi_parameters import CONDITIONAL, ENTITY, RANGE, VALUES, parameters
from asgihive.service.openapi_schemas import SCHEMAS, Schema, reference
from asgihive.service.operation import HEALTH, METRICS
from asgihive.settings import H5Settings

_VERSION = version("asgihive")  # reads a file, which the event loop must not
_DESCRIPTION = """\
HDF5 files over HTTP, read-only. GET routes answer HEAD, too, and every route also with a slash \
at its end. An unknown parameter whose name resembles one of the route's is refused, all others \
are ignored. Every error is JSON with a `message`."""

_TEXT: Schema = {"type": "string"}

Errors = Sequence[type[Exception]]

# Of whatever opens a file, of whatever goes to one of its entities, and of what reads values.
_FILE: Errors = (
    errors.BadParameter,
    errors.FileMissing,
    errors.FileForbidden,
    errors.FileUnreadable,
    errors.FileChanged,
    errors.Overloaded,
    errors.ReadTimeout,
    errors.ReaderCrashed,
)
_ENTITY: Errors = (
    *_FILE,
    errors.EntityMissing,
    errors.LinkUnresolved,
    errors.AnswerTooLarge,
    errors.ChunkTooLarge,
    errors.DamagedData,
    errors.LibraryRefused,
)
_VALUES: Errors = (
    *_ENTITY,
    errors.SourceRefused,
    errors.KindMismatch,
    errors.BadSelection,
    errors.TypeUnsupported,
    errors.FilterMissing,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Described:
    """What is known of a route.

    parameters: of the query, by their names in `parameters`.
    content: schemas by media type; `schema` those of a document in every format of documents.
    errors: what it raises.
    others: further statuses, and what they mean.
    is_versioned, has_ranges: whether it answers conditional and range requests.
    """

    summary: str
    description: str = ""
    parameters: Sequence[str] = ()
    schema: Schema | None = None
    content: Mapping[str, Schema] | None = None
    errors: Errors = ()
    others: Mapping[int, str] | None = None
    is_versioned: bool = False
    has_ranges: bool = False


def _value_content() -> dict[str, Schema]:
    """Of `/data`: anything as JSON, bytes in all other formats."""
    return {each.media_type: {} for each in list_encoders().values()}


def _operations() -> dict[str, _Described]:
    """By path."""
    return {**_entity_operations(), **_value_operations(), **_other_operations()}


def _entity_operations() -> dict[str, _Described]:
    return {
        "/": _Described(
            summary="Is it there?",
            content={"text/plain": {"type": "string", "const": "ok"}},
        ),
        "/meta": _Described(
            summary="Metadata of an entity",
            description="Of a group, also of its children, one level deep.",
            parameters=(*ENTITY, "resolve_links", "document_format"),
            schema=reference("Entity"),
            errors=_ENTITY,
            is_versioned=True,
        ),
        "/attr": _Described(
            summary="Attributes of an entity",
            parameters=(*ENTITY, "attr_keys", "compound", "document_format"),
            schema=reference("Attributes"),
            errors=(*_ENTITY, errors.KindMismatch, errors.AttributeMissing),
            is_versioned=True,
        ),
        "/paths": _Described(
            summary="Every path below a group",
            parameters=(*ENTITY, "resolve_links", "document_format"),
            schema=reference("Paths"),
            errors=(*_ENTITY, errors.KindMismatch),
            is_versioned=True,
        ),
    }


def _value_operations() -> dict[str, _Described]:
    reduced = (*ENTITY, "selection", "document_format")
    return {
        "/data": _Described(
            summary="Values of a dataset, or of a selection or view of it",
            description=(
                "Of complex numbers JSON has `[re, im]`, of NaN and infinities null. `bin` is the "
                "values as they lie in memory, in C order. `csv` and `msgpack` hold numbers, text "
                "and compounds of them, `npy` where these have a fixed length, `csv` in one or "
                "two dimensions, compounds in one; `tiff` holds numbers in two or three."
            ),
            parameters=(*ENTITY, *VALUES),
            content=_value_content(),
            errors=_VALUES,
            is_versioned=True,
            has_ranges=True,
        ),
        "/stats": _Described(
            summary="Statistics of the finite values",
            parameters=reduced,
            schema=reference("Statistics"),
            errors=_VALUES,
            is_versioned=True,
        ),
        "/histogram": _Described(
            summary="How many of the finite values are in each bin",
            parameters=(*reduced, "bins", "range"),
            schema=reference("Histogram"),
            errors=_VALUES,
            is_versioned=True,
        ),
    }


def _other_operations() -> dict[str, _Described]:
    batched: Schema = {"type": "array", "items": reference("BatchAnswer")}
    return {
        "/files": _Described(
            summary="A page of a directory",
            description="Sorted by name; hidden files are left out.",
            parameters=("dir", "after", "limit", "document_format"),
            schema=reference("Directory"),
            errors=_FILE,
        ),
        "/file": _Described(
            summary="An HDF5 file as it is",
            parameters=("file",),
            content={MEDIA_TYPE: {}},
            errors=_FILE,
            is_versioned=True,
            has_ranges=True,
        ),
        "/file/{path}": _Described(
            summary="The same under a URL that ends in its name",
            description="For clients that drop or escape queries, or go by the end of a URL.",
            parameters=("file_in_path",),
            content={MEDIA_TYPE: {}},
            errors=_FILE,
            is_versioned=True,
            has_ranges=True,
        ),
        "/batch": _Described(
            summary="Many requests in one",
            description=(
                "Answered in their order, each with its own status. In JSON only answers in JSON "
                "are there, in MessagePack all."
            ),
            parameters=("document_format",),
            content=dict.fromkeys((JSON, *MSGPACK_TYPES), batched),
            errors=(errors.BadParameter, errors.AnswerTooLarge, errors.Overloaded),
            others={415: "The body is neither JSON nor MessagePack"},
        ),
        HEALTH: _Described(
            summary="Whether the service can do its work",
            content={JSON: reference("Health")},
            others={503: "The directory cannot be read, or the threads do not answer"},
        ),
        METRICS: _Described(
            summary="What the service does, for Prometheus",
            content=dict.fromkeys(("text/plain", "application/openmetrics-text"), _TEXT),
            others={501: "prometheus-client is not installed"},
        ),
    }


class ServiceDocumentation(Documentation):
    """`/openapi.json` and `/docs` of the service; routes that others add are in it as well.

    Args:
        router: with the routes of the service.
        settings: of the service.
    """

    def __init__(self, router: Router, settings: H5Settings) -> None:
        super().__init__(router, title="asgihive", version=_VERSION, description=_DESCRIPTION)
        self._settings = settings

    def document(self) -> dict[str, Any]:
        """The OpenAPI document, without `servers`."""
        document = super().document()
        known, described = parameters(), _operations()
        for path, item in document["paths"].items():
            if path in described:
                for method, operation in item.items():
                    item[method] = self._operation(operation, path, described[path], known)
        document["components"]["schemas"].update(SCHEMAS)
        if self._settings.token is not None:
            document["components"]["securitySchemes"] = _SECURITY
            document["security"] = [{name: []} for name in _SECURITY]
        return document

    def _operation(
        self, bare: Mapping[str, Any], path: str, described: _Described, known: Mapping[str, Any]
    ) -> dict[str, Any]:
        fields = [
            *described.parameters,
            *(CONDITIONAL if described.is_versioned else ()),
            *(RANGE if described.has_ranges else ()),
        ]
        operation: dict[str, Any] = {
            "operationId": bare["operationId"],
            "summary": described.summary,
            "tags": ["hdf5"],
            "parameters": [known[name] for name in fields],
        }
        if described.description:
            operation["description"] = described.description
        if path == "/batch":
            operation["requestBody"] = self._batch()
        needs_token = self._settings.token is not None and not is_open(path.strip("/"))
        if self._settings.token is not None and not needs_token:
            operation["security"] = []
        operation["responses"] = _responses(described, needs_token=needs_token)
        return operation

    def _batch(self) -> dict[str, Any]:
        schema: Schema = {
            "type": "array",
            "items": reference("BatchRequest"),
            "maxItems": MAX_BATCH_REQUESTS,
        }
        content = {each: {"schema": schema} for each in (JSON, *MSGPACK_TYPES)}
        return {"required": True, "content": content}


_SECURITY: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "token": {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": "For links, which carry no headers.",
    },
}


def _responses(described: _Described, *, needs_token: bool) -> dict[str, Any]:
    content = described.content
    if content is None:
        documents = (each for each in list_encoders().values() if isinstance(each, DocumentEncoder))
        content = {each.media_type: described.schema or {} for each in documents}
    good: dict[str, Any] = {
        "description": "Success",
        "content": {name: {"schema": each} for name, each in content.items()},
    }
    responses: dict[int, dict[str, Any]] = {200: good}
    meanings = _meanings(described.errors)
    meanings.update(described.others or {})
    if described.is_versioned:
        good["headers"] = _headers("ETag", "Last-Modified", "Cache-Control", "Vary")
        responses[304] = {"description": "The client has it already", "headers": good["headers"]}
        meanings[412] = "If-Match or If-Unmodified-Since is not met"
    if described.has_ranges:
        responses[206] = {**good, "headers": {**good["headers"], **_headers("Content-Range")}}
        responses[206]["description"] = "The range of it that was asked for"
        good["headers"] = {**good["headers"], **_headers("Accept-Ranges", "Content-Disposition")}
        meanings[416] = "No byte of the answer lies in the range"
    if needs_token:
        meanings[401] = "The token is missing or wrong"
    for status, meaning in meanings.items():
        responses[status] = _error(status, meaning)
    return {str(status): responses[status] for status in sorted(responses)}


def _meanings(raised: Errors) -> dict[int, str]:
    """What each status of some errors means, in the words of the errors themselves."""
    found: dict[int, list[str]] = {}
    for each in raised:
        purpose = (each.__doc__ or "").strip().partition("\n")[0]
        status = next(STATUSES[base] for base in each.__mro__ if base in STATUSES)
        found.setdefault(status, []).append(purpose)
    return {status: "\n\n".join(dict.fromkeys(found[status])) for status in found}


# Fields that some answers with an error must have (RFC 9110, sections 10.2.3, 11.6.1, 14.4).
_OF_ERRORS = {401: "WWW-Authenticate", 416: "Content-Range", 503: "Retry-After"}


def _error(status: int, meaning: str) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "description": meaning,
        "content": {JSON: {"schema": reference("Message")}},
    }
    if status in _OF_ERRORS:
        name = _OF_ERRORS[status]
        entry["headers"] = {name: {"required": True, "schema": _TEXT}}
    return entry


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"schema": _TEXT} for name in names}
