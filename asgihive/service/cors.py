"""Cross-origin requests: which pages of other origins may ask, and what they may read."""

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

METHODS = ("GET", "HEAD", "POST")

EXPOSED_HEADERS = (
    "accept-ranges",
    "allow",
    "content-disposition",
    "content-length",
    "content-range",
    "etag",
    "missing-sources",
    "retry-after",
    "server-timing",
    "www-authenticate",
    "x-asgihive-factors",
    "x-asgihive-method",
    "x-asgihive-shape",
)
"""What a page may read of an answer beside the CORS-safelisted names (Fetch standard, 2.2.2)."""

_OF_BODY = frozenset({"content-length", "content-type"})


class CrossOrigin(CORSMiddleware):
    """An ASGI application: another one, which pages of other origins may ask (Fetch, 3.3).

    Preflights are answered here, as Starlette answers them; a refused one is an error in
    JSON, as all others are.

    Args:
        origins: as `H5Settings.cors_origins`.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=("*",),
            expose_headers=EXPOSED_HEADERS,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to a preflight: 200, or 400 with what was wrong and what is accepted."""
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        wrong = bytes(answer.body).decode()
        origins = "any origin" if self.allow_all_origins else ", ".join(self.allow_origins)
        message = f"{wrong}: {', '.join(METHODS)} from {origins} are accepted"
        headers = {name: each for name, each in answer.headers.items() if name not in _OF_BODY}
        return JSONResponse({"message": message}, answer.status_code, headers)
