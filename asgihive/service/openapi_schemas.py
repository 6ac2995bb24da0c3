"""The JSON Schemas (2020-12, as OpenAPI 3.1 has them) of what the service answers; pure."""

from typing import Any

from asgihive.hdf5.directory import EntryKind
from asgihive.hdf5.histogram import MAX_BINS

Schema = dict[str, Any]

PREFIX = "#/components/schemas/"


def reference(name: str) -> Schema:
    """To one of `SCHEMAS`."""
    return {"$ref": PREFIX + name}


def _object(properties: dict[str, Schema], optional: tuple[str, ...] = (), **more: Any) -> Schema:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "required": required, "properties": properties, **more}


_EXTENTS: Schema = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_SHAPE: Schema = {
    **_EXTENTS,
    "type": ["array", "null"],
    "description": "Extents; empty = a scalar, null = an empty dataspace.",
}
_FILTERS: Schema = {
    "type": ["array", "null"],
    "description": "The pipeline, in order; null = none.",
    "items": _object({"id": {"type": "integer", "minimum": 0}, "name": {"type": "string"}}),
}
_ATTRIBUTES: Schema = {"type": "array", "items": reference("Attribute")}
_LINKS = ("SoftLink", "ExternalLink")
_OBJECTS = ("Group", "Dataset", "Datatype")
_NUMBER: Schema = {"type": ["number", "null"]}
_COUNT: Schema = {"type": "integer", "minimum": 0}


def _kind(kind: str, described: str, **properties: Schema) -> Schema:
    return _object(
        {
            "name": {"type": "string", "description": "The last member of its path."},
            "kind": {"const": kind},
            **properties,
        },
        optional=("children",),
        description=described,
    )


def _one_of(*names: str) -> Schema:
    return {"oneOf": [reference(name) for name in names]}


_TYPE: Schema = _object(
    {
        "class": {"type": "integer", "description": "`H5T_class_t` of libhdf5.", "examples": [0]},
        "dtype": {
            "type": ["string", "object"],
            "description": "NumPy's name; of a compound, by member.",
            "examples": ["<i4"],
        },
        "size": {"type": "integer", "minimum": 0, "description": "In bytes.", "examples": [4]},
        "order": {"type": "integer", "description": "Of bytes: 0 little-endian, 1 big-endian."},
        "sign": {"type": "integer", "description": "0 unsigned, 1 two's complement."},
        "cset": {"type": "integer", "description": "0 ASCII, 1 UTF-8."},
        "strpad": {"type": "integer", "description": "0 NULLTERM, 1 NULLPAD, 2 SPACEPAD."},
        "vlen": {"type": "boolean", "description": "Of variable length?"},
        "tag": {"type": "string", "description": "Of an opaque type."},
        "members": {
            "description": "Of a compound, in order; of an enumeration, values by name.",
            "oneOf": [
                {
                    "type": "array",
                    "items": {"allOf": [reference("Type"), _object({"name": {"type": "string"}})]},
                },
                {"type": "object", "additionalProperties": {"type": "integer"}},
            ],
        },
        "base": reference("Type"),
        "dims": _EXTENTS,
    },
    optional=("order", "sign", "cset", "strpad", "vlen", "tag", "members", "base", "dims"),
    description="An HDF5 type.",
)

_STATISTICS: Schema = _object(
    dict.fromkeys(("min", "max", "mean", "std", "positive_min", "strict_positive_min"), _NUMBER),
    description="Of the finite values; all null where there are none.",
)

_HISTOGRAM: Schema = _object(
    {
        "counts": {"type": "array", "items": _COUNT, "maxItems": MAX_BINS},
        "edges": {"type": "array", "items": {"type": "number"}, "maxItems": MAX_BINS + 1},
        "below": {**_COUNT, "description": "Values below the range."},
        "above": {**_COUNT, "description": "Values above the range."},
        "not_finite": {**_COUNT, "description": "NaN and infinities."},
    },
    description="Bins hold their lower edge; the last one holds both.",
)

_ENTRY: Schema = _object(
    {
        "name": {"type": "string"},
        "file": {"type": "string", "description": "What to ask for, as text."},
        "encoded": {"type": "string", "description": "The same as it stands in a URL."},
        "kind": {"enum": [str(each) for each in EntryKind]},
        "size": {"type": ["integer", "null"], "description": "In bytes; null of a directory."},
        "modified": {"type": ["string", "null"], "format": "date-time"},
    }
)

_DIRECTORY: Schema = _object(
    {
        "dir": {"type": "string"},
        "entries": {"type": "array", "items": reference("DirectoryEntry")},
        "next": {
            "type": ["string", "null"],
            "description": "The `after` of the next page; null on the last one.",
        },
    }
)

_REQUEST: Schema = _object(
    {
        "route": {"type": "string", "description": "Its name, such as `meta`."},
        "params": {
            "type": "object",
            "description": "By name; a list is a parameter that is repeated, null one left out.",
        },
    },
    optional=("params",),
    additionalProperties=False,
    examples=[{"route": "meta", "params": {"file": "demo.nxs", "path": "/entry"}}],
)

_BATCHED: Schema = _object(
    {
        "status": {"type": "integer", "minimum": 100, "maximum": 599},
        "missing_sources": {"type": "string", "description": "As the field `Missing-Sources`"},
        "body": {"description": "What the route answers; an error is an object with `message`."},
    },
    optional=("missing_sources",),
)

SCHEMAS: dict[str, Schema] = {
    "Message": _object(
        {"message": {"type": "string", "minLength": 1, "description": "What is wrong, for people."}}
    ),
    "Type": _TYPE,
    "Attribute": _object({"name": {"type": "string"}, "shape": _SHAPE, "type": reference("Type")}),
    "Group": _kind(
        "group",
        "A group; as a child of another one it is without its own children.",
        attributes=_ATTRIBUTES,
        children={"type": "array", "items": _one_of(*_OBJECTS, *_LINKS, "Unknown")},
    ),
    "Dataset": _kind(
        "dataset",
        "A dataset.",
        attributes=_ATTRIBUTES,
        shape=_SHAPE,
        chunks={**_EXTENTS, "type": ["array", "null"], "description": "Null = not chunked."},
        filters=_FILTERS,
        type=reference("Type"),
    ),
    "Datatype": _kind(
        "datatype", "A committed type.", attributes=_ATTRIBUTES, type=reference("Type")
    ),
    "SoftLink": _kind(
        "soft_link", "A soft link that is shown itself.", target_path={"type": "string"}
    ),
    "ExternalLink": _kind(
        "external_link",
        "An external link that is shown itself.",
        target_file={"type": "string"},
        target_path={"type": "string"},
    ),
    "Unknown": _kind("other", "A child that is damaged."),
    "Entity": _one_of(*_OBJECTS, *_LINKS),
    "Attributes": {"type": "object", "description": "Values by name, as `/data` has them."},
    "Paths": {
        "type": "array",
        "description": "The group itself first.",
        "items": {"type": "string"},
        "minItems": 1,
        "examples": [["/", "/entry", "/entry/images"]],
    },
    "Statistics": _STATISTICS,
    "Histogram": _HISTOGRAM,
    "DirectoryEntry": _ENTRY,
    "Directory": _DIRECTORY,
    "BatchRequest": _REQUEST,
    "BatchAnswer": _BATCHED,
    "Health": _object({"status": {"const": "ok"}}),
}
