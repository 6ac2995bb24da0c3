"""What a decorator says for OpenAPI alone, and the descriptions of tags."""

from typing import Annotated, Any

import fastapi.security
import msgspec
import orjson
import pydantic
import pytest
from msgspec import Meta
from openapi_spec_validator import validate

from asgihive.asgi import Body, Depends, Header, Query, Router, list_routes
from asgihive.asgi.openapi import make_openapi_document
from asgihive.hive import Hive, HiveConfig
from tests.asgi.exchange import answer

BEARER = {"bearer": {"type": "http", "scheme": "bearer"}}
FLOWS = {"clientCredentials": {"tokenUrl": "/token", "scopes": {"read": "Read all"}}}


class Problem(msgspec.Struct):
    message: str


class Model(pydantic.BaseModel):
    size: int


async def handler() -> Problem:
    return Problem("")


def _operation(router: Router, path: str = "/", **options: Any) -> tuple[Any, Any]:
    document = make_openapi_document(list_routes(router), title="T", version="1", **options)
    sent = orjson.loads(msgspec.json.encode(document))
    validate(sent)
    return sent["paths"][path]["get"], sent


def test_responses_are_described() -> None:
    router = Router()

    @router.get(
        "/",
        responses={
            200: {"headers": {"x-count": {"schema": {"type": "integer"}}}},
            404: "There is no such thing",
            409: Problem,
            410: {"model": list[Model], "description": "It was there"},
            "4XX": {"description": "Others", "content": {"text/plain": {"schema": {}}}},
            422: {"description": "Our own"},
        },
    )
    async def described(limit: int) -> Problem:
        return Problem("")

    operation, document = _operation(router)
    responses = operation["responses"]
    assert list(responses) == ["200", "422", "404", "409", "410", "4XX"]
    assert responses["200"]["description"] == "OK"
    assert responses["200"]["content"]["application/json"]["schema"]["$ref"]
    assert responses["404"] == {"description": "There is no such thing"}
    assert responses["409"] == {
        "description": "Conflict",
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/Problem"}},
        },
    }
    schema = responses["410"]["content"]["application/json"]["schema"]
    assert schema == {"type": "array", "items": {"$ref": "#/components/schemas/Model"}}
    assert document["components"]["schemas"]["Model"]["properties"]["size"]["type"] == "integer"
    assert responses["4XX"]["content"] == {"text/plain": {"schema": {}}}
    assert responses["422"]["description"] == "Our own"
    assert "content" in responses["422"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"responses": {"x": "a"}}, "'x' is no status"),
        ({"responses": {600: "a"}}, "600 is no status"),
        ({"responses": {404: {"descripton": "a"}}}, "'descripton' is not known; accepted are desc"),
        ({"security": {"bearer": {}}}, "'bearer': .* is no security scheme"),
        ({"security": {"bearer": "bearer"}}, "is no security scheme"),
        ({"security": ["bearer"]}, "'bearer' is no mapping"),
    ],
)
def test_what_openapi_does_not_have_is_refused(options: Any, reason: str) -> None:
    with pytest.raises(TypeError, match=reason):
        Router().get("/", **options)(handler)


def test_operations_have_the_identifiers_that_are_said() -> None:
    router = Router()
    router.get("/", operation_id="readAll")(handler)
    router.route("/more", ("GET", "POST"), operation_id="more")(handler)
    operation, document = _operation(router)
    assert operation["operationId"] == "readAll"
    more = document["paths"]["/more"]
    assert sorted(each["operationId"] for each in more.values()) == ["more", "more_post_more"]


def test_security() -> None:
    router, other = Router(), Router()
    both = {**BEARER, "key": {"type": "apiKey", "in": "header", "name": "x-key"}}
    scoped = {"oauth": ({"type": "oauth2", "flows": FLOWS}, ["read"])}
    router.get("/", security=BEARER)(handler)
    router.get("/both", security=both)(handler)
    router.get("/either", security=[BEARER, scoped])(handler)
    other.get("/", security={"bearer": {"type": "http", "scheme": "basic"}})(handler)
    router.include_router(other, "/other")
    operation, document = _operation(router)
    assert operation["security"] == [{"bearer": []}]
    paths = document["paths"]
    assert paths["/both"]["get"]["security"] == [{"bearer": [], "key": []}]
    assert paths["/either"]["get"]["security"] == [{"bearer": []}, {"oauth": ["read"]}]
    assert paths["/other/"]["get"]["security"] == [{"bearer-2": []}]
    schemes = document["components"]["securitySchemes"]
    assert list(schemes) == ["bearer", "key", "oauth", "bearer-2"]


@pytest.mark.anyio
async def test_objects_of_fastapi_guard_and_are_documented() -> None:
    router = Router(dependencies=[Depends(fastapi.security.HTTPBearer())])
    router.get("/", security=BEARER)(handler)
    router.get("/alone")(handler)
    operation, document = _operation(router)
    assert operation["security"] == [{"bearer": [], "HTTPBearer": []}]
    assert document["paths"]["/alone"]["get"]["security"] == [{"HTTPBearer": []}]
    scheme = {"type": "http", "scheme": "bearer"}
    assert document["components"]["securitySchemes"]["HTTPBearer"] == scheme
    assert (await answer(router, "/")).status in {401, 403}
    headers = [(b"authorization", b"Bearer x")]
    assert (await answer(router, "/", headers=headers)).status == 200


def test_examples_come_from_the_annotations() -> None:
    class Star(msgspec.Struct):
        name: Annotated[str, Meta(examples=["Vega"])]

    async def shown(
        limit: Annotated[int, Meta(examples=[5, 10], description="How many")],
        size: Annotated[int, pydantic.Field(examples=[7])],
        key: Annotated[str, Header(), Meta(examples=["k"])],
        star: Any,
        by: Annotated[int, Query(), Meta(title="By")] = 3,
    ) -> None: ...

    shown.__annotations__["star"] = Annotated[Star, Body(), Meta(examples=[{"name": "Deneb"}])]
    router = Router()
    router.get("/")(shown)
    operation, document = _operation(router)
    schemas = {each["name"]: each["schema"] for each in operation["parameters"]}
    assert operation["parameters"][0]["description"] == "How many"
    assert schemas["limit"]["examples"] == [5, 10]
    assert schemas["limit"]["description"] == "How many"
    assert schemas["size"]["examples"] == [7]
    assert schemas["key"]["examples"] == ["k"]
    assert (schemas["by"]["title"], schemas["by"]["default"]) == ("By", 3)
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    assert body["examples"] == [{"name": "Deneb"}]
    assert document["components"]["schemas"]["Star"]["properties"]["name"]["examples"] == ["Vega"]


@pytest.mark.anyio
async def test_tags_are_described() -> None:
    tags = {"later": "What comes later", "notes": "What people wrote"}
    config = HiveConfig(cornerstone_package_path=())
    hive = Hive(config, tags=tags, entry_points=False)
    hive.router.get("/", tags=["notes", "others"])(handler)
    async with hive.running():
        assert hive.life is not None
        document = (await answer(hive.life.router, "/openapi.json")).json
    assert document["tags"] == [
        {"name": "later", "description": "What comes later"},
        {"name": "notes", "description": "What people wrote"},
        {"name": "others"},
    ]
    validate(document)
