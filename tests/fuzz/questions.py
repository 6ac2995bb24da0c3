"""What is asked about a damaged file, drawn by its seed."""

import itertools
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlencode

import orjson

_FORMATS = ("json", "json", "json", "bin", "bin", "npy", "csv", "tiff", "msgpack", "arrow")
_SELECTIONS = ("", "", "", "0", "...", "1:3", ":,1", "-1", "::2", "0:99999999")
_VIEWS: tuple[dict[str, str], ...] = ({}, {}, {}, {"max_points": "10"}, {"shape": "2,2"})

# Of the compounds of the zoo, and of none of them.
_FIELDS = (*[""] * 16, "large,small", "large", "point.x,z", "b", "ratio,id", "a,,b")

# Requests in a batch beside those that are in each.
_IN_A_BATCH = 2


@dataclass(frozen=True, slots=True)
class Question:
    """One request.

    format_: of the answer's body: that of an encoder, `file` = an HDF5 file as it is, `chunk` = a
        chunk of Zarr, `batch` = a list of answers.
    members: of a batch.
    """

    route: str
    query: dict[str, str] = field(default_factory=dict)
    format_: str = "json"
    members: tuple["Question", ...] = ()

    @property
    def query_string(self) -> str:
        """As it stands behind the question mark."""
        return urlencode(self.query, errors="surrogateescape")

    @property
    def body(self) -> bytes:
        """Of the request: empty where it is no batch."""
        if self.format_ != "batch":
            return b""
        asked = [{"route": each.route[1:], "params": each.query} for each in self.members]
        return orjson.dumps(asked)

    def __str__(self) -> str:
        query = f"?{self.query_string}" if self.query else ""
        return f"{self.route}{query} {self.body.decode()}".rstrip()


def opening(file: str) -> list[Question]:
    """What shows whether a file can be opened; the first answers with its paths."""
    named = {"file": file}
    return [Question("/paths", named), Question("/meta", named), Question("/file", named, "file")]


def about_entities(
    file: str, paths: list[str], chance: random.Random, most: int
) -> Iterator[Question]:
    """Questions about each path in turn, or some of them."""
    distinct = list(dict.fromkeys(paths))
    chance.shuffle(distinct)
    routes = ("/meta", "/data", "/attr", "/stats", "/data", "/histogram")
    asked = [(path, route) for route in routes for path in distinct]
    for path, route in asked[:most] if len(asked) <= most else chance.sample(asked, most):
        query, format_ = {"file": file, "path": path}, "json"
        if route == "/data":
            format_ = chance.choice(_FORMATS)
            query |= {"format": format_, **chance.choice(_VIEWS)}
        if route not in {"/meta", "/attr"}:
            query["selection"] = chance.choice(_SELECTIONS)
            query["fields"] = chance.choice(_FIELDS)
        yield Question(route, query, format_)


_TABLE_FIELDS = ("value", "id,ratio", "name,value", "ratio")
_PARTS = ("", "::3", "5:450:7", "1:90")
_REDUCTIONS: tuple[dict[str, str], ...] = (
    *({"max_points": "20", "method": method} for method in ("mean", "minmax", "nearest")),
    {"dtype": "safe"},
)


def about_values(
    file: str, paths: list[str], chance: random.Random, most: int
) -> Iterator[Question]:
    """Questions about the values of each path, whatever shows some: formats, parts, reductions."""
    asked = [Question("/attr", {"file": file, "path": "/", "format": "msgpack"}, "msgpack")]
    for path in dict.fromkeys(paths):
        at = {"file": file, "path": path}
        for format_ in dict.fromkeys(_FORMATS):
            queries = [{"selection": part} for part in _PARTS] + [*_REDUCTIONS]
            for query in queries:
                question = {**at, "format": format_, **query}
                # The whole is what caches keep, and bytes are what may show something.
                often = 3 if format_ == "bin" else 1
                asked += [Question("/data", question, format_)] * often
        if path == "/table":
            for format_, fields in itertools.product(dict.fromkeys(_FORMATS), _TABLE_FIELDS):
                question = {**at, "format": format_, "fields": fields}
                asked += [Question("/data", question, format_)]
            asked += [Question("/stats", {**at, "fields": each}) for each in _TABLE_FIELDS]
        for part in _PARTS:
            asked += [Question("/stats", {**at, "selection": part})]
            asked += [Question("/histogram", {**at, "selection": part})]
    yield from asked if len(asked) <= most else chance.sample(asked, most)


# Of names, what stands for something else in a URL; and keys, for up to three dimensions.
_UNFIT = re.compile(r"[#?%\\:\x00-\x1f\x7f]|(?<=/)\.+(?=/|$)")
_KEYS = ("zarr.json", "c", "c/0", "c/0/0", "c/0/0/0", "c/1", "c/1/0", "c/0/1/0")


def about_store(file: str, paths: list[str], chance: random.Random, most: int) -> list[Question]:
    """Questions about the Zarr store that a file is: metadata, and chunks of each path."""
    asked = [Question(f"/zarr/{file}/zarr.json")]
    for path in filter(_is_text, dict.fromkeys(paths)):
        node = _UNFIT.sub("_", path).rstrip("/")
        for key in _KEYS:
            format_ = "json" if key == "zarr.json" else "chunk"
            asked.append(Question(f"/zarr/{file}{node}/{key}", {}, format_))
    return asked if len(asked) <= most else [asked[0], *chance.sample(asked[1:], most - 1)]


def about_all(file: str, paths: list[str], chance: random.Random) -> list[Question]:
    """Its directory, and a batch about the file, which holds what JSON can."""
    some = about_entities(file, [each for each in paths if _is_text(each)], chance, _IN_A_BATCH)
    members = (
        Question("/meta", {"file": file}),
        *(each for each in some if each.format_ == "json"),
        Question("/files"),
    )
    return [Question("/files"), Question("/batch", {}, "batch", members)]


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:  # with surrogates for bytes that are not UTF-8
        return False
    return True
