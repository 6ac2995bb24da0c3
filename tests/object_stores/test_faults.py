"""A store that is slow, busy, broken, or changes under a reader: right answers, or plain errors."""

import io
import threading
from contextlib import suppress
from typing import Any

import anyio
import anyio.to_thread
import h5py
import numpy as np
import pytest

from asgihive.errors import FileChanged
from tests.object_stores.conftest import Bucket, MakeApp
from tests.object_stores.servers import (
    Handler,
    Harm,
    Proxy,
    cut_off,
    fail,
    forbid,
    reset,
    slow_down,
)
from tests.service.asking import ask

pytestmark = pytest.mark.anyio

FRAMES = np.random.default_rng(1).integers(0, 256, (10, 1 << 20), "u1")


@pytest.fixture(scope="module")
def stack() -> bytes:
    """A file of 10 MiB, with a chunk for each of them."""
    body = io.BytesIO()
    with h5py.File(body, "w") as file:
        file.create_dataset("frames", data=FRAMES, chunks=(1, 1 << 20), shuffle=True)
    return body.getvalue()


@pytest.mark.parametrize("harm", [reset, slow_down, fail, cut_off])
async def test_a_fault_that_passes_is_not_seen(
    harm: Harm, bucket: Bucket, make_app: MakeApp, proxy: Proxy, stack: bytes
) -> None:
    bucket.put("x.h5", stack)
    app = make_app()
    proxy.harm_once(harm)
    assert (await ask(app, "/meta")).status == 200
    proxy.harm_once(harm)
    frame = await ask(app, "/data", path="/frames", selection="7", format="bin")
    assert frame.status == 200, frame.body
    assert frame.body == FRAMES[7].tobytes()


@pytest.mark.parametrize("harm", [reset, slow_down, fail, cut_off])
async def test_a_fault_that_stays_is_a_503(
    harm: Harm, bucket: Bucket, make_app: MakeApp, proxy: Proxy, stack: bytes
) -> None:
    bucket.put("x.h5", stack)
    app = make_app(store_retries=1)
    assert (await ask(app, "/meta")).status == 200
    proxy.harm_once(harm, 1000)
    for file in ("x.h5", "y.h5"):
        answer = await ask(app, "/data", file=file, path="/frames", selection="7", format="bin")
        assert answer.status == 503
        assert answer.headers["retry-after"]
        assert answer.message.startswith("The object store does not answer: ")
        assert "127.0.0.1" not in answer.message
        assert bucket.name not in answer.message
    proxy.harm = None
    again = await ask(app, "/data", path="/frames", selection="7", format="bin")
    assert again.body == FRAMES[7].tobytes()


async def test_a_store_that_does_not_answer_is_a_503(
    bucket: Bucket, make_app: MakeApp, proxy: Proxy, stack: bytes
) -> None:
    bucket.put("x.h5", stack)
    app = make_app(store_retries=0, store_timeout_seconds=0.1)
    gate = threading.Event()

    def wait(*_: Any) -> bool:
        gate.wait(30)
        return False

    proxy.harm = wait
    try:
        answer = await ask(app, "/meta")
        assert (answer.status, answer.message) == (
            503,
            "The object store does not answer: it does not answer in time",
        )
        health = await ask(app, "/health")
        assert health.status == 503
    finally:
        gate.set()


async def test_a_store_that_is_away_is_a_503(
    bucket: Bucket, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    app = make_app(store_retries=0)
    for route, file in (("/meta", "x.h5"), ("/file", "x.h5"), ("/files", "")):
        answer = await ask(app, route, file=file)
        assert answer.status == 503
        assert answer.message.startswith("The object store does not answer")


async def test_refused_credentials_are_told_from_what_is_missing(
    bucket: Bucket, make_app: MakeApp, proxy: Proxy, stack: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    bucket.put("x.h5", stack)
    proxy.harm_once(forbid, 1000)
    app = make_app()
    refused = await ask(app, "/meta")
    assert refused.status == 502
    assert refused.message.startswith("The object store refuses this service: ")
    for secret in ("thekey", "thesecret", "127.0.0.1", bucket.name):
        assert secret not in refused.message
        assert secret not in caplog.text
    proxy.harm = None
    assert (await ask(app, "/meta", file="none.h5")).status == 404


async def test_a_file_that_is_replaced_between_two_requests_is_read_again(
    bucket: Bucket, make_app: MakeApp, proxy: Proxy, stack: bytes
) -> None:
    """The service trusts what it remembers, and the store tells by If-Match that it is over."""
    bucket.put("x.h5", stack)
    app = make_app(store_identity_seconds=3600)
    first = await ask(app, "/data", path="/frames", selection="2", format="bin")
    assert first.body == FRAMES[2].tobytes()
    other = io.BytesIO(stack)
    with h5py.File(other, "r+") as file:
        file["frames"][8] = FRAMES[0]
    bucket.put("x.h5", other.getvalue())
    second = await ask(app, "/data", path="/frames", selection="8", format="bin")
    assert second.status == 200
    assert second.body == FRAMES[0].tobytes()


async def test_an_answer_is_never_of_two_contents(
    bucket: Bucket, make_app: MakeApp, proxy: Proxy, stack: bytes
) -> None:
    bucket.put("x.h5", stack)
    app = make_app(store_identity_seconds=3600)
    assert (await ask(app, "/meta", path="/frames")).status == 200
    body = io.BytesIO()
    with h5py.File(body, "w") as file:
        file.create_dataset("frames", data=FRAMES[::-1], chunks=(1, 1 << 20), shuffle=True)
    left = [2]

    def replace(handler: Handler, *_: Any) -> bool:
        """Replace it after two requests of many."""
        with proxy.lock:
            left[0] -= 1
            if not left[0]:
                bucket.put("x.h5", body.getvalue())
        return False

    proxy.harm = replace
    with suppress(FileChanged):  # as a server sees it, which ends the connection
        answer = await ask(app, "/data", path="/frames", selection="::2", format="bin")
        assert answer.body in {FRAMES[::2].tobytes(), FRAMES[::-1][::2].tobytes()}
    after = await ask(app, "/data", path="/frames", selection="::2", format="bin")
    assert after.body == FRAMES[::-1][::2].tobytes()


async def test_a_file_that_never_stays_is_a_503(
    bucket: Bucket, make_app: MakeApp, proxy: Proxy, stack: bytes
) -> None:
    bucket.put("x.h5", stack)
    app = make_app(store_identity_seconds=3600)
    assert (await ask(app, "/meta")).status == 200

    def change(handler: Handler, *_: Any) -> bool:
        if handler.headers.get("If-Match") is None:
            return False
        handler.answer(412, [], b"<Error><Code>PreconditionFailed</Code></Error>")
        return True

    proxy.harm = change
    answer = await ask(app, "/data", path="/frames", selection="7", format="bin")
    assert answer.status == 503
    assert answer.headers["retry-after"]
    assert "changed" in answer.message


async def test_many_who_ask_for_a_frame_take_one_request(
    bucket: Bucket, make_app: MakeApp, proxy: Proxy, stack: bytes
) -> None:
    bucket.put("x.h5", stack)
    app = make_app(store_identity_seconds=3600)
    await ask(app, "/data", path="/frames", selection="0,0")
    before = len(proxy.seen)
    bodies = []

    async def read(number: int) -> None:
        values = f"6,{number}:"  # answers that differ, of one chunk
        answer = await ask(app, "/data", path="/frames", selection=values, format="bin")
        bodies.append(answer.body == FRAMES[6, number:].tobytes())

    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(read, number)
    assert bodies == [True] * 8
    assert len(proxy.seen) - before == 1


@pytest.mark.parametrize("held_up", ["first", "later"])
async def test_a_slow_object_holds_up_no_other(
    held_up: str, bucket: Bucket, make_app: MakeApp, proxy: Proxy, stack: bytes
) -> None:
    """While a block of one file is on its way, others are opened and described."""
    body = io.BytesIO(stack)
    with h5py.File(body, "r+") as file:
        file["behind/pad"] = FRAMES[:4]
        for number in range(200):  # so many that they are in blocks of their own
            file[f"behind/deep/{number}"] = number
    bucket.put("slow.h5", body.getvalue())
    for name in ("kept.h5", "new.h5"):
        bucket.put(name, stack)
    app = make_app(store_identity_seconds=3600)
    assert (await ask(app, "/meta", file="kept.h5")).status == 200
    if held_up == "later":
        assert (await ask(app, "/meta", file="slow.h5")).status == 200
    gate, is_asked = threading.Event(), threading.Event()

    def wait(handler: Handler, *_: Any) -> bool:
        if "slow.h5" in handler.path:
            is_asked.set()
            gate.wait(30)
        return False

    proxy.harm = wait
    answers = {}

    async def describe(file: str, path: str) -> None:
        answers[file] = (await ask(app, "/meta", file=file, path=path)).status

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(describe, "slow.h5", "/behind")
            assert await anyio.to_thread.run_sync(is_asked.wait, 30)
            with anyio.fail_after(20):
                await describe("kept.h5", "/frames")
                await describe("new.h5", "/frames")
            assert answers == {"kept.h5": 200, "new.h5": 200}
            gate.set()
    finally:
        gate.set()
    assert answers["slow.h5"] == 200


@pytest.fixture(scope="module")
def apart() -> bytes:
    """A file of groups with 4 MiB between them."""
    body = io.BytesIO()
    with h5py.File(body, "w") as file:
        for number in range(4):
            file[f"scan_{number}/frames"] = FRAMES[:4]
    return body.getvalue()


async def test_children_that_lie_apart_are_asked_for_together(
    bucket: Bucket, make_app: MakeApp, proxy: Proxy, apart: bytes
) -> None:
    bucket.put("x.h5", apart)
    app = make_app(store_identity_seconds=3600)
    met = threading.Barrier(3)

    def wait(handler: Handler, *_: Any) -> bool:
        if len(proxy.seen) <= 2:  # the first block, and where the links are
            return False
        with suppress(threading.BrokenBarrierError):
            met.wait(20)
        return False

    proxy.harm = wait
    described = await ask(app, "/meta")
    names = [each["name"] for each in described.json["children"]]
    assert names == [f"scan_{number}" for number in range(4)]
    assert not met.broken
    assert len(proxy.seen) == 5


@pytest.mark.parametrize("kept", [0, 128 << 20])
async def test_children_that_the_store_does_not_give_are_not_left_out(
    kept: int, bucket: Bucket, make_app: MakeApp, proxy: Proxy, apart: bytes
) -> None:
    bucket.put("x.h5", apart)
    app = make_app(store_retries=0, store_cache_bytes=kept)

    def refuse(handler: Handler, *others: Any) -> bool:
        is_far = int(handler.headers.get("Range", "bytes=0-")[6:].partition("-")[0]) > 5 << 20
        return is_far and slow_down(handler, *others)

    proxy.harm = refuse
    assert (await ask(app, "/meta")).status == 503
    proxy.harm = None
    children = (await ask(app, "/meta")).json["children"]
    assert [each["kind"] for each in children] == ["group"] * 4
