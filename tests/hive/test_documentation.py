"""The document and the routes of a hive have those of the applications that it has inside."""

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from msgspec import Struct
from openapi_spec_validator import validate
from pydantic import BaseModel

from asgihive import H5App
from asgihive.asgi import Router
from asgihive.hive import Component, Hive, HiveConfig
from asgihive.hive.documentation import merge_documents
from tests.hive.services import client

pytestmark = pytest.mark.anyio


class Item(Struct):
    number: int


class Other(BaseModel):
    text: str


def make_hive(**routers: Any) -> Hive:
    endpoints = [
        Component(kind="endpoint", container="e", name=name, router=router)
        for name, router in routers.items()
    ]
    config = HiveConfig(cornerstone_package_path=())
    return Hive(config, endpoints=endpoints, entry_points=False)


def make_fastapi() -> FastAPI:
    app = FastAPI()
    other = type("Item", (Other,), {"__module__": __name__})

    @app.post("/items")
    def add(item: other) -> other:  # type: ignore[valid-type]  # it has the name of another one
        return item

    return app


def make_router() -> Router:
    router = Router()

    @router.post("/items")
    def add(item: Item) -> Item:
        return item

    return router


@pytest.mark.slow_on_trio
async def test_the_hdf5_service_as_an_endpoint_is_in_both(tmp_path: Path) -> None:
    files = H5App(tmp_path)
    hive = make_hive(files=files, plain=make_router())
    own = files.openapi()
    document = hive.openapi()
    validate(document)
    below = {f"/e/files{path}": item for path, item in own["paths"].items()}
    assert len(below) > 10
    assert document["paths"].items() >= below.items()
    assert document["components"]["schemas"].items() >= own["components"]["schemas"].items()
    urls = {each.url: each for each in hive.route_records()}
    assert urls.keys() >= {f"/e/files{each.url}" for each in files.route_records()}
    assert urls["/e/files/data"].methods == ("GET",)
    async with hive.running(), client(hive) as asks:
        assert (await asks.get("/openapi.json")).json() == document
    without = Hive(HiveConfig(cornerstone_package_path=()), entry_points=False, docs=False)
    assert without.openapi() == {}


async def test_documents_of_several_applications_are_one() -> None:
    inner = make_hive(x=make_router())
    hive = make_hive(first=make_router(), second=make_fastapi(), third=inner)
    document = hive.openapi()
    validate(document)
    assert [*document["paths"]] == ["/e/first/items", "/e/second/items", "/e/third/e/x/items"]
    operations = [each["post"] for each in document["paths"].values()]
    assert len({each["operationId"] for each in operations}) == 3
    schemas = document["components"]["schemas"]
    references = [
        each["requestBody"]["content"]["application/json"]["schema"]["$ref"] for each in operations
    ]
    names = [each.rpartition("/")[2] for each in references]
    assert names == ["Item", "Item-2", "Item"]
    assert [[*schemas[name]["properties"]] for name in names] == [["number"], ["text"], ["number"]]
    assert {each.url for each in hive.route_records()} >= document["paths"].keys()


async def test_what_another_document_says_for_all_of_its_operations_goes_with_them() -> None:
    document: dict[str, Any] = {
        "paths": {"/x": {"get": {"operationId": "x", "tags": ["b"]}}},
        "tags": [{"name": "b", "description": "kept"}],
    }
    other = {
        "security": [{"key": []}],
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "tags": [{"name": "b"}, {"name": "c"}],
        "paths": {
            "/y/{name}": {
                "summary": "about names",
                "parameters": [{"name": "name", "in": "path"}],
                "get": {"parameters": [{"name": "limit", "in": "query"}]},
                "put": {"security": [], "operationId": "x", "tags": ["d"]},
            }
        },
    }
    merge_documents(document, other, "/below")
    item = document["paths"]["/below/y/{name}"]
    assert [each["name"] for each in item["get"]["parameters"]] == ["name", "limit"]
    assert item["get"]["security"] == [{"key": []}]
    assert item["get"]["summary"]
    assert item["put"]["security"] == []
    assert item["put"]["operationId"] == "x-2"
    assert item.keys() == {"get", "put"}
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert {each["name"]: each.get("description") for each in document["tags"]} == {
        "b": "kept",
        "c": None,
        "d": None,
    }
