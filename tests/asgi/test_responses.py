"""Responses over hand-driven `receive` and `send`: order, size, and clients that leave."""

import dataclasses
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import Message as EmailMessage
from typing import Any
from urllib.parse import unquote

import anyio
import anyio.lowlevel
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Message

from asgihive.asgi import BufferedResponse, StreamedResponse, closing, format_content_disposition
from asgihive.asgi.responses import ContentLengthMismatch
from tests.asgi.exchange import Exchange, http, run

pytestmark = pytest.mark.anyio


class Blocks:
    """An iterator that counts what is asked of it; it waits for good at a None."""

    def __init__(self, *steps: bytes | memoryview | Exception | None) -> None:
        self.steps = list(steps)
        self.asked = 0
        self.closed = 0
        self.closing_task: int | None = None
        self.waiting = anyio.Event()

    def __aiter__(self) -> "Blocks":
        return self

    async def __anext__(self) -> bytes | memoryview:
        self.asked += 1
        if not self.steps:
            raise StopAsyncIteration
        step = self.steps.pop(0)
        if step is None:
            self.waiting.set()
            await anyio.sleep_forever()
        if isinstance(step, Exception):
            raise step
        assert step is not None
        return step

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()  # fails here when it is not shielded
        self.closed += 1
        self.closing_task = anyio.get_current_task().id


def streamed(
    blocks: AsyncIterator[Any],
    length: int | None = None,
    *,
    last: Blocks | None = None,
    **more: Any,
) -> Any:
    """The response; the context of its blocks closes `last` after them."""

    @asynccontextmanager
    async def context() -> AsyncIterator[AsyncIterator[Any]]:
        try:
            async with closing(blocks) as within:
                yield within
        finally:
            if last is not None:
                with anyio.CancelScope(shield=True):
                    await last.aclose()

    return StreamedResponse(body_chunks=context(), content_length=length, **more)


async def test_a_buffered_response_can_be_sent_many_times() -> None:
    response = BufferedResponse(b"body", 201, {"Content-Type": "text/plain"})
    for _ in range(3):
        answer = await run(response, http())
        assert answer.types == ["http.response.start", "http.response.body"]
        assert (answer.status, answer.body, answer.complete) == (201, b"body", True)
        assert answer.headers == {"content-type": "text/plain", "content-length": "4"}
    head = await run(response, http(method="HEAD"))
    assert (head.headers["content-length"], head.body) == ("4", b"")
    with pytest.raises(dataclasses.FrozenInstanceError):
        response.body = b"other"  # type: ignore[misc]


async def test_middleware_that_edits_headers_leaves_the_response_alone() -> None:
    response = BufferedResponse(b"body")
    app = CORSMiddleware(response, allow_origins=["http://a"])
    for _ in range(2):
        answer = await run(app, http(headers=[(b"origin", b"http://a")]))
        names = [name for name, _ in answer.sent[0]["headers"]]
        assert names.count(b"access-control-allow-origin") == names.count(b"vary") == 1
        (await run(response, http())).sent[0]["headers"].append((b"x", b"y"))
    assert (await run(response, http())).headers == {"content-length": "4"}


@pytest.mark.parametrize("status", [100, 204, 304])
async def test_content_length_is_left_out_where_it_must_be(status: int) -> None:
    assert (await run(BufferedResponse(b"", status), http())).headers == {}


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\0", "\u20ac"])
async def test_headers_cannot_be_split(value: str) -> None:
    with pytest.raises(ValueError, match=r"header|latin-1"):
        BufferedResponse(b"", headers={"x": value})


@pytest.mark.parametrize("length", [None, 9])
async def test_blocks_are_sent_in_order(length: int | None) -> None:
    blocks = Blocks(b"abc", b"", memoryview(b"defg"), b"hi")
    answer = await run(streamed(blocks, length, status=206, headers={"X": "y"}), http())
    assert (answer.status, answer.body, answer.complete) == (206, b"abcdefghi", True)
    assert answer.headers.get("content-length") == (length and str(length))
    assert answer.headers["x"] == "y"
    assert all(each["more_body"] for each in answer.sent[1:-1])
    assert blocks.closed == 1


async def test_typed_views_are_sent_as_their_bytes() -> None:
    view = memoryview(bytes(range(16))).cast("I")
    empty = memoryview(b"").cast("I")
    answer = await run(streamed(Blocks(empty, view, view), 32), http())
    assert answer.body == bytes(range(16)) * 2
    assert [len(each["body"]) for each in answer.sent[1:]] == [0, 16, 16]


@pytest.mark.parametrize(("steps", "length"), [([b"whole"], 5), ([], 0), ([b""], 0), ([], None)])
async def test_one_block_needs_no_watcher(steps: list[bytes], length: int | None) -> None:
    exchange = http()
    answer = await run(streamed(Blocks(*steps), length), exchange)
    assert answer.types == ["http.response.start", "http.response.body"]
    assert answer.complete
    assert len(exchange.incoming) == 1  # the application has not called `receive`


async def test_head_iterates_nothing_but_closes() -> None:
    blocks, closed = Blocks(b"abc"), Blocks()
    answer = await run(streamed(blocks, 3, last=closed), http(method="HEAD"))
    assert (answer.headers["content-length"], answer.body, answer.complete) == ("3", b"", True)
    assert (blocks.asked, blocks.closed, closed.closed) == (0, 1, 1)


async def test_an_error_in_the_first_block_leaves_the_response_unbegun() -> None:
    exchange, blocks = http(), Blocks(KeyError("first"))
    with pytest.raises(KeyError):
        await run(streamed(blocks, 3), exchange)
    assert exchange.sent == []
    assert blocks.closed == 1


async def test_an_error_after_the_last_block_comes_before_it_is_sent() -> None:
    exchange = http()
    with pytest.raises(KeyError):
        await run(streamed(Blocks(b"whole", KeyError("changed")), 5), exchange)
    assert exchange.sent == []
    with pytest.raises(KeyError):
        await run(streamed(Blocks(b"two", b"blocks", KeyError("changed")), 9), exchange)
    assert exchange.body == b"two"
    assert not exchange.complete


async def test_a_late_error_is_raised_as_it_is() -> None:
    exchange, blocks = http(), Blocks(b"abc", KeyError("late"))
    with pytest.raises(KeyError, match="late"):
        await run(streamed(blocks), exchange)
    assert exchange.body == b"abc"
    assert not exchange.complete
    assert blocks.closed == 1


@pytest.mark.parametrize(
    ("steps", "length", "sent"),
    [
        ([b"abc"], 4, b"abc"),
        ([], 1, b""),
        ([b"ab", b"c"], 4, b"abc"),
        ([b"abc"], 2, b""),
        ([b"a", b"bc"], 2, b"a"),
        ([b"ab", b"c"], 2, b""),
        ([b"a", b"b", b"c"], 2, b"a"),
    ],
)
async def test_a_body_of_another_length_never_looks_complete(
    steps: list[bytes], length: int, sent: bytes
) -> None:
    exchange, blocks = http(), Blocks(*steps)
    with pytest.raises(ContentLengthMismatch, match=f"Content-Length is {length}, the body has"):
        await run(streamed(blocks, length), exchange)
    assert exchange.body == sent
    assert not exchange.complete
    assert blocks.closed == 1


async def test_a_client_that_leaves_silently_ends_the_iteration() -> None:
    exchange, blocks = http(), Blocks(b"one", b"two", None, b"never")
    task = anyio.get_current_task().id
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leave, exchange, blocks)
            await run(streamed(blocks, 100, last=blocks), exchange)
    assert (blocks.asked, blocks.closed, blocks.closing_task) == (3, 2, task)
    assert exchange.body == b"onetwo"
    assert not exchange.complete


async def leave(exchange: Exchange, blocks: Blocks) -> None:
    await blocks.waiting.wait()
    exchange.gone.set()


async def test_a_silent_leave_is_noticed_when_nothing_ever_waits() -> None:
    asked = 0

    async def many() -> AsyncIterator[bytes]:
        nonlocal asked
        for asked in range(1, 1000):
            if asked == 3:
                exchange.gone.set()
            yield b"block"

    async def send(message: Message) -> None:
        exchange.sent.append(message)

    exchange = http()
    await streamed(many())(exchange.scope, exchange.receive, send)
    assert asked < 10


@pytest.mark.parametrize("failing", [0, 1, 2])
async def test_a_send_that_fails_ends_the_iteration(failing: int) -> None:
    exchange, blocks = http(), Blocks(b"one", b"two", b"three", b"four")

    async def send(message: Message) -> None:
        await anyio.lowlevel.checkpoint()
        if len(exchange.sent) == failing:
            raise BrokenPipeError
        exchange.sent.append(message)

    await streamed(blocks, 100)(exchange.scope, exchange.receive, send)
    assert (len(exchange.sent), blocks.asked, blocks.closed) == (failing, max(1, failing), 1)


async def test_an_oserror_of_the_blocks_is_no_leave() -> None:
    with pytest.raises(OSError, match="disk"):
        await run(streamed(Blocks(b"one", OSError("disk")), 100), http())


@pytest.mark.parametrize("before", [0, 1])
async def test_cancellation_closes_in_the_same_task(before: int) -> None:
    blocks, after = Blocks(*[b"x"] * before, None), Blocks()
    tasks_seen: list[int] = []

    async def respond() -> None:
        tasks_seen.append(anyio.get_current_task().id)
        await run(streamed(blocks, 100, last=after), http())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(respond)
        await blocks.waiting.wait()
        tasks.cancel_scope.cancel()
    assert (blocks.closed, after.closed) == (1, 1)
    assert [blocks.closing_task, after.closing_task] == tasks_seen * 2


async def test_the_context_is_left_even_if_closing_the_blocks_fails() -> None:
    after = Blocks()

    class Failing(Blocks):
        async def aclose(self) -> None:
            raise KeyError("aclose")

    with pytest.raises(KeyError, match="aclose"):
        await run(streamed(Failing(b"x"), 1, last=after), http())
    assert after.closed == 1


async def test_generators_are_closed_when_the_client_leaves() -> None:
    closed = anyio.Event()
    exchange = http()

    async def blocks() -> AsyncIterator[bytes]:
        try:
            yield b"one"
            exchange.gone.set()
            yield b"two"
            await anyio.sleep_forever()
        finally:
            closed.set()

    with anyio.fail_after(5):
        await run(streamed(blocks()), exchange)
    assert closed.is_set()


async def test_a_real_client_reads_it() -> None:
    transport = httpx.ASGITransport(streamed(Blocks(b"abc", memoryview(b"def"), b"g"), 7))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/")
    assert answer.content == b"abcdefg"


NAMES = st.one_of(st.text(), st.text(st.sampled_from('a."\r\n\\/%;\0\x7f\u202e\udcff\xe9 ')))


@given(NAMES)
def test_any_name_makes_a_safe_header(name: str) -> None:
    header = format_content_disposition(name)
    assert re.fullmatch(r"[\x20-\x7e]+", header)
    parsed = re.fullmatch(
        r"attachment; filename=\"([^\"\\%]+)\"(?:; filename\*=UTF-8''([!#$&+.^_`|~%0-9A-Za-z-]+))?",
        header,
    )
    assert parsed is not None, header
    saved = unquote(parsed[2], errors="strict") if parsed[2] else parsed[1]
    assert saved.isprintable()
    assert not set(saved) & set("/\\")
    if name and name.isprintable() and not set(name) & set("/\\") and len(name) <= 150:
        assert saved == name


@pytest.mark.parametrize(
    ("name", "saved"),
    [
        ("frame.npy", "frame.npy"),
        ("50% r\u00e9sum\u00e9.csv", "50% r\u00e9sum\u00e9.csv"),
        ('say "hi".csv', 'say "hi".csv'),
        ("../../etc/passwd", ".._.._etc_passwd"),
        ("", "download"),
        ("x" * 300 + ".tiff", "x" * 145 + ".tiff"),
    ],
)
def test_the_name_as_the_standard_library_reads_it(name: str, saved: str) -> None:
    message = EmailMessage()
    message["Content-Disposition"] = format_content_disposition(name)
    parameters = dict(message.get_params(header="content-disposition") or [])
    extended = re.search(r"filename\*=UTF-8''(.*)", format_content_disposition(name))
    assert (unquote(extended[1]) if extended else parameters["filename"]) == saved
