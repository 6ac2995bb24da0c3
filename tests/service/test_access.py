"""Who may ask: the token in every shape, where it must not be seen, and permissions."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import ASGIApp, Receive, Scope, Send

from asgihive.asgi import HTTPException
from asgihive.service import H5App, access_log
from asgihive.service.access_log import TokenFilter
from asgihive.service.gate import (
    PERMISSION,
    Permission,
    RequestedEntity,
    is_open,
    remove_token,
)
from asgihive.settings import H5Settings
from tests.asgi.exchange import http, run, websocket
from tests.service import servers
from tests.zoo.client import client

pytestmark = pytest.mark.anyio

TOKEN = "Se-cret.0_~+/=="
META = "/meta?file=x.h5"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    (root / "sub").mkdir()
    for name in ("x.h5", "sub/y.h5"):
        with h5py.File(root / name, "w") as file:
            file["group/values"] = [1, 2, 3]
    return root


@pytest.fixture
def app(root: Path) -> H5App:
    return H5App(root, H5Settings(token=TOKEN, cors_origins=("https://viewer.example",)))


@pytest.fixture(autouse=True)
def log_filters() -> Iterator[None]:
    """Services with a token change the loggers of servers; other tests read those."""
    loggers = [logging.getLogger(name) for name in access_log.SERVER_LOGGERS]
    before = [list(each.filters) for each in loggers]
    yield
    for logger, filters in zip(loggers, before, strict=True):
        logger.filters[:] = filters


async def status(app: H5App, url: str = META, *headers: tuple[bytes, bytes]) -> int:
    return (await run(app, http(url, headers=list(headers)))).status


def bearer(value: bytes) -> tuple[bytes, bytes]:
    return b"authorization", value


# The token


async def test_without_a_token_nobody_is_asked_for_one(root: Path) -> None:
    app = H5App(root, H5Settings())
    assert await status(app) == 200
    assert await status(app, f"{META}&token=any") == 200
    assert await status(app, META, bearer(b"Bearer any")) == 200


async def test_the_token_in_the_header(app: H5App) -> None:
    for scheme in (b"Bearer ", b"bearer ", b"BEARER  "):
        assert await status(app, META, bearer(scheme + TOKEN.encode())) == 200


async def test_the_token_in_the_query(app: H5App) -> None:
    every_byte = "".join(f"%{each:02x}" for each in TOKEN.encode())
    for url in (
        f"{META}&token=Se-cret.0_~%2B/==",
        f"{META}&token={every_byte}",
        f"{META}&%74oken={every_byte}",
        f"/meta?token={every_byte}&file=x.h5",
        f"{META}&token={every_byte}&token=wrong",
    ):
        assert await status(app, url) == 200, url


WRONG = (
    b"",
    b" ",
    b"x",
    TOKEN.encode()[:-1],
    TOKEN.encode() + b"=",
    TOKEN.encode() + b"x" * 10_000,
    TOKEN.encode().upper(),
    TOKEN.encode().lower(),
    TOKEN.encode().swapcase(),
    b'"' + TOKEN.encode() + b'"',
    TOKEN.encode() + b"\0",
    TOKEN.encode("utf-16"),
    b"\xef\xbb\xbf" + TOKEN.encode(),
    TOKEN.replace("S", "\u017f").encode(),  # which upper-cases to S
    TOKEN.encode() + b"\xff",
    b"Se-cret.0_~%2B/==",
    b"None",
)


@pytest.mark.parametrize("token", WRONG)
async def test_a_wrong_token(app: H5App, token: bytes) -> None:
    quoted = b"".join(b"%%%02x" % each for each in token).decode()
    for exchange in (
        http(META, headers=[bearer(b"Bearer " + token)]),
        http(f"{META}&token={quoted}"),
        http(f"{META}&token={TOKEN.replace('+', '%2B')}", headers=[bearer(b"Bearer " + token)]),
    ):
        answer = await run(app, exchange)
        assert answer.status == 401
        challenge = answer.headers["www-authenticate"]
        assert challenge == 'Bearer realm="asgihive", error="invalid_token"'
        assert TOKEN not in str(answer.sent)


async def test_no_token(app: H5App) -> None:
    for headers in ([], [bearer(b"Basic " + TOKEN.encode())], [bearer(TOKEN.encode())]):
        answer = await run(app, http(META, headers=headers))
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == 'Bearer realm="asgihive"'
        assert "token" in answer.message
        assert TOKEN not in str(answer.sent)


@given(st.binary(max_size=20))
@pytest.mark.slow_on_trio
async def test_no_bytes_but_the_token_open_anything(token: bytes) -> None:
    app = H5App(".", H5Settings(token=TOKEN))
    for exchange in (
        http("/paths?file=x", headers=[bearer(b"Bearer " + token)]),
        http("/paths", query_string=b"file=x&token=" + token),
    ):
        assert (await run(app, exchange)).status == 401


async def test_every_route_but_the_open_ones_asks_for_it(app: H5App) -> None:
    for record in app.route_records():
        path = str(record.url)
        for spelt in (path, path.rstrip("/") + "/"):
            answer = await run(app, http(spelt, "POST" if path == "/batch" else "GET"))
            assert (answer.status == 401) != is_open(path.strip("/")), path
    assert await status(app, "/no/such/route") == 401
    assert (await run(app, http("/batch", "POST"))).status == 401
    assert (await run(app, http(META, "HEAD"))).body == b""


async def test_a_websocket_is_refused_too(app: H5App) -> None:
    answer = await run(app, websocket("/meta", ["websocket.http.response"]))
    assert answer.status == 401


async def test_errors_do_not_say_the_token(app: H5App) -> None:
    shown = f"&token={TOKEN.replace('+', '%2B')}"
    for url in (f"/meta?file=no.h5{shown}", f"/data?file=x.h5&format=no{shown}", f"/no?{shown}"):
        answer = await run(app, http(url))
        assert answer.status in {404, 422}
        assert TOKEN not in str(answer.sent)


async def test_one_answer_is_kept_for_all_ways_of_showing_it(app: H5App) -> None:
    for url, headers in (
        (META, [bearer(b"Bearer " + TOKEN.encode())]),
        (f"{META}&token={TOKEN.replace('+', '%2B')}", []),
    ):
        assert (await run(app, http(url, headers=headers))).status == 200
    kept = app.store.answers.kept
    assert len(kept) == 1
    assert TOKEN not in repr([(key, kept.peek(key)) for key in kept])


async def test_preflights_go_through_and_refusals_can_be_read(app: H5App) -> None:
    origin = {"origin": "https://viewer.example"}
    async with client(app) as asker:
        preflight = await asker.options(
            "/batch",
            headers={
                **origin,
                "access-control-request-method": "POST",
                "access-control-request-headers": "authorization, content-type",
            },
        )
        refused = await asker.get(META, headers=origin)
    assert preflight.status_code == 200
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://viewer.example"


async def test_shared_caches_are_told(app: H5App) -> None:
    for headers in ([], [bearer(b"Bearer " + TOKEN.encode())]):
        answer = await run(app, http(META, headers=headers))
        varying = [value for name, value in answer.sent[0]["headers"] if name == b"vary"]
        assert b"authorization" in b",".join(varying).lower()


# Where it must not be seen


def test_settings_do_not_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = H5Settings(token=TOKEN)
    assert TOKEN not in repr(settings)
    assert TOKEN not in str(settings)
    monkeypatch.setenv("ASGIHIVE_TOKEN", TOKEN)
    assert H5Settings.from_environment() == settings


@pytest.mark.parametrize("token", ["", "two words", "umläut", "a=b", "=", "a\n", 5, b"bytes", True])
def test_what_no_header_can_carry_is_no_token(token: Any) -> None:
    with pytest.raises(ValueError, match=r"^token (is empty|cannot be used): letters") as raised:
        H5Settings(token=token)
    assert len(str(token)) < 2 or str(token) not in str(raised.value)
    if token == "":
        with pytest.raises(ValueError, match=r"^ASGIHIVE_TOKEN is empty"):
            H5Settings.from_environment({"ASGIHIVE_TOKEN": ""})


@pytest.mark.parametrize("server", ["uvicorn-h11", "uvicorn-httptools", "hypercorn-asyncio"])
def test_servers_do_not_log_it(app: H5App, caplog: pytest.LogCaptureFixture, server: str) -> None:
    caplog.set_level(logging.INFO)
    with servers.serving(app, server) as url, servers.client(url) as asker:
        shown = TOKEN.replace("+", "%2B")
        for query in (f"file=x.h5&token={shown}", f"token={shown}&file=x.h5", f"%74oken={shown}"):
            assert asker.get(f"/meta?{query}").status_code in {200, 422}
        assert asker.get("/meta?file=x.h5&token=guessed").status_code == 401
    records = [each for each in caplog.records if each.name != "httpx"]  # that is the client
    logged = "\n".join(f"{each.getMessage()} {each.__dict__}" for each in records)
    if server.startswith("uvicorn"):
        lines = [each.getMessage() for each in records if each.name == "uvicorn.access"]
        assert sum("oken=***" in each for each in lines) == 4, lines
    assert shown not in logged
    assert TOKEN not in logged
    assert "guessed" not in logged


def test_log_records_of_any_kind() -> None:
    secret = "token=hidden"

    def rewritten(message: str, arguments: Any) -> str:
        record = logging.LogRecord("x", logging.INFO, "", 0, message, arguments, None)
        assert TokenFilter().filter(record)
        return record.getMessage()

    assert rewritten(f"GET /x?{secret}", ()) == "GET /x?token=***"
    assert rewritten("%s %d", (f'"/x?a=1&{secret}"', 200)) == '"/x?a=1&token=***" 200'
    assert rewritten("%(r)s", ({"r": f"/x?{secret}&b=2"},)) == "/x?token=***&b=2"
    assert rewritten("%s", ("/x?tokens=1&a=token",)) == "/x?tokens=1&a=token"
    assert rewritten("%(q)s %(m)s", ({"q": secret, "m": "GET"},)) == "token=*** GET"
    scope = {"query_string": f"{secret}&a=1".encode()}
    assert rewritten("%s %s", ("scope", scope)) == "scope {'query_string': b'token=***&a=1'}"
    assert rewritten("100%% of /x?%s", (secret,)) == "100% of /x?token=***"
    assert rewritten("nothing", None) == "nothing"


def test_what_is_left_of_a_query() -> None:
    for query, left in (
        (b"", b""),
        (b"token=a", b""),
        (b"a=1&token=x&b=%74", b"a=1&b=%74"),
        (b"t%6fken=x&tokens=1&token", b"tokens=1"),
    ):
        assert remove_token(query) == left


# Permissions


class Permitting:
    """What a cornerstone, or any middleware, does: it brings a permission."""

    def __init__(self, app: ASGIApp, permission: Permission) -> None:
        self._app, self._permission = app, permission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = {**scope.get("state", {}), PERMISSION: self._permission}
        await self._app({**scope, "state": state}, receive, send)


async def test_what_a_permission_is_asked_about(root: Path) -> None:
    asked: list[RequestedEntity] = []

    def note(target: RequestedEntity) -> bool:
        asked.append(target)
        return True

    app = Permitting(H5App(root), note)
    for url, target in (
        ("/meta?file=x.h5", RequestedEntity("meta", "x.h5", "/")),
        (
            "/data/?file=./sub/..//x.h5&path=group//values/",
            RequestedEntity("data", "x.h5", "/group/values"),
        ),
        ("/meta?file=/x.h5", RequestedEntity("meta", "x.h5", "/")),
        ("/meta?file=//sub/../x.h5", RequestedEntity("meta", "x.h5", "/")),
        ("/files?dir=/sub", RequestedEntity("files", "sub", "/")),
        (
            "/attr?file=%78.h5&file=sub/y.h5&path=/./group",
            RequestedEntity("attr", "x.h5", "/group"),
        ),
        ("/stats?path=&file=sub%2Fy.h5", RequestedEntity("stats", "sub/y.h5", "/")),
        ("/file?file=sub/y.h5", RequestedEntity("file", "sub/y.h5", "/")),
        ("/files?dir=sub/&file=x", RequestedEntity("files", "sub", "/")),
        ("/files", RequestedEntity("files", "", "/")),
        ("/paths?file=%ff.h5&path=%fe", RequestedEntity("paths", "\udcff.h5", "/\udcfe")),
        ("/anything?file=x.h5", RequestedEntity("anything", "x.h5", "/")),
    ):
        await run(app, http(url))
        assert asked == [target], url
        asked.clear()
    for url in ("/", "/health", "/meta", "/meta?file=", "/meta?file=../x.h5", "/files?dir=.."):
        await run(app, http(url))
        assert asked == [], url


async def test_what_is_not_permitted(root: Path) -> None:
    async def only_sub(target: RequestedEntity) -> bool:
        return target.file.startswith("sub/")

    app = Permitting(H5App(root), only_sub)
    for _ in range(2):  # the second answer would come from memory
        assert (await run(app, http("/meta?file=sub/y.h5"))).status == 200
        for url in ("/meta?file=x.h5", "/file?file=x.h5", "/files", "/data?file=sub/../x.h5"):
            refused = await run(app, http(url))
            assert refused.status == 403, url
            assert "Permission denied" in refused.message
        await run(H5App(root), http("/meta?file=x.h5"))
    assert (await run(app, http("/"))).status == 200


@pytest.mark.parametrize("answer", [None, 0, "", "yes", 1])
async def test_only_true_is_permission(root: Path, answer: Any) -> None:
    app = Permitting(H5App(root), lambda _: answer)
    assert (await run(app, http(META))).status == 403


async def test_a_permission_that_answers_itself(root: Path) -> None:
    def hide(target: RequestedEntity) -> bool:
        raise HTTPException(404, f"File not found: {target.file}", {"x-reason": "hidden"})

    def fail(_: RequestedEntity) -> bool:
        raise ZeroDivisionError("secret")

    answer = await run(Permitting(H5App(root), hide), http(META))
    assert (answer.status, answer.headers["x-reason"]) == (404, "hidden")
    answer = await run(Permitting(H5App(root), fail), http(META))
    assert (answer.status, answer.message) == (500, "Internal server error")


async def test_each_request_of_a_batch_needs_its_own(root: Path) -> None:
    app = Permitting(H5App(root), lambda target: target.file == "x.h5")
    asked = [{"route": "meta", "params": {"file": each}} for each in ("x.h5", "sub/y.h5")]
    async with client(app) as asker:
        answers = (await asker.post("/batch", json=asked)).json()
    assert [each["status"] for each in answers] == [200, 403]


async def test_a_permission_and_a_token(root: Path) -> None:
    app = Permitting(H5App(root, H5Settings(token=TOKEN)), lambda _: True)
    headers = [bearer(b"Bearer " + TOKEN.encode())]
    assert (await run(app, http(META))).status == 401
    assert (await run(app, http(META, headers=headers))).status == 200
