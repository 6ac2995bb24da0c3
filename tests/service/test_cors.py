"""Pages of other origins: preflights, refused ones too, and what a page may read."""

from pathlib import Path

import h5py
import httpx
import pytest
from starlette.middleware.cors import CORSMiddleware

from asgihive.service import H5App
from asgihive.service.gate import EXPOSED_HEADERS, METHODS
from asgihive.settings import H5Settings
from tests.asgi.exchange import Exchange, http, run
from tests.service import servers
from tests.zoo.client import client

pytestmark = pytest.mark.anyio

ORIGIN = "https://viewer.example"
NO_SNIFFING = {"x-content-type-options": "nosniff"}
PREFLIGHT = {"origin": ORIGIN, "access-control-request-method": "GET"}

# Those that every page may read (Fetch standard, 2.2.2).
SAFELISTED = frozenset(
    {
        "cache-control",
        "content-language",
        "content-length",
        "content-type",
        "expires",
        "last-modified",
        "pragma",
    }
)
# What is the browser's own business.
OF_BROWSERS = frozenset(
    {"content-encoding", "timing-allow-origin", "vary", "x-content-type-options"}
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["values"] = list(range(5))
    return tmp_path


@pytest.fixture
def app(root: Path) -> H5App:
    return H5App(root, H5Settings(cors_origins=(ORIGIN,), token="open-sesame"))


async def preflight(app: object, fields: dict[str, str], path: str = "/data") -> Exchange:
    headers = [(name.encode(), value.encode()) for name, value in fields.items()]
    return await run(app, http(path, "OPTIONS", headers=headers))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"origin": "https://other.example"}, ["Disallowed CORS origin:"]),
        ({"origin": "null"}, ["Disallowed CORS origin:"]),
        ({"access-control-request-method": "DELETE"}, ["Disallowed CORS method:"]),
        (
            {"origin": "https://\xe9.example", "access-control-request-method": "PUT"},
            ["Disallowed CORS origin, method:"],
        ),
    ],
)
@pytest.mark.parametrize("path", ["/data", "/", "/no/such/route"])
async def test_a_refused_preflight_is_an_error_as_all_others(
    app: H5App, wrong: dict[str, str], words: list[str], path: str
) -> None:
    fields = {**PREFLIGHT, "access-control-request-headers": "authorization", **wrong}
    answer = await preflight(app, fields, path)
    assert answer.status == 400
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.json.keys() == {"message"}
    for each in (*words, *METHODS, ORIGIN):
        assert each in answer.message
    assert ("access-control-allow-origin" in answer.headers) == (fields["origin"] == ORIGIN)


@pytest.mark.parametrize("origins", [(ORIGIN,), ("*",)])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("origin", [ORIGIN, "https://other.example"])
async def test_the_headers_are_those_of_starlette(
    root: Path, origins: tuple[str, ...], method: str, origin: str
) -> None:
    ours = H5App(root, H5Settings(cors_origins=origins, server_timing=False))
    theirs = CORSMiddleware(ours, origins, METHODS, ("*",), expose_headers=EXPOSED_HEADERS)
    fields = {
        "origin": origin,
        "access-control-request-method": method,
        "access-control-request-headers": "authorization, content-type",
    }
    found, expected = await preflight(ours, fields), await preflight(theirs, fields)
    assert found.status == expected.status
    if found.status == 200:
        assert found.headers == {**expected.headers, **NO_SNIFFING}
    else:
        of_body = {"content-type", "content-length"}
        expected_headers = {**_without(expected, of_body), **NO_SNIFFING}
        assert _without(found, of_body) == expected_headers
        assert found.headers.keys() == expected.headers.keys() | NO_SNIFFING.keys()


def _without(answer: Exchange, names: set[str]) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in names}


async def test_any_origin_is_named_so(root: Path) -> None:
    app = H5App(root, H5Settings(cors_origins=("*",)))
    answer = await preflight(app, {**PREFLIGHT, "access-control-request-method": "PUT"})
    assert answer.message == "Disallowed CORS method: GET, HEAD, POST from any origin are accepted"


async def test_origins_match_however_they_were_written(root: Path) -> None:
    app = H5App(root, H5Settings(cors_origins=("HTTPS://Viewer.Example:443",)))
    answer = await preflight(app, PREFLIGHT)
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, ORIGIN)


@pytest.mark.parametrize("server", servers.SERVERS)
def test_over_the_wire(app: H5App, server: str) -> None:
    with servers.serving(app, server) as url, servers.client(url) as asker:
        assert asker.options("/data", headers=PREFLIGHT).status_code == 200
        refused = asker.options("/data", headers={**PREFLIGHT, "origin": "https://a.example"})
    assert refused.status_code == 400
    assert "origin" in refused.json()["message"]


async def test_a_page_may_read_every_header_that_is_for_it(app: H5App, root: Path) -> None:
    with h5py.File(root / "virtual.h5", "w") as file:
        layout = h5py.VirtualLayout((3,), "i4")
        layout[:] = h5py.VirtualSource("missing.h5", "values", (3,))
        file.create_virtual_dataset("values", layout)
    with h5py.File(root / "image.h5", "w") as file:
        file["values"] = [[1, 2], [3, 4]]
    token = {"authorization": "Bearer open-sesame"}
    data = "/data?file=x.h5&path=/values&format=npy"
    sent: set[str] = set()
    async with client(app) as asker:
        asker.headers["origin"] = ORIGIN
        answers: list[httpx.Response] = [
            await asker.get(data),
            await asker.get(data, headers=token),
            await asker.get(data, headers={**token, "range": "bytes=0-3"}),
            await asker.get("/file?file=x.h5", headers=token),
            await asker.get("/meta?file=x.h5", headers=token),
            await asker.post("/meta?file=x.h5", headers=token),
            await asker.get("/data?file=x.h5&path=/values&max_points=2", headers=token),
            await asker.get("/data?file=virtual.h5&path=/values", headers=token),
            await asker.get("/image?file=image.h5", headers=token),
        ]
    assert [each.status_code for each in answers] == [401, 200, 206, 200, 200, 405] + 3 * [200]
    for answer in answers:
        exposed = set(answer.headers["access-control-expose-headers"].split(", "))
        assert exposed == set(EXPOSED_HEADERS)
        sent |= {each for each in answer.headers if not each.startswith("access-control-")}
    assert set(EXPOSED_HEADERS) - {"retry-after"} <= sent
    assert sent - SAFELISTED - OF_BROWSERS <= set(EXPOSED_HEADERS)
