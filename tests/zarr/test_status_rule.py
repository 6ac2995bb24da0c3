"""404 is metadata that are not there, and nothing else: a chunk that is 404 is fill values."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asgihive.hdf5.chunks import ChunkedStorage
from asgihive.service import H5App
from asgihive.settings import H5Settings
from asgihive.zarr.keys import PROBES
from tests.efforts import at_most
from tests.zarr.serving import FILES, ask, make_root

pytestmark = pytest.mark.anyio


NODES = ("", "/line", "/number", "/entry", "/entry/image", "/empty", "/c", "/c/0")
ARRAYS = ("/line", "/number", "/entry/image")
NO_NODES = ("/no", "/line/below", "/entry/no/image", "/lost", "/outside", "/type")
NO_FILES = ("no.h5", "folder", "dir.h5", "dir.h5/below", "folder/no.h5", "../outside.h5", "x.h5x")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("node", NODES)
async def test_metadata_of_every_node(app: H5App, file: str, node: str) -> None:
    got = await ask(app, f"/zarr/{file}{node}/zarr.json")
    assert (got.status, got.headers["content-type"]) == (200, "application/json")
    assert got.json["zarr_format"] == 3
    assert got.json["node_type"] == ("array" if node in ARRAYS else "group")
    head = await ask(app, f"/zarr/{file}{node}/zarr.json", "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(got.body))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("key", sorted(PROBES))
async def test_probes(app: H5App, key: str, method: str) -> None:
    """Whatever they are of, and whatever is wrong with it."""
    files = (*FILES, *NO_FILES, "notes.txt", "")
    for url in (*(f"x.h5{node}" for node in (*NODES, *NO_NODES)), *files):
        got = await ask(app, f"/zarr/{url}/{key}", method)
        assert got.status == 404, url


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_metadata_that_are_not_there(app: H5App, method: str) -> None:
    for url in (*(f"x.h5{node}" for node in NO_NODES), *NO_FILES):
        got = await ask(app, f"/zarr/{url}/zarr.json", method)
        assert (got.status, got.headers["cache-control"]) == (404, "no-store"), url
    assert (await ask(app, "/zarr/zarr.json", method)).status == 404


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_chunks_of_what_is_not_there(app: H5App, method: str) -> None:
    for url in (*(f"x.h5{node}" for node in NO_NODES if node != "/type"), *NO_FILES):
        for key in ("c/0", "c", "c/0/0"):
            got = await ask(app, f"/zarr/{url}/{key}", method)
            assert (got.status, got.headers["cache-control"]) == (410, "no-store"), url


async def test_chunks_of_what_is_no_array(app: H5App) -> None:
    for url in ("x.h5", "x.h5/entry", "x.h5/empty", "x.h5/type", "notes.txt", "notes.txt/a"):
        got = await ask(app, f"/zarr/{url}/c/0")
        assert got.status == 422, url
    assert "not a readable HDF5 file" in (await ask(app, "/zarr/notes.txt/zarr.json")).message


@pytest.mark.parametrize(
    "key",
    [
        *("c", "c/1", "c/0/0", "c/10", "c/9223372036854775807", "c/" + "0/" * 63 + "0"),
        *("c/-1", "c/+0", "c/00", "c/01", "c/1e3", "c/0.0", "c/0x0", "c/ 0", "c/0 ", "c/0_0"),
        *("c/\u0660", "c/\uff10", "c/\u00b2", "c/0/", "c//0", "c/", "c/" + "9" * 5000, "C/0"),
        *("0", "", "c0", "c.0", "chunk/0", "zarr.jso", "c/0/x", "c/" + "0/" * 3000 + "0"),
    ],
)
async def test_forged_chunks(app: H5App, key: str) -> None:
    """Of an array of one dimension, which has one chunk."""
    got = await ask(app, f"/zarr/x.h5/line/{key}")
    assert got.status == 422
    assert got.message
    assert (await ask(app, "/zarr/x.h5/line/c/0")).status == 200


async def test_forged_chunks_of_other_arrays(app: H5App) -> None:
    for url in ("number/c/0", "number/c/0/0", "entry/image/c/0", "entry/image/c/99/0"):
        assert (await ask(app, f"/zarr/x.h5/{url}")).status == 422, url
    assert (await ask(app, "/zarr/x.h5/number/c")).status == 200


@pytest.mark.parametrize("end", ["", "/"])
async def test_what_is_no_key(app: H5App, end: str) -> None:
    """As a listing, and what fsspec makes of a name with `#`: it must not be fill values."""
    for url in ("x.h5", "x.h5/line", "x.h5/entry", "x.h5/no", "no.h5"):
        got = await ask(app, f"/zarr/{url}{end}")
        assert got.status == 422
        assert "open_zarr" in got.message


async def test_methods(app: H5App) -> None:
    for url in ("x.h5", "x.h5/zarr.json", "x.h5/line/c/0", "no.h5/"):
        for method in ("PROPFIND", "POST", "PUT", "DELETE"):
            got = await ask(app, f"/zarr/{url}", method)
            assert (got.status, got.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("name", ["again", "once_again"])
async def test_a_loop_of_links(tmp_path: Path, name: str) -> None:
    """Leads to what is there by as many names as anybody needs, and then to nothing, at once.

    To walk thousands took a minute.
    """
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["line"] = np.arange(3)
        file[name] = file["/"]
    app = H5App(tmp_path)
    for count, statuses in ((400, (200, 200, 404, 410)), (9000, (404, 422, 404, 422))):
        before = f"/zarr/x.h5/{name}" + f"/{name}" * (count - 1)
        keys = ("line/zarr.json", "line/c/0", "no_/zarr.json", "no_/c/0")
        found = [(await ask(app, f"{before}/{key}")).status for key in keys]
        assert tuple(found) == statuses, count


async def test_nothing_leads_out(app: H5App) -> None:
    for url in ("../outside.h5", "folder/../x.h5", "x.h5/../x.h5", "x.h5/entry/../line"):
        assert (await ask(app, f"/zarr/{url}/zarr.json")).status == 404
        assert (await ask(app, f"/zarr/{url}/c/0")).status == 410


@pytest.mark.slow_on_trio
async def test_a_link_of_the_file_system_that_leads_out(tmp_path: Path) -> None:
    """Is as missing as one that leads nowhere, message and all."""
    root = make_root(tmp_path / "served")
    (root / "x.link").symlink_to("../outside.h5")
    (root / "y.link").symlink_to("../nothing.h5")
    (root / "up").symlink_to("..")
    app = H5App(root)
    for key, status in (("zarr.json", 404), ("line/zarr.json", 404), ("line/c/0", 410)):
        out, nowhere = [await ask(app, f"/zarr/{each}.link/{key}") for each in "xy"]
        assert (out.status, nowhere.status) == (status, status)
        assert out.message.replace("x.link", "y.link") == nowhere.message
        out, nowhere = [await ask(app, f"/zarr/up/{each}.h5/{key}") for each in ("outside", "no")]
        assert out.message.replace("outside", "no") == nowhere.message


async def test_a_parameter_that_is_misspelt(app: H5App) -> None:
    assert (await ask(app, "/zarr/x.h5/zarr.json?V=1")).status == 422
    assert (await ask(app, "/zarr/x.h5/line/c/0?x=1&b/c/0")).status == 200


async def test_damaged_chunks_are_errors(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never 404, and what is not there of a source neither."""
    from asgihive import errors  # noqa: PLC0415

    app = H5App(root, H5Settings(chunk_cache_bytes=0, zarr_cache_bytes=0))
    statuses = [
        (errors.DamagedData("x.h5", "/entry/image"), 500),
        (errors.SourceRefused("x.h5", "/entry/image", "y.h5", "outside"), 410),
        (errors.LinkUnresolved("x.h5", "/entry/image"), 410),
        (errors.FilterMissing("x.h5", "/entry/image", 1, "x"), 501),
    ]
    for error, status in statuses:

        def fail(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr(ChunkedStorage, "read", fail)
        got = await ask(app, "/zarr/x.h5/entry/image/c/0/0")
        assert got.status == status, error
        assert got.message == str(error)


WORDS = (
    "line",
    "number",
    "entry",
    "image",
    "c",
    "0",
    "1",
    "zarr.json",
    ".zarr",
    "x.h5.zarr",
    "info",
)

PARTS = st.one_of(
    st.sampled_from((*FILES, *NO_FILES, *WORDS)),
    st.sampled_from(["", ".", "..", "@" + "0" * 32, "c/0", "\ufffd", "\0"]),
    st.text(max_size=8),
)


@given(st.lists(PARTS, max_size=9), st.sampled_from(["", "?v=1", "?v=", "?%FF", "?v=1&v=2"]))
@settings(
    max_examples=at_most(300),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@pytest.mark.slow_on_trio
async def test_any_path(app: H5App, parts: list[str], query: str) -> None:
    path = "/".join(parts).replace("?", "_")
    got = await ask(app, f"/zarr/{path}{query}")
    assert got.status in {200, 404, 410, 422}
    last = path.rpartition("/")[2]
    if got.status == 404:
        assert last in {"zarr.json", *PROBES}


@given(st.sampled_from(ARRAYS), st.text(max_size=12), st.lists(st.integers(0, 3), max_size=3))
@settings(
    max_examples=at_most(200),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@pytest.mark.slow_on_trio
async def test_any_key_of_an_array(
    app: H5App, array: str, text: str, coordinates: list[int]
) -> None:
    for key in (text.replace("?", "_"), "/".join(["c", *map(str, coordinates)])):
        got = await ask(app, f"/zarr/x.h5{array}/{key}")
        assert got.status in {200, 410, 422} or key.endswith(("zarr.json", *PROBES))


async def test_switched_off(root: Path) -> None:
    app = H5App(root, H5Settings(zarr=False))
    assert (await ask(app, "/zarr/x.h5/zarr.json")).status == 404
    assert "/zarr/{path}" not in (await ask(app, "/openapi.json")).json["paths"]
