"""The OpenAPI document: valid, complete, and free of clashes."""

import enum
import json
import math
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
import orjson
import pydantic
import pytest
from openapi_spec_validator import validate
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from asgihive.asgi import BufferedResponse, Cookie, Depends, Header, Query, Router, list_routes
from asgihive.asgi.openapi import make_openapi_document

_KEY = uuid.UUID(int=1)


class Colour(enum.Enum):
    RED = "red"


class Note(msgspec.Struct):
    """A note."""

    title: Annotated[str, msgspec.Meta(min_length=1)]
    replies: "list[Note]" = []


class Sub(pydantic.BaseModel):
    size: int


class Model(pydantic.BaseModel):
    sub: Sub
    at: int = 0


def _document(router: Router) -> dict[str, Any]:
    """The document as clients get it, found valid."""
    document = make_openapi_document(list_routes(router), title="Test", version="1.2")
    sent: dict[str, Any] = orjson.loads(msgspec.json.encode(document))
    validate(sent)
    return sent


async def _token(token: Annotated[str, Header("X-Token")]) -> str:
    return token


def test_an_operation_is_described_whole() -> None:
    router = Router(tags=("notes",), dependencies=[_token])

    @router.post("/notes/{note:int}/{kind}/{key:uuid}", status=201, deprecated=True)
    async def write_note(  # noqa: PLR0917  # one of each
        note: Annotated[int, msgspec.Meta(le=9)],
        kind: Colour,
        body: Note,
        tags: Annotated[list[str], Query("tag")],
        session: Annotated[str | None, Cookie()] = None,
        who: str = Depends(_token),
        limit: int = 10,
    ) -> Note:
        """Write a note."""
        return body

    document = _document(router)
    operation = document["paths"]["/notes/{note}/{kind}/{key}"]["post"]
    reference = {"$ref": "#/components/schemas/Note"}
    both = {
        "application/json": {"schema": reference},
        "application/msgpack": {"schema": reference},
    }
    responses = operation.pop("responses")
    assert operation == {
        "operationId": "write_note",
        "summary": "Write note",
        "description": "Write a note.",
        "tags": ["notes"],
        "deprecated": True,
        "parameters": [
            {
                "name": "note",
                "in": "path",
                "required": True,
                "schema": {"type": "integer", "maximum": 9},
            },
            {
                "name": "kind",
                "in": "path",
                "required": True,
                "schema": {"$ref": "#/components/schemas/Colour"},
            },
            {
                "name": "key",
                "in": "path",
                "required": True,
                "schema": {"type": "string", "format": "uuid"},
            },
            {"name": "x-token", "in": "header", "required": True, "schema": {"type": "string"}},
            {
                "name": "tag",
                "in": "query",
                "required": True,
                "schema": {"type": "array", "items": {"type": "string"}},
            },
            {
                "name": "session",
                "in": "cookie",
                "schema": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            },
            {"name": "limit", "in": "query", "schema": {"type": "integer", "default": 10}},
        ],
        "requestBody": {"required": True, "content": both},
    }
    assert responses["201"] == {"description": "Success", "content": both}
    assert list(responses) == ["201", "422"]
    assert document["info"] == {"title": "Test", "version": "1.2"}
    assert document["tags"] == [{"name": "notes"}]
    assert set(document["components"]["schemas"]) == {"Note", "Colour", "asgihive.InvalidRequest"}


def _returning(annotation: Any, **options: Any) -> Router:
    router = Router()

    async def handler() -> None: ...

    handler.__annotations__["return"] = annotation
    router.get("/", **options)(handler)
    return router


@pytest.mark.parametrize(
    ("annotation", "options", "status", "content"),
    [
        (None, {}, "204", None),
        (None, {"status": 202}, "202", None),
        (str, {}, "200", {"text/plain": {"schema": {"type": "string"}}}),
        (str, {"media_type": "text/csv"}, "200", {"text/csv": {"schema": {"type": "string"}}}),
        (bytes, {}, "200", {"application/octet-stream": {"schema": {}}}),
        (Response, {}, "200", None),
        (BufferedResponse, {}, "200", None),
        (Any, {}, "200", None),
        (AsyncIterator[bytes], {}, "200", {"application/octet-stream": {"schema": {}}}),
        (
            AsyncIterator[dict[str, int]],
            {},
            "200",
            {
                "application/x-ndjson": {
                    "schema": {"type": "object", "additionalProperties": {"type": "integer"}}
                }
            },
        ),
        (
            list[int],
            {"media_type": "application/own+json"},
            "200",
            {"application/own+json": {"schema": {"type": "array", "items": {"type": "integer"}}}},
        ),
    ],
)
def test_responses_follow_the_return_annotation(
    annotation: Any, options: dict[str, Any], status: str, content: Any
) -> None:
    responses = _document(_returning(annotation, **options))["paths"]["/"]["get"]["responses"]
    assert list(responses) == [status]
    assert responses[status].get("content") == content


def test_arrays_accept_anything_and_responses_leave_what_is_beside_them() -> None:
    for annotation in (npt.NDArray[np.float64], np.ndarray):
        get = _document(_returning(annotation))["paths"]["/"]["get"]
        assert {"application/json", "text/csv"} <= get["responses"]["200"]["content"].keys()
    get = _document(_returning(Response | Note))["paths"]["/"]["get"]
    schema = {"$ref": "#/components/schemas/Note"}
    assert get["responses"]["200"]["content"]["application/json"] == {"schema": schema}


def test_pydantic_models_have_their_definitions_among_the_components() -> None:
    router = Router()

    class Sub(msgspec.Struct):  # another one of this name
        other: str

    async def first(model: Model) -> list[Model]:
        return [model]

    async def second(sub: Any) -> None: ...

    second.__annotations__["sub"] = Sub
    router.post("/first")(first)
    router.post("/second")(second)
    document = _document(router)
    schemas = document["components"]["schemas"]
    operation = document["paths"]["/first"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/Model-2"}
    assert schemas["Model-2"]["properties"]["sub"]["$ref"] == "#/components/schemas/Sub-2"
    assert schemas["Sub-2"]["properties"] == {"size": {"title": "Size", "type": "integer"}}
    assert "other" in schemas["Sub"]["properties"]
    returned = operation["responses"]["200"]["content"]["application/json"]["schema"]
    reference = returned["items"]["$ref"].rpartition("/")[2]
    assert set(schemas[reference]["properties"]) == {"sub", "at"}


def test_a_pydantic_model_is_one_schema_wherever_it_is_named() -> None:
    router = Router()

    @router.get("/one")
    async def one() -> Model: ...  # type: ignore[empty-body]  # never called

    @router.get("/many")
    async def many() -> list[Model]: ...  # type: ignore[empty-body]

    @router.get("/some")
    async def some() -> Model | None: ...

    document = _document(router)
    reference = {"$ref": "#/components/schemas/Model"}
    schemas = [
        document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        for path in ("/one", "/many", "/some")
    ]
    assert schemas[0] == schemas[1]["items"] == schemas[2]["anyOf"][0] == reference
    assert {"Model", "Sub"} <= document["components"]["schemas"].keys()


def test_what_dependencies_return_is_not_documented() -> None:
    router = Router()

    class Secret(msgspec.Struct):
        key: str

    class Shown(msgspec.Struct):
        name: str

    async def find_secret(key: Annotated[str, Header()]) -> Secret:
        return Secret(key)

    async def show(secret: Any) -> Shown:
        return Shown(secret.key)

    show.__annotations__.update(secret=Annotated[Secret, Depends(find_secret)], **{"return": Shown})
    router.get("/")(show)
    document = _document(router)
    assert "Shown" in document["components"]["schemas"]
    assert "Secret" not in document["components"]["schemas"]


def test_what_openapi_cannot_say_is_left_out() -> None:
    router, mounted = Router(), Router(tags=("inner",))

    async def plain(request: Request) -> str:
        return ""

    async def socket(websocket: WebSocket) -> None: ...

    router.get("/hidden", include_in_schema=False)(plain)
    router.websocket("/ws")(socket)
    router.add("/any", BufferedResponse(b""), methods=("*",))
    router.mount("/app", BufferedResponse(b""))
    router.add("/bare", BufferedResponse(b""), methods=("GET", "PURGE"), name="bare")
    mounted.get("/{rest:path}")(plain)
    router.mount("/{proposal}", mounted)
    document = _document(router)
    assert {path: list(item) for path, item in document["paths"].items()} == {
        "/bare": ["get"],
        "/{proposal}/{rest}": ["get"],
    }
    assert list(document["paths"]["/bare"]["get"]["responses"]) == ["default"]
    inner = document["paths"]["/{proposal}/{rest}"]["get"]
    assert [each["name"] for each in inner["parameters"]] == ["proposal", "rest"]
    assert inner["tags"] == ["inner"]


def test_operation_ids_and_paths_are_unique() -> None:
    router = Router()

    async def item(request: Request) -> str:
        return ""

    router.route("/x", methods=("GET", "POST"))(item)
    router.get("/y/{a}")(item)
    router.get("/y/{a:int}")(item)  # for OpenAPI the same path
    router.get("/z/{a}/b")(item)
    document = _document(router)
    assert sorted(
        operation["operationId"]
        for operations in document["paths"].values()
        for operation in operations.values()
    ) == ["item", "item_get_y_a", "item_get_z_a_b", "item_post_x"]


def test_defaults_that_json_cannot_say_are_left_out() -> None:
    router = Router()

    @router.get("/")
    async def handler(
        colour: Colour = Colour.RED,
        key: uuid.UUID = _KEY,
        ratio: float = math.inf,
        ratios: Annotated[tuple[float, ...], Query()] = (1.0, math.nan),
    ) -> None: ...

    colour, key, ratio, ratios = _document(router)["paths"]["/"]["get"]["parameters"]
    assert colour["schema"]["default"] == "red"
    assert key["schema"]["default"] == str(_KEY)
    assert "default" not in ratio["schema"]
    assert "default" not in ratios["schema"]


class Gauge(msgspec.Struct):
    value: float = math.nan
    range: tuple[float, float] = (0.0, math.inf)
    default: float = -math.inf
    properties: int = 3


class GaugeModel(pydantic.BaseModel):
    value: float = math.nan
    default: float = math.inf


@pytest.mark.parametrize("kind", [Gauge, GaugeModel])
def test_defaults_of_fields_that_json_cannot_say_are_left_out(kind: type) -> None:
    router = Router()

    async def handler(gauge: Any) -> list[Any]:
        return [gauge]

    handler.__annotations__ |= {"gauge": kind, "return": list[kind]}  # type: ignore[valid-type]
    router.post("/")(handler)
    document = _document(router)
    properties = document["components"]["schemas"][kind.__name__]["properties"]
    for name in ("value", "range", "default"):
        assert "default" not in properties.get(name, {})
    assert "default" in properties
    if kind is Gauge:
        assert properties["properties"]["default"] == 3
    made = make_openapi_document(list_routes(router), title="Test", version="1.2")
    json.dumps(made, allow_nan=False)


def _make_page(item: Any) -> Any:
    class Page(msgspec.Struct):
        items: list[item]

    return Page


def test_classes_that_one_function_makes_are_told_apart() -> None:
    router = Router()
    for item in (int, str):
        page = _make_page(item)

        async def show(body: Any) -> Any: ...

        show.__annotations__ = {"body": page, "return": page}

        router.post(f"/{item.__name__}")(show)
    document = make_openapi_document(list_routes(router), title="T", version="1")
    validate(document)
    schemas = document["components"]["schemas"]
    for name in ("int", "str"):
        operation = document["paths"][f"/{name}"]["post"]
        for content in (operation["requestBody"], operation["responses"]["200"]):
            reference = content["content"]["application/json"]["schema"]["$ref"]
            items = schemas[reference.rpartition("/")[2]]["properties"]["items"]["items"]
            assert items == {"type": {"int": "integer", "str": "string"}[name]}


class Dog(msgspec.Struct):
    name: str


class Cat(pydantic.BaseModel):
    name: str


def test_a_union_that_nobody_can_describe_accepts_anything() -> None:
    async def show() -> Dog | Cat:
        return Dog("Rex")

    router = Router()
    router.get("/")(show)
    document = make_openapi_document(list_routes(router), title="T", version="1")
    validate(document)
    content = document["paths"]["/"]["get"]["responses"]["200"]["content"]
    assert content["application/json"]["schema"] == {}
