"""The OpenAPI document and the page that shows it, as routes."""

import html
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.types import ASGIApp

from asgihive.asgi.errors import HTTPException
from asgihive.asgi.openapi import make_openapi_document
from asgihive.asgi.responses import BufferedResponse
from asgihive.asgi.router import Router, list_routes
from asgihive.concurrency import run_in_worker

OPENAPI_PATH = "/openapi.json"
DOCS_PATH = "/docs"

OLDEST_SWAGGER_UI = 5
"""The first version of Swagger UI that shows OpenAPI 3.1."""

# The files of Swagger UI that the page loads, with their media types, and what starts it.
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
_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
{head}
</head>
<body data-openapi="{openapi}">
{body}
</body>
</html>
"""
_SWAGGER_HEAD = """\
<link rel="stylesheet" href="{docs}/swagger-ui.css">
<link rel="icon" type="image/png" href="{docs}/favicon-32x32.png">"""
_SWAGGER_BODY = """\
<div id="swagger-ui"></div>
<script src="{docs}/swagger-ui-bundle.js"></script>
<script src="{docs}/start.js"></script>"""
_PLAIN_HEAD = """\
<style>
body { font-family: sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
code { font-size: 1.1em; } pre { white-space: pre-wrap; } dt { margin-top: 1.5rem; }
</style>"""
_PLAIN_BODY = """\
<h1>{title} <small>{version}</small></h1>
<p>{description}</p>
<p><a href="{openapi}">OpenAPI 3.1</a> ·
install the extra <code>asgihive[docs]</code> to try the operations here.</p>
<dl>
{operations}</dl>"""


class Documentation:
    """The OpenAPI document of a router, and a page that shows it, both made at first use.

    The page is Swagger UI where the extra `docs` is installed (`swagger-ui-bundle-v2`), else
    a plain list of the operations; neither needs anything from another site. Both honour
    `root_path`.

    Args:
        router: what is documented, with the routers that it mounts.
        title, version, description: of the document.
        tags: by tag its description; these come first.
    """

    def __init__(
        self,
        router: Router,
        *,
        title: str,
        version: str = "0.1.0",
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self.title = title
        self.tags = dict(tags or {})
        self.version = version
        self.description = description
        self._router = router
        self._document: dict[str, Any] | None = None
        self._assets: dict[str, BufferedResponse] | None = None

    def document(self) -> dict[str, Any]:
        """Make the OpenAPI document of the routes there are now, without `servers`."""
        routes = list_routes(self._router)
        return make_openapi_document(
            routes,
            title=self.title,
            version=self.version,
            description=self.description,
            tags=self.tags,
        )

    def add_to(self, router: Router) -> None:
        """Let `router` answer the document and the page, which do not document themselves.

        Raises:
            ValueError: a path is taken.
        """
        router.get(OPENAPI_PATH, name="openapi", include_in_schema=False)(self._send_document)
        router.get(DOCS_PATH, name="docs", include_in_schema=False)(self._send_page)
        for name in (*_ASSETS, "start.js"):
            route = router.get(f"{DOCS_PATH}/{name}", name="docs_asset", include_in_schema=False)
            route(self._make_asset_handler(name))

    async def _send_document(self, request: Request) -> ASGIApp:
        document = await self._get_document()
        root_path = request.scope.get("root_path", "")
        if root_path:
            document = {**document, "servers": [{"url": root_path}]}
        body = msgspec.json.encode(document)
        return BufferedResponse(body, headers={"content-type": "application/json"})

    async def _send_page(self, request: Request) -> ASGIApp:
        root_path = request.scope.get("root_path", "")
        texts = {
            "title": html.escape(self.title),
            "docs": html.escape(root_path + DOCS_PATH),
            "openapi": html.escape(root_path + OPENAPI_PATH),
        }
        if await self._get_assets():
            head, body = _SWAGGER_HEAD.format_map(texts), _SWAGGER_BODY.format_map(texts)
        else:
            document = await self._get_document()
            head = _PLAIN_HEAD
            body = _PLAIN_BODY.format(
                **texts,
                version=html.escape(document["info"]["version"]),
                description=html.escape(document["info"].get("description", "")),
                operations="".join(_list_operations(document, root_path)),
            )
        page = _PAGE.format(**texts, head=head, body=body)
        return BufferedResponse(page.encode(), headers=_PAGE_HEADERS)

    def _make_asset_handler(self, name: str) -> Callable[[Request], Any]:
        async def send_asset(request: Request) -> ASGIApp:  # noqa: ARG001  # what handlers take
            asset = (await self._get_assets()).get(name)
            if asset is None:
                raise HTTPException(404, "The extra 'docs' is not installed")
            return asset

        return send_asset

    async def _get_document(self) -> dict[str, Any]:
        if self._document is None:
            self._document = await run_in_worker(self.document)
        return self._document

    async def _get_assets(self) -> dict[str, BufferedResponse]:
        if self._assets is None:
            self._assets = await run_in_worker(_load_assets)
        return self._assets


def _load_assets() -> dict[str, BufferedResponse]:
    """Return the files of Swagger UI by name; none if it is not installed, or too old."""
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


def _list_operations(document: dict[str, Any], root_path: str) -> Iterator[str]:
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
