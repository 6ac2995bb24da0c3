"""The parameters of the routes: one table says what each accepts, parses it, and documents it."""

import base64
import binascii
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from starlette.types import Scope

from asgihive.asgi import get_route_path
from asgihive.encoders.protocol import (
    DocumentEncoder,
    find_encoder,
    list_document_encoders,
    list_encoders,
)
from asgihive.errors import FileMissing, UnknownParameter
from asgihive.hdf5.directory import SortKey
from asgihive.hdf5.file_bytes import decoded
from asgihive.hdf5.links import LinkResolution
from asgihive.hdf5.statistics import MAX_BINS
from asgihive.hdf5.views import Method
from asgihive.service.picture_parameters import IMAGE_PARAMETERS, PICTURED_PATH, PLOT_PARAMETERS
from asgihive.service.query import (
    QueryParameter,
    Schema,
    choose,
    choose_word,
    list_words,
    parse_count,
    parse_range,
)
from asgihive.settings import parse_boolean

DEFAULT_BINS = 100

DEFAULT_LISTED_FILES = 200
MAX_LISTED_FILES = 1000
"""Entries on one page of a directory."""

FILE_PREFIX = "/file/"
"""Of the URLs that name a file themselves: `/file/{path}`."""

ZARR_PREFIX = "/zarr/"
"""Of the URLs that name a file and a key of the Zarr store that it is."""

VIEW_PREFIX = "/view/"
"""Of the URLs of the page and its parts."""

NAMED_FILE = "asgihive.file"
"""Where the scope says which file a request is for, if neither its query nor `/file` does."""

# Unknown parameters of a query that are compared with the known ones.
_MOST_JUDGED = 32

# Letters below which a name has no typing errors, and from which it may have two.
_SHORT_NAME, _LONG_NAME = 4, 8


def _parse_shape(text: str) -> tuple[int, ...]:
    accepted = "comma-separated whole numbers of at least 1 are accepted, one per dimension"
    return tuple(parse_count(each, accepted) for each in text.split(","))


def _parse_method(text: str) -> Method:
    if text not in list(Method):
        raise ValueError(f"{', '.join(Method)} are accepted")
    return Method(text)


def _parse_resolution(text: str) -> LinkResolution:
    resolution = _RESOLUTIONS.get(text.lower())
    if resolution is None:
        raise ValueError("none, only_valid and all are accepted")
    return resolution


def _parse_document_format(text: str) -> DocumentEncoder:
    if text not in (documents := list_document_encoders()):
        raise ValueError(f"{', '.join(documents)} are accepted here")
    return documents[text]


def _parse_cursor(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("the `next` of the page before is accepted") from None


# h5grove's parameter was a boolean once.
_RESOLUTIONS = {each.value: each for each in LinkResolution} | {
    "true": LinkResolution.ALL,
    "false": LinkResolution.NONE,
}
_BOOLEAN: Schema = {"type": "boolean", "default": False}

FILE = QueryParameter(
    "file",
    "The file, relative to the served directory.",
    {"type": "string", "minLength": 1},
    "demo.nxs",
    required="the path of an HDF5 file, relative to the served directory, is accepted",
)
PATH = QueryParameter(
    "path",
    "The HDF5 path; a missing leading slash is accepted.",
    {"type": "string", "default": "/"},
    "/entry/images/data",
    default="/",
)
RESOLVE_LINKS = QueryParameter(
    "resolve_links",
    "Whether the last link of the path is followed: never, if it can be, or else 404; `true` is "
    "`all`, `false` is `none`; in any case.",
    list_words(list(_RESOLUTIONS), LinkResolution.ONLY_VALID.value),
    LinkResolution.ALL.value,
    _parse_resolution,
    LinkResolution.ONLY_VALID,
    is_empty_absent=False,
)
ATTR_KEYS = QueryParameter(
    "attr_keys",
    "Names of attributes, by default all.",
    {"type": "array", "items": {"type": "string"}},
    ["NX_class"],
    is_repeated=True,
    is_empty_absent=False,
    style={"style": "form", "explode": True},
)
COMPOUND = QueryParameter(
    "compound",
    "Whether compounds in JSON are lists in the order of their members, or objects by the names "
    "of these.",
    list_words(["list", "object"], "list"),
    "object",
    choose({"list": False, "object": True}),
    default=False,
)
DOCUMENT_FORMAT = QueryParameter(
    "format",
    "The format; without it `Accept` chooses.",
    lambda: list_words(list(list_document_encoders()), "json"),
    "json",
    _parse_document_format,
)
FORMAT = QueryParameter(
    "format",
    "The format; without it `Accept` chooses. One that does not fit the values is 422.",
    lambda: list_words(list(list_encoders()), "json"),
    "npy",
    find_encoder,
)
SELECTION = QueryParameter(
    "selection",
    "Integers and slices as of NumPy, comma-separated, one per dimension; `...` stands for all "
    "others. An integer drops its dimension. Empty = all.",
    {"type": "string"},
    "0,10:20,:",
)
DTYPE = QueryParameter(
    "dtype",
    "`safe` converts to what a JavaScript typed array holds.",
    list_words(["origin", "safe"], "origin"),
    "safe",
    choose({"origin": False, "safe": True}),
    default=False,
)
FLATTEN = QueryParameter(
    "flatten",
    "As one dimension; also `1`, `yes`, `on` and `0`, `no`, `off`, in any case.",
    _BOOLEAN,
    True,
    parse_boolean,
    default=False,
    is_empty_absent=False,
)
HEADER = QueryParameter(
    "header",
    "Whether CSV begins with a row of names, as that of compounds always does: the dataset's, of "
    "two dimensions with the column's number, `name[0]`. Written as `flatten` is.",
    _BOOLEAN,
    True,
    parse_boolean,
    default=False,
    is_empty_absent=False,
)
FIELDS = QueryParameter(
    "fields",
    "Columns of a compound, by default all: names with commas between them, in the order in "
    "which they are answered; `a.b` is a member of a nested one. Of a single name the answer is "
    "that column itself. May be repeated; a name that has a comma stands alone.",
    {"type": "array", "items": {"type": "string"}},
    ["two_theta"],
    is_repeated=True,
    style={"style": "form", "explode": True},
)
MAX_POINTS = QueryParameter(
    "max_points",
    "A view: at most so many points, each of which tells of equally many elements along every "
    "axis. Not together with `shape`.",
    {"type": "integer", "minimum": 1},
    10000,
    lambda text: parse_count(text, "a whole number of at least 1 is accepted"),
)
SHAPE = QueryParameter(
    "shape",
    "A view: at most so many points along each axis that is selected.",
    {"type": "array", "items": {"type": "integer", "minimum": 1}},
    [10, 64, 96],
    _parse_shape,
    style={"style": "form", "explode": False},
)
METHOD = QueryParameter(
    "method",
    "What a point of a view tells of its elements.",
    list_words([str(each) for each in Method], str(Method.MEAN)),
    str(Method.MINMAX),
    _parse_method,
)
BINS = QueryParameter(
    "bins",
    "How many.",
    {"type": "integer", "minimum": 1, "maximum": MAX_BINS, "default": DEFAULT_BINS},
    DEFAULT_BINS,
    lambda text: parse_count(text, f"a whole number from 1 to {MAX_BINS} is accepted", MAX_BINS),
    default=DEFAULT_BINS,
)
RANGE = QueryParameter(
    "range",
    "The least and the greatest value that is counted, by default those there are.",
    {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
    [0, 1000],
    parse_range,
    style={"style": "form", "explode": False},
)
DIRECTORY = QueryParameter(
    "dir",
    "The directory, relative to the served one, which is the default.",
    {"type": "string", "default": ""},
    "",
    default="",
)
AFTER = QueryParameter(
    "after",
    "The `next` of the page before.",
    {"type": "string"},
    "ZGVtbw",
    _parse_cursor,
    default=b"",
)
LIMIT = QueryParameter(
    "limit",
    "Entries on a page, at most.",
    {
        "type": "integer",
        "minimum": 1,
        "maximum": MAX_LISTED_FILES,
        "default": DEFAULT_LISTED_FILES,
    },
    DEFAULT_LISTED_FILES,
    lambda text: parse_count(
        text, f"a whole number from 1 to {MAX_LISTED_FILES} is accepted", MAX_LISTED_FILES
    ),
    default=DEFAULT_LISTED_FILES,
)
SEARCH = QueryParameter(
    "search",
    "Words that are part of the names that are listed, in any case of letters.",
    {"type": "string"},
    "scan 7",
    default="",
)
RECURSIVE = QueryParameter(
    "recursive",
    "Whether the directories below are listed as well; links to directories are not followed. "
    "`complete` is false where that would take too long. Written as `flatten` is.",
    _BOOLEAN,
    True,
    parse_boolean,
    default=False,
    is_empty_absent=False,
)
SORT = QueryParameter(
    "sort",
    "What the entries are sorted by, and then by the bytes of their names.",
    list_words(list(SortKey), SortKey.NAME),
    SortKey.NAME.value,
    choose_word(SortKey),
    default=SortKey.NAME,
)
ORDER = QueryParameter(
    "order",
    "Whether the least comes first, or the greatest.",
    list_words(("ascending", "descending"), "ascending"),
    "descending",
    choose_word(("ascending", "descending")),
    default="ascending",
)
BATCH_FORMAT = QueryParameter(
    "format",
    "The format; without it `Accept` chooses, or else that of the request.",
    list_words(["json", "msgpack"], "json"),
    "json",
    choose({"json": "json", "msgpack": "msgpack"}),
)
VERSION = QueryParameter(
    "v",
    "The `_asgihive_version` of the root group: once the file has another one, every key is 410.",
    {"type": "string"},
    "0123456789abcdef0123456789abcdef",
)

PARAMETERS: Mapping[str, tuple[QueryParameter, ...]] = {
    "meta": (FILE, PATH, RESOLVE_LINKS, DOCUMENT_FORMAT),
    "attr": (FILE, PATH, ATTR_KEYS, COMPOUND, DOCUMENT_FORMAT),
    "paths": (FILE, PATH, RESOLVE_LINKS, DOCUMENT_FORMAT),
    "data": (
        *(FILE, PATH, SELECTION, FIELDS, FORMAT, DTYPE, FLATTEN, HEADER, COMPOUND),
        *(MAX_POINTS, SHAPE, METHOD),
    ),
    "stats": (FILE, PATH, SELECTION, FIELDS, DOCUMENT_FORMAT),
    "histogram": (FILE, PATH, SELECTION, FIELDS, DOCUMENT_FORMAT, BINS, RANGE),
    "image": (FILE, PICTURED_PATH, SELECTION, *IMAGE_PARAMETERS),
    "plot": (FILE, *PLOT_PARAMETERS),
    "files": (DIRECTORY, SEARCH, RECURSIVE, SORT, ORDER, AFTER, LIMIT, DOCUMENT_FORMAT),
    "events": (FILE, PATH),
    "file": (FILE,),
    "batch": (BATCH_FORMAT,),
    "zarr": (VERSION,),
}
"""The parameters of each route."""

_NAMES = {route: sorted(each.name for each in table) for route, table in PARAMETERS.items()}

KNOWN_NAMES = frozenset(name for names in _NAMES.values() for name in names)
"""Of all routes, since clients send parameters of one route to all."""


def refuse_misspelt(query: Mapping[str, list[str]], route: str) -> None:
    """Refuse parameters that resemble one of the route's, so that no typing error is ignored.

    Case, `-` and `_` aside, a name resembles another one that it is the same as, or one edit
    from: a letter more, less or another one, or two neighbours swapped. Of names with fewer than
    four letters there is no such edit, from eight letters on there are two; the first letter is
    the same, unless it is swapped. All other unknown parameters are ignored, as h5grove does,
    and so are those of other routes.

    Raises:
        UnknownParameter
    """
    unknown = [name for name in query if name not in KNOWN_NAMES]
    for name in unknown[:_MOST_JUDGED]:
        for known in _NAMES[route]:
            if _is_like(_strip_name(name), _strip_name(known)):
                raise UnknownParameter(name, known)


def _strip_name(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _is_like(name: str, known: str) -> bool:
    if name == known:
        return True
    most = 0 if len(known) < _SHORT_NAME else 1 if len(known) < _LONG_NAME else 2
    if abs(len(name) - len(known)) > most or not name:
        return False
    is_same_start = name[0] == known[0] or name[:2] == known[1::-1]
    return is_same_start and _count_edits(name, known) <= most


def _count_edits(one: str, other: str) -> int:
    """Return how many letters to insert, delete, replace or swap make one the other."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        above, row = row, [i]
        for j, wanted in enumerate(other, 1):
            cost = min(row[j - 1] + 1, above[j] + 1, above[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before = above
    return row[-1]


def find_file_in_path(scope: Scope) -> str | None:
    """Return the file that `/file/{path}` names, None for other URLs. Raises as `find_rest`."""
    return find_rest(scope, FILE_PREFIX)


def find_rest(scope: Scope, prefix: str) -> str | None:
    """Return what stands behind `prefix` in the path of a URL, None where nothing does.

    The server has decoded the path. Where that was not UTF-8, the bytes are taken from
    `raw_path`, if the server has it, and are surrogates (PEP 383).

    Raises:
        FileMissing: the path has `..`, which clients resolve before they ask (RFC 3986, section
            5.2.4), so that a proxy in between would have judged another URL.
    """
    path = get_route_path(scope)
    if not path.startswith(prefix):
        return None
    # Clients that join a URL ending in a slash with a name put another one before it.
    name = path[len(prefix) :].lstrip("/")
    if not name:
        return None
    if "\ufffd" in name:
        name = _decode_again(scope, name)
    if ".." in name.split("/"):
        raise FileMissing(name)
    return name


def _decode_again(scope: Scope, name: str) -> str:
    """Return the end of a path, surrogates for what is not UTF-8; `name` if it cannot be told."""
    raw = unquote_to_bytes(scope.get("raw_path") or b"")
    before = scope["path"].removesuffix(name).encode()
    rest = raw.removeprefix(before)
    if len(rest) == len(raw) or rest.decode("utf-8", "replace") != name:
        return name
    return decoded(rest)
