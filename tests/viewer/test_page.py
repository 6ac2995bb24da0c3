"""The page at `/view/`: what it is made of, who is led to it, below which URLs it works."""

import gzip
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount

from asgihive.asgi import Router
from asgihive.service import H5App
from asgihive.service.gate import PERMISSION
from asgihive.settings import H5Settings
from asgihive.viewer import page
from tests.asgi.exchange import Exchange, http, run
from tests.isolation.isolated import close
from tests.service import servers
from tests.zoo.client import client

pytestmark = pytest.mark.anyio

SCRIPT = "// of the page\n" + "const values = [];\n" * 1000
INDEX = '<!doctype html><script type="module" src="./assets/index-1a2b.js"></script>' + " " * 1500
ICON = "<svg xmlns='http://www.w3.org/2000/svg'/>"

# As Firefox and Chromium ask for a page.
BROWSERS = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "text/html,application/xhtml+xml,image/avif,image/apng,*/*;q=0.8,application/x;v=b3;q=0.7",
)
PROGRAMS = (
    *("*/*", "", "text/plain", "application/json", "text/*", "text/plain, text/html", "te;xt"),
    *("*/*, text/html;q=0.5", "text/html;q=0", "text/html;q=0.2, text/plain;q=0.3"),
)

PROXIED = "/user/me"


@pytest.fixture
def dist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    dist = tmp_path / "dist"
    (dist / "assets").mkdir(parents=True)
    (dist / "index.html").write_text(INDEX)
    (dist / "assets" / "index-1a2b.js").write_text(SCRIPT)
    (dist / "icon.svg").write_text(ICON)
    monkeypatch.setattr(page, "DIST", str(dist))
    return dist


@pytest.fixture
def app(dist: Path, tmp_path: Path) -> H5App:
    return H5App(tmp_path)


async def ask(app: Any, url: str, method: str = "GET", /, **fields: str) -> Exchange:
    headers = [(name.replace("_", "-").encode(), each.encode()) for name, each in fields.items()]
    return await run(app, http(url, method, headers=headers))


async def test_the_page_and_what_it_loads(app: H5App) -> None:
    for url, body, kind in (
        ("/view/", INDEX, "text/html; charset=utf-8"),
        ("/view/index.html", INDEX, "text/html; charset=utf-8"),
        ("/view/assets/index-1a2b.js", SCRIPT, "text/javascript; charset=utf-8"),
        ("/view/icon.svg", ICON, "image/svg+xml"),
        ("/view/?file=no.h5&path=/x", INDEX, "text/html; charset=utf-8"),
    ):
        got = await ask(app, url)
        assert (got.status, got.body.decode(), got.headers["content-type"]) == (200, body, kind)
        assert got.headers["x-content-type-options"] == "nosniff"
        assert got.headers["content-length"] == str(len(body))
        told = await ask(app, url, "HEAD")
        assert (told.status, told.body) == (200, b"")
        names = ("content-length", "content-type", "etag", "cache-control")
        assert [told.headers[each] for each in names] == [got.headers[each] for each in names]


async def test_what_is_not_there(app: H5App, dist: Path) -> None:
    (dist.parent / "secret.txt").write_text("secret")
    (dist / ".hidden").write_text("secret")
    (dist / "link.txt").symlink_to(dist.parent / "secret.txt")
    for name in ("no.js", "assets", "assets/", "../secret.txt", "..%2fsecret.txt", ".hidden"):
        assert (await ask(app, f"/view/{name}")).status == 404, name
    for name in ("link.txt", "assets/../../secret.txt", str(dist / "index.html"), "a\0b", "x\\y"):
        got = await ask(app, f"/view/{name}")
        assert (got.status, got.headers["content-type"]) == (404, "application/json"), name
    got = await ask(app, "/view/no.js")
    assert (got.message, got.headers["cache-control"]) == ("The page has no such part", "no-store")
    assert (await ask(app, "/view/", "POST")).status == 405


async def test_it_is_kept_by_browsers(app: H5App) -> None:
    """What has its version in its name for ever; the rest is asked for again each time."""
    for url, control in (
        ("/view/", "no-cache"),
        ("/view/icon.svg", "no-cache"),
        ("/view/assets/index-1a2b.js", "public, max-age=31536000, immutable"),
    ):
        got = await ask(app, url)
        assert got.headers["cache-control"] == control
        again = await ask(app, url, if_none_match=got.headers["etag"])
        assert (again.status, again.body) == (304, b"")
        assert again.headers["etag"] == got.headers["etag"]
        assert (await ask(app, url, if_match='"other"')).status == 412
    tags = [(await ask(app, url)).headers["etag"] for url in ("/view/", "/view/icon.svg")]
    assert len(set(tags)) == 2


async def test_it_is_compressed(app: H5App) -> None:
    plain = await ask(app, "/view/assets/index-1a2b.js")
    assert plain.headers["vary"] == "accept-encoding"
    for _ in range(2):
        got = await ask(app, "/view/assets/index-1a2b.js", accept_encoding="gzip")
        assert got.headers["content-encoding"] == "gzip"
        assert got.headers["content-length"] == str(len(got.body))
        assert len(got.body) < len(SCRIPT) / 4
        assert gzip.decompress(got.body).decode() == SCRIPT
        assert got.headers["etag"] != plain.headers["etag"]
    again = await ask(
        app, "/view/assets/index-1a2b.js", if_none_match=got.headers["etag"], accept_encoding="gzip"
    )
    assert again.status == 304
    small = await ask(app, "/view/icon.svg", accept_encoding="gzip")
    assert "content-encoding" not in small.headers


async def test_a_page_that_is_built_anew_is_seen(app: H5App, dist: Path) -> None:
    first = await ask(app, "/view/")
    (dist / "index.html").write_text(INDEX.replace("1a2b", "3c4d"))
    (dist / "assets" / "index-1a2b.js").rename(dist / "assets" / "index-3c4d.js")
    assert (await ask(app, "/view/assets/index-3c4d.js")).body.decode() == SCRIPT
    second = await ask(app, "/view/", if_none_match=first.headers["etag"])
    assert (second.status, "3c4d" in second.body.decode()) == (200, True)
    assert (await ask(app, "/view/assets/index-1a2b.js")).status == 404


async def test_its_content_security_policy(app: H5App, tmp_path: Path) -> None:
    policy = (await ask(app, "/view/")).headers["content-security-policy"]
    directives = dict(each.strip().partition(" ")[::2] for each in policy.split(";"))
    assert directives == {
        "default-src": "'none'",
        "script-src": "'self' 'unsafe-eval'",
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' data: blob:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'self'",
    }
    assert (await ask(app, "/view/")).headers["referrer-policy"] == "no-referrer"
    for origins, frames in (
        (("https://hub.example.org", "http://x.example"),) * 2,
        (("*",), ("*",)),
    ):
        framed = H5App(tmp_path, H5Settings(frame_origins=origins))
        policy = (await ask(framed, "/view/")).headers["content-security-policy"]
        said = policy.rpartition("frame-ancestors ")[2].split()
        assert said == [*(["'self'"] if "*" not in origins else []), *frames]


@pytest.mark.parametrize("accept", BROWSERS)
async def test_a_browser_that_opens_the_address_is_led_to_it(app: H5App, accept: str) -> None:
    for method in ("GET", "HEAD"):
        got = await ask(app, "/", method, accept=accept)
        assert (got.status, got.headers["location"], got.headers["vary"], got.body) == (
            *(307, "view/", "accept"),
            b"",
        )
    got = await ask(app, "/?token=a%2Fb&file=x", accept=accept)
    assert got.headers["location"] == "view/?token=a%2Fb&file=x"
    # A server lets bytes through that are no URL's: none ends the header, or is another origin.
    odd = http("/", query_string=b'\xff\r\n"<', headers=[(b"accept", accept.encode())])
    assert (await run(app, odd)).headers["location"] == "view/?%FF%0D%0A%22%3C"


@pytest.mark.parametrize("accept", PROGRAMS)
async def test_a_program_is_told_that_it_is_there(app: H5App, accept: str) -> None:
    got = await ask(app, "/", accept=accept)
    assert (got.status, got.body, got.headers["vary"]) == (200, b"ok", "accept")
    bare = await ask(app, "/")
    assert (bare.status, bare.body, bare.headers["vary"]) == (200, b"ok", "accept")


async def test_the_page_has_a_slash_at_its_end(app: H5App) -> None:
    got = await ask(app, "/view?file=a%20b.h5", accept=BROWSERS[0])
    assert (got.status, got.headers["location"]) == (308, "view/?file=a%20b.h5")


async def test_where_it_is_not_built_it_says_how(app: H5App, dist: Path) -> None:
    index = (dist / "index.html").rename(dist.parent / "index.html")
    got = await ask(app, "/view/", accept=BROWSERS[0])
    assert (got.status, got.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert got.headers["cache-control"] == "no-store"
    assert "<code>asgihive viewer build</code>" in got.body.decode()
    assert "default-src 'none'" in got.headers["content-security-policy"]
    for url in ("/view/", "/view/assets/x.js"):
        got = await ask(app, url, accept="*/*")
        assert (got.status, "asgihive viewer build" in got.message) == (404, True)
    index.rename(dist / "index.html")
    assert (await ask(app, "/view/")).status == 200  # from then on


def test_whether_it_is_built(dist: Path) -> None:
    assert page.find_dist() == str(dist)
    shutil.rmtree(dist)
    assert page.find_dist() is None


async def test_the_setting(dist: Path, tmp_path: Path) -> None:
    app = H5App(tmp_path, H5Settings(viewer=False))
    for url in ("/view", "/view/", "/view/icon.svg"):
        assert (await ask(app, url, accept=BROWSERS[0])).status == 404
    got = await ask(app, "/", accept=BROWSERS[0])
    assert (got.status, got.body, "vary" in got.headers) == (200, b"ok", False)


async def test_it_needs_no_token_and_no_permission(dist: Path, tmp_path: Path) -> None:
    app = H5App(tmp_path, H5Settings(token="secret"))
    for url in ("/view/?file=x.h5", "/view/assets/index-1a2b.js", "/view"):
        got = await ask(app, url)
        assert got.status == (308 if url == "/view" else 200)
        assert "authorization" not in got.headers.get("vary", "")
    assert (await ask(app, "/files")).status == 401

    def refuse(_: object) -> bool:
        raise AssertionError

    asked = http("/view/?file=x.h5&path=/y", state={PERMISSION: refuse})
    assert (await run(H5App(tmp_path), asked)).status == 200


async def test_hosts_and_origins_count_as_for_all(dist: Path, tmp_path: Path) -> None:
    app = H5App(tmp_path, H5Settings(allowed_hosts=(), cors_origins=("https://x.example",)))
    assert (await ask(app, "/view/", host="evil.example")).status == 403
    got = await ask(app, "/view/", host="localhost", origin="https://x.example")
    assert got.headers["access-control-allow-origin"] == "https://x.example"
    got = await ask(app, "/view/", host="localhost", origin="https://y.example")
    assert "access-control-allow-origin" not in got.headers


async def test_it_is_one_route_in_metrics_and_the_log(
    app: H5App, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "asgihive.access"):
        for url in ("/view/", "/view/icon.svg", "/view/no.js"):
            await ask(app, url)
    assert len(caplog.records) == 3
    text = (await ask(app, "/metrics")).body.decode()
    assert 'asgihive_requests_total{route="/view",status="200"} 2.0' in text
    assert 'asgihive_requests_total{route="/view",status="404"} 1.0' in text


def starlette(h5: H5App) -> Any:
    return Starlette(routes=[Mount("/deep/h5", app=h5)])


def fastapi(h5: H5App) -> Any:
    app = FastAPI()
    app.mount("/deep/h5", h5)
    return app


def router(h5: H5App) -> Any:
    router = Router()
    router.mount("/deep/h5", h5)
    return router


@pytest.mark.parametrize("embed", [starlette, fastapi, router])
async def test_below_a_mount(app: H5App, embed: Any) -> None:
    await follow(embed(app), "/deep/h5")


async def test_behind_a_proxy_that_takes_its_prefix_off(app: H5App) -> None:
    """The browser's URL has a prefix, of which the service knows nothing."""

    async def proxy(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"].startswith(f"{PROXIED}/"):
            paths = {each: scope[each][len(PROXIED) :] for each in ("path", "raw_path")}
            await app({**scope, **paths}, receive, send)
        else:
            await PlainTextResponse("not the service's", 404)(scope, receive, send)

    await follow(proxy, PROXIED)


async def test_below_a_root_path(app: H5App) -> None:
    async def server(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "root_path": "/pre fix"}, receive, send)

    await follow(server, "/pre%20fix")


async def follow(app: Any, prefix: str) -> None:
    """Go from the address to a part of the page, as a browser does."""
    async with client(app) as asker:
        asker.headers["accept"] = BROWSERS[0]
        for address in (f"{prefix}/", prefix):
            got = await asker.get(address, follow_redirects=True)
            if prefix == PROXIED and address == prefix:
                assert got.status_code == 404  # up to that proxy, as nginx redirects it
                continue
            assert (got.status_code, got.url.path) == (200, f"{unquote(prefix)}/view/")
            assert got.text == INDEX
            script = await asker.get(got.url.join("./assets/index-1a2b.js"))
            assert script.text == SCRIPT


@pytest.fixture
def isolated(dist: Path, tmp_path: Path) -> Iterator[H5App]:
    app = H5App(tmp_path, H5Settings(isolation="process"))
    yield app
    close(app)


@pytest.mark.slow
async def test_with_reader_processes(isolated: H5App) -> None:
    assert (await ask(isolated, "/view/")).body.decode() == INDEX
    assert (await ask(isolated, "/", accept=BROWSERS[0])).headers["location"] == "view/"
    assert (await ask(isolated, "/")).body == b"ok"


@pytest.mark.parametrize("root_path", ["", pytest.param("/api", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "server",
    [
        pytest.param(each, marks=pytest.mark.slow if each in servers.HYPERCORN else ())
        for each in servers.SERVERS
    ],
)
def test_over_a_server(app: H5App, server: str, root_path: str) -> None:
    with servers.serving(app, server, root_path) as url, servers.client(url) as asker:
        got = asker.get("/", headers={"accept": BROWSERS[0]}, follow_redirects=True)
        assert (got.status_code, got.text) == (200, INDEX)
        fields = {"accept-encoding": "gzip"}
        got = asker.get("/view/assets/index-1a2b.js", headers=fields)
        assert (got.text, got.headers["content-encoding"]) == (SCRIPT, "gzip")
        assert asker.head("/view/").headers["content-length"] == str(len(INDEX))
