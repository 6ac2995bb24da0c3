"""`/openapi.json` and `/docs`: served alone and mounted, with and without the extra."""

import importlib.util
import re

import pytest
from openapi_spec_validator import validate

from asgihive.asgi import Documentation, Router, documentation
from tests.asgi.exchange import answer

pytestmark = pytest.mark.anyio


def _documented() -> Router:
    router = Router()

    @router.get("/notes/{note}", tags=("<i>notes</i>",))
    async def read_note(note: int) -> str:
        """Read <b>one</b>."""
        return str(note)

    made = Documentation(router, title="A & <B>", description="<u>It</u>")
    made.add_to(router)
    return router


async def test_the_document_knows_the_routes_but_not_its_own() -> None:
    router = _documented()
    got = await answer(router, "/openapi.json")
    assert got.headers["content-type"] == "application/json"
    validate(got.json)
    assert list(got.json["paths"]) == ["/notes/{note}"]
    assert "servers" not in got.json


async def test_routes_that_come_before_the_first_request_are_in_it() -> None:
    router = _documented()

    @router.get("/later")
    async def later() -> None: ...

    assert "/later" in (await answer(router, "/openapi.json")).json["paths"]


@pytest.mark.parametrize("path", ["/outer", "/proxy/outer"])
async def test_mounted_all_references_have_the_root_path(path: str) -> None:
    outer = Router()
    outer.mount("/outer", _documented())
    root_path = path.removesuffix("/outer")
    got = await answer(outer, f"{path}/openapi.json", root_path=root_path)
    assert got.json["servers"] == [{"url": path}]
    page = (await answer(outer, f"{path}/docs", root_path=root_path)).body.decode()
    assert f'data-openapi="{path}/openapi.json"' in page
    references = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(references) == 4
    for reference in references:
        found = await answer(outer, reference, root_path=root_path)
        assert found.status == 200
        assert int(found.headers["content-length"]) == len(found.body) > 100


async def test_the_page_needs_no_other_site() -> None:
    got = await answer(_documented(), "/docs")
    assert got.headers["content-type"] == "text/html; charset=utf-8"
    assert got.headers["content-security-policy"].startswith("default-src 'self';")
    page = got.body.decode()
    assert "<title>A &amp; &lt;B&gt;</title>" in page
    assert "//" not in page


async def test_without_the_extra_the_operations_are_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    router = _documented()
    got = await answer(router, "/docs", root_path="/api")
    page = got.body.decode()
    assert "GET /api/notes/{note}" in page
    assert "Read &lt;b&gt;one&lt;/b&gt;." in page
    assert "&lt;i&gt;notes&lt;/i&gt;" in page
    assert "&lt;u&gt;It&lt;/u&gt;" in page
    assert "note (path)" in page
    assert 'href="/api/openapi.json"' in page
    assert "<b>" not in page
    assert "//" not in page
    missing = await answer(router, "/docs/start.js")
    assert (missing.status, missing.message) == (404, "The extra 'docs' is not installed")


async def test_a_swagger_ui_that_is_too_old_for_openapi_3_1_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(documentation, "OLDEST_SWAGGER_UI", 1000)
    assert "asgihive[docs]" in (await answer(_documented(), "/docs")).body.decode()
