"""`POST /batch`: many requests in one, each with its own answer, in their order."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import h5py
import httpx
import msgpack
import msgpack_numpy
import numpy as np
import pytest
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from asgihive.service import H5App, batch
from asgihive.settings import H5Settings
from tests.asgi.exchange import Exchange, http, run
from tests.gates import Gate
from tests.service import servers
from tests.service.bounds import bounded
from tests.service.test_limits import Made
from tests.zoo.client import client

pytestmark = pytest.mark.anyio

FILE = {"file": "x.h5"}
META = {"route": "meta", "params": FILE}
VALUES = np.arange(10, dtype="<i4")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    with h5py.File(root / "x.h5", "w") as file:
        file["values"] = VALUES
        file["large"] = np.zeros(1_000_000, "u1")
        file["text"] = "é"
        file["huge"] = np.array([2**64 - 1], "u8")
        file.attrs["a"], file.attrs["b"] = 1, 2
        for number in range(20):
            file[f"group/{number}"] = number
    (root / "no.h5").write_text("no HDF5")
    return root


@pytest.fixture
def app(root: Path) -> Iterator[H5App]:
    app = H5App(root)
    yield app
    app.store.pool.close()


async def post(app: H5App, asked: Any, **headers: str) -> httpx.Response:
    async with client(app) as asker:
        return await asker.post("/batch", json=asked, headers=headers)


async def packed(app: H5App, asked: Any, **options: Any) -> Any:
    """As MessagePack, there and back."""
    headers = {"content-type": "application/msgpack"}
    async with client(app) as asker:
        answer = await asker.post("/batch", content=msgpack.packb(asked), headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/msgpack"
    return msgpack.unpackb(answer.content, **options)


async def single(app: H5App, route: str, **query: Any) -> httpx.Response:
    async with client(app) as asker:
        return await asker.get(f"/{route}", params=query)


def values(**params: Any) -> dict[str, Any]:
    return {"route": "data", "params": {**FILE, "path": "/values", **params}}


# What is answered


async def test_each_answer_is_that_of_the_request_by_itself(app: H5App) -> None:
    asked: list[dict[str, Any]] = [
        META,
        {"route": "attr", "params": {**FILE, "attr_keys": ["b", "a"]}},
        values(selection="2:4"),
        values(selection="1", flatten=True),
        {"route": "stats", "params": {**FILE, "path": "values"}},
        {"route": "histogram", "params": {**FILE, "path": "values", "bins": 5}},
        {"route": "paths", "params": {**FILE, "path": "/group", "resolve_links": None}},
        {"route": "files", "params": {"limit": 1}},
        {"route": "/meta/", "params": {**FILE, "path": "/group"}},
        values(path="/text"),
        {"route": "meta", "params": {"file": "missing.h5"}},
        {"route": "meta", "params": {"file": "../x.h5"}},
        {"route": "meta", "params": {"file": "no.h5"}},
        {"route": "meta", "params": {}},
        {"route": "meta"},
        values(selection="99"),
        {"route": "nothing"},
        {"route": "meta?file=x.h5"},
        {"route": "../meta", "params": FILE},
    ]
    answer = await post(app, asked)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    answers = answer.json()
    assert len(answers) == len(asked)
    statuses = []
    for one, found in zip(asked, answers, strict=True):
        query = {name: each for name, each in one.get("params", {}).items() if each is not None}
        if one["route"] != "nothing" and "?" not in one["route"] and ".." not in one["route"]:
            alone = await single(app, one["route"].strip("/"), **query)
            assert found == {"status": alone.status_code, "body": alone.json()}, one
        statuses.append(found["status"])
    assert statuses == [200] * 10 + [404, 404, 422, 422, 422, 422, 404, 404, 404]


async def test_an_empty_batch(app: H5App) -> None:
    assert (await post(app, [])).json() == []
    assert await packed(app, []) == []


async def test_the_order_is_that_of_the_requests(app: H5App) -> None:
    asked = [{"route": "data", "params": {**FILE, "path": f"group/{n % 20}"}} for n in range(200)]
    asked[50::60] = [{"route": "no"}] * len(asked[50::60])
    found = (await post(app, asked)).json()
    for number, each in enumerate(found):
        if number % 60 == 50:
            assert each["status"] == 404
        else:
            assert each == {"status": 200, "body": number % 20}


async def test_messagepack_holds_every_format(app: H5App) -> None:
    asked = [
        META,
        values(),
        values(format="msgpack"),
        values(format="bin"),
        values(format="npy"),
        values(format="csv"),
        {"route": "file", "params": FILE},
        values(path="/huge"),
        {"route": ""},
        {"route": "meta", "params": {"file": "missing.h5"}},
        values(path="/text", format="bin"),
    ]
    found = await packed(app, asked, object_hook=msgpack_numpy.decode)
    bodies = [each["body"] for each in found]
    assert [each["status"] for each in found] == [200] * 9 + [404, 422]
    assert bodies[0] == (await single(app, "meta", **FILE)).json()
    assert bodies[1] == VALUES.tolist()
    assert np.array_equal(bodies[2], VALUES)
    assert bodies[3] == VALUES.tobytes()
    assert bodies[4].startswith(b"\x93NUMPY")
    assert bodies[5] == (await single(app, "data", **asked[5]["params"])).content
    assert bodies[6] == (await single(app, "file", **FILE)).content
    assert bodies[7] == [2**64 - 1]
    assert bodies[8] == b"ok"
    assert "File not found" in bodies[9]["message"]


async def test_json_holds_only_json(app: H5App) -> None:
    asked = [values(format="bin"), {"route": "file", "params": FILE}, {"route": ""}, values()]
    found = (await post(app, asked)).json()
    assert [each["status"] for each in found] == [422, 422, 422, 200]
    for each, media_type in zip(found, ("octet-stream", "x-hdf5", "text/plain"), strict=False):
        assert media_type in each["body"]["message"]
        assert "MessagePack" in each["body"]["message"]


async def test_only_who_named_a_format_is_told_to_leave_it_out(app: H5App) -> None:
    asked = [values(format="npy"), {"route": ""}, {"route": "metrics"}]
    found = (await post(app, asked)).json()
    assert [each["status"] for each in found] == [422] * 3
    told = ["leave `format` out" in each["body"]["message"] for each in found]
    assert told == [True, False, False]
    assert all("ask for it by itself" in each["body"]["message"] for each in found[1:])


@pytest.mark.parametrize(
    ("headers", "query", "media_type"),
    [
        ({"accept": "application/vnd.msgpack"}, "", "application/vnd.msgpack"),
        ({"accept": "application/x-msgpack;q=0.5, text/html"}, "", "application/x-msgpack"),
        ({"accept": "*/*"}, "", "application/json"),
        ({"accept": "text/html"}, "", "application/json"),
        ({"accept": "application/vnd.msgpack"}, "?format=json", "application/json"),
        ({}, "?format=msgpack", "application/vnd.msgpack"),
    ],
)
async def test_the_form_of_the_answer(
    app: H5App, headers: dict[str, str], query: str, media_type: str
) -> None:
    async with client(app) as asker:
        answer = await asker.post(f"/batch{query}", json=[values()], headers=headers)
    assert answer.headers["content-type"] == media_type
    load = json.loads if media_type == "application/json" else msgpack.unpackb
    assert load(answer.content) == [{"status": 200, "body": VALUES.tolist()}]


async def test_names_that_are_not_utf8_are_bytes_in_messagepack(tmp_path: Path) -> None:
    name = b"\xff.h5"
    with h5py.File(bytes(tmp_path) + b"/" + name, "w") as file:
        file["x"] = 5
    app = H5App(tmp_path)
    asked = {"route": "data", "params": {"file": name, "path": ["x"]}}
    assert await packed(app, [asked]) == [{"status": 200, "body": 5}]


async def test_the_whole_answer_is_compressed(app: H5App) -> None:
    answer = await post(app, [META] * 50, **{"accept-encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert [each["status"] for each in answer.json()] == [200] * 50
    plain = await post(app, [META] * 50, **{"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.content == answer.content


async def test_documents_come_from_memory(app: H5App, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(monkeypatch)
    for _ in range(3):
        assert (await post(app, [META] * 5)).json()[4]["status"] == 200
        assert (await single(app, "meta", **FILE)).status_code == 200
    assert made.times == 1


# What is refused


async def test_other_methods_and_types(app: H5App) -> None:
    async with client(app) as asker:
        for method in ("GET", "HEAD", "PUT", "DELETE"):
            answer = await asker.request(method, "/batch")
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        for content_type in ("text/plain", "application/x-www-form-urlencoded"):
            headers = {"content-type": content_type}
            answer = await asker.post("/batch", content=b"[]", headers=headers)
            assert answer.status_code == 415
            assert "application/json" in answer.json()["message"]
        answer = await asker.post("/batch?format=csv", json=[])
        assert (answer.status_code, "json and msgpack" in answer.text) == (422, True)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"", ""),
        (b"{}", ""),
        (b"[", ""),
        (b"null", ""),
        (b"[1]", "[0]"),
        (b'[{"route":"meta"},{"params":{}}]', "[1]"),
        (b'[{"route":1}]', "[0].route"),
        (b'[{"route":"meta","params":[]}]', "[0].params"),
        (b'[{"route":"meta","paramz":{}}]', "[0]"),
        (b'[{"route":"\xff"}]', ""),
        (b"[" * 100_000, ""),
    ],
)
async def test_bodies_that_are_no_batch(app: H5App, body: bytes, place: str) -> None:
    headers = {"content-type": "application/json"}
    async with client(app) as asker:
        answer = await asker.post("/batch", content=body, headers=headers)
    assert answer.status_code == 422
    assert place in answer.json()["message"]


async def test_values_that_no_query_holds(app: H5App) -> None:
    values: list[Any] = [{}, [[1]], [{}]]
    for value in values:
        (found,) = (await post(app, [{"route": "meta", "params": {"file": value}}])).json()
        assert found["status"] == 422
        assert "`file`" in found["body"]["message"]


async def test_too_many_requests(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MAX_BATCH_REQUESTS", 3)
    app = H5App(root)
    assert (await post(app, [META] * 3)).status_code == 200
    answer = await post(app, [META] * 4)
    assert answer.status_code == 422
    assert "4 requests" in answer.json()["message"]
    assert "3 are accepted" in answer.json()["message"]


async def test_a_body_that_is_too_long(root: Path) -> None:
    app = bounded(root, max_body_bytes=100)
    announced, in_pieces = _posted([]), _posted([])
    announced.scope["headers"].append((b"content-length", b"101"))
    in_pieces.incoming[:] = [
        {"type": "http.request", "body": b" " * 50, "more_body": True} for _ in range(3)
    ]
    for exchange in (announced, in_pieces):
        await run(app, exchange)
        assert exchange.status == 413
        assert "100" in exchange.message
    assert (await post(app, [])).status_code == 200


async def test_a_batch_in_a_batch(app: H5App) -> None:
    (found,) = (await post(app, [{"route": "batch"}])).json()
    assert found["status"] == 405


# Bounds


async def test_a_member_that_is_too_long(root: Path) -> None:
    app = bounded(root, read_ahead_bytes=1 << 18)  # a quarter of it for each member
    found = await packed(app, [values(path="/large", format="bin"), values(format="bin"), META])
    assert [each["status"] for each in found] == [413, 200, 200]
    assert str(1 << 16) in found[0]["body"]["message"]
    fitting = values(path="/large", format="bin", selection=f":{1 << 16}")
    assert len((await packed(app, [fitting]))[0]["body"]) == 1 << 16
    # Without a Content-Length.
    found = (await post(app, [values(path="/large")])).json()
    assert found[0]["status"] == 413


async def test_a_batch_that_is_too_long(root: Path) -> None:
    app = H5App(root, H5Settings(max_response_bytes=2000))
    asked = [values(path="/large", format="bin", selection=":600")] * 5 + [values(format="bin")]
    answers = await packed(app, asked)
    assert [each["status"] for each in answers] == [200, 200, 200, 413, 413, 200]
    assert "2000" in answers[3]["body"]["message"]


async def test_few_requests_of_a_batch_are_under_way_at_once(app: H5App) -> None:
    running = most = 0

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(10):  # others begin meanwhile, if they may
            await anyio.lowlevel.checkpoint()
        await JSONResponse(running)(scope, receive, send)
        running -= 1

    answer = await run(batch.Batch(app.store, counted), _posted([META] * 59))
    assert len(answer.json) == 59
    assert most == batch.AT_ONCE


async def test_answers_are_sent_while_others_are_made(app: H5App) -> None:
    gate = Gate()
    exchange = _posted([values(), values(path="/text"), {"route": "paths", "params": FILE}])
    begun = anyio.Event()

    async def send(message: Any) -> None:
        await exchange.send(message)
        if exchange.body:
            begun.set()

    await post(app, [values(), values(path="/text")])  # from now on without the library lane
    try:
        with anyio.fail_after(servers.PATIENCE):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(app.store.lanes.library.run, gate)
                await gate.begun()
                tasks.start_soon(app, exchange.scope, exchange.receive, send)
                await begun.wait()
                assert exchange.body.startswith(b'[{"status":200,"body":[0,1,2')
                assert not exchange.complete
                gate.open()
    finally:
        gate.open()
    assert [each["status"] for each in exchange.json] == [200, 200, 200]


async def test_a_client_that_goes_away(app: H5App) -> None:
    gate = Gate()
    exchange = _posted([{"route": "stats", "params": {**FILE, "path": "large"}}] * 50)
    try:
        with anyio.fail_after(servers.PATIENCE):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(app.store.lanes.library.run, gate)
                await gate.begun()
                async with anyio.create_task_group() as asking:
                    asking.start_soon(run, app, exchange)
                    await anyio.wait_all_tasks_blocked()
                    assert app.store.lanes.library.waiting() == batch.AT_ONCE
                    asking.cancel_scope.cancel()
                assert app.store.lanes.library.waiting() == 0
                gate.open()
    finally:
        gate.open()
    assert not any(file.holders for file in app.store.pool.files.values())
    assert (await post(app, [META])).status_code == 200


def _posted(asked: Any) -> Exchange:
    headers = [(b"content-type", b"application/json")]
    return http("/batch", "POST", body=json.dumps(asked).encode(), headers=headers)
