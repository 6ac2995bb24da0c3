"""The OpenAPI document of the service: valid, whole, and true of what the routes do."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from asgihive.asgi import Router, parse_query
from asgihive.asgi.arguments import JSON
from asgihive.cli.demo_files import MAIN_FILE, write_demo
from asgihive.encoders.protocol import DocumentEncoder, list_encoders
from asgihive.service import H5App, batch, files, requests
from asgihive.service.gate import STATUSES
from asgihive.settings import H5Settings
from asgihive.viewer import events
from tests.asgi.exchange import http, run
from tests.zoo.client import client

pytestmark = pytest.mark.anyio

DATASET = {"file": MAIN_FILE, "path": "/entry/scan/intensity"}

# What is asked of each route, so that it reads all of its parameters.
ASKED: dict[str, dict[str, str]] = {
    "/": {},
    "/health": {},
    "/metrics": {},
    "/meta": {"file": MAIN_FILE},
    "/attr": {"file": MAIN_FILE},
    "/paths": {"file": MAIN_FILE},
    "/data": {**DATASET, "max_points": "5"},
    "/stats": DATASET,
    "/histogram": DATASET,
    "/image": {"file": MAIN_FILE},
    "/plot": {"file": MAIN_FILE},
    "/files": {},
    "/events": {"file": MAIN_FILE},
    "/file": {"file": MAIN_FILE},
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("demo")
    write_demo(root)
    return root


@pytest.fixture(scope="module")
def app(demo: Path) -> H5App:
    return H5App(demo)


async def _document(app: Any, **scope: Any) -> Any:
    got = await run(app, http("/openapi.json", **scope))
    assert (got.status, got.headers["content-type"]) == (200, JSON)
    return got.json


def _operations(document: Any) -> Iterator[tuple[str, Any]]:
    for path, item in document["paths"].items():
        for operation in item.values():
            yield path, operation


@pytest.mark.slow_on_trio
async def test_it_is_valid_and_has_every_route(app: H5App) -> None:
    document = await _document(app)
    validate(document)
    own = {"/openapi.json", "/docs", "/view"}
    routes = {each.url: set(each.methods) for each in app.route_records()}
    described = {
        path: {method.upper() for method in item} for path, item in document["paths"].items()
    }
    assert described == {
        path.replace(":path}", "}"): methods
        for path, methods in routes.items()
        if not any(path == each or path.startswith(f"{each}/") for each in own)
    }


async def test_every_operation_says_what_it_is_and_answers(app: H5App) -> None:
    for path, operation in _operations(await _document(app)):
        assert operation["summary"], path
        assert operation["tags"] == ["hdf5"]
        assert "default" not in operation["responses"], path
        for status, response in operation["responses"].items():
            assert response["description"], (path, status)
            if int(status) >= 400:
                assert response["content"].keys() == {JSON}
        for parameter in operation["parameters"]:
            assert parameter["description"], (path, parameter["name"])
            assert parameter["schema"]["examples"], (path, parameter["name"])


async def test_every_status_of_the_contract_is_in_it(app: H5App) -> None:
    document = await _document(app)
    statuses = {
        int(each) for _, operation in _operations(document) for each in operation["responses"]
    }
    assert statuses >= set(STATUSES.values()) | {200, 206, 304, 412, 415, 416}


@pytest.mark.parametrize("path", ASKED)
async def test_the_parameters_are_those_that_are_read(
    demo: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the query: what a route asks its fields for is what the document offers."""
    app, read = H5App(demo), set[str]()  # with nothing in memory, so that it reads all of them

    class Noting(dict[str, list[str]]):
        def get(self, name: str, default: Any = None) -> Any:
            read.add(name)
            return super().get(name, default)

    # `/events` asks `/meta` by itself, which has parameters of its own.
    for module in [events] if path == "/events" else [requests, files, batch]:
        monkeypatch.setattr(module, "parse_query", lambda raw: Noting(parse_query(raw)))
    async with client(app) as asker:
        # Parameters that were parsed before are not parsed again.
        unknown = {"unknown": uuid.uuid4().hex}
        # An event stream has no end.
        method = "HEAD" if path == "/events" else "GET"
        answer = await asker.request(method, path, params={**ASKED[path], **unknown})
    assert answer.status_code == 200, answer.text
    [operation] = (await _document(app))["paths"][path].values()
    offered = {each["name"] for each in operation["parameters"] if each["in"] == "query"}
    assert read == offered


async def test_the_values_that_it_lists_are_accepted(app: H5App) -> None:
    """And no others: an enumeration of the document is that of the parser."""
    async with client(app) as asker:
        for path, operation in _operations(await _document(app)):
            for parameter in operation["parameters"]:
                for value in parameter["schema"].get("enum", ()):
                    asked = {**ASKED.get(path, {}), parameter["name"]: value}
                    answer = await asker.get(path, params=asked)
                    refused = answer.status_code == 422 and f"`{value}`: " in answer.text
                    # A format may not fit these values, which is no matter of the parser.
                    assert not refused or "does not fit" in answer.text, answer.text
                if "enum" in parameter["schema"] and path != "/batch":
                    asked = {**ASKED[path], parameter["name"]: "nonsense"}
                    answer = await asker.get(path, params=asked)
                    assert answer.status_code == 422
                    for value in parameter["schema"]["enum"]:
                        assert value in answer.text or value in {"true", "false"}


async def test_the_examples_are_of_the_demo(app: H5App) -> None:
    """A user who tries an operation over the sample files gets an answer."""
    alone = {"max_points", "shape"}  # one of them is accepted
    async with client(app) as asker:
        for path, operation in _operations(await _document(app)):
            fields = {
                each["name"]: each["schema"]["examples"][0]
                for each in operation["parameters"]
                if each["in"] == "query" and each["name"] not in alone
            }
            if path == "/paths" or "method" in fields:
                fields.pop("path" if path == "/paths" else "method")
            fields.pop("v", None)  # of another file
            of_compounds = fields.pop("fields", None)
            if path in {"/batch", "/events"}:
                continue
            for each in operation["parameters"]:
                if each["in"] == "path":
                    [example] = each["schema"]["examples"]
                    path = path.replace(f"{{{each['name']}}}", example)  # noqa: PLW2901
            answer = await asker.get(path, params=_as_query(fields))
            # Attributes and pages that the sample has not are missed, and nothing is wrong.
            assert answer.status_code in {200, 404}, (path, answer.text)
            if of_compounds:
                asked = {"file": fields["file"], "path": "/entry/types/table"}
                answer = await asker.get(path, params={**asked, "fields": of_compounds})
                assert answer.status_code == 200, (path, answer.text)


def _as_query(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        name: ",".join(map(str, value)) if name in {"percentiles", "shape", "range"} else value
        for name, value in fields.items()
    }


async def test_a_batch_takes_and_gives_what_it_says(app: H5App) -> None:
    document = await _document(app)
    example = document["components"]["schemas"]["BatchRequest"]["examples"]
    [operation] = document["paths"]["/batch"].values()
    async with client(app) as asker:
        for sent in operation["requestBody"]["content"]:
            if sent == JSON:
                answer = await asker.post("/batch", content=json.dumps(example))
                assert answer.status_code == 200
                assert answer.headers["content-type"] in operation["responses"]["200"]["content"]
                assert [each["status"] for each in answer.json()] == [200]
        refused = await asker.post("/batch", content=b"x", headers={"content-type": "text/plain"})
    assert str(refused.status_code) in operation["responses"]


async def test_formats_are_those_of_the_registry(app: H5App) -> None:
    paths = (await _document(app))["paths"]
    content = paths["/data"]["get"]["responses"]["200"]["content"]
    assert content.keys() == {each.media_type for each in list_encoders().values()}
    documents = {
        each.media_type for each in list_encoders().values() if isinstance(each, DocumentEncoder)
    }
    assert paths["/meta"]["get"]["responses"]["200"]["content"].keys() == documents


@pytest.mark.parametrize("root_path", ["", "/h5", "/outer/h5"])
async def test_below_a_prefix_the_server_is_there(app: H5App, root_path: str) -> None:
    outer = Router()
    outer.mount(root_path or "/", app)
    document = await _prefixed(outer, root_path)
    assert document.get("servers") == ([{"url": root_path}] if root_path else None)
    page = (await run(outer, http(f"{root_path}/docs"))).body.decode()
    assert f"{root_path}/openapi.json" in page


async def _prefixed(outer: Router, root_path: str) -> Any:
    return (await run(outer, http(f"{root_path}/openapi.json"))).json


async def test_both_can_be_switched_off(demo: Path) -> None:
    app = H5App(demo, H5Settings(docs=False))
    for path in ("/openapi.json", "/docs"):
        got = await run(app, http(path))
        assert (got.status, got.message) == (404, f"No such route: {path}")


@pytest.mark.slow_on_trio
async def test_a_token_is_described_and_the_page_needs_none(demo: Path) -> None:
    app = H5App(demo, H5Settings(token="secret"))
    document = await _document(app)
    validate(document)
    assert "secret" not in json.dumps(document)
    assert document["components"]["securitySchemes"]["token"]["name"] == "token"
    for path, operation in _operations(document):
        is_open = operation.get("security") == []
        async with client(app) as asker:
            answer = await asker.request("POST" if path == "/batch" else "GET", path)
        assert (answer.status_code != 401) is is_open, path
        assert ("401" in operation["responses"]) is not is_open
    assert (await run(app, http("/docs"))).status == 200
    assert (await run(app, http("/docs/start.js"))).status in {200, 404}


@pytest.mark.slow_on_trio
async def test_routes_of_others_are_in_it(demo: Path) -> None:
    app, mine = H5App(demo), Router()

    @mine.get("/mine")
    async def handler(name: str) -> str:
        """Say it."""
        return name

    app.include_router(mine)
    async with app.running():
        document = await _document(app)
    validate(document)
    assert document["paths"]["/mine"]["get"]["description"] == "Say it."
    assert document["paths"]["/meta"]["get"]["summary"] == "Metadata of an entity"
