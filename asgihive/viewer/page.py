"""The page at `/view/`, with all that it loads, out of the folder that it is built into.

It holds nothing of any file: what it shows it asks the service for, by URLs that are relative to
its own. So it is answered to everybody, without a token, and is the same below every prefix.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import cast
from urllib.parse import quote

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from asgihive.asgi import (
    BufferedResponse,
    HTTPException,
    Router,
    Validators,
    choose_media_type,
    get_route_path,
)
from asgihive.asgi.request_fields import join_headers
from asgihive.concurrency import run_in_worker
from asgihive.service.operations import OK
from asgihive.service.parameters import VIEW_PREFIX, find_rest
from asgihive.service.requests import (
    COMPRESS_OVER_BYTES,
    Version,
    answer_preconditions,
    finish_response,
    get_coding,
    is_navigation,
    parse_wanted,
)
from asgihive.settings import H5Settings

DIST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "dist")
"""The folder that the page is built into."""

INDEX = "index.html"

HASHED_FOLDER = "assets/"
"""Files below it have a hash of their content in their names."""

IMMUTABLE = "public, max-age=31536000, immutable"
"""Of files whose names change with their content (RFC 8246)."""

HTML = "text/html; charset=utf-8"

NOT_BUILT = (
    "The page is not in this installation: build it by `asgihive viewer build`, which needs "
    "npm, or install a wheel of asgihive, which has it"
)

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": HTML,
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
}
_ANY_TYPE = "application/octet-stream"
_COMPRESSIBLE = frozenset({".css", ".html", ".ico", ".js", ".json", ".svg", ".txt"})

# Without 'unsafe-eval' the page is blank: ndarray, which h5web has its arrays by, compiles
# functions. Styles are set on elements by React and by h5web's canvases.
_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors {frames}"
)

_NOT_BUILT_PAGE = f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>asgihive</title>
</head>
<body>
<h1>asgihive</h1>
<p>{NOT_BUILT.replace("`asgihive viewer build`", "<code>asgihive viewer build</code>")}.</p>
<p>The service itself answers: here are <a href="../files">the files</a> and
<a href="../docs">its routes</a>.</p>
</body>
</html>
"""

_TAG_BYTES = 16

# A cache may keep a 404 for as long as it likes (RFC 9110, section 15.1).
_UNKEPT = {"cache-control": "no-store"}

_ANYBODY = BufferedResponse(OK.body, headers={**OK.headers, "vary": "accept"})

# What is not encoded in `Location` (RFC 3986, sections 3.3 and 3.4).
_IN_A_PATH = "%!$&'()*+,;=@~"
_IN_A_QUERY = "%!$&'()*+,;=:@/?~[]"


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file of the page, and the responses that it is sent by."""

    version: Version
    plain: BufferedResponse
    """With its media type alone."""
    cache_control: str
    prepared: dict[str | None, BufferedResponse] = field(default_factory=dict)
    """By content coding, what was sent before."""


Fingerprint = tuple[tuple[str, int, int], ...]
"""Name, size and time of change of each file of the page."""


def find_dist() -> str | None:
    """Return the folder of the built page, or None where it is not built."""
    return DIST if os.path.isfile(os.path.join(DIST, INDEX)) else None


def add_page(router: Router, settings: H5Settings) -> None:
    """Let a router answer the page, and lead browsers to it that ask for the root.

    Args:
        router: that of the whole service.
        settings: of the service, with the origins whose pages may frame the page.

    Raises:
        ValueError: a path is taken.
    """
    handlers = PageHandlers(settings)
    router.add("/", handlers.answer_root, name="ok")
    # It does not document itself, as the page of the documentation does not.
    router.get("/view", name="view", include_in_schema=False)(handlers.answer_index)
    path = f"{VIEW_PREFIX}{{path:path}}"
    router.get(path, name="view_file", include_in_schema=False)(handlers.answer_file)


class PageHandlers:
    """The handlers of the page, whose files are in memory from the first request on.

    A page that is built anew is seen by the next request for it.

    Args:
        settings: of the service.
    """

    def __init__(self, settings: H5Settings) -> None:
        self._headers = _make_headers(settings)
        self._files: dict[str, PageFile] = {}
        self._fingerprint: Fingerprint = ()

    async def answer_root(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lead a browser to the page; tell anything else that the service is there."""
        response, accept = _ANYBODY, join_headers(scope, b"accept")
        if choose_media_type(accept, ("text/plain", "text/html")) == "text/html":
            location = f"{_find_folder(scope)}view/"
            response = _redirect(307, location, scope, {"vary": "accept"})
        await response(scope, receive, send)

    async def answer_index(self, request: Request) -> ASGIApp:
        """Answer the page itself, which has a slash at the end of its URL."""
        scope = request.scope
        if not get_route_path(scope).endswith("/"):
            # What the page loads is relative to its URL.
            return _redirect(308, "view/", scope, {})
        await self._refresh()
        if INDEX in self._files:
            return await self._answer(INDEX, scope)
        if is_navigation(join_headers(scope, b"accept"), None):
            return BufferedResponse(_NOT_BUILT_PAGE.encode(), 404, {**self._headers, **_UNKEPT})
        raise HTTPException(404, NOT_BUILT, _UNKEPT)

    async def answer_file(self, request: Request) -> ASGIApp:
        """Answer a file that the page loads.

        Raises:
            HTTPException: 404, there is none of that name.
            FileMissing: the path has `..`.
        """
        scope = request.scope
        name = find_rest(scope, VIEW_PREFIX) or INDEX
        if name not in self._files:
            await self._refresh()
        if name not in self._files:
            wanted = "The page has no such part" if INDEX in self._files else NOT_BUILT
            raise HTTPException(404, wanted, _UNKEPT)
        return await self._answer(name, scope)

    async def _refresh(self) -> None:
        """Read the files of the page, if they are others than those in memory."""
        found = await run_in_worker(_read_page, self._fingerprint, self._headers)
        if found is not None:
            self._fingerprint, self._files = found

    async def _answer(self, name: str, scope: Scope) -> BufferedResponse:
        file = self._files[name]
        wanted = parse_wanted(scope, file.cache_control, has_format=True, is_compressible=True)
        unchanged = answer_preconditions(wanted, file.version)
        if unchanged is not None:
            return unchanged
        coding = get_coding(wanted, file.version)
        key = None if coding is None else coding.name
        if key not in file.prepared:
            made = await finish_response(wanted, file.version, file.plain, run_in_worker)
            file.prepared[key] = cast("BufferedResponse", made)
        return file.prepared[key]


def _make_headers(settings: H5Settings) -> dict[str, str]:
    """Return the headers of the page itself."""
    origins = settings.frame_origins
    frames = "*" if "*" in origins else " ".join(("'self'", *origins))
    return {
        "content-type": HTML,
        "content-security-policy": _POLICY.format(frames=frames),
        # Its URL may have the token, which is in no log of others then.
        "referrer-policy": "no-referrer",
    }


def _find_folder(scope: Scope) -> str:
    """Return the URL of the service's root relative to the URL of a request for it.

    That is nothing where the URL has a slash at its end, as it has nearly always. Where a mount
    answers its prefix without one, the last name of the prefix has to be said again.
    """
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    last = path.rpartition(b"/")[2]
    return f"{quote(last, safe=_IN_A_PATH)}/" if last else ""


def _redirect(
    status: int, location: str, scope: Scope, headers: Mapping[str, str]
) -> BufferedResponse:
    """Return a redirection that keeps the query."""
    query: bytes = scope["query_string"]
    if query:
        location = f"{location}?{quote(query, safe=_IN_A_QUERY)}"
    return BufferedResponse(b"", status, {"location": location, **headers})


def _read_page(
    known: Fingerprint, headers: Mapping[str, str]
) -> tuple[Fingerprint, dict[str, PageFile]] | None:
    """Return the files of the page by name; None if they are still those of a fingerprint.

    None of them is a symbolic link or hidden. Without an index there is no page.
    """
    try:
        fingerprint = tuple(sorted(_list_files()))
        if fingerprint == known:
            return None
        files = {}
        for name, _, _ in fingerprint:
            with open(os.path.join(DIST, name), "rb") as file:
                files[name] = _make_file(name, file.read(), headers)
    except FileNotFoundError:  # it is just being built anew
        return None
    return fingerprint, files if INDEX in files else {}


def _list_files() -> Iterator[tuple[str, int, int]]:
    for folder, _, names in os.walk(DIST):
        for name in names:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode) and not name.startswith("."):
                relative = os.path.relpath(path, DIST).replace(os.sep, "/")
                yield relative, status.st_size, status.st_mtime_ns


def _make_file(name: str, body: bytes, headers: Mapping[str, str]) -> PageFile:
    suffix = os.path.splitext(name)[1]
    given = headers if suffix == ".html" else {"content-type": _TYPES.get(suffix, _ANY_TYPE)}
    tag = blake2b(body, digest_size=_TAG_BYTES)
    for each in sorted(given.items()):
        tag.update(repr(each).encode())
    is_large = suffix in _COMPRESSIBLE and len(body) > COMPRESS_OVER_BYTES
    return PageFile(
        Version(Validators(f'"{tag.hexdigest()}"'), is_large=is_large),
        BufferedResponse(body, headers=given),
        IMMUTABLE if name.startswith(HASHED_FOLDER) else "no-cache",
    )
