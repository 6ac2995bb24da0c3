"""Forms: fields and files, their bounds, and what becomes of the files."""

import gc
import importlib.util
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

import anyio
import fastapi
import httpx
import msgspec
import orjson
import pydantic
import pytest
from msgspec import Meta
from openapi_spec_validator import validate
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from asgihive.asgi import Body, Depends, Form, Gate, HTTPException, Query, Router, list_routes
from asgihive.asgi.openapi import make_openapi_document
from asgihive.asgi.signatures import HandlerError
from tests.asgi.exchange import Exchange, http, run
from tests.asgi.test_signature import _handler

pytestmark = pytest.mark.anyio


async def _post(router: ASGIApp, **parts: Any) -> Exchange:
    """Ask with the form that httpx makes of `data` and `files`, in pieces of a few bytes."""
    request = httpx.Request("POST", "http://test/", **parts)
    request.read()
    exchange = http("/", "POST", headers=[(k.lower(), v) for k, v in request.headers.raw])
    body, size = request.content, 1000
    pieces = [body[place : place + size] for place in range(0, max(len(body), 1), size)]
    exchange.incoming = [
        {"type": "http.request", "body": each, "more_body": each is not pieces[-1]}
        for each in pieces
    ]
    return await run(Gate(router), exchange)


def _router(**options: Any) -> Router:
    router = Router()

    @router.post("/", **options)
    async def handler(
        title: Annotated[str, Form()],
        file: UploadFile | None = None,
        others: list[UploadFile] = [],  # noqa: B006  # as people write it
        numbers: Annotated[list[int], Form("n"), Meta(max_length=3)] = [],  # noqa: B006
    ) -> list[Any]:
        return [
            title,
            file and [file.filename, file.content_type, (await file.read()).decode()],
            [len(await each.read()) for each in others],
            numbers,
        ]

    return router


async def test_fields_and_files_of_multipart() -> None:
    got = await _post(
        _router(),
        data={"title": "ä b", "n": ["1", "2"]},
        files=[
            ("file", ("a.txt", b"text", "text/plain")),
            ("others", ("b", b"x" * 5000)),
            ("others", ("c", b"")),
        ],
    )
    assert got.json == ["ä b", ["a.txt", "text/plain", "text"], [5000, 0], [1, 2]]


async def test_a_file_that_was_not_chosen_is_none() -> None:
    parts = [b'name="title"\r\n\r\na', b'name="file"; filename=""\r\n\r\n']
    body = b"".join(b"--x\r\nContent-Disposition: form-data; %b\r\n" % each for each in parts)
    headers = [(b"content-type", b"multipart/form-data; boundary=x")]
    got = await run(Gate(_router()), http("/", "POST", body=body + b"--x--\r\n", headers=headers))
    assert got.json == ["a", None, [], []]


@pytest.mark.parametrize("is_first", [True, False])
async def test_the_request_has_the_same_form(is_first: bool) -> None:
    router = Router()

    async def early(request: Request) -> None: ...

    @router.post("/", dependencies=[early] if is_first else [])
    async def handler(title: Annotated[str, Form()], request: Request) -> Any:
        return [title, (await request.form())["title"]]

    assert (await _post(router, data={"title": "a"}, files={"x": b""})).json == ["a", "a"]


async def test_fields_of_url_encoded_forms() -> None:
    got = await _post(_router(), data={"title": "ä b&=+", "n": ["1", "2"]})
    assert got.json == ["ä b&=+", None, [], [1, 2]]


async def test_what_does_not_fit_is_422_with_places() -> None:
    got = await _post(_router(), data={"n": ["1", "x"], "file": "text"}, files={"others": b"a"})
    assert got.status == 422
    assert got.json["errors"] == [
        {"where": ["form", "title"], "message": "it is missing"},
        {"where": ["form", "file"], "message": "it is text, and not a file"},
        {"where": ["form", "n", 1], "message": "Expected `int`, got 'x'"},
    ]
    got = await _post(_router(), files={"title": b"a"})
    assert got.json["errors"] == [
        {"where": ["form", "title"], "message": "it is a file, and not text"}
    ]
    got = await _post(_router(), data={"title": "a", "n": ["1"] * 4})
    assert got.json["errors"][0]["where"] == ["form", "n"]


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"max_form_bytes": 3000}, {"files": {"file": b"x" * 3000}}),
        ({"max_form_files": 1}, {"files": [("others", b"x"), ("others", b"y")]}),
        ({"max_form_fields": 2}, {"data": {"n": ["1", "2"]}, "files": {"file": b"x"}}),
        ({"max_form_fields": 2}, {"data": {"n": ["1", "2"]}}),
        ({"max_body_bytes": 1024}, {"data": {"n": "1" * 2000}, "files": {"file": b"x"}}),
        ({"max_body_bytes": 1024}, {"data": {"n": "1" * 2000}}),
        ({}, {"data": {"n": ["1"] * 1001}}),
    ],
)
async def test_bounds_are_413(options: dict[str, Any], parts: dict[str, Any]) -> None:
    parts = {**parts, "data": {"title": "a", **parts.get("data", {})}}
    assert (await _post(_router(**options), **parts)).status == 413
    if options:
        assert (await _post(_router(), **parts)).status in {200, 422}
    gc.collect()  # a file that was left open warns now


async def test_a_size_that_is_announced_is_not_read() -> None:
    exchange = http(
        "/",
        "POST",
        headers=[(b"content-type", b"multipart/form-data; boundary=x"), (b"content-length", b"99")],
    )
    await run(Gate(_router(max_form_bytes=98)), exchange)
    assert exchange.status == 413
    assert len(exchange.incoming) == 1


BROKEN = [
    (b"multipart/form-data", b"", 422),
    (b"multipart/form-data; boundary=x", b"", 422),
    (b"multipart/form-data; boundary=x", b"nonsense", 422),
    (b"multipart/form-data; boundary=x", b"--x\r\n\r\na\r\n--x--\r\n", 422),
    (
        b"multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\ntrunc',
        422,
    ),
    (b"application/x-www-form-urlencoded", b"title=%ff", 422),
    (b"application/json", b"{}", 415),
    (b"", b"title=a", 415),
]


@pytest.mark.parametrize(("content_type", "body", "status"), BROKEN)
async def test_malformed_forms(content_type: bytes, body: bytes, status: int) -> None:
    exchange = http("/", "POST", body=body, headers=[(b"content-type", content_type)])
    await run(Gate(_router()), exchange)
    assert exchange.status == status
    if status == 415:
        assert "multipart/form-data" in exchange.headers["accept"]
    gc.collect()


@pytest.mark.parametrize("line", [b"a" * 1000, b"x: y\r\n" * 200, b"x" * 150 + b": y\r\n"])
async def test_the_headers_of_a_part_are_bounded(line: bytes) -> None:
    """In pieces, of which python-multipart may have a bound of its own."""
    exchange = http("/", "POST", headers=[(b"content-type", b"multipart/form-data; boundary=x")])
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\nx: '
    pieces = [head, *[line] * 2000]
    exchange.incoming = [
        {"type": "http.request", "body": each, "more_body": True} for each in pieces
    ]
    await run(Gate(_router()), exchange)
    assert exchange.status in {413, 422}
    assert len(exchange.incoming) > 1500
    gc.collect()


async def test_long_files_are_on_disk_and_all_are_closed_after_the_request() -> None:
    kept: list[Any] = []
    router = Router()

    async def dependency(small: UploadFile) -> AsyncIterator[UploadFile]:
        yield small
        assert not small.file.closed
        kept.append("dependency")

    @router.post("/")
    async def handler(
        large: UploadFile, small: Annotated[UploadFile, Depends(dependency)], fail: bool = False
    ) -> AsyncIterator[bytes]:
        assert large.file._rolled  # type: ignore[attr-defined]  # on disk
        assert not small.file._rolled  # type: ignore[attr-defined]
        kept.extend([large, small])
        if fail:
            raise HTTPException(409, "No")
        yield b"%d" % len(await large.read())

    files = {"large": b"x" * (1_100_000), "small": b"y"}
    got = await _post(router, files=files)
    assert got.body == b"1100000"
    got = await _post(router, files=files, params={"fail": "true"})
    assert [each.file.closed for each in kept if each != "dependency"] == [True] * 4
    assert kept.count("dependency") >= 1


async def test_a_client_that_goes_leaves_nothing_open() -> None:
    exchange = http("/", "POST", headers=[(b"content-type", b"multipart/form-data; boundary=x")])
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nsome'
    exchange.incoming = [{"type": "http.request", "body": head, "more_body": True}]
    exchange.gone.set()
    with pytest.raises(ClientDisconnect):
        await run(_router(), exchange)
    gc.collect()
    assert exchange.sent == []


class StructForm(msgspec.Struct, forbid_unknown_fields=True):
    title: str
    count: Annotated[int, Meta(ge=1)] = 5


@dataclass
class DataForm:
    title: str
    file: UploadFile
    count: int = 5


class ModelForm(pydantic.BaseModel):
    title: str
    count: pydantic.PositiveInt = 5


async def test_structures_of_fields() -> None:
    for kind in (StructForm, ModelForm, DataForm):
        router = Router()

        async def handler(form: Any) -> list[Any]:
            return [form.title, form.count, getattr(form, "file", None) is not None]

        handler.__annotations__["form"] = Annotated[kind, Form()]
        router.post("/")(handler)
        files = {"file": b"x"} if kind is DataForm else None
        got = await _post(router, data={"title": "a"}, files=files)
        assert got.json == ["a", 5, kind is DataForm]
        got = await _post(router, data={"count": "x"}, files=files)
        assert got.status == 422
        places = [each["where"] for each in got.json["errors"]]
        assert sorted(places) == [["form", "count"], ["form", "title"]]
        if kind is StructForm:
            got = await _post(router, data={"title": "a", "more": "b"})
            assert [each["where"] for each in got.json["errors"]] == [["form", "more"]]


async def test_the_same_forms_are_accepted_as_by_fastapi() -> None:
    ours, theirs = Router(), fastapi.FastAPI()

    @ours.post("/")
    async def mine(
        title: Annotated[str, Form(), Meta(min_length=2)],
        count: Annotated[int, Form()] = 3,
        tags: Annotated[list[str], Form()] = [],  # noqa: B006
        file: UploadFile | None = None,
        files: list[UploadFile] = [],  # noqa: B006
    ) -> list[Any]:
        return [title, count, tags, file and file.filename, [each.size for each in files]]

    @theirs.post("/")
    async def other(
        title: Annotated[str, fastapi.Form(min_length=2)],
        count: Annotated[int, fastapi.Form()] = 3,
        tags: Annotated[list[str], fastapi.Form()] = [],  # noqa: B006
        file: fastapi.UploadFile | None = None,
        files: list[fastapi.UploadFile] = [],  # noqa: B006
    ) -> list[Any]:
        return [title, count, tags, file and file.filename, [each.size for each in files]]

    for parts in (
        {"data": {"title": "ab"}},
        {"data": {"title": "a"}},
        {"data": {"title": "ab", "count": "x"}},
        {"data": {"title": "ab", "count": "7", "tags": ["a", "b"]}},
        {"data": {"title": "ab"}, "files": {"file": ("f", b"abc")}},
        {"data": {"title": "ab"}, "files": [("files", ("f", b"a")), ("files", ("g", b"bc"))]},
        {"data": {"title": "ab", "file": "text"}, "files": {"files": ("f", b"a")}},
        {"files": {"title": ("f", b"abc")}},
        {"data": {"count": "1"}},
    ):
        got, expected = await _post(ours, **parts), await _post(theirs, **parts)
        assert got.status == expected.status, parts
        if got.status == 200:
            assert got.json == expected.json
        else:
            places = {tuple(each["loc"][1:]) for each in expected.json["detail"]}
            assert {tuple(each["where"][1:]) for each in got.json["errors"]} == places


def test_forms_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for annotation in (Annotated[str, Form()], UploadFile, list[UploadFile] | None):
        with pytest.raises(HandlerError, match="a GET has no form"):
            Router().get("/")(_handler(annotation))

    async def socket(websocket: WebSocket, x: Annotated[str, Form()]) -> None: ...

    async def both(a: Annotated[str, Form()], b: dict[str, int]) -> None: ...

    async def other_order(b: dict[str, int], a: UploadFile) -> None: ...

    with pytest.raises(HandlerError, match="handshake has no form"):
        Router().websocket("/")(socket)
    for each in (both, other_order):
        with pytest.raises(HandlerError, match="is the body already"):
            Router().post("/")(each)
    for marker in (Query(), Body()):
        with pytest.raises(HandlerError, match="a file comes with a form"):
            Router().post("/")(_handler(Annotated[UploadFile, marker]))
    for annotation in (fastapi.UploadFile, Annotated[UploadFile, fastapi.File()]):
        with pytest.raises(HandlerError, match=r"FastAPI's.*write .*asgihive\.UploadFile"):
            Router().post("/")(_handler(annotation))
    with pytest.raises(HandlerError, match="belongs to the application"):
        Router(dependencies=[_takes_a_file]).mount("/x", Router())
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name == "python_multipart" else find_spec(name),
    )
    with pytest.raises(HandlerError, match=r"pip install 'asgihive\[forms\]'") as caught:
        Router().post("/")(_handler(UploadFile))
    assert caught.value.parameter == "x"


async def _takes_a_file(x: UploadFile) -> None: ...


def test_forms_are_documented() -> None:
    router = _router()

    @router.post("/plain")
    async def plain(form: Annotated[ModelForm, Form()]) -> None: ...

    document = make_openapi_document(list_routes(router), title="T", version="1")
    validate(orjson.loads(orjson.dumps(document)))
    file = {"type": "string", "contentMediaType": "application/octet-stream"}
    body = document["paths"]["/"]["post"]["requestBody"]
    assert body["required"] is True
    schema = body["content"]["multipart/form-data"]["schema"]
    assert schema["required"] == ["title"]
    assert schema["properties"]["file"] == file
    assert schema["properties"]["others"] == {"type": "array", "items": file}
    assert schema["properties"]["n"]["maxItems"] == 3
    assert list(body["content"]) == ["multipart/form-data"]
    content = document["paths"]["/plain"]["post"]["requestBody"]["content"]
    assert list(content) == ["multipart/form-data", "application/x-www-form-urlencoded"]
    properties = content["multipart/form-data"]["schema"]["properties"]
    assert properties["count"]["exclusiveMinimum"] == 0


@pytest.mark.slow_on_trio
async def test_no_form_makes_a_server_error() -> None:
    whole = io.BytesIO()
    request = httpx.Request(
        "POST",
        "http://t/",
        data={"title": "a"},
        files={"file": ("f", b"abc")},
        headers={"content-type": "multipart/form-data; boundary=xyz"},
    )
    whole.write(request.read())
    body = whole.getvalue()
    headers = [(b"content-type", b"multipart/form-data; boundary=xyz")]
    for end in range(0, len(body), 3):
        for damaged in (body[:end], body[:end] + b"\0" + body[end + 1 :]):
            exchange = http("/", "POST", body=damaged, headers=headers)
            with anyio.fail_after(5):
                await run(Gate(_router()), exchange)
            assert exchange.status in {200, 413, 415, 422}
    gc.collect()
