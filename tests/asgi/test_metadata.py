"""Defaults and metadata: what is understood counts, and what is not ends the start."""

import datetime as dt
import decimal
import enum
import re
import subprocess
import sys
import types
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypedDict

import annotated_types as at
import fastapi
import fastapi.security
import msgspec
import pydantic
import pytest
from msgspec import Meta
from openapi_spec_validator import validate
from starlette.requests import Request
from typing_extensions import Doc

from asgihive.asgi import Body, Depends, Header, HTTPException, Query, Router, list_routes
from asgihive.asgi.openapi import make_openapi_document
from asgihive.asgi.signatures import HandlerError
from tests.asgi.exchange import answer
from tests.asgi.test_signature import _handler

pytestmark = pytest.mark.anyio


async def guard() -> None:
    raise HTTPException(401, "No")


class Colour(enum.Enum):
    RED = "red"


class Note(msgspec.Struct):
    title: str


@dataclass
class Page:
    start: int = 0


class Model(pydantic.BaseModel):
    title: str = "a"


FOREIGN = [
    (fastapi.Depends(guard), r"Depends is FastAPI's.*write asgihive\.Depends\(f\)"),
    (fastapi.Security(guard), r"Security is FastAPI's.*write asgihive\.Depends\(f\)"),
    (fastapi.Header(), r"Header is FastAPI's.*write asgihive\.Header"),
    (fastapi.Query(), r"Query is FastAPI's.*write asgihive\.Query"),
    (fastapi.Cookie(), r"Cookie is FastAPI's.*write asgihive\.Cookie"),
    (fastapi.Path(), "Path is FastAPI's.*found by its name"),
    (fastapi.Body(), r"Body is FastAPI's.*write asgihive\.Body"),
    (fastapi.Form(), r"Form is FastAPI's.*write asgihive\.Form"),
    (fastapi.File(), r"File is FastAPI's.*write the annotation asgihive\.UploadFile"),
    (fastapi.Query, r"Query is FastAPI's.*write asgihive\.Query"),
    (fastapi.security.HTTPBearer(), r"HTTPBearer is FastAPI's.*asgihive\.Depends\(scheme\)"),
]


@pytest.mark.parametrize("annotation", [str, Any, int | None, Note, Page, dict, Model, object])
@pytest.mark.parametrize(("marker", "reason"), FOREIGN)
def test_markers_of_fastapi_are_no_defaults(marker: Any, reason: str, annotation: Any) -> None:
    for path in ("/", "/{x}"):
        with pytest.raises(HandlerError, match=reason) as caught:
            Router().post(path)(_handler(annotation, marker))
        assert caught.value.parameter == "x"
        assert re.match(r"_handler.*handler \(.*\.py:\d+\), parameter 'x': ", str(caught.value))


@pytest.mark.parametrize(("marker", "reason"), FOREIGN)
def test_markers_of_fastapi_are_no_metadata(marker: Any, reason: str) -> None:
    for annotation in (
        Annotated[str, marker],
        Annotated[Note, marker],
        Annotated[str, marker, Query()],
        list[Annotated[str, marker]],
        Annotated[Any, marker, Depends(_handler)],  # of the same function both are meant
    ):
        with pytest.raises(HandlerError, match=reason):
            Router().post("/")(_handler(annotation))


def test_classes_of_fastapi_are_named() -> None:
    with pytest.raises(HandlerError, match=r"write starlette\.background\.BackgroundTasks"):
        Router().post("/")(_handler(fastapi.BackgroundTasks))


def test_markers_of_fastapi_guard_nothing() -> None:
    leftover: Any = fastapi.Depends(guard)
    for make in (
        lambda: Router(dependencies=[leftover]),
        lambda: Router().get("/", dependencies=[leftover])(guard),
        lambda: Router().include_router(_router_with_a_route(), dependencies=[leftover]),
        lambda: Depends(leftover),
    ):
        with pytest.raises(TypeError, match=r"write asgihive\.Depends\(f\)"):
            make()


def _router_with_a_route() -> Router:
    router = Router()
    router.get("/")(guard)
    return router


def test_markers_in_dependencies_are_found_as_well() -> None:
    async def dependency(user: str = fastapi.Depends(guard)) -> None: ...

    class Filter(pydantic.BaseModel):
        user: Annotated[str, fastapi.Header()]

    for each in (dependency, Filter, fastapi.security.OAuth2PasswordRequestForm):
        with pytest.raises(HandlerError, match="FastAPI's"):
            Router().get("/", dependencies=[each])(guard)


class Stranger:
    pass


@pytest.mark.parametrize(
    "metadata", [Stranger(), Stranger, "text", 5, at.Predicate(str.islower), lambda: 5]
)
def test_metadata_that_is_not_understood_is_refused(metadata: Any) -> None:
    for annotation in (Annotated[str, metadata], dict[str, Annotated[str, metadata]]):
        with pytest.raises(HandlerError, match=r"is not understood; accepted .*msgspec\.Meta, Ge"):
            Router().post("/")(_handler(annotation))


@pytest.mark.parametrize(
    ("annotation", "default"),
    [
        (int, "5"),
        (int, 1.5),
        (str, 5),
        (bool, 1),
        (Colour, "red"),
        (Note, {"title": "a"}),
        (dict, []),
        (list[int], ["a"]),
        (Literal["a"], "b"),
        (int | None, "x"),
        (dt.date, "2024-01-01"),
        (int, ...),
        (int, Stranger()),
        (Annotated[int, Meta(ge=1)], Stranger()),
    ],
)
def test_a_default_fits_its_annotation(annotation: Any, default: Any) -> None:
    with pytest.raises(HandlerError, match=r"the default .* is no value of") as caught:
        Router().post("/")(_handler(annotation, default))
    assert caught.value.parameter == "x"


@pytest.mark.parametrize(
    ("annotation", "default"),
    [
        (int, None),
        (int, True),
        (float, 1),
        (str | None, None),
        (list[int], ()),
        (set[str], {"a"}),
        (Colour, Colour.RED),
        (Literal["a"], "a"),
        (Note, Note("a")),
        (Page, Page()),
        (Model, Model()),
        (dict[str, Any], {"a": 1}),
        (decimal.Decimal, decimal.Decimal(1)),
        (dt.date, dt.date(2024, 1, 1)),
        (pydantic.HttpUrl, "https://example.org"),
        (Annotated[int, Meta(ge=1)], 0),
    ],
)
def test_defaults_that_fit(annotation: Any, default: Any) -> None:
    handler = _handler(annotation, default)
    assert Router().post("/")(handler) is handler


def test_without_a_type_only_plain_values_are_defaults() -> None:
    for annotation in (Annotated[Any, Body()], Annotated[dict[str, Any], Body()]):
        Router().post("/")(_handler(annotation, {"a": [1, None]}))
        with pytest.raises(HandlerError, match="is no"):
            Router().post("/")(_handler(annotation, Stranger()))


def test_defaults_of_what_is_always_there_are_refused() -> None:
    for annotation in (Request, Annotated[int, Depends(guard)]):
        Router().post("/")(_handler(annotation, None))
    with pytest.raises(HandlerError, match="is never used"):
        Router().post("/")(_handler(Annotated[int, Depends(guard)], 5))


def _echo(annotation: Any, default: Any = ..., method: str = "GET") -> Router:
    router = Router()

    async def show(x: Any) -> str:
        return repr(x)

    show.__annotations__["x"] = annotation
    if default is not ...:
        show.__defaults__ = (default,)
    router.route("/", (method,))(show)
    return router


PATTERN = re.compile("^[a-c]+$", re.IGNORECASE)

CONSTRAINED = [
    (Annotated[int, at.Ge(0)], "0", "-1", {"minimum": 0}),
    (Annotated[int, at.Gt(0)], "1", "0", {"exclusiveMinimum": 0}),
    (Annotated[int, at.Le(3)], "3", "4", {"maximum": 3}),
    (Annotated[float, at.Lt(3)], "2.9", "3", {"exclusiveMaximum": 3}),
    (Annotated[int, at.MultipleOf(5)], "10", "11", {"multipleOf": 5}),
    (Annotated[int, at.Interval(gt=1, le=3)], "3", "1", {"exclusiveMinimum": 1, "maximum": 3}),
    (Annotated[str, at.MinLen(2)], "ab", "a", {"minLength": 2}),
    (Annotated[str, at.Len(1, 2)], "ab", "abc", {"minLength": 1, "maxLength": 2}),
    (Annotated[str, at.Len(0, 2)], "ab", "abc", {"maxLength": 2}),
    (Annotated[str, PATTERN], "aB", "ad", {"pattern": "(?i)^[a-c]+$"}),
    (Annotated[int, Doc("Where.")], "1", "a", {"description": "Where."}),
    (Annotated[int, at.Ge(1), Meta(ge=3, le=5)], "3", "2", {"minimum": 3, "maximum": 5}),
    (Annotated[pydantic.PositiveInt, Meta(le=5)], "5", "0", {"exclusiveMinimum": 0}),
    (Annotated[pydantic.PositiveInt, at.Ge(7)], "7", "6", {"minimum": 7}),
    (Annotated[int, pydantic.Field(ge=1, description="d")], "1", "0", {"minimum": 1}),
    (Annotated[str, pydantic.Field(pattern="^a")], "ab", "ba", {"pattern": "^a"}),
    (Annotated[str, pydantic.StringConstraints(max_length=1)], "a", "ab", {"maxLength": 1}),
    (pydantic.conint(ge=2, multiple_of=2), "4", "3", {"minimum": 2, "multipleOf": 2}),
    (pydantic.condecimal(ge=2), "2.5", "1", {}),
    (Annotated[pydantic.HttpUrl, Doc("d")], "http://a.b/", "a", {"format": "uri"}),
    (Annotated[int, pydantic.Field(ge=1), Meta(le=3)], "3", "4", {"minimum": 1, "maximum": 3}),
    (Annotated[int, pydantic.AfterValidator(lambda n: {1: n}[n])], "1", "b", {"type": "integer"}),
]


@pytest.mark.parametrize(("annotation", "good", "bad", "schema"), CONSTRAINED)
async def test_constraints_count_and_are_documented(
    annotation: Any, good: str, bad: str, schema: dict[str, Any]
) -> None:
    router = _echo(annotation)
    assert (await answer(router, f"/?x={good}")).status == 200
    got = await answer(router, f"/?x={bad}")
    assert (got.status, got.json["errors"][0]["where"]) == (422, ["query", "x"])
    assert (await answer(_echo(annotation | None), f"/?x={bad}")).status == 422
    document = make_openapi_document(list_routes(router), title="T", version="1")
    validate(document)
    found = document["paths"]["/"]["get"]["parameters"][0]["schema"]
    assert {name: found.get(name) for name in schema} == schema


async def test_constraints_inside_of_lists_and_of_bodies_count() -> None:
    annotation: Any
    for annotation in (
        list[Annotated[int, at.Ge(1)]],
        Annotated[list[int], at.MinLen(2), Query()],
        list[pydantic.PositiveInt] | None,
        list[Annotated[int, pydantic.Field(ge=1)]],
    ):
        assert (await answer(_echo(annotation), "/?x=1&x=2")).body == b"[1, 2]"
        assert (await answer(_echo(annotation), "/?x=0")).status == 422
    limited = Annotated[dict[str, Annotated[int, at.Ge(1)]], at.MaxLen(1)]
    for annotation in (limited, Annotated[limited, Body()]):
        router = _echo(annotation, method="POST")
        assert (await answer(router, "/", "POST", body=b'{"a": 1}')).status == 200
        for body in (b'{"a": 0}', b'{"a": 1, "b": 1}'):
            assert (await answer(router, "/", "POST", body=body)).status == 422


def test_constraints_that_cannot_be_checked_are_refused() -> None:
    for annotation in (
        Annotated[str, at.Ge(1)],
        Annotated[dt.date, at.Ge(dt.date(2024, 1, 1))],
        Annotated[decimal.Decimal, at.Ge(1)],
        Annotated[int | str, at.MultipleOf(2), re.compile("a"), at.Len(1), Meta(tz=True)],
        Annotated[str, re.compile("a"), re.compile("b")],
    ):
        with pytest.raises(HandlerError, match=r"cannot be checked|must be|only one pattern"):
            Router().get("/")(_handler(annotation))


class Dropping(msgspec.Struct):
    count: Annotated[int, at.Ge(1)]


class DroppingInside(msgspec.Struct):
    each: list[Dropping]


@dataclass
class DroppingData:
    count: Annotated[int, at.Ge(1)]


class DroppingDict(TypedDict):
    count: Annotated[int, re.compile("a")]


class DroppingField(msgspec.Struct):
    count: Annotated[int, pydantic.Field(ge=1)]


@pytest.mark.parametrize(
    "kind", [Dropping, DroppingInside, DroppingData, DroppingDict, DroppingField]
)
def test_constraints_that_msgspec_ignores_are_refused(kind: Any) -> None:
    with pytest.raises(HandlerError, match=r"msgspec ignores .*'count'.*write msgspec.Meta\("):
        Router().post("/")(_handler(kind))


@dataclass
class Checked:
    count: pydantic.PositiveInt
    name: Annotated[str, pydantic.StringConstraints(max_length=1)]


async def test_dataclasses_with_metadata_of_pydantic_are_for_pydantic() -> None:
    router = _echo(Checked, method="POST")
    assert (await answer(router, "/", "POST", body=b'{"count": 1, "name": "a"}')).status == 200
    got = await answer(router, "/", "POST", body=b'{"count": 0, "name": "ab"}')
    assert [each["where"] for each in got.json["errors"]] == [["body", "count"], ["body", "name"]]


async def test_alias_default_and_factory_of_a_field_count() -> None:
    router = Router()

    @router.get("/")
    async def handler(
        size: Annotated[int, pydantic.Field(alias="page-size", ge=1)],
        token: Annotated[str, Header(), pydantic.Field(alias="x-token")] = "none",
        tags: list[str] = pydantic.Field(default_factory=list, max_length=2),  # noqa: B008
        limit: int = pydantic.Field(default=7, le=9),
        name: str = pydantic.Field(pattern="^a", default="abc"),
    ) -> list[Any]:
        tags.append("seen")
        return [size, token, tags, limit, name]

    for _ in range(2):
        got = await answer(router, "/?page-size=1")
        assert got.json == [1, "none", ["seen"], 7, "abc"]
    got = await answer(router, "/?page-size=2&tags=a&limit=9&name=a", headers=[(b"x-token", b"t")])
    assert got.json == [2, "t", ["a", "seen"], 9, "a"]
    got = await answer(router, "/?page-size=0&tags=a&tags=a&tags=a&limit=10&name=b")
    places = [each["where"][:2] for each in got.json["errors"]]
    assert places == [["query", each] for each in ("page-size", "tags", "limit", "name")]
    required = _echo(int, pydantic.Field(ge=1))
    assert (await answer(required, "/")).json["errors"][0]["message"] == "it is missing"


async def test_a_scalar_beside_a_list_of_them_is_a_query_parameter() -> None:
    for annotation in (list[int] | int | None, int | list[int], list[pydantic.PositiveInt] | int):
        router = _echo(annotation)
        assert (await answer(router, "/?x=1&x=2")).body == b"[1, 2]"
        assert (await answer(router, "/?x=5")).body == b"[5]"
        assert (await answer(router, "/?x=a")).status == 422


@pytest.mark.parametrize("annotation", [Note, dict[str, int], list[int] | dict, Model, Page])
def test_a_get_has_no_body_unless_it_is_marked(annotation: Any) -> None:
    handler = _handler(annotation)
    with pytest.raises(HandlerError, match=r"a GET has no body: write Annotated\[…, Query\(\)\]"):
        Router().get("/")(handler)
    Router().post("/")(handler)
    Router().get("/")(_handler(Annotated[annotation, Body()]))


class Filter(msgspec.Struct, forbid_unknown_fields=True):
    limit: Annotated[int, Meta(ge=1)]
    page_size: int = msgspec.field(name="pageSize", default=10)
    tags: list[str] = []

    def __post_init__(self) -> None:
        if self.limit > self.page_size:
            raise ValueError("the limit is larger than the page")


@dataclass
class DataFilter:
    limit: Annotated[int, Meta(ge=1)]
    pageSize: int = 10  # noqa: N815  # as the others have it
    tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        Filter(self.limit, self.pageSize)


class ModelFilter(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    limit: pydantic.PositiveInt
    page_size: int = pydantic.Field(10, alias="pageSize")
    tags: list[str] = pydantic.Field(default_factory=list)

    @pydantic.model_validator(mode="after")
    def check(self) -> "ModelFilter":
        Filter(self.limit, self.page_size)
        return self


@pytest.mark.parametrize("kind", [Filter, DataFilter, ModelFilter])
@pytest.mark.parametrize("marker", [Query(), Depends(), "class"])
async def test_the_fields_of_a_structure_are_parameters(kind: Any, marker: Any) -> None:
    marker = Depends(kind) if marker == "class" else marker

    async def handler(x: Any) -> list[Any]:
        assert isinstance(x, kind)
        return [x.limit, getattr(x, "page_size", None) or x.pageSize, x.tags]

    handler.__annotations__["x"] = Annotated[kind, marker]
    router = Router()
    router.get("/")(handler)
    assert (await answer(router, "/?limit=2")).json == [2, 10, []]
    got = await answer(router, "/?limit=2&pageSize=3&tags=a&tags=b")
    assert got.json == [2, 3, ["a", "b"]]
    for query, places in {
        "": [["query", "limit"]],
        "limit=0&pageSize=x": [["query", "limit"], ["query", "pageSize"]],
        "limit=11": [["query"]],
    }.items():
        got = await answer(router, f"/?{query}")
        assert got.status == 422
        assert [each["where"] for each in got.json["errors"]] == places
    assert "the limit is larger than the page" in got.message
    other = await answer(router, "/?limit=2&other=3")
    is_strict = kind is not DataFilter and (marker == Query() or kind is ModelFilter)
    assert other.status == (422 if is_strict and marker == Query() else 200)
    document = make_openapi_document(list_routes(router), title="T", version="1")
    validate(document)
    parameters = document["paths"]["/"]["get"]["parameters"]
    assert [each["name"] for each in parameters] == ["limit", "pageSize", "tags"]
    assert [each.get("required", False) for each in parameters] == [True, False, False]


def test_settings_are_no_parameters() -> None:
    base: Any = types.new_class("BaseSettings", (pydantic.BaseModel,))
    base.__module__ = "pydantic_settings.main"

    class Settings(base):  # type: ignore[misc]
        password: str = "secret"

    for marker in (Depends(), Depends(Settings), Query()):
        handler = _handler(Annotated[Settings, marker])
        with pytest.raises(HandlerError, match="clients would set the settings: depend on a func"):
            Router().get("/")(handler)


async def test_the_fields_of_headers_and_what_a_model_of_the_path_takes() -> None:
    class Heads(msgspec.Struct):
        x_token: str
        accept_language: str = "en"

    class Item(pydantic.BaseModel):
        number: int
        token: Annotated[str, Header("x-token")]

    router = Router()

    async def handler(heads: Any, item: Any) -> list[Any]:
        return [heads.x_token, heads.accept_language, item.number, item.token]

    handler.__annotations__.update(
        heads=Annotated[Heads, Header()], item=Annotated[Item, Depends()]
    )
    router.get("/{number}")(handler)
    got = await answer(router, "/5", headers=[(b"x-token", b"t")])
    assert got.json == ["t", "en", 5, "t"]
    got = await answer(router, "/a")
    assert got.status == 422
    places = [["header", "x-token"], ["path", "number"], ["header", "x-token"]]
    assert [each["where"] for each in got.json["errors"]] in (places, places[:2])


class Unusable:
    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        raise ImportError("install something first")


@pytest.mark.parametrize(
    ("annotation", "default"),
    [
        (Unusable, ...),
        (Annotated[Unusable, Body()], ...),
        (list[Unusable], ...),
        (Unusable, pydantic.Field(default="a")),
    ],
)
def test_types_that_pydantic_cannot_use_are_named(annotation: Any, default: Any) -> None:
    handler = _handler(annotation) if default is ... else _handler(annotation, default)
    with pytest.raises(HandlerError, match="install something first") as caught:
        Router().post("/")(handler)
    assert caught.value.parameter == "x"


def test_pydantic_is_not_imported() -> None:
    code = (
        "import sys; from typing import Annotated; import re\n"
        "from asgihive import Router\n"
        "async def f(a: Annotated[str, re.compile('a')], b: int = 3) -> int: return b\n"
        "Router().get('/')(f)\n"
        "assert not {'pydantic', 'fastapi', 'annotated_types'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pydantic_may_be_imported_and_not_used() -> None:
    program = """
import sys
import pydantic
from asgihive import Router

assert "pydantic.fields" not in sys.modules
router = Router()

@router.get("/{number}")
async def show(number: int, page: int = 1) -> int:
    return number
"""
    subprocess.run([sys.executable, "-c", program], check=True)


class Guarded(msgspec.Struct):
    title: str
    user: Annotated[str, Depends(guard)] = "nobody"


class GuardedModel(pydantic.BaseModel):
    user: Annotated[str, Header()] = "nobody"


class GuardedAsFastAPIHasIt(TypedDict):
    user: Annotated[str, fastapi.Depends(guard)]


@pytest.mark.parametrize("kind", [Guarded, GuardedModel, GuardedAsFastAPIHasIt])
def test_clients_do_not_fill_in_what_a_marker_guards(kind: Any) -> None:
    for annotation in (kind, list[kind], dict[str, kind | None]):
        with pytest.raises(HandlerError, match=r"the field 'user' of Guarded.* clients would send"):
            Router().post("/")(_handler(Annotated[annotation, Body()]))
