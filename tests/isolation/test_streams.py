"""Responses that are under way when a reader process ends, and clients that leave theirs."""

import hashlib
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import h5py
import numpy as np
import pytest
from starlette.types import Message

from asgihive.errors import AnswerBroken
from asgihive.service import H5App
from tests.asgi.exchange import Exchange, http, run
from tests.gates import until
from tests.isolation import doubles
from tests.isolation.isolated import (
    ask,
    check_good,
    check_values,
    pids,
    refused,
)
from tests.service import servers

pytestmark = pytest.mark.anyio

LARGE_BYTES = 32 << 20
LARGE = "/data?file=large.h5&path=large&format=bin"
OTHERS = 20
MAX_BLOCK_BYTES = 1 << 18


@pytest.fixture(scope="module")
def large() -> Any:
    return np.random.default_rng(1).integers(0, 256, LARGE_BYTES, "u1")


@pytest.fixture
def root(root: Path, large: Any) -> Path:
    with h5py.File(root / "large.h5", "w") as file:
        file.create_dataset("large", data=large, chunks=(1 << 20,))
    return root


@dataclass
class Slow(Exchange):
    """A client that stops after so many bytes, until it is let go on."""

    stop_after: int = LARGE_BYTES // 8
    taken: int = 0
    is_refusing: bool = False
    stopped: anyio.Event = field(default_factory=anyio.Event)
    goes_on: anyio.Event = field(default_factory=anyio.Event)
    digest: Any = field(default_factory=hashlib.sha256)

    async def send(self, message: Message) -> None:
        if self.is_refusing:
            raise OSError("the client is gone")
        body = message.get("body", b"")
        self.taken += len(body)
        self.digest.update(body)
        await super().send({**message, "body": b""})
        if self.taken >= self.stop_after:
            self.stopped.set()
            await self.goes_on.wait()


def slow(query: str = LARGE) -> Slow:
    return Slow(http(query).scope)


@pytest.mark.slow
async def test_only_what_had_begun_notices_a_crash(app: H5App, root: Path, large: Any) -> None:
    for number in range(OTHERS):
        values = np.arange(number, number + 10_000, dtype="<i4")
        doubles.write(root / f"{number}.h5", values=values)
    doubles.write(root / "bad.h5", "segfault")
    stream, right = slow(), []

    async def check_other(number: int) -> None:
        values = np.arange(number, number + 10_000, dtype="<i4")
        wanted = {"path": "values", "format": "bin"}
        check_values(await ask(app, "/data", f"{number}.h5", **wanted), values)
        right.append(number)

    async def check_bad() -> None:
        refused(await ask(app, "/data", "bad.h5", path="values", format="bin"), "bad.h5")

    with anyio.fail_after(2 * servers.PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(break_off, app, stream, "its reader crashed: it ended by SIGSEGV")
            await stream.stopped.wait()
            before = pids(app)
            async with anyio.create_task_group() as others:
                for number in range(OTHERS):
                    others.start_soon(check_other, number)
                    if number == OTHERS // 2:
                        others.start_soon(check_bad)
            stream.goes_on.set()
    assert not before & pids(app)
    assert len(right) == OTHERS
    assert (stream.status, stream.complete) == (200, False)
    # The client asks for the rest.
    headers = [(b"range", f"bytes={stream.taken}-".encode())]
    headers.append((b"if-range", stream.headers["etag"].encode()))
    rest = await run(app, http(LARGE, headers=headers))
    assert rest.status == 206
    stream.digest.update(rest.body)
    assert stream.digest.digest() == hashlib.sha256(large.tobytes()).digest()


async def break_off(app: H5App, stream: Slow, why: str) -> None:
    with pytest.raises(AnswerBroken, match=why):
        await run(app, stream)
    assert not stream.complete
    assert stream.taken < LARGE_BYTES


async def test_a_file_that_crashes_its_reader_amid_an_answer_is_refused(
    app: H5App, root: Path, large: Any
) -> None:
    """Only one request is there, so that it is made alone from then on."""
    for reason in ("it ended by SIGKILL", "the file is refused for 600 seconds"):
        stream = slow()
        with anyio.fail_after(servers.PATIENCE):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(break_off, app, stream, reason)
                await stream.stopped.wait()
                kill(app)
                stream.goes_on.set()
    refused(await run(app, http(LARGE)), "large.h5", "SIGKILL")
    await check_good(app)


async def test_a_response_that_breaks_off_is_logged_once(
    app: H5App, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stream = slow()
    with anyio.fail_after(servers.PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(break_off, app, stream, "its reader broke it off, as is logged")
            await stream.stopped.wait()
            before = pids(app)
            with h5py.File(root / "large.h5", "r+") as file:
                file["more"] = 1
            stream.goes_on.set()
        await until(lambda: caplog.records)
        lines = [each.getMessage() for each in caplog.records]
    reason = "The file changed while it was read"
    assert [reason in each for each in lines] == [True]
    assert pids(app) == before
    error = AnswerBroken(reason, is_logged=True)
    logging.getLogger("uvicorn.error").error("", exc_info=error)
    assert len(caplog.records) == 1


async def test_a_slow_client_fills_no_memory_and_holds_up_no_one(app: H5App) -> None:
    clients = [slow() for _ in range(5)]
    with anyio.fail_after(servers.PATIENCE):
        async with anyio.create_task_group() as tasks:
            for each in clients:
                each.stop_after = 1
                tasks.start_soon(run, app, each)
            for each in clients:
                await each.stopped.wait()
            await check_good(app)
            # No more is received while a block is sent.
            assert all(each.taken <= MAX_BLOCK_BYTES for each in clients)
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    "how",
    [
        "silently",
        *(pytest.param(each, marks=pytest.mark.slow) for each in ("by send", "by cancellation")),
    ],
)
async def test_a_client_that_goes_away_ends_the_reading(app: H5App, root: Path, how: str) -> None:
    await check_good(app)
    stream = slow()
    with anyio.fail_after(servers.PATIENCE), releases(root) as heard:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, app, stream)
            await stream.stopped.wait()
            if how == "silently":
                stream.gone.set()
            elif how == "by send":
                stream.is_refusing = True
                stream.goes_on.set()
            else:
                tasks.cancel_scope.cancel()
        await anyio.wait_readable(heard)
        assert os.read(heard, 100) == b"."
    assert stream.taken < LARGE_BYTES
    await check_good(app)


def kill(app: H5App) -> None:
    for each in pids(app):
        os.kill(each, signal.SIGKILL)


@contextmanager
def releases(root: Path) -> Iterator[int]:
    """A descriptor that is readable when a lease has been given back."""
    os.mkfifo(root / doubles.RELEASED)
    descriptor = os.open(root / doubles.RELEASED, os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.unlink(root / doubles.RELEASED)
        os.close(descriptor)
