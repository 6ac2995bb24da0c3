"""What shared caches are told where a permission says who may have an answer."""

from pathlib import Path

import h5py
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgihive.asgi import HTTPException
from asgihive.service import H5App
from asgihive.service.gate import PERMISSION, RequestedEntity, make_private
from asgihive.settings import H5Settings
from tests.asgi.exchange import Exchange, http, run

pytestmark = pytest.mark.anyio

META = "/meta?file=x.h5"
BATCH = b'[{"route": "meta", "params": {"file": "x.h5"}}]'
SETTINGS = [
    ("no-cache", "private, no-cache"),
    ("", "private"),
    ("public, max-age=60, s-maxage=600", "private, max-age=60"),
    ("no-store", "no-store"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for name in ("x.h5", "secret.h5"):
        with h5py.File(root / name, "w") as file:
            file["values"] = [1, 2, 3]
    return root


def permission(target: RequestedEntity) -> bool:
    if target.path == "/hidden":
        raise HTTPException(404, "Not found in x.h5: /hidden")
    return target.file != "secret.h5"


def said(exchange: Exchange) -> list[str]:
    """Each `Cache-Control` of the answer."""
    headers = exchange.sent[0]["headers"]
    return [value.decode() for name, value in headers if name == b"cache-control"]


async def asked(
    app: H5App, url: str, method: str = "GET", body: bytes = b"", **headers: str
) -> Exchange:
    """Under the permission."""
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    state = {PERMISSION: permission}
    return await run(app, http(url, method, body=body, headers=fields, state=state))


@pytest.mark.parametrize(("setting", "stated"), SETTINGS)
async def test_an_answer_is_for_nobody_else(root: Path, setting: str, stated: str) -> None:
    app = H5App(root, H5Settings(cache_control=setting))
    values = "/data?file=x.h5&path=/values&format=bin"
    for _ in range(2):  # the second one may come from memory
        for url in (META, values, "/file?file=x.h5", "/files", "/paths?file=x.h5"):
            for method in ("GET", "HEAD"):
                answer = await asked(app, url, method)
                assert (answer.status, said(answer)) == (200, [stated]), url
    for url in (META, values, "/file?file=x.h5"):
        answer = await asked(app, url, if_none_match="*")
        assert (answer.status, said(answer)) == (304, [stated]), url
    for url in (values, "/file?file=x.h5"):
        answer = await asked(app, url, range="bytes=0-7")
        assert (answer.status, said(answer)) == (206, [stated]), url
    answer = await asked(app, "/batch", "POST", BATCH)
    assert (answer.status, answer.json[0]["status"], said(answer)) == (200, 200, [stated])


@pytest.mark.parametrize(
    ("url", "method", "status"),
    [
        ("/meta?file=secret.h5", "GET", 403),
        ("/file?file=secret.h5", "GET", 403),
        ("/meta?file=x.h5&path=/hidden", "GET", 404),
        ("/meta?file=no.h5", "GET", 404),
        ("/meta?file=../x.h5", "GET", 404),
        ("/meta", "GET", 422),
        ("/no/route", "GET", 404),
        (META, "PUT", 405),
        ("/batch", "POST", 422),
    ],
)
async def test_so_are_errors(root: Path, url: str, method: str, status: int) -> None:
    answer = await asked(H5App(root), url, method)
    assert (answer.status, said(answer)) == (status, ["private"])


async def test_what_is_of_no_file_is_for_everybody(root: Path) -> None:
    app = H5App(root)
    for url in ("/", "/health", "/openapi.json", "/docs"):
        answer = await asked(app, url)
        assert (answer.status, said(answer)) == (200, said(await run(app, http(url)))), url


@pytest.mark.parametrize(("setting", "_"), SETTINGS)
async def test_without_a_permission_the_setting_stands(root: Path, setting: str, _: str) -> None:
    app = H5App(root, H5Settings(cache_control=setting))
    for headers in ([], [(b"if-none-match", b"*")]):
        answer = await run(app, http(META, headers=headers))
        assert said(answer) == ([setting] if setting else [])


async def test_a_permission_and_a_token(root: Path) -> None:
    app = H5App(root, H5Settings(token="open-sesame"))
    answer = await asked(app, META, authorization="Bearer open-sesame")
    assert (answer.status, said(answer)) == (200, ["private, no-cache"])
    varying = [value for name, value in answer.sent[0]["headers"] if name == b"vary"]
    assert b"authorization" in varying


@pytest.mark.parametrize(
    ("directives", "stated"),
    [
        ("private", "private"),
        ("max-age=1, Private", "max-age=1, Private"),
        ("No-Store , no-cache", "No-Store , no-cache"),
        ("PUBLIC,S-MaxAge=1,immutable", "private, immutable"),
        ('private="set-cookie, x", max-age=1', "private, max-age=1"),
        ('no-cache="private, a\\"b"', 'private, no-cache="private, a\\"b"'),
        ("no-transform,, max-age=5", "private, no-transform, max-age=5"),
    ],
)
def test_directives(directives: str, stated: str) -> None:
    assert make_private(directives) == stated


@given(st.lists(st.sampled_from(["no-cache", "public", "max-age=1", "s-maxage=2", "private=x"])))
@example([])
def test_it_is_private_once_and_stays_so(directives: list[str]) -> None:
    stated = make_private(", ".join(directives))
    assert stated.split(", ").count("private") == 1
    assert not {"public", "s-maxage=2", "private=x"} & set(stated.split(", "))
    assert make_private(stated) == stated
