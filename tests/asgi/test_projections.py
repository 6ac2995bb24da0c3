"""The return annotation is applied: what it does not name is never sent."""

import abc
import datetime as dt
import decimal
import enum
import logging
import types
import typing
from collections import OrderedDict, UserDict, namedtuple
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import (
    Annotated,
    Any,
    Final,
    Generic,
    NamedTuple,
    NoReturn,
    NotRequired,
    Optional,
    Self,
    TypedDict,
    TypeVar,
)

import attrs
import msgspec
import numpy as np
import numpy.typing as npt
import pydantic
import pydantic.dataclasses
import pytest
import typing_extensions
from openapi_spec_validator import validate
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.responses import JSONResponse, RedirectResponse, Response

from asgihive.asgi import BufferedResponse, Gate, Router, list_routes
from asgihive.asgi.openapi import make_openapi_document
from asgihive.asgi.signatures import HandlerError
from tests.asgi.exchange import Exchange, answer, http, run

pytestmark = pytest.mark.anyio

SECRET = "hash-of-the-password"  # never in any answer
WANTED = {"id": 1, "name": "ada"}


class UserStruct(msgspec.Struct):
    id: int
    name: str


@dataclass
class UserData:
    id: int
    name: str


class UserTyped(TypedDict):
    id: int
    name: str
    nick: NotRequired[str]


class UserTypedToo(typing_extensions.TypedDict):
    id: typing_extensions.ReadOnly[int]
    name: str


class UserModel(pydantic.BaseModel):
    id: int
    name: str


@attrs.define
class UserAttrs:
    id: int
    name: str


KINDS: list[Any] = [UserStruct, UserData, UserTyped, UserTypedToo, UserModel, UserAttrs]


class StoredStruct(UserStruct):
    password: str = SECRET


@dataclass
class StoredData(UserData):
    password: str = SECRET


class StoredModel(UserModel):
    password: str = SECRET


@attrs.define
class StoredAttrs(UserAttrs):
    password: str = SECRET


class Base(DeclarativeBase):
    pass


class Stored(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    password: Mapped[str]


class Unrelated(pydantic.BaseModel):
    password: str = SECRET
    name: str = "ada"
    id: int = 1


Row = namedtuple("Row", ("password", "name", "id"))  # as rows of a database are

VALUES: list[Any] = [
    StoredStruct(1, "ada"),
    StoredData(1, "ada"),
    StoredModel(id=1, name="ada"),
    StoredAttrs(1, "ada"),
    Stored(id=1, name="ada", password=SECRET),
    Unrelated(),
    types.SimpleNamespace(**WANTED, password=SECRET),
    {**WANTED, "password": SECRET},
    UserDict({**WANTED, "password": SECRET}),
]


def _returning(annotation: Any, value: Any, **options: Any) -> Router:
    router = Router()

    async def handler() -> Any:
        return value

    handler.__annotations__["return"] = annotation
    router.get("/", **options)(handler)
    return router


async def _ask(annotation: Any, value: Any, **options: Any) -> Exchange:
    got = await answer(_returning(annotation, value, **options), "/")
    assert SECRET.encode() not in got.body
    return got


@pytest.mark.parametrize("kind", KINDS)
async def test_what_an_annotation_does_not_name_is_not_sent(kind: Any) -> None:
    for value in VALUES:
        assert (await _ask(kind, value)).json == WANTED
        for several in (
            (value, value),
            [value] * 2,
            iter([value] * 2),
            {1: value, 2: value}.values(),
        ):
            assert (await _ask(list[kind], several)).json == [WANTED] * 2
        assert (await _ask(dict[str, kind], {"a": value})).json == {"a": WANTED}
        assert (await _ask(kind | None, value)).json == WANTED
        assert (await _ask(kind | None, None)).status == 204
        assert (await _ask(tuple[kind, int], (value, 5))).json == [WANTED, 5]
        assert (await _ask(Sequence[kind], [value])).json == [WANTED]
        assert (await _ask(Mapping[str, kind], OrderedDict(a=value))).json == {"a": WANTED}
        assert (await _ask(Iterable[kind], [value])).json == [WANTED]
        assert (await _ask(kind | str, value)).json == WANTED
        assert (await _ask(kind | str, "text")).body == b"text"


async def test_rows_are_objects_where_one_is_wanted() -> None:
    for kind in KINDS[:3]:
        assert (await _ask(kind, Row(SECRET, "ada", 1))).json == WANTED
        assert (await _ask(types.GenericAlias(list, (kind,)), [Row(SECRET, "ada", 1)])).json == [
            WANTED
        ]


@pytest.mark.parametrize("kind", KINDS)
async def test_fields_have_no_more_than_their_annotations(kind: Any) -> None:
    class InStruct(msgspec.Struct):
        owner: Any
        others: Any

    class InModel(pydantic.BaseModel):
        owner: Any
        others: Any

    @dataclass
    class InData:
        owner: Any
        others: Any

    others: Any = types.GenericAlias(dict, (str, types.GenericAlias(list, (kind,))))
    outers: list[Any] = [msgspec.defstruct("Outer", [("owner", kind), ("others", others)])]
    data: Any = dataclass(type("Data", (), {"__annotations__": outers[0].__annotations__}))
    outers.append(data)
    for outer in outers:
        for value in VALUES:
            # Also in an object of the very class, whose fields may hold anything.
            for holder in (outer, InStruct, InModel, InData):
                holding = holder(owner=value, others={"a": [value]})
                got = await _ask(outer, holding)
                assert got.json == {"owner": WANTED, "others": {"a": [WANTED]}}


async def test_models_that_hold_what_they_should_not() -> None:
    class Outer(pydantic.BaseModel):
        owner: UserModel

    for owner in VALUES:
        changed = Outer.model_construct(owner=owner)
        got = await _ask(Outer, changed)
        assert got.status == 500 or got.json["owner"].items() <= WANTED.items()


class Tree(msgspec.Struct):
    name: str
    below: list["Tree"] = []
    up: Optional["Tree"] = None


class SecretTree(Tree):
    password: str = SECRET


async def test_classes_that_hold_themselves() -> None:
    tree = SecretTree("a", [SecretTree("b", [SecretTree("c")])], SecretTree("d"))
    leaf: dict[str, Any] = {"below": [], "up": None}
    assert (await _ask(Tree, tree)).json == {
        "name": "a",
        "below": [{"name": "b", "below": [{"name": "c", **leaf}], "up": None}],
        "up": {"name": "d", **leaf},
    }


T = TypeVar("T")


class Page(msgspec.Struct, Generic[T]):
    items: list[T]


@dataclass
class DataPage(Generic[T]):
    items: list[T]
    more: dict[str, T] = field(default_factory=dict)


class ModelPage(pydantic.BaseModel, Generic[T]):
    items: list[T]


async def test_generic_classes() -> None:
    for value in VALUES:
        assert (await _ask(Page[UserStruct], Page([value]))).json == {"items": [WANTED]}
        for kind in (UserStruct, UserModel):
            annotation: Any = types.GenericAlias(DataPage, (kind,))
            got = await _ask(annotation, DataPage([value], {"a": value}))
            assert got.json == {"items": [WANTED], "more": {"a": WANTED}}
        page = ModelPage[Any](items=[value])
        assert (await _ask(ModelPage[UserModel], page)).json == {"items": [WANTED]}


class Renamed(msgspec.Struct, rename="camel", omit_defaults=True, tag="renamed", tag_field="kind"):
    full_name: str
    nick_name: str = ""


class Pair(msgspec.Struct, array_like=True):
    left: int
    right: UserStruct


class Point(NamedTuple):
    x: int
    user: UserStruct


class Aliased(pydantic.BaseModel):
    full_name: str = pydantic.Field(serialization_alias="fullName")

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def size(self) -> int:
        return len(self.full_name)


async def test_the_form_is_that_of_the_annotation() -> None:
    assert (await _ask(Renamed, Renamed("a"))).json == {"kind": "renamed", "fullName": "a"}
    given = types.SimpleNamespace(full_name="a", nick_name="b", password=SECRET)
    wanted = {"kind": "renamed", "fullName": "a", "nickName": "b"}
    assert (await _ask(Renamed, given)).json == wanted
    assert (await _ask(Renamed, {"fullName": "a", "nickName": "b"})).json == wanted
    stored = StoredStruct(1, "ada")
    assert (await _ask(Pair, Pair(1, stored))).json == [1, WANTED]
    assert (await _ask(Point, Point(1, stored))).json == [1, WANTED]
    assert (await _ask(Aliased, Aliased(full_name="ab"))).json == {"fullName": "ab", "size": 2}
    assert (await _ask(UserTyped, {**WANTED, "nick": "a"})).json == {**WANTED, "nick": "a"}


class Animal(msgspec.Struct):
    name: str


class Cat(msgspec.Struct):
    name: str
    lives: int = 9


class Sphinx(Cat):
    password: str = SECRET


async def test_of_a_union_a_value_has_its_own_class_or_the_first_that_fits() -> None:
    assert (await _ask(Animal | Cat, Cat("a"))).json == {"name": "a", "lives": 9}
    assert (await _ask(Animal | Cat, Sphinx("a"))).json == {"name": "a", "lives": 9}
    assert (await _ask(Cat | Animal, Animal("a"))).json == {"name": "a"}
    assert (await _ask(UserStruct | Cat, {"name": "a", "password": SECRET})).json["lives"] == 9
    assert (await _ask(list[Animal | UserModel], [Sphinx("a"), *VALUES[:1]])).json == [
        {"name": "a"},
        {"name": "ada"},
    ]
    assert (await _ask(UserModel | UserStruct, StoredStruct(1, "ada"))).json == WANTED


class Kind(enum.StrEnum):
    A = "a"


class Numbers(msgspec.Struct):
    ratio: float
    count: int
    kind: str
    at: dt.datetime
    price: decimal.Decimal
    values: list[float]
    raw: npt.NDArray[np.int64] | None = None


class Moment(dt.datetime):
    pass


class Price(decimal.Decimal):
    pass


async def test_subclasses_of_plain_values_are_these_values() -> None:
    at = Moment(2024, 1, 2, tzinfo=dt.UTC)
    array = np.array([1.5, 2.5])
    given = Numbers(np.float64(0.5), np.int64(3), Kind.A, at, Price(1), array, np.arange(2))  # type: ignore[arg-type]
    wanted = {
        "ratio": 0.5,
        "count": 3,
        "kind": "a",
        "at": "2024-01-02T00:00:00Z",
        "price": "1",
        "values": [1.5, 2.5],
        "raw": [0, 1],
    }
    assert (await _ask(Numbers, given)).json == wanted
    assert (await _ask(list[float], array)).json == [1.5, 2.5]
    assert (await _ask(float, np.float32(0.5))).json == 0.5
    assert (await _ask(dict[str, float], {"mean": np.float32(0.5)})).json == {"mean": 0.5}


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (UserStruct, {"name": SECRET}),
        (UserStruct, None),
        (UserStruct, SECRET),
        (UserStruct, [StoredStruct(1, "a")]),
        (UserStruct, UserStruct(SECRET, "a")),  # type: ignore[arg-type]
        (UserModel, UserModel.model_construct(id=SECRET, name="a")),
        (UserModel, {"id": SECRET, "name": "a"}),
        (list[UserStruct], StoredStruct(1, "a")),
        (str, {"password": SECRET}),
        (None, {"password": SECRET}),
        (int, SECRET),
        (Response | UserStruct, {"password": SECRET}),
        (AsyncIterator[UserStruct], {"password": SECRET}),
    ],
)
async def test_what_does_not_fit_is_a_logged_500(
    annotation: Any, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        got = await _ask(annotation, value)
    assert (got.status, got.json) == (500, {"message": "Internal server error"})
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "_returning.<locals>.handler (" in str(record.exc_info[1])
    assert "test_projections.py:" in str(record.exc_info[1])


async def test_what_says_nothing_changes_nothing() -> None:
    value = {"a": StoredStruct(1, "open")}
    for annotation in (Any, object, Response, JSONResponse, BufferedResponse, dict, Any | None):
        got = await answer(_returning(annotation, value), "/")
        assert got.json == {"a": {"id": 1, "name": "open", "password": SECRET}}
    arrays: tuple[Any, ...] = (np.ndarray, npt.NDArray[np.float64], dict[str, Any])
    for annotation in arrays:
        assert (await answer(_returning(annotation, value), "/")).status == 200


async def test_responses_beside_a_model() -> None:
    for annotation in (Response | UserStruct, UserModel | RedirectResponse | None):
        redirect = RedirectResponse("/elsewhere")
        assert (await _ask(annotation, redirect)).status == 307
        assert (await _ask(annotation, VALUES[0])).json == WANTED
        router = _returning(annotation, None)
        document = make_openapi_document(list_routes(router), title="T", version="1")
        validate(document)
        content = document["paths"]["/"]["get"]["responses"]["200"]["content"]
        assert content["application/json"]["schema"] != {}


async def test_a_response_goes_through_any_annotation() -> None:
    for annotation in (UserStruct, list[UserModel], str, None, int):
        assert (await _ask(annotation, JSONResponse({"a": 1}, 418))).status == 418


async def test_each_item_of_a_stream() -> None:
    router = Router()

    @router.get("/async")
    async def many() -> AsyncIterator[UserModel]:
        for each in VALUES:
            yield each

    @router.get("/sync")
    def few() -> Iterator[UserStruct | str]:
        yield from VALUES
        yield "end"

    @router.get("/wrong")
    async def wrong() -> AsyncIterator[UserStruct]:
        yield VALUES[0]
        yield {"password": SECRET}  # type: ignore[misc]

    @router.get("/list")
    async def listed() -> AsyncIterator[UserStruct]:
        return VALUES  # type: ignore[return-value]

    @router.get("/iterable")
    def iterable() -> Iterable[UserStruct]:
        yield from VALUES

    @router.get("/blocks")
    def blocks() -> Iterable[bytes]:
        return (each for each in (b"a", b"b"))

    assert (await answer(router, "/blocks")).body == b"ab"
    for path in ("/async", "/sync", "/iterable"):
        lines = (await answer(router, path)).body.splitlines()
        assert [msgspec.json.decode(each) for each in lines[: len(VALUES)]] == [WANTED] * len(
            VALUES
        )
    exchange = http("/wrong")
    with pytest.raises(TypeError, match=r"wrong \(.*\) returned what does not fit"):
        await run(Gate(router), exchange)
    assert SECRET.encode() not in exchange.body
    assert (await answer(router, "/list")).json == [WANTED] * len(VALUES)


async def test_large_results_and_messagepack() -> None:
    many = [StoredStruct(number, "ada") for number in range(2000)]
    got = await _ask(list[UserStruct], many)
    assert got.json[-1] == {"id": 1999, "name": "ada"}
    for kind in KINDS:
        headers = [(b"accept", b"application/msgpack")]
        got = await answer(_returning(kind, VALUES[0]), "/", headers=headers)
        assert msgspec.msgpack.decode(got.body) == WANTED


async def test_the_answer_to_a_request_alone_has_it_too() -> None:
    router = Router()

    @router.get("/")
    async def handler(request) -> UserStruct:  # type: ignore[no-untyped-def]  # noqa: ANN001
        return StoredStruct(1, "ada")

    assert (await answer(router, "/")).json == WANTED


def test_annotations_that_cannot_be_resolved_end_the_start() -> None:
    @dataclass
    class Broken:
        other: "NoSuchName"  # type: ignore[name-defined]  # noqa: F821

    for annotation in (Broken, list["NoSuchName"]):  # type: ignore[name-defined]  # noqa: F821
        with pytest.raises(HandlerError, match=r"handler \(.*its return annotation .* cannot be"):
            _returning(annotation, None)


class UserTagged(msgspec.Struct, tag="user"):
    id: int


class GroupTagged(msgspec.Struct, tag="group"):
    id: int
    members: "list[UserTagged | GroupTagged]" = []


class StoredTagged(UserTagged):
    password: str = SECRET


async def test_of_a_union_of_tags_an_object_has_its_own() -> None:
    member = {"type": "user", "id": 1}
    for annotation in (UserTagged | GroupTagged, GroupTagged | UserTagged | None):
        assert (await _ask(annotation, StoredTagged(1))).json == member
        assert (await _ask(annotation, dict(member))).json == member
        group = {"type": "group", "id": 2, "members": [member]}
        assert (await _ask(annotation, GroupTagged(2, [StoredTagged(1)]))).json == group


ItemType = TypeVar("ItemType")
EitherType = TypeVar("EitherType", UserStruct, int)
# Not as a checker knows it, which allows no `NewType` of this kind.
make_new_type: Any = typing.NewType
NewUser = make_new_type("NewUser", UserStruct)
UserAlias: Any = typing_extensions.TypeAliasType("UserAlias", Iterator[UserStruct] | None)


class Users(list[UserStruct]):
    """Items of a class, under a name."""


class Items(list[ItemType]):
    """Items of any class."""


class UsersByName(dict[str, UserStruct]):
    """Values of a class, under a name."""


async def test_other_names_of_annotations_drop_as_much() -> None:
    value = StoredStruct(1, "ada")
    renamed = make_new_type("renamed", NewUser)
    for annotation in (NewUser, renamed, renamed | None, EitherType):
        assert (await _ask(annotation, value)).json == WANTED
    for annotation in (Users, Items[UserStruct], make_new_type("All", Users)):
        assert (await _ask(annotation, Users([value]))).json == [WANTED]
    assert (await _ask(UsersByName, UsersByName(a=value))).json == {"a": WANTED}


@dataclass
class Chained:
    id: int
    before: Self | None = None
    first: Final[UserStruct | None] = None


@dataclass
class StoredChained(Chained):
    password: str = SECRET


async def test_fields_of_the_class_itself_and_final_ones() -> None:
    got = await _ask(Chained, Chained(1, StoredChained(2), StoredStruct(1, "ada")))
    assert got.json == {
        "id": 1,
        "before": {"id": 2, "before": None, "first": None},
        "first": WANTED,
    }


async def test_streams_under_other_names_drop_as_much() -> None:
    for annotation in (Annotated[Iterator[UserStruct], "all"], UserAlias | UserStruct):
        assert (await _ask(annotation, iter([StoredStruct(1, "ada")]))).json == WANTED


class Kept:
    id: int
    password: str = pydantic.Field(default=SECRET, exclude=True)
    name: str = pydantic.Field(default="ada", serialization_alias="called")


KeptModel: Any = pydantic.dataclasses.dataclass(Kept)


async def test_what_pydantic_excludes_of_a_dataclass_is_not_sent() -> None:
    kept = KeptModel(id=1)
    assert (await _ask(list[KeptModel], [kept])).json == [{"id": 1, "called": "ada"}]


class Nameless:
    """It has no fields."""


@dataclass
class StoredNameless(Nameless):
    password: str = SECRET


class Abstract(abc.ABC):
    """It has no fields, and says nothing of its objects."""

    @abc.abstractmethod
    def look(self) -> None: ...


@dataclass
class StoredAbstract(Abstract):
    password: str = SECRET

    def look(self) -> None: ...


async def test_a_class_that_names_no_fields_sends_none() -> None:
    for annotation in (Abstract, list[Abstract]):
        assert (await _ask(annotation, StoredAbstract())).status == 500
    for nameless in (Nameless, list[Nameless], dict[str, Nameless | None], Iterator[Nameless]):
        with pytest.raises(HandlerError, match=r"Nameless names no fields, .*; write a Struct"):
            _returning(nameless, StoredNameless())
    assert (await _ask(NoReturn, {"password": SECRET})).status == 500
    with pytest.raises(HandlerError, match="does not say which fields are sent"):
        _returning(dict[str, typing.ClassVar], {})
