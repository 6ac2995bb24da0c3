"""The OpenAPI document of the service: what each of its routes takes and answers.

The parameters are those that `parameters` parses, the errors those of the table of statuses, the
formats those that there are. What is said here is what no table holds: summaries, and the schemas
of what is answered. Tests hold it against what the routes do.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from asgihive import errors
from asgihive.asgi import Documentation, Router
from asgihive.asgi.arguments import JSON, MSGPACK_TYPES
from asgihive.encoders.pictures import IMAGE_FORMATS, SVG
from asgihive.encoders.protocol import list_document_encoders, list_encoders
from asgihive.hdf5.directory import EntryKind
from asgihive.hdf5.statistics import MAX_BINS
from asgihive.service.batch import MAX_BATCH_REQUESTS
from asgihive.service.files import MEDIA_TYPE
from asgihive.service.gate import STATUSES, is_open
from asgihive.service.operations import HEALTH, METRICS
from asgihive.service.parameters import PARAMETERS
from asgihive.service.query import Schema
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
    *(errors.BadParameter, errors.FileMissing, errors.FileForbidden, errors.FileUnreadable),
    *(errors.FileChanged, errors.Overloaded, errors.ReadTimeout, errors.ReaderCrashed),
    *(errors.StoreUnavailable, errors.StoreRefused),
)
_ENTITY: Errors = (
    *_FILE,
    *(errors.EntityMissing, errors.LinkUnresolved, errors.AnswerTooLarge, errors.ChunkTooLarge),
    *(errors.DamagedData, errors.LibraryRefused),
)
_VALUES: Errors = (
    *_ENTITY,
    *(errors.SourceRefused, errors.KindMismatch, errors.BadSelection),
    *(errors.TypeUnsupported, errors.FilterMissing),
)

# Of HTTP, each with the section of RFC 9110 that says what it means.
_CONDITIONAL = (
    ("If-None-Match", "13.1.2", '"0123abcd"'),
    ("If-Modified-Since", "13.1.3", "Wed, 21 Oct 2026 07:28:00 GMT"),
    ("If-Match", "13.1.1", '"0123abcd"'),
    ("If-Unmodified-Since", "13.1.4", "Wed, 21 Oct 2026 07:28:00 GMT"),
)
_RANGE = (("Range", "14.2", "bytes=0-1023"), ("If-Range", "13.1.5", '"0123abcd"'))

_FILE_IN_PATH = {
    "name": "path",
    "in": "path",
    "description": "The file, relative to the served directory; its slashes as they are.",
    "schema": {"type": "string", "minLength": 1, "examples": ["demo.nxs"]},
    "required": True,
}

_KEY_IN_PATH = {
    "name": "path",
    "in": "path",
    "description": "The file, relative to the served directory, behind it `.zarr` or not, and "
    "`/@` with a version or not; then the path of a group or dataset, and `zarr.json`, or `c` and "
    "the coordinates of a chunk; slashes as they are.",
    "schema": {
        "type": "string",
        "minLength": 1,
        "examples": ["demo.nxs/entry/images/data/c/0/0/0"],
    },
    "required": True,
}


def refer(name: str) -> Schema:
    """Return a reference to one of `SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


@dataclasses.dataclass(frozen=True, slots=True)
class _RouteText:
    """What is said of a route beside its parameters."""

    summary: str
    description: str = ""
    schema: Schema | None = None
    """Of a document, in every format of documents."""
    content: Mapping[str, Schema] | None = None
    """Of anything else: schemas by media type."""
    errors: Errors = ()
    others: Mapping[int, str] | None = None
    """Further statuses, and what they mean."""
    is_versioned: bool = False
    """Whether it answers conditional requests."""
    has_ranges: bool = False
    parameters: str = ""
    """The route in `PARAMETERS`, if that is not what the path says."""
    in_path: Mapping[str, Any] | None = None
    """The parameter in the path."""


def _list_operations() -> dict[str, _RouteText]:
    """Return what is said of each path."""
    file = _RouteText(
        "An HDF5 file as it is",
        content={MEDIA_TYPE: {}},
        errors=_FILE,
        is_versioned=True,
        has_ranges=True,
    )
    batched: Schema = {"type": "array", "items": refer("BatchAnswer")}
    return {
        "/": _RouteText(
            "Is it there?",
            "A browser, which prefers HTML, is led to the page at `view/`, unless the setting "
            "`viewer` is off.",
            content={"text/plain": {"type": "string", "const": "ok"}},
        ),
        "/meta": _RouteText(
            "Metadata of an entity",
            "Of a group, also of its children, one level deep.",
            refer("Entity"),
            errors=_ENTITY,
            is_versioned=True,
        ),
        "/attr": _RouteText(
            "Attributes of an entity",
            schema=refer("Attributes"),
            errors=(*_ENTITY, errors.KindMismatch, errors.AttributeMissing),
            is_versioned=True,
        ),
        "/paths": _RouteText(
            "Every path below a group",
            schema=refer("Paths"),
            errors=(*_ENTITY, errors.KindMismatch),
            is_versioned=True,
        ),
        "/data": _RouteText(
            "Values of a dataset, or of a selection or view of it",
            "Of complex numbers JSON has `[re, im]`, of NaN and infinities null. `bin` is the "
            "values as they lie in memory, in C order. `csv` and `msgpack` hold numbers, text "
            "and compounds of them, `npy` where these have a fixed length, `csv` in one or "
            "two dimensions, compounds in one; `arrow` holds tables: the same and more of all "
            "types; `tiff` holds numbers in two or three.",
            # Anything as JSON, bytes in all other formats.
            content={each.media_type: {} for each in list_encoders().values()},
            errors=(*_VALUES, errors.ExtraMissing),
            is_versioned=True,
            has_ranges=True,
        ),
        "/stats": _RouteText(
            "Statistics of the finite values",
            "Of several `fields` those of each, by its name.",
            {"anyOf": [refer("Statistics"), refer("StatisticsByName")]},
            errors=_VALUES,
            is_versioned=True,
        ),
        "/histogram": _RouteText(
            "How many of the finite values are in each bin",
            schema=refer("Histogram"),
            errors=_VALUES,
            is_versioned=True,
        ),
        "/image": _RouteText(
            "An image of a selection, in false colours",
            "Of two dimensions; without a selection, of all others the first element. The first "
            "row is at the top. Arrays of red, green and blue (HDF5's image convention, or the "
            "`interpretation` of NeXus) are shown as they are. Headers say what is shown: "
            "`X-Asgihive-Paths`, `-Selection`, `-Limits` (the values of the first and the last "
            "colour), and how it was reduced, as of a view of `/data`.",
            content={each.media_type: {} for each in IMAGE_FORMATS.values()},
            errors=(*_VALUES, errors.NothingToShow),
            is_versioned=True,
        ),
        "/plot": _RouteText(
            "A plot of one or several curves",
            "Of selections of one dimension, with the axis, the errors, the names and the units "
            "that NeXus has for them. Peaks stay, however many values there are.",
            content={SVG.media_type: {}},
            errors=(*_VALUES, errors.NothingToShow),
            is_versioned=True,
        ),
        "/files": _RouteText(
            "A page of a directory",
            "Or of all below it. Hidden files are left out.",
            refer("Directory"),
            errors=(*_FILE, errors.StoreUnlisted),
        ),
        "/events": _RouteText(
            "What happens to a file from now on",
            "Server-sent events: `changed` with the file and its `version`, `grown` with the new "
            "`shape` of the dataset at `path`, `gone`. Their `id` is the version.",
            content={"text/event-stream": {"type": "string"}},
            errors=_ENTITY,
        ),
        "/file": file,
        "/file/{path}": dataclasses.replace(
            file,
            summary="The same under a URL that ends in its name",
            description="For clients that drop or escape queries, or go by the end of a URL.",
            in_path=_FILE_IN_PATH,
        ),
        "/zarr/{path}": _RouteText(
            "A file as a Zarr v3 store: metadata of its nodes, and chunks",
            "404 is metadata that are not there, and nothing else: of a chunk it would mean fill "
            "values to a client.",
            content={JSON: {"type": "object"}, "application/octet-stream": {}},
            errors=_VALUES,
            others={
                404: "There are no such metadata",
                410: "The file, the array or the version is not there, any more or at all",
                422: "No key of a store, no chunk of the array, or a file that is not HDF5",
            },
            is_versioned=True,
            has_ranges=True,
            parameters="zarr",
            in_path=_KEY_IN_PATH,
        ),
        "/batch": _RouteText(
            "Many requests in one",
            "Answered in their order, each with its own status. In JSON only answers in JSON are "
            "there, in MessagePack all.",
            content=dict.fromkeys((JSON, *MSGPACK_TYPES), batched),
            errors=(errors.BadParameter, errors.AnswerTooLarge, errors.Overloaded),
            others={415: "The body is neither JSON nor MessagePack"},
        ),
        HEALTH: _RouteText(
            "Whether the service can do its work",
            content={JSON: refer("Health")},
            others={503: "The directory cannot be read, or the threads do not answer"},
        ),
        METRICS: _RouteText(
            "What the service does, for Prometheus",
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
        self._has_token = settings.token is not None

    def document(self) -> dict[str, Any]:
        """Return the OpenAPI document, without `servers`."""
        document = super().document()
        known = _list_operations()
        for path, item in document["paths"].items():
            if path in known:
                for method, bare in item.items():
                    item[method] = self._document_operation(bare, path, known[path])
        document["components"]["schemas"].update(SCHEMAS)
        if self._has_token:
            document["components"]["securitySchemes"] = _SECURITY
            document["security"] = [{name: []} for name in _SECURITY]
        return document

    def _document_operation(
        self, bare: Mapping[str, Any], path: str, known: _RouteText
    ) -> dict[str, Any]:
        fields = (_CONDITIONAL if known.is_versioned else ()) + (_RANGE if known.has_ranges else ())
        operation: dict[str, Any] = {
            "operationId": bare["operationId"],
            "summary": known.summary,
            "tags": ["hdf5"],
            "parameters": [
                *(
                    each.document()
                    for each in PARAMETERS.get(known.parameters or path.strip("/"), ())
                ),
                *([] if known.in_path is None else [known.in_path]),
                *(_document_field(*each) for each in fields),
            ],
        }
        if known.description:
            operation["description"] = known.description
        if path == "/batch":
            schema = _make_list(refer("BatchRequest"), maxItems=MAX_BATCH_REQUESTS)
            content = {each: {"schema": schema} for each in (JSON, *MSGPACK_TYPES)}
            operation["requestBody"] = {"required": True, "content": content}
        needs_token = self._has_token and not is_open(path.strip("/"))
        if self._has_token and not needs_token:
            operation["security"] = []
        operation["responses"] = _document_responses(known, needs_token=needs_token)
        return operation


_SECURITY: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "token": {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": "For links, which carry no headers.",
    },
}

# Fields that some answers with an error must have (RFC 9110, sections 10.2.3, 11.6.1, 14.4).
_OF_ERRORS = {401: "WWW-Authenticate", 416: "Content-Range", 503: "Retry-After"}


def _document_field(name: str, section: str, example: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "description": f"RFC 9110, section {section}.",
        "schema": {"type": "string", "examples": [example]},
    }


def _document_responses(known: _RouteText, *, needs_token: bool) -> dict[str, Any]:
    content = known.content
    if content is None:
        documents = list_document_encoders().values()
        content = {each.media_type: known.schema or {} for each in documents}
    contents = {name: {"schema": each} for name, each in content.items()}
    good: dict[str, Any] = {"description": "Success", "content": contents}
    responses: dict[int, dict[str, Any]] = {200: good}
    # What each status means, in the words of the errors themselves.
    found: dict[int, dict[str, None]] = {}
    for each in known.errors:
        status = next(STATUSES[base] for base in each.__mro__ if base in STATUSES)
        found.setdefault(status, {})[(each.__doc__ or "").strip().partition("\n")[0]] = None
    meanings = {status: "\n\n".join(texts) for status, texts in found.items()}
    meanings.update(known.others or {})
    if known.is_versioned:
        headers = _list_headers("ETag", "Last-Modified", "Cache-Control", "Vary")
        good["headers"] = headers
        responses[304] = {"description": "The client has it already", "headers": headers}
        meanings[412] = "If-Match or If-Unmodified-Since is not met"
        if known.has_ranges:
            responses[206] = {
                **good,
                "headers": {**headers, **_list_headers("Content-Range")},
                "description": "The range of it that was asked for",
            }
            of_whole = _list_headers("Accept-Ranges", "Content-Disposition")
            good["headers"] = {**headers, **of_whole}
            meanings[416] = "No byte of the answer lies in the range"
    if needs_token:
        meanings[401] = "The token is missing or wrong"
    for status, meaning in meanings.items():
        responses[status] = {
            "description": meaning,
            "content": {JSON: {"schema": refer("Message")}},
        }
        if status in _OF_ERRORS:
            header = {_OF_ERRORS[status]: {"required": True, "schema": _TEXT}}
            responses[status]["headers"] = header
    return {str(status): responses[status] for status in sorted(responses)}


def _list_headers(*names: str) -> dict[str, Any]:
    return {name: {"schema": _TEXT} for name in names}


def _make(kind: str | list[str], description: str = "", **more: Any) -> Schema:
    """Return the schema of one or several types."""
    return {"type": kind, **({"description": description} if description else {}), **more}


def _make_list(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def _make_object(properties: dict[str, Schema], optional: str = "", /, **more: Any) -> Schema:
    """Return the schema of an object; `optional` are the names of what it may lack."""
    required = [name for name in properties if name not in optional.split()]
    return {"type": "object", "required": required, "properties": properties, **more}


def _make_kind(kind: str, description: str, **properties: Schema) -> Schema:
    """Return the schema of an entity."""
    common = {"name": _make("string", "The last member of its path."), "kind": {"const": kind}}
    return _make_object({**common, **properties}, "children", description=description)


def _refer_to_one(*names: str) -> Schema:
    return {"oneOf": [refer(name) for name in names]}


_NUMBER = _make(["number", "null"])
_COUNT = _make("integer", minimum=0)
_EXTENTS = _make_list(_COUNT)
_SHAPE = {
    **_EXTENTS,
    "type": ["array", "null"],
    "description": "Extents; empty = a scalar, null = an empty dataspace.",
}
_ATTRIBUTES = _make_list(refer("Attribute"))
_LINKS = ("SoftLink", "ExternalLink")
_OBJECTS = ("Group", "Dataset", "Datatype")

SCHEMAS: dict[str, Schema] = {
    "Message": _make_object(
        {"message": {"type": "string", "minLength": 1, "description": "What is wrong, for people."}}
    ),
    "Type": _make_object(
        {
            "class": _make("integer", "`H5T_class_t` of libhdf5.", examples=[0]),
            "dtype": _make(
                ["string", "object"], "NumPy's name; of a compound, by member.", examples=["<i4"]
            ),
            "size": {**_COUNT, "description": "In bytes.", "examples": [4]},
            "order": _make("integer", "Of bytes: 0 little-endian, 1 big-endian."),
            "sign": _make("integer", "0 unsigned, 1 two's complement."),
            "cset": _make("integer", "0 ASCII, 1 UTF-8."),
            "strpad": _make("integer", "0 NULLTERM, 1 NULLPAD, 2 SPACEPAD."),
            "vlen": _make("boolean", "Of variable length?"),
            "tag": _make("string", "Of an opaque type."),
            "members": {
                "description": "Of a compound, in order; of an enumeration, values by name.",
                "oneOf": [
                    _make_list({"allOf": [refer("Type"), _make_object({"name": _TEXT})]}),
                    {"type": "object", "additionalProperties": {"type": "integer"}},
                ],
            },
            "base": refer("Type"),
            "dims": _EXTENTS,
        },
        "order sign cset strpad vlen tag members base dims",
        description="An HDF5 type.",
    ),
    "Attribute": _make_object({"name": _TEXT, "shape": _SHAPE, "type": refer("Type")}),
    "Group": _make_kind(
        "group",
        "A group; as a child of another one it is without its own children.",
        attributes=_ATTRIBUTES,
        children=_make_list(_refer_to_one(*_OBJECTS, *_LINKS, "Unknown")),
    ),
    "Dataset": _make_kind(
        "dataset",
        "A dataset.",
        attributes=_ATTRIBUTES,
        shape=_SHAPE,
        chunks={**_EXTENTS, "type": ["array", "null"], "description": "Null = not chunked."},
        filters=_make(
            ["array", "null"],
            "The pipeline, in order; null = none.",
            items=_make_object({"id": _COUNT, "name": _TEXT}),
        ),
        type=refer("Type"),
    ),
    "Datatype": _make_kind(
        "datatype", "A committed type.", attributes=_ATTRIBUTES, type=refer("Type")
    ),
    "SoftLink": _make_kind("soft_link", "A soft link that is shown itself.", target_path=_TEXT),
    "ExternalLink": _make_kind(
        "external_link",
        "An external link that is shown itself.",
        target_file=_TEXT,
        target_path=_TEXT,
    ),
    "Unknown": _make_kind("other", "A child that is damaged."),
    "Entity": _refer_to_one(*_OBJECTS, *_LINKS),
    "Attributes": _make("object", "Values by name, as `/data` has them."),
    "Paths": _make(
        "array",
        "The group itself first.",
        items=_TEXT,
        minItems=1,
        examples=[["/", "/entry", "/entry/images"]],
    ),
    "Statistics": _make_object(
        dict.fromkeys(
            ("min", "max", "mean", "std", "positive_min", "strict_positive_min"), _NUMBER
        ),
        description="Of the finite values; all null where there are none.",
    ),
    "StatisticsByName": _make("object", additionalProperties=refer("Statistics")),
    "Histogram": _make_object(
        {
            "counts": _make_list(_COUNT, maxItems=MAX_BINS),
            "edges": _make_list({"type": "number"}, maxItems=MAX_BINS + 1),
            "below": {**_COUNT, "description": "Values below the range."},
            "above": {**_COUNT, "description": "Values above the range."},
            "not_finite": {**_COUNT, "description": "NaN and infinities."},
        },
        description="Bins hold their lower edge; the last one holds both.",
    ),
    "DirectoryEntry": _make_object(
        {
            "name": _TEXT,
            "file": _make("string", "What to ask for, as text."),
            "encoded": _make("string", "The same as it stands in a URL."),
            "kind": {"enum": [str(each) for each in EntryKind]},
            "size": _make(["integer", "null"], "In bytes; null of a directory."),
            "modified": _make(["string", "null"], format="date-time"),
        }
    ),
    "Directory": _make_object(
        {
            "dir": _TEXT,
            "entries": _make_list(refer("DirectoryEntry")),
            "next": _make(
                ["string", "null"], "The `after` of the next page; null on the last one."
            ),
            "complete": _make(
                "boolean", "False where there is more below than could be looked at in time."
            ),
        }
    ),
    "BatchRequest": _make_object(
        {
            "route": _make("string", "Its name, such as `meta`."),
            "params": _make(
                "object", "By name; a list is a parameter that is repeated, null one left out."
            ),
        },
        "params",
        additionalProperties=False,
        examples=[{"route": "meta", "params": {"file": "demo.nxs", "path": "/entry"}}],
    ),
    "BatchAnswer": _make_object(
        {
            "status": _make("integer", minimum=100, maximum=599),
            "missing_sources": _make("string", "As the field `Missing-Sources`"),
            "body": {
                "description": "What the route answers; an error is an object with `message`."
            },
        },
        "missing_sources",
    ),
    "Health": _make_object({"status": {"const": "ok"}}),
}
