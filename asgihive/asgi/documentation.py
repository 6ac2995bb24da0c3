"""`/openapi.json` and `/docs`: what a router offers, for programs and for people."""

import html
import importlib.util
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.types import ASGIApp

from asgihive.asgi.errors import HTTPException
from asgihive.asgi.openapi import make_openapi_document
from asgihive.asgi.responses import BufferedResponse
from asgihive.asgi.router import Router, list_routes
from asgihive.asgi.routes import Route
from asgihive.concurrency import run_in_worker

Routes = Iterable[tuple[str, Route]]

# The files of Swagger UI that the page loads, and their media types.
_ASSETS = {
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "favicon-32x32.png": "image/png",
}
_START = b"""\
SwaggerUIBundle({
  url: document.body.dataset.openapi,
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
});
"""
_PAGE_HEADERS = {
    "content-type": "text/html; charset=utf-8",
    # Nothing from other sites; Swagger UI styles its elements, and has pictures in its CSS.
    "content-security-policy": (
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
    ),
}

OLDEST_SWAGGER_UI = 5
"""The first version of Swagger UI that shows OpenAPI 3.1."""


class Documentation:
    """The OpenAPI document of a router, and a page that shows it, both made at first use.

    The page is Swagger UI where the extra `docs` is installed (`swagger-ui-bundle-v2`), else
    a plain list of the operations; neither needs anything from another site. Both honour
    `root_path`.

    Args:
        source: a router, with the routers that it mounts, or what gives its routes with
            their whole paths.
        openapi_path, docs_path: where they are; None switches off. The page needs the
            document.

    Raises:
        ValueError: a page without a document.
    """

    def __init__(  # noqa: PLR0913  # given by name, and each is one fact
        self,
        source: Router | Callable[[], Routes],
        *,
        title: str,
        version: str = "0.1.0",
        description: str | None = None,
        openapi_path: str | None = "/openapi.json",
        docs_path: str | None = "/docs",
    ) -> None:
        if openapi_path is None and docs_path is not None:
            raise ValueError("The documentation page needs an openapi_path")
        self.title = title
        self.version = version
        self.description = description
        self.openapi_path = openapi_path
        self.docs_path = docs_path
        self._source = source
        self._document: dict[str, Any] | None = None
        self._assets: dict[str, BufferedResponse] | None = None

    def document(self) -> dict[str, Any]:
        """The OpenAPI document of the routes there are now, without `servers`."""
        routes = list_routes(self._source) if isinstance(self._source, Router) else self._source()
        return make_openapi_document(
            routes, title=self.title, version=self.version, description=self.description
        )

    def add_to(self, router: Router) -> None:
        """Let `router` answer the document and the page; they document themselves not.

        Raises:
            ValueError: a path is taken.
        """
        if self.openapi_path is not None:
            router.get(self.openapi_path, name="openapi", include_in_schema=False)(self._openapi)
        if self.docs_path is None:
            return
        router.get(self.docs_path, name="docs", include_in_schema=False)(self._page)
        for name in (*_ASSETS, "start.js"):
            path = f"{self.docs_path}/{name}"
            router.get(path, name="docs_asset", include_in_schema=False)(self._asset_of(name))

    async def _openapi(self, request: Request) -> ASGIApp:
        document = await self._made()
        root_path = request.scope.get("root_path", "")
        if root_path:
            document = {**document, "servers": [{"url": root_path}]}
        body = msgspec.json.encode(document)
        return BufferedResponse(body, headers={"content-type": "application/json"})

    async def _page(self, request: Request) -> ASGIApp:
        root_path = request.scope.get("root_path", "")
        if await self._found():
            page = _swagger_page(
                self.title, f"{root_path}{self.openapi_path}", f"{root_path}{self.docs_path}"
            )
        else:
            page = _plain_page(await self._made(), root_path, f"{root_path}{self.openapi_path}")
        return BufferedResponse(page.encode(), headers=_PAGE_HEADERS)

    def _asset_of(self, name: str) -> Callable[[Request], Any]:
        async def asset(request: Request) -> ASGIApp:  # noqa: ARG001  # what handlers take
            found = (await self._found()).get(name)
            if found is None:
                raise HTTPException(404, "The extra 'docs' is not installed")
            return found

        return asset

    async def _made(self) -> dict[str, Any]:
        if self._document is None:
            self._document = await run_in_worker(self.document)
        return self._document

    async def _found(self) -> dict[str, BufferedResponse]:
        if self._assets is None:
            self._assets = await run_in_worker(_swagger_assets)
        return self._assets


def _swagger_assets() -> dict[str, BufferedResponse]:
    """The files of Swagger UI by name; none where it is not installed, or too old."""
    spec = importlib.util.find_spec("swagger_ui_bundle")
    if spec is None or spec.origin is None:
        return {}
    for folder in Path(spec.origin).parent.glob("vendor/swagger-ui-*"):
        version = folder.name.rpartition("-")[2].partition(".")[0]
        if version.isdigit() and int(version) >= OLDEST_SWAGGER_UI:
            bodies = {name: (folder / name).read_bytes() for name in _ASSETS}
            media_types = {**_ASSETS, "start.js": _ASSETS["swagger-ui-bundle.js"]}
            return {
                name: BufferedResponse(
                    body,
                    headers={"content-type": media_types[name], "cache-control": "max-age=3600"},
                )
                for name, body in {**bodies, "start.js": _START}.items()
            }
    return {}


def _swagger_page(title: str, openapi: str, assets: str) -> str:
    assets = html.escape(assets)
    return f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<link rel="stylesheet" href="{assets}/swagger-ui.css">
<link rel="icon" type="image/png" href="{assets}/favicon-32x32.png">
</head>
<body data-openapi="{html.escape(openapi)}">
<div id="swagger-ui"></div>
<script src="{assets}/swagger-ui-bundle.js"></script>
<script src="{assets}/start.js"></script>
</body>
</html>
"""


def _plain_page(document: dict[str, Any], root_path: str, openapi: str) -> str:
    title = html.escape(document["info"]["title"])
    return f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font-family: sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }}
code {{ font-size: 1.1em; }} pre {{ white-space: pre-wrap; }} dt {{ margin-top: 1.5rem; }}
</style>
</head>
<body>
<h1>{title} <small>{html.escape(document["info"]["version"])}</small></h1>
<p>{html.escape(document["info"].get("description", ""))}</p>
<p><a href="{html.escape(openapi)}">OpenAPI 3.1</a> ·
install the extra <code>asgihive[docs]</code> to try the operations here.</p>
<dl>
{"".join(_plain_operations(document, root_path))}</dl>
</body>
</html>
"""


def _plain_operations(document: dict[str, Any], root_path: str) -> Iterator[str]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            names = [f"{each['name']} ({each['in']})" for each in operation.get("parameters", ())]
            if "requestBody" in operation:
                names.append("a body")
            takes = f"<p>Takes {html.escape(', '.join(names))}.</p>" if names else ""
            tags = html.escape(", ".join(operation.get("tags", ())))
            yield (
                f"<dt><code>{method.upper()} {html.escape(root_path + path)}</code> "
                f"<small>{tags}</small></dt>\n"
                f"<dd><strong>{html.escape(operation['summary'])}</strong>"
                f"<pre>{html.escape(operation.get('description', ''))}</pre>{takes}</dd>\n"
            )
