"""The parameters of the routes as OpenAPI has them; their values are those that are parsed."""

from typing import Any

from asgihive.encoders.protocol import DocumentEncoder
from asgihive.encoders.registry import list_encoders
from asgihive.hdf5.histogram import MAX_BINS
from asgihive.hdf5.links import LinkResolution
from asgihive.hdf5.views import Method
from asgihive.service.files import DEFAULT_LIMIT, MAX_LISTED_FILES
from asgihive.service.openapi_schemas import Schema
from asgihive.service.parameters import DEFAULT_BINS

Parameter = dict[str, Any]

ENTITY = ("file", "path")
VALUES = (
    *("selection", "format", "dtype", "flatten", "header", "compound"),
    *("max_points", "shape", "method"),
)

# Of HTTP, each with the section of RFC 9110 that says what it means.
CONDITIONAL = ("If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since")
RANGE = ("Range", "If-Range")

_SECTIONS = {
    "If-None-Match": ("13.1.2", '"0123abcd"'),
    "If-Modified-Since": ("13.1.3", "Wed, 21 Oct 2026 07:28:00 GMT"),
    "If-Match": ("13.1.1", '"0123abcd"'),
    "If-Unmodified-Since": ("13.1.4", "Wed, 21 Oct 2026 07:28:00 GMT"),
    "Range": ("14.2", "bytes=0-1023"),
    "If-Range": ("13.1.5", '"0123abcd"'),
}


def parameters() -> dict[str, Parameter]:
    """Every parameter by name; that of documents which is called `format` is `document_format`."""
    return {
        **_entity_parameters(),
        **_value_parameters(),
        **_reduction_parameters(),
        **_directory_parameters(),
        **{name: _header(name, *about) for name, about in _SECTIONS.items()},
    }


def _query(name: str, description: str, schema: Schema, example: Any, **more: Any) -> Parameter:
    # Not as the parameter's own example: Swagger UI would fill it in, and so send it.
    schema = {**schema, "examples": [example]}
    return {"name": name, "in": "query", "description": description, "schema": schema, **more}


def _header(name: str, section: str, example: str) -> Parameter:
    return {
        "name": name,
        "in": "header",
        "description": f"RFC 9110, section {section}.",
        "schema": {"type": "string", "examples": [example]},
    }


def _enumerated(values: list[str], default: str) -> Schema:
    return {"type": "string", "enum": values, "default": default}


def _entity_parameters() -> dict[str, Parameter]:
    resolutions = [*(each.value for each in LinkResolution), "true", "false"]
    return {
        "file": _query(
            "file",
            "The file, relative to the served directory.",
            {"type": "string", "minLength": 1},
            "demo.nxs",
            required=True,
        ),
        "file_in_path": {
            "name": "path",
            "in": "path",
            "description": "The file, relative to the served directory; its slashes as they are.",
            "schema": {"type": "string", "minLength": 1, "examples": ["demo.nxs"]},
            "required": True,
        },
        "path": _query(
            "path",
            "The HDF5 path; a missing leading slash is accepted.",
            {"type": "string", "default": "/"},
            "/entry/images/data",
        ),
        "resolve_links": _query(
            "resolve_links",
            "Whether the last link of the path is followed: never, if it can be, or else 404; "
            "`true` is `all`, `false` is `none`; in any case.",
            _enumerated(resolutions, LinkResolution.ONLY_VALID.value),
            LinkResolution.ALL.value,
        ),
        "attr_keys": _query(
            "attr_keys",
            "Names of attributes, by default all.",
            {"type": "array", "items": {"type": "string"}},
            ["NX_class"],
            style="form",
            explode=True,
        ),
        "compound": _query(
            "compound",
            "Whether compounds in JSON are lists in the order of their members, or objects by "
            "the names of these.",
            _enumerated(["list", "object"], "list"),
            "object",
        ),
        "document_format": _query(
            "format",
            "The format; without it `Accept` chooses.",
            _enumerated(
                [
                    name
                    for name, each in list_encoders().items()
                    if isinstance(each, DocumentEncoder)
                ],
                "json",
            ),
            "json",
        ),
    }


def _value_parameters() -> dict[str, Parameter]:
    return {
        "selection": _query(
            "selection",
            "Integers and slices as of NumPy, comma-separated, one per dimension; `...` stands "
            "for all others. An integer drops its dimension. Empty = all.",
            {"type": "string"},
            "0,10:20,:",
        ),
        "format": _query(
            "format",
            "The format; without it `Accept` chooses. One that does not fit the values is 422.",
            _enumerated(list(list_encoders()), "json"),
            "npy",
        ),
        "dtype": _query(
            "dtype",
            "`safe` converts to what a JavaScript typed array holds.",
            _enumerated(["origin", "safe"], "origin"),
            "safe",
        ),
        "flatten": _query(
            "flatten",
            "As one dimension; also `1`, `yes`, `on` and `0`, `no`, `off`, in any case.",
            {"type": "boolean", "default": False},
            True,
        ),
        "header": _query(
            "header",
            "Whether CSV begins with a row of names, as that of compounds always does: the "
            "dataset's, of two dimensions with the column's number, `name[0]`. Written as "
            "`flatten` is.",
            {"type": "boolean", "default": False},
            True,
        ),
        "max_points": _query(
            "max_points",
            "A view: at most so many points, each of which tells of equally many elements along "
            "every axis. Not together with `shape`.",
            {"type": "integer", "minimum": 1},
            10000,
        ),
        "shape": _query(
            "shape",
            "A view: at most so many points along each axis that is selected.",
            {"type": "array", "items": {"type": "integer", "minimum": 1}},
            [10, 64, 96],
            style="form",
            explode=False,
        ),
        "method": _query(
            "method",
            "What a point of a view tells of its elements.",
            _enumerated([str(each) for each in Method], str(Method.MEAN)),
            str(Method.MINMAX),
        ),
    }


def _reduction_parameters() -> dict[str, Parameter]:
    return {
        "bins": _query(
            "bins",
            "How many.",
            {"type": "integer", "minimum": 1, "maximum": MAX_BINS, "default": DEFAULT_BINS},
            DEFAULT_BINS,
        ),
        "range": _query(
            "range",
            "The least and the greatest value that is counted, by default those there are.",
            {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
            [0, 1000],
            style="form",
            explode=False,
        ),
    }


def _directory_parameters() -> dict[str, Parameter]:
    return {
        "dir": _query(
            "dir",
            "The directory, relative to the served one, which is the default.",
            {"type": "string", "default": ""},
            "",
        ),
        "after": _query("after", "The `next` of the page before.", {"type": "string"}, "ZGVtbw"),
        "limit": _query(
            "limit",
            "Entries on a page, at most.",
            {
                "type": "integer",
                "minimum": 1,
                "maximum": MAX_LISTED_FILES,
                "default": DEFAULT_LIMIT,
            },
            DEFAULT_LIMIT,
        ),
    }
