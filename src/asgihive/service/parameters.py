"""The parameters of the routes: from a query string to frozen records; pure."""

from dataclasses import dataclass

from asgihive.asgi import QueryFields, parse_query, preferred
from asgihive.encoders.protocol import DocumentEncoder, Encoder
from asgihive.encoders.registry import by_name, encoders, media_types
from asgihive.errors import BadParameter
from asgihive.hdf5.links import LinkResolution
from asgihive.settings import parse_boolean

_RESOLUTIONS = {each.value: each for each in LinkResolution} | {
    # h5grove's parameter was a boolean once.
    "true": LinkResolution.ALL,
    "false": LinkResolution.NONE,
}


@dataclass(frozen=True, slots=True)
class EntityParameters:
    """Of every route: which entity of which file."""

    file: str
    path: str

    @classmethod
    def of(cls, query: QueryFields) -> "EntityParameters":
        file = query.first("file")
        if not file:
            accepted = "the path of an HDF5 file, relative to the served directory, is accepted"
            raise BadParameter("file", file, accepted)
        path = query.first("path") or "/"
        return cls(file, path)


@dataclass(frozen=True, slots=True)
class DataParameters:
    """Of `/data`: which values, and how they are sent."""

    entity: EntityParameters
    selection: str | None
    encoder: Encoder
    safe: bool
    flatten: bool

    @classmethod
    def of(cls, raw: bytes, accept: str) -> "DataParameters":
        query = parse_query(raw)
        entity = EntityParameters.of(query)
        dtype = query.first("dtype") or "origin"
        if dtype not in {"origin", "safe"}:
            raise BadParameter("dtype", dtype, "origin and safe are accepted")
        return cls(
            entity=entity,
            selection=query.first("selection"),
            encoder=_value_encoder(query.first("format"), accept),
            safe=dtype == "safe",
            flatten=_boolean(query, "flatten"),
        )


def link_resolution(query: QueryFields) -> LinkResolution:
    """`resolve_links`, in any case; `only_valid` when absent.

    Raises:
        BadParameter
    """
    text = query.first("resolve_links")
    if text is None:
        return LinkResolution.ONLY_VALID
    resolution = _RESOLUTIONS.get(text.lower())
    if resolution is None:
        raise BadParameter("resolve_links", text, "none, only_valid and all are accepted")
    return resolution


def document_encoder(query: QueryFields, accept: str) -> DocumentEncoder:
    """The encoder of metadata: by `format`, else by `Accept`, else JSON.

    Raises:
        BadParameter
    """
    documents = {
        name: each for name, each in encoders().items() if isinstance(each, DocumentEncoder)
    }
    name = query.first("format")
    if name:
        if name not in documents:
            raise BadParameter("format", name, f"{', '.join(documents)} are accepted here")
        return documents[name]
    offers = [documents["json"].media_type, *(each.media_type for each in documents.values())]
    chosen = preferred(accept, offers) if accept else None
    for each in documents.values():
        if each.media_type == chosen:
            return each
    return documents["json"]


def _value_encoder(name: str | None, accept: str) -> Encoder:
    if name:
        return by_name(name)
    offered = media_types()
    json = by_name("json")
    # JSON first: it is what any type (`*/*`) means.
    chosen = preferred(accept, [json.media_type, *offered]) if accept else None
    return json if chosen is None else offered[chosen]


def _boolean(query: QueryFields, name: str) -> bool:
    text = query.first(name)
    if text is None:
        return False
    try:
        return parse_boolean(text)
    except ValueError as error:
        raise BadParameter(name, text, str(error)) from None
