"""Every error of the contract over HTTP: its status, its words, and its JSON."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import h5py
import httpx
import numpy as np
import pytest
from h5py import h5p, h5t, h5z

from tests.zoo.arrow_tables import ARROW
from tests.zoo.client import client
from tests.zoo.low_level import create_dataset

service = pytest.importorskip("asgihive.service")

pytestmark = pytest.mark.anyio

ROUTES = ("/meta", "/attr", "/data", "/stats", "/paths")
UNKNOWN_FILTER = 32_999


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("errors")
    (root / "text.h5").write_text("not HDF5 at all")
    (root / "empty.h5").write_bytes(b"")
    (root / "folder").mkdir()
    with h5py.File(root / "good.h5", "w") as file:
        file["values"] = np.arange(250, dtype="<f8").reshape(10, 25)
        file["text"] = "text"
        file["scalar"] = 1
        file["cube"] = np.zeros((2, 2, 2))
        file["group/inner"] = 1
        file["group"].attrs["unit"] = "mm"
        file["type"] = np.dtype("<i4")
        file["broken"] = h5py.SoftLink("/no/such/path")
        file["cycle"] = h5py.SoftLink("/cycle")
        file["elsewhere"] = h5py.ExternalLink("no_such_file.h5", "/x")
        _unknown_filter(file)
    (root / "truncated.h5").write_bytes((root / "good.h5").read_bytes()[:700])
    _damaged(root)
    for each in root.glob("*.h5"):
        os.utime(each, (0, 1_700_000_000))  # one of this second has no Last-Modified yet
    return root


def _unknown_filter(file: h5py.File) -> None:
    """A chunk stored as if a filter had been applied that is registered nowhere."""
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_chunk((10,))
    plist.set_filter(UNKNOWN_FILTER, h5z.FLAG_OPTIONAL)
    dataset = create_dataset(file, "unknown_filter", h5t.STD_I32LE, shape=(20,), plist=plist)
    dataset.id.write_direct_chunk((10,), b"as if compressed")


def _damaged(root: Path) -> None:
    """Two datasets of four chunks each, and one byte wrong in the third chunk of both."""
    values = np.arange(64, dtype="<i4")
    with h5py.File(root / "damaged.h5", "w") as file:
        file.create_dataset("gzip", data=values, chunks=(16,), compression="gzip")
        file.create_dataset("fletcher32", data=values, chunks=(16,), fletcher32=True)
        file.create_dataset("lzf", data=values // 8, chunks=(16,), compression="lzf")
        places = [
            file[name].id.get_chunk_info_by_coord((32,)).byte_offset
            for name in ("gzip", "fletcher32")
        ]
    raw = bytearray((root / "damaged.h5").read_bytes())
    for place in places:
        raw[place + 8] ^= 0xFF
    (root / "damaged.h5").write_bytes(raw)


@pytest.fixture(scope="module")
def app(root: Path) -> Any:
    return service.H5App(root)


async def _refused(app: Any, status: int, url: str, **parameters: Any) -> str:
    """The message of an error answer that has the status and the form it must have."""
    async with client(app) as asker:
        answer = await asker.get(url, params=parameters)
    assert answer.status_code == status, (url, parameters, answer.text)
    return _message(answer)


def _places(document: Any) -> list[list[str]]:
    return [each["where"] for each in document["errors"]]


def _message(answer: httpx.Response) -> str:
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) == len(answer.content)
    document = answer.json()
    if "errors" in document:
        assert answer.status_code == 422
        assert document.keys() == {"message", "errors"}
        assert "; ".join(each["message"] for each in document["errors"]) == document["message"]
        assert all(where == "query" and name for where, name in _places(document))
    else:
        assert document.keys() == {"message"}
    assert isinstance(document["message"], str)
    assert document["message"]
    return str(document["message"])


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "file", ["no.h5", "no/such/no.h5", "folder", ".", "../good.h5", "good.h5/values", "good.h5/"]
)
@pytest.mark.slow_on_trio
async def test_no_such_file(app: Any, route: str, file: str) -> None:
    assert "File not found" in await _refused(app, 404, route, file=file)


@pytest.mark.parametrize("route", ROUTES)
async def test_file_is_required(app: Any, route: str) -> None:
    assert "file" in await _refused(app, 422, route)
    assert "file" in await _refused(app, 422, route, file="")


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("file", ["text.h5", "empty.h5", "truncated.h5"])
async def test_not_a_readable_file(app: Any, route: str, file: str) -> None:
    message = await _refused(app, 422, route, file=file)
    assert "not a readable HDF5 file" in message
    assert file in message


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("path", ["/nothing", "nothing/below", "/group/nothing", "/values/below"])
async def test_no_such_entity(app: Any, route: str, path: str) -> None:
    message = await _refused(app, 404, route, file="good.h5", path=path)
    assert "not a valid path" in message
    assert path.strip("/") in message


@pytest.mark.parametrize("path", ["/broken", "/cycle", "/elsewhere"])
async def test_a_link_that_cannot_be_followed(app: Any, path: str) -> None:
    given = {"file": "good.h5", "path": path}
    for resolve in ("all", "true", "ALL", "True"):
        message = await _refused(app, 404, "/meta", **given, resolve_links=resolve)
        assert "Cannot resolve" in message
        assert path in message
    async with client(app) as asker:
        for resolve in ("only_valid", "Only_Valid", "none", "false", "FALSE"):
            answer = await asker.get("/meta", params={**given, "resolve_links": resolve})
            assert answer.status_code == 200, answer.text
            assert answer.json()["kind"] in {"soft_link", "external_link"}
    assert "link" in await _refused(app, 422, "/attr", **given)
    for route in ("/data", "/stats", "/paths"):
        async with client(app) as asker:
            answer = await asker.get(route, params=given)
        # It is both: unresolved where it must be followed, and not what was needed.
        word = {404: "Cannot resolve", 422: "link"}[answer.status_code]
        assert word in _message(answer)


@pytest.mark.parametrize("path", ["/broken/below", "/cycle/below", "/elsewhere/below"])
async def test_a_path_through_a_link_that_cannot_be_followed(app: Any, path: str) -> None:
    for resolve in ("all", "only_valid", "none"):
        message = await _refused(
            app, 404, "/meta", file="good.h5", path=path, resolve_links=resolve
        )
        assert "Cannot resolve" in message or "not a valid path" in message


async def test_paths_that_must_follow_a_broken_link(app: Any) -> None:
    message = await _refused(app, 404, "/paths", file="good.h5", resolve_links="all")
    assert "Cannot resolve" in message


@pytest.mark.parametrize(
    ("route", "path", "kind", "needed"),
    [
        ("/data", "/group", "group", "dataset"),
        ("/data", "/", "group", "dataset"),
        ("/data", "/type", "datatype", "dataset"),
        ("/stats", "/group", "group", "dataset"),
        ("/stats", "/type", "datatype", "dataset"),
        ("/paths", "/values", "dataset", "group"),
        ("/paths", "/type", "datatype", "group"),
    ],
)
async def test_wrong_kind(app: Any, route: str, path: str, kind: str, needed: str) -> None:
    message = await _refused(app, 422, route, file="good.h5", path=path)
    assert kind in message
    assert needed in message


async def test_unknown_attribute(app: Any) -> None:
    given = {"file": "good.h5", "path": "/group"}
    message = await _refused(app, 404, "/attr", **given, attr_keys=["unit", "färbung"])
    assert "färbung" in message


@pytest.mark.parametrize(
    ("route", "parameter", "value", "accepted"),
    [
        ("/meta", "resolve_links", "sometimes", "only_valid"),
        ("/meta", "resolve_links", "", "only_valid"),
        ("/paths", "resolve_links", "1", "only_valid"),
        ("/data", "format", "xml", "json"),
        ("/data", "format", "JSON5", "json"),
        ("/data", "dtype", "float32", "safe"),
        ("/data", "flatten", "maybe", "true"),
        ("/data", "flatten", "2", "true"),
        ("/data", "selection", "a", ""),
        ("/data", "selection", "10", ""),
        ("/data", "selection", "-11", ""),
        ("/data", "selection", "0,0,0", ""),
        ("/data", "selection", "::0", ""),
        ("/stats", "selection", "1:2:3:4", ""),
        ("/stats", "selection", ",,", ""),
    ],
)
async def test_bad_parameter(
    app: Any, route: str, parameter: str, value: str, accepted: str
) -> None:
    path = "/" if route == "/paths" else "/values"
    message = await _refused(app, 422, route, file="good.h5", path=path, **{parameter: value})
    assert parameter in message
    assert value in message
    assert accepted in message


@pytest.mark.parametrize(
    ("path", "format_", "fitting"),
    [
        ("/text", "bin", "json"),
        ("/text", "npy", "json"),
        ("/text", "csv", "json"),
        ("/text", "tiff", "msgpack"),
        ("/scalar", "csv", "npy"),
        ("/scalar", "tiff", "npy"),
        ("/cube", "csv", "tiff"),
    ],
)
async def test_format_that_does_not_fit(app: Any, path: str, format_: str, fitting: str) -> None:
    message = await _refused(app, 422, "/data", file="good.h5", path=path, format=format_)
    assert format_ in message
    assert fitting in message


async def test_dtype_that_does_not_fit(app: Any) -> None:
    message = await _refused(app, 422, "/data", file="good.h5", path="/text", dtype="safe")
    assert "safe" in message


@pytest.mark.parametrize("format_", ["json", "bin", "npy"])
async def test_filter_that_is_not_installed(app: Any, format_: str) -> None:
    given = {"file": "good.h5", "path": "/unknown_filter"}
    message = await _refused(app, 501, "/data", **given, format=format_)
    assert str(UNKNOWN_FILTER) in message
    assert "install" in message
    assert str(UNKNOWN_FILTER) in await _refused(app, 501, "/stats", **given)
    async with client(app) as asker:
        answer = await asker.get("/meta", params=given)
    assert answer.json()["filters"] == [{"id": UNKNOWN_FILTER, "name": ""}]


async def test_answer_over_the_limit(root: Path) -> None:
    limited = service.H5App(root, service_settings(max_response_bytes=1000))
    given = {"file": "good.h5", "path": "/values"}
    for format_ in ("json", "bin", "npy", "csv", "msgpack", "tiff", *ARROW):
        message = await _refused(limited, 413, "/data", **given, format=format_)
        assert "2000" in message
        assert "1000" in message
        assert "selection" in message
    async with client(limited) as asker:
        for selection in ("0", ":5", "::2"):
            answer = await asker.get("/data", params={**given, "selection": selection})
            assert answer.status_code == 200, answer.text


def service_settings(**given: Any) -> Any:
    from asgihive import H5Settings  # noqa: PLC0415  # a public name that another room writes

    return H5Settings(**given)


@pytest.mark.parametrize("path", ["/gzip", "/fletcher32"])
@pytest.mark.parametrize("format_", ["json", "bin"])
async def test_damaged_chunk(root: Path, path: str, format_: str) -> None:
    app = service.H5App(root)
    given = {"file": "damaged.h5", "path": path}
    message = await _refused(app, 500, "/data", **given, format=format_, selection="32:48")
    assert path in message
    assert "chunk" in message
    assert path in await _refused(app, 500, "/stats", **given)
    async with client(app) as asker:
        intact = await asker.get("/data", params={**given, "selection": "0:32"})
        assert intact.json() == list(range(32))


async def test_router_404(app: Any) -> None:
    for url in ("/nothing", "/meta/more", "/datas", "/data//", "/META"):
        await _refused(app, 404, url, file="good.h5")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"])
@pytest.mark.parametrize("route", ["/", *ROUTES])
async def test_other_methods(app: Any, route: str, method: str) -> None:
    async with client(app) as asker:
        answer = await asker.request(method, route, params={"file": "good.h5"})
    assert answer.status_code == 405
    assert _message(answer)
    allowed = {each.strip() for each in answer.headers["allow"].split(",")}
    assert allowed == {"GET", "HEAD"}


_ANSWERED: list[tuple[str, dict[str, str]]] = [
    ("/", {}),
    ("/meta", {"file": "good.h5"}),
    ("/attr", {"file": "good.h5", "path": "/group"}),
    *(("/data", {"file": "good.h5", "path": "/values", "format": each})
      for each in ("json", "bin", "npy", "csv", "tiff", "msgpack", *ARROW)),
    ("/data", {"file": "good.h5", "path": "/scalar", "selection": "...", "flatten": "true"}),
    ("/stats", {"file": "good.h5", "path": "/values"}),
    ("/paths", {"file": "good.h5"}),
    ("/meta", {"file": "no.h5"}),
    ("/data", {"file": "good.h5", "path": "/nothing"}),
    ("/data", {}),
    ("/nothing", {}),
]  # fmt: skip


@pytest.mark.parametrize(("route", "parameters"), _ANSWERED)
async def test_head_is_get_without_a_body(app: Any, route: str, parameters: dict[str, str]) -> None:
    """RFC 9110, section 9.3.2: the header fields of GET, and no content."""
    async with client(app) as asker:
        get = await asker.get(route, params=parameters)
        head = await asker.head(route, params=parameters)
    assert head.status_code == get.status_code
    assert head.content == b""
    assert untimed(head.headers) == untimed(get.headers)


def untimed(headers: Any) -> dict[str, str]:
    """Without what each answer takes of its own."""
    return {name: value for name, value in headers.items() if name != "server-timing"}


@pytest.mark.parametrize(("route", "parameters"), _ANSWERED[1:-1])
async def test_trailing_slash_is_the_same(app: Any, route: str, parameters: dict[str, str]) -> None:
    async with client(app) as asker:
        plain = await asker.get(route, params=parameters)
        slashed = await asker.get(f"{route}/", params=parameters)
    assert slashed.status_code == plain.status_code
    assert slashed.content == plain.content


async def test_root_is_ok(app: Any) -> None:
    async with client(app) as asker:
        answer = await asker.get("/")
    assert answer.status_code == 200
    assert answer.text == "ok"
    assert answer.headers["content-type"].split(";")[0] == "text/plain"


@pytest.mark.parametrize("word", ["true", "1", "yes", "on", "TRUE", "Yes"])
async def test_words_for_true_and_false(app: Any, word: str) -> None:
    opposite = {"true": "false", "1": "0", "yes": "no", "on": "off"}[word.lower()]
    given = {"file": "good.h5", "path": "/values", "selection": ":2,:2"}
    async with client(app) as asker:
        flat = await asker.get("/data", params={**given, "flatten": word})
        nested = await asker.get("/data", params={**given, "flatten": opposite})
    assert flat.json() == [0, 1, 25, 26]
    assert nested.json() == [[0, 1], [25, 26]]


_UNREADABLE = """
import asyncio, os, sys
import httpx
from asgihive.service import H5App
root = sys.argv[1]
app = H5App(root)
async def ask(*files):
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as asker:
        for file in files:
            answer = await asker.get("/meta", params={"file": file})
            print(answer.status_code, answer.text)
asyncio.run(ask("open.h5"))  # whatever is imported late may lie where only root can read
if os.geteuid() == 0:
    os.setegid(65534)
    os.seteuid(65534)
asyncio.run(ask("secret.h5", "closed/inner.h5", "open.h5"))
"""


def test_unreadable_file() -> None:
    """In a process of its own, because root may read everything."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        (root / "closed").mkdir()
        for name in ("secret.h5", "open.h5", "closed/inner.h5"):
            with h5py.File(root / name, "w") as file:
                file["x"] = 1
            (root / name).chmod(0o644)
        (root / "secret.h5").chmod(0)
        (root / "closed").chmod(0)
        try:
            process = subprocess.run(
                [sys.executable, "-c", _UNREADABLE, folder],
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            )
        finally:
            (root / "closed").chmod(0o755)
    _, secret, closed, readable = process.stdout.splitlines()
    assert secret.startswith("403 ")
    assert "Permission denied" in secret
    assert closed.split(" ", 1)[0] in {"403", "404"}
    assert readable.startswith("200 ")
