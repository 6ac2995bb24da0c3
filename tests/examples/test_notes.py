"""Notes in a real database, and the sessions of the cornerstone `db`.

On asyncio only: SQLAlchemy and its drivers do not know trio.
"""

from typing import Any

import anyio
import httpx
import pytest
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from asgihive.asgi import HTTPException, Router
from asgihive.hive import Hive
from examples.house_price_service.cornerstones.db import Session
from examples.house_price_service.endpoints_package1.notes.db import Note
from tests.examples.house_price import started

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("database")]

CONCURRENT = 12


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return "asyncio", {"use_uvloop": False}


async def texts(client: httpx.AsyncClient) -> list[str]:
    """Of the notes that another request sees."""
    answer = await client.get("/api/notes")
    assert answer.status_code == 200
    return [each["text"] for each in answer.json()]


async def create(client: httpx.AsyncClient, text: str, completed: bool = False) -> dict[str, Any]:
    answer = await client.post("/api/notes", json={"text": text, "completed": completed})
    assert answer.status_code == 200, answer.text
    note: dict[str, Any] = answer.json()
    assert note == {"id": note["id"], "text": text, "completed": completed}
    return note


async def test_create_read_delete(service: Hive) -> None:
    async with started(service) as client:
        assert await texts(client) == []
        first, second = await create(client, "café ☕"), await create(client, "", completed=True)
        for note in (first, second):
            answer = await client.get(f"/api/notes/{note['id']}")
            assert (answer.status_code, answer.json()) == (200, note)
        answer = await client.delete(f"/api/notes/{first['id']}")
        assert (answer.status_code, answer.content) == (204, b"")
        for method in ("GET", "DELETE"):
            answer = await client.request(method, f"/api/notes/{first['id']}")
            assert answer.status_code == 404
            assert str(first["id"]) in answer.json()["message"]
        assert await texts(client) == [""]


async def test_skip_and_limit(service: Hive) -> None:
    async with started(service) as client:
        notes = [await create(client, f"note {number}") for number in range(5)]
        for query, expected in (
            ("", notes),
            ("?skip=2", notes[2:]),
            ("?limit=2", notes[:2]),
            ("?skip=1&limit=3", notes[1:4]),
            ("?skip=9", []),
            ("?limit=0", []),
        ):
            assert (await client.get(f"/api/notes{query}")).json() == expected
            assert (await client.get(f"/api/notes/{query}")).json() == expected


@pytest.mark.parametrize(
    ("method", "path", "content", "where"),
    [
        ("GET", "?skip=-1", "", ["query", "skip"]),
        ("GET", "?limit=1001", "", ["query", "limit"]),
        ("GET", "?limit=many", "", ["query", "limit"]),
        ("GET", "/0", "", ["path", "note_id"]),
        ("GET", "/2147483648", "", ["path", "note_id"]),
        ("DELETE", "/first", "", ["path", "note_id"]),
        ("POST", "", "", ["body"]),
        ("POST", "", '{"text": "unsaid"}', ["body"]),
        ("POST", "", '{"text": 1, "completed": false}', ["body", "text"]),
        ("POST", "", '{"text": "", "completed": "maybe"}', ["body", "completed"]),
        ("POST", "", '{"text": "a\\u0000b", "completed": false}', ["body", "text"]),
    ],
)
async def test_what_does_not_fit(
    service: Hive, method: str, path: str, content: str, where: list[str]
) -> None:
    async with started(service) as client:
        headers = {"content-type": "application/json"}
        answer = await client.request(method, f"/api/notes{path}", content=content, headers=headers)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["where"] == where
        assert await texts(client) == []


async def test_notes_outlive_the_service(service: Hive) -> None:
    async with started(service) as client:
        note = await create(client, "kept")
    async with started(service) as client:
        assert (await client.get(f"/api/notes/{note['id']}")).json() == note


async def test_what_an_answer_says_is_true_when_it_is_sent(service: Hive) -> None:
    """Someone who asks at the last byte of an answer comes before the hook after the request."""
    seen: list[list[str]] = []

    async with started(service) as client:

        async def asking_at_once(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_and_ask(message: Message) -> None:
                await send(message)
                if message["type"] == "http.response.body" and not message.get("more_body"):
                    seen.append(await texts(client))

            await service(scope, receive, send_and_ask)

        transport = httpx.ASGITransport(asking_at_once)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as hasty:
            note = await create(hasty, "there")
            assert (await hasty.delete(f"/api/notes/{note['id']}")).status_code == 204
    assert seen == [["there"], []]


async def test_many_at_once(service: Hive) -> None:
    async with started(service) as client:
        async with anyio.create_task_group() as tasks:
            for number in range(60):
                tasks.start_soon(create, client, f"{number}")
        assert sorted(await texts(client), key=int) == [str(number) for number in range(60)]


async def test_each_request_has_its_own_session(service: Hive) -> None:
    """All of them at the same time in their transactions, none sees what another added."""
    sessions: list[Any] = []
    all_there = anyio.Event()
    router = Router()

    @router.post("/{text}")
    async def hold(session: Session, text: str) -> bool:
        session.add(Note(text=text, completed=False))
        sessions.append(session)
        if len(sessions) == CONCURRENT:
            all_there.set()
        await all_there.wait()
        own = [each.text for each in session.new if isinstance(each, Note)]
        return own == [text]

    service.include_router(router, "/hold")
    async with started(service) as client:

        async def ask(number: int) -> None:
            answer = await client.post(f"/hold/{number}")
            assert answer.json() is True

        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                for number in range(CONCURRENT):
                    tasks.start_soon(ask, number)
        assert len({id(each) for each in sessions}) == CONCURRENT
        assert sorted(map(int, await texts(client))) == list(range(CONCURRENT))


async def test_what_becomes_of_the_transaction(service: Hive) -> None:
    """What is answered below 400 is committed before, and nothing else."""
    router = Router()

    @router.post("/{status}")
    async def answer_with(session: Session, status: int) -> JSONResponse:
        session.add(Note(text=f"{status}", completed=False))
        await session.flush()
        return JSONResponse(None, status)

    @router.post("/raised")
    async def refuse(session: Session) -> None:
        session.add(Note(text="raised", completed=False))
        await session.flush()
        raise HTTPException(409, "Not like this")

    @router.post("/broken")
    async def fail(session: Session) -> None:
        session.add(Note(text="broken", completed=False))
        await session.flush()
        raise RuntimeError("Nobody expected this")

    service.include_router(router, "/end")
    async with started(service) as client:
        for path, status in (
            ("200", 200),
            ("399", 399),
            ("400", 400),
            ("500", 500),
            ("raised", 409),
            ("broken", 500),
        ):
            assert (await client.post(f"/end/{path}")).status_code == status
        assert await texts(client) == ["200", "399"]


async def test_a_request_that_is_given_up_is_rolled_back(service: Hive) -> None:
    router = Router()
    scope = anyio.CancelScope()

    @router.post("/")
    async def never_answer(session: Session) -> None:
        session.add(Note(text="given up", completed=False))
        await session.flush()
        scope.cancel()
        await anyio.sleep_forever()

    service.include_router(router, "/never")
    async with started(service) as client:
        with scope:
            await client.post("/never/")
        assert scope.cancelled_caught
        assert await texts(client) == []
        await create(client, "the next one")


async def test_the_connections_are_given_back(service: Hive) -> None:
    async with started(service) as client:
        engine = service.state.cornerstones["cornerstones.db"]["engine"]
        await create(client, "one")
        assert (await client.get("/api/notes/999")).status_code == 404
        await client.get("/api/heart_beat/heartbeat")
        assert engine.pool.checkedout() == 0
        assert engine.pool.checkedin() == 1
