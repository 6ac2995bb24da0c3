"""Typed handlers: what the request's text becomes, and what is said of what is wrong."""

import datetime as dt
import decimal
import enum
import uuid
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlencode

import anyio
import msgspec
import pytest
from fastapi import FastAPI
from fastapi import Header as FastAPIHeader
from fastapi import Query as FastAPIQuery
from hypothesis import given
from hypothesis import strategies as st
from starlette.background import BackgroundTasks
from starlette.requests import HTTPConnection, Request
from starlette.websockets import WebSocket
from typing_extensions import TypeAliasType

from asgihive.asgi import Cookie, Header, HTTPException, Query, Router
from tests.asgi.exchange import answer, http, run, websocket

pytestmark = pytest.mark.anyio


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


def _echo(annotation: Any) -> Router:
    """A router that answers the `repr` of its query parameter `x`."""
    router = Router()

    async def show(x: Any) -> str:
        return repr(x)

    show.__annotations__["x"] = annotation
    router.get("/")(show)
    return router


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (int, "-7", -7),
        (float, "1e3", 1000.0),
        (bool, "true", True),
        (bool, "0", False),
        (str, "a b/ä", "a b/ä"),
        (str, "", ""),
        (int | None, "5", 5),
        (str | None, "null", "null"),
        (int | str, "5", "5"),
        (Literal["up", "down"], "up", "up"),
        (Literal[1, 2], "2", 2),
        (Colour, "blue", Colour.BLUE),
        (
            dt.datetime,
            "2024-01-02T03:04:05",
            dt.datetime(2024, 1, 2, 3, 4, 5),
        ),  # as sent
        (dt.date, "2024-01-02", dt.date(2024, 1, 2)),
        (decimal.Decimal, "1.10", decimal.Decimal("1.10")),
        (uuid.UUID, str(uuid.UUID(int=5)), uuid.UUID(int=5)),
        (Annotated[int, msgspec.Meta(ge=0)], "0", 0),
    ],
)
async def test_query_parameters_are_converted(annotation: Any, text: str, value: Any) -> None:
    got = await answer(_echo(annotation), f"/?{urlencode({'x': text})}")
    assert (got.status, got.body.decode()) == (200, repr(value))


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (list[int], [1, 2, 2]),
        (set[int], {1, 2}),
        (frozenset[int], frozenset({1, 2})),
        (tuple[int, ...], (1, 2, 2)),
        (tuple[int, str, float], (1, "2", 2.0)),
        (list[int] | None, [1, 2, 2]),
        (list[str], ["1", "2", "2"]),
    ],
)
async def test_repeated_fields_are_lists(annotation: Any, value: Any) -> None:
    got = await answer(_echo(annotation), "/?x=1&x=2&y=9&x=2")
    assert got.body.decode() == repr(value)


@pytest.mark.parametrize(
    ("annotation", "query", "message"),
    [
        (int, "x=abc", "Expected `int`, got 'abc'"),
        (int, "x=", "Expected `int`, got ''"),
        (int, "y=1", "it is missing"),
        (list[int], "x=1&x=b", "Expected `int`, got 'b'"),
        (Annotated[int, msgspec.Meta(ge=0)], "x=-1", "Expected `int` >= 0, got '-1'"),
        (Colour, "x=green", "accepted are red, blue, got 'green'"),
        (Literal["a", "b"], "x=c", "accepted are a, b, got 'c'"),
        (str, "x=%ff", "it is not UTF-8"),
        (uuid.UUID, "x=1", "Invalid UUID, got '1'"),
    ],
)
async def test_wrong_values_are_422_and_say_where(
    annotation: Any, query: str, message: str
) -> None:
    got = await answer(_echo(annotation), f"/?{query}")
    assert got.status == 422
    error = got.json["errors"][0]
    assert error["message"] == message
    assert error["where"][:2] == ["query", "x"]
    assert got.message.startswith("The query parameter 'x")


async def test_the_place_in_a_repeated_field_is_told() -> None:
    got = await answer(_echo(list[int]), "/?x=1&x=b")
    assert got.json["errors"][0]["where"] == ["query", "x", 1]


@given(
    value=st.one_of(
        st.integers(-(2**63), 2**64 - 1),
        st.floats(allow_nan=False),
        st.booleans(),
        st.lists(st.integers(-1000, 1000), min_size=1),
        st.text(st.characters(exclude_categories=["Cs"])),
        st.text("0123456789+-._eE naif", max_size=6),
    ),
    annotation=st.sampled_from(
        [int, float, bool, str, list[int], Annotated[int, msgspec.Meta(gt=3)]]
    ),
)
def test_what_msgspec_converts_is_what_the_handler_gets(value: Any, annotation: Any) -> None:
    texts = [str(each) for each in (value if isinstance(value, list) else [value])]
    raw: Any = texts if annotation == list[int] else texts[0]
    query = urlencode([("x", each) for each in texts])
    router = _echo(annotation)
    got = anyio.run(answer, router, f"/?{query}")
    try:
        expected = msgspec.convert(raw, annotation, strict=False)
    except msgspec.ValidationError:
        assert got.status == 422
        assert all(len(each["message"]) < 300 for each in got.json["errors"])
    else:
        assert got.body.decode("utf-8") == repr(expected).encode("utf-8", "replace").decode()


async def test_everything_that_is_wrong_is_reported_at_once() -> None:
    router = Router()

    @router.post("/{number}/{ratio}")
    async def handler(
        number: int,
        ratio: float,
        limit: int,
        *,
        token: Annotated[str, Header()],
        session: Annotated[int, Cookie("sid")],
        body: dict[str, int],
    ) -> None:
        raise AssertionError

    got = await answer(
        router,
        "/a/b?limit=c",
        "POST",
        body=b'{"k": "v"}',
        headers=[(b"cookie", b"sid=x")],
    )
    assert got.status == 422
    assert [each["where"] for each in got.json["errors"]] == [
        ["path", "number"],
        ["path", "ratio"],
        ["query", "limit"],
        ["header", "token"],
        ["cookie", "sid"],
        ["body", "..."],
    ]
    assert got.message.count(";") == 5


async def test_messages_never_echo_much() -> None:
    for annotation in (int, Colour, list[int], Annotated[str, msgspec.Meta(max_length=1)]):
        got = await answer(_echo(annotation), f"/?x={'y' * 5000}")
        assert got.status == 422
        assert "y" * 201 not in got.message
        assert len(got.message) < 400


async def test_too_many_fields_are_422() -> None:
    got = await answer(_echo(int), f"/?{'&'.join(['x=1'] * 1001)}")
    assert got.status == 422
    assert "1001 fields" in got.message


async def test_path_parameters_with_and_without_convertors() -> None:
    router = Router()

    @router.get("/a/{n}/{rest:path}")
    async def a(n: Annotated[int, msgspec.Meta(le=9)], rest: str) -> str:
        return f"{n!r} {rest!r}"

    @router.get("/b/{n:int}/{u:uuid}/{f:float}")
    async def b(f: decimal.Decimal, n: float, u: uuid.UUID) -> str:
        return f"{n!r} {u.int} {f!r}"

    @router.get("/c/{n:int}")
    async def c(n) -> str:  # type: ignore[no-untyped-def]  # noqa: ANN001  # what is tested
        return repr(n)

    assert (await answer(router, "/a/7/x/y")).body == b"7 'x/y'"
    assert (await answer(router, "/a/10/")).status == 422
    assert (await answer(router, "/a/x/")).json["errors"][0]["where"] == ["path", "n"]
    got = await answer(router, f"/b/7/{uuid.UUID(int=3)}/1.5")
    assert got.body == b"7.0 3 Decimal('1.5')"
    assert (await answer(router, "/b/x/y/z")).status == 404
    assert (await answer(router, "/c/7")).body == b"7"


async def test_headers_cookies_and_aliases() -> None:
    router = Router()

    @router.get("/")
    async def handler(
        user_agent: Annotated[str, Header()],
        key: Annotated[int, Header("X-Key")],
        forwarded: Annotated[list[str], Header("X-Forwarded-For")],
        session: Annotated[str, Cookie()],
        *,
        size: Annotated[int, Query("page-size")],
        absent: Annotated[str | None, Header()] = None,
        other: Annotated[str, Cookie("o-ther")] = "none",
    ) -> list[Any]:
        return [user_agent, key, forwarded, session, size, absent, other]

    headers = [
        (b"user-agent", b"me"),
        (b"x-key", b"5"),
        (b"x-forwarded-for", b"a"),
        (b"cookie", b"session=s; x=1"),
        (b"cookie", b"o-ther=o"),
        (b"x-forwarded-for", b"b"),
    ]
    got = await answer(router, "/?page-size=3", headers=headers)
    assert got.json == ["me", 5, ["a", "b"], "s", 3, None, "o"]


async def test_defaults_make_optional_and_belong_to_each_request_alone() -> None:
    router = Router()

    @router.get("/")
    async def handler(
        limit: int = 3,
        names: list[str] = [],  # noqa: B006  # that is what is tested
        colour: Colour = Colour.RED,
        maybe: int | None = None,
    ) -> list[Any]:
        names.append("seen")
        return [limit, names, colour, maybe]

    for _ in range(2):
        assert (await answer(router, "/")).json == [3, ["seen"], "red", None]
    assert (await answer(router, "/?limit=4&names=a&colour=blue&maybe=1")).json == [
        4,
        ["a", "seen"],
        "blue",
        1,
    ]


async def test_the_request_comes_as_it_is_beside_others() -> None:
    router = Router()

    @router.post("/{n:int}")
    async def handler(
        n: int, request: Request, body: dict[str, int], connection: HTTPConnection
    ) -> list[Any]:
        assert connection is request
        return [n, request.path_params, body, (await request.body()).decode()]

    got = await answer(router, "/7", "POST", body=b'{"a": 1}')
    assert got.json == [7, {"n": 7}, {"a": 1}, '{"a": 1}']


async def test_positional_only_and_keyword_only_parameters() -> None:
    router = Router()

    @router.get("/{a}")
    async def handler(a: int, /, b: int, *, c: int, request: Request) -> list[Any]:
        return [a, b, c, request.method]

    assert (await answer(router, "/1?b=2&c=3")).json == [1, 2, 3, "GET"]


async def test_background_tasks_run_after_the_response() -> None:
    router, done = Router(), list[str]()
    exchange = http("/")

    @router.get("/")
    async def handler(tasks: BackgroundTasks) -> str:
        tasks.add_task(lambda: done.append(f"sync after {len(exchange.sent)}"))

        async def later() -> None:
            done.append(f"async after {len(exchange.sent)}")

        tasks.add_task(later)
        return "sent"

    await run(router, exchange)
    assert done == ["sync after 2", "async after 2"]


async def test_websockets_are_bound_alike() -> None:
    router = Router()

    @router.websocket("/ws/{n}")
    async def handler(
        socket: WebSocket, n: int, connection: HTTPConnection, limit: int = 5
    ) -> None:
        assert connection is socket
        await socket.accept()
        await socket.send_json([n, limit])
        await socket.close()

    good = await run(router, websocket("/ws/3", query_string=b"limit=6"))
    assert good.types == ["websocket.accept", "websocket.send", "websocket.close"]
    assert good.sent[1]["text"] == "[3,6]"
    with pytest.raises(HTTPException, match="The path parameter 'n' is wrong") as caught:
        await run(router, websocket("/ws/x"))
    assert caught.value.status == 422


async def _statuses(app: Any, paths: list[str], **scope: Any) -> list[int]:
    return [(await run(app, http(path, **scope))).status for path in paths]


async def test_the_same_requests_are_accepted_as_by_fastapi() -> None:
    ours, theirs = Router(), FastAPI()

    async def handler(
        n: int, q: float, flag: bool = False, colour: Colour = Colour.RED
    ) -> list[Any]:
        return [n, q, flag, colour]

    async def ours_listed(
        ids: list[int], token: Annotated[str, Header()], x: Annotated[int, Query("x-y")] = 1
    ) -> list[Any]:
        return [ids, token, x]

    async def theirs_listed(
        ids: Annotated[list[int], FastAPIQuery()],
        token: Annotated[str, FastAPIHeader()],
        x: Annotated[int, FastAPIQuery(alias="x-y")] = 1,
    ) -> list[Any]:
        return [ids, token, x]

    ours.get("/a/{n}")(handler)
    theirs.get("/a/{n}")(handler)
    ours.get("/b")(ours_listed)
    theirs.get("/b")(theirs_listed)
    for path in (
        "/a/1?q=2",
        "/a/1?q=2.5&flag=true&colour=blue",
        "/a/1?q=1&flag=0",
        "/a/x?q=2",
        "/a/1",
        "/a/1?q=x",
        "/a/1?q=1&flag=maybe",
        "/a/1?q=1&colour=green",
        "/b?ids=1&ids=2",
        "/b?ids=1&x-y=3",
        "/b?ids=x",
        "/b",
    ):
        mine = await answer(ours, path, headers=[(b"token", b"t")])
        other = await run(theirs, http(path, headers=[(b"token", b"t")]))
        assert mine.status == other.status, path
        if mine.status == 200:
            assert mine.json == other.json
        else:
            places = {tuple(each["loc"][:2]) for each in other.json["detail"]}
            assert {tuple(each["where"][:2]) for each in mine.json["errors"]} == places


A = TypeVar("A")
B = TypeVar("B")
Number = TypeAliasType("Number", int)
Marked = TypeAliasType("Marked", Annotated[Number, Header(name="x-number")])
Swapped = TypeAliasType("Swapped", tuple[B, A], type_params=(A, B))


async def test_aliases_of_type_statements() -> None:
    """As `type Number = int` makes them from Python 3.12 on."""
    router = Router()

    @router.get("/{number:int}")
    async def show(
        number: Number, marked: Marked, pair: Annotated[Swapped[str, int], Query()]
    ) -> Any:
        return [number, marked, *pair]

    exchange = http("/1", headers=[(b"x-number", b"2")], query_string=b"pair=3&pair=x")
    found = await run(router, exchange)
    assert (found.status, found.json) == (200, [1, 2, 3, "x"])
