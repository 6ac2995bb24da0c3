"""What is between client and server, or in its way: proxies, prefixes, tokens, errors."""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any

import h5py
import httpx
import numpy as np
import pytest

from tests.cli.processes import PATIENCE, running
from tests.cli.site import needs_nginx, nginx
from tests.clients.conftest import Served
from tests.clients.stores import over_obstore

AIR = "weather.nc/air/c/0/0/0"


def counted(base: str) -> dict[str, int]:
    """What the server has answered below /zarr, by status."""
    found: dict[str, int] = {}
    for line in httpx.get(f"{base}/metrics", trust_env=False).text.splitlines():
        if line.startswith("asgihive_requests_total") and "/zarr" in line:
            status = line.partition('status="')[2].partition('"')[0]
            found[status] = found.get(status, 0) + int(float(line.rpartition(" ")[2]))
    return found


# Proxies

_SITE = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; {user}
events {{}}
http {{
    access_log off; {temporary}
    proxy_cache_path {folder}/cache keys_zone=zarr:1m;
    server {{
        listen unix:{folder}/nginx;
        listen 127.0.0.1:{port};
        location /science/ {{
            proxy_pass {base}/;
            proxy_cache zarr;
            proxy_cache_valid 200 1m;
            proxy_ignore_headers Cache-Control;
            add_header X-Cache $upstream_cache_status always;
        }}
    }}
}}
"""


@pytest.fixture
def proxied(served: Served) -> Iterator[Served]:
    """The server behind nginx, below another path, with a cache of its own."""
    with tempfile.TemporaryDirectory(prefix="site-") as name:
        folder = Path(name)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        temporary = " ".join(
            f"{each}_temp_path {folder}/{each};"
            for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(
            _SITE.format(folder=folder, port=port, temporary=temporary, user=user, base=served.base)
        )
        with nginx(folder / "nginx.conf"):
            yield Served(served.root, f"http://127.0.0.1:{port}/science")


@needs_nginx
@pytest.mark.slow
def test_a_second_reader_takes_chunks_from_the_cache(
    xr: Any, served: Served, proxied: Served
) -> None:
    def read() -> Any:
        with xr.open_zarr(proxied.url + "weather_h5.nc", chunks=None) as remote:
            return remote.load()

    end = monotonic() + PATIENCE
    while "etag" not in httpx.head(served.url + AIR, trust_env=False).headers:
        assert monotonic() < end  # a file that was written just now has none
    first = read()
    before = counted(served.base)
    assert before["200"] > 0
    xr.testing.assert_identical(read(), first)
    after = counted(served.base)
    # What is not there, so that clients look for it, is not kept by this cache.
    assert after["200"] == before["200"]
    with xr.open_dataset(served.root / "weather_h5.nc") as local:
        xr.testing.assert_equal(first, local)


@pytest.mark.slow
def test_a_prefix(xr: Any, zarr: Any, files_root: Path) -> None:
    arguments = ("serve", str(files_root), "--port", "0", "--prefix", "/science/data")
    with running(*arguments) as server:
        base = server.url.rstrip("/").removesuffix("/science/data")
        url = f"{base}/science/data/zarr/weather.nc"
        with xr.open_dataset(files_root / "weather.nc") as local:
            xr.testing.assert_equal(xr.open_zarr(url, chunks=None), local)
        assert zarr.open_array(f"{url}/scalar", mode="r")[()] == 4.5


# Tokens

TOKEN = "5HjY0hZ1kQ"  # of a test


@pytest.fixture(scope="module")
def guarded(files_root: Path) -> Iterator[Served]:
    """A server that wants a token."""
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ASGIHIVE_TOKEN", TOKEN)
            arguments = ("serve", str(files_root), "--port", "0")
            server = stack.enter_context(running(*arguments, patience=600))
        yield Served(files_root, server.url.rstrip("/"))


HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@pytest.mark.slow
def test_a_token_by_fsspec(xr: Any, zarr: Any, guarded: Served) -> None:
    options = {"client_kwargs": {"headers": HEADERS}}
    url = guarded.url + "weather.nc"
    with xr.open_dataset(guarded.root / "weather.nc") as local:
        with xr.open_zarr(url, chunks=None, storage_options=options) as remote:
            xr.testing.assert_equal(remote, local)
        with xr.open_dataset(f"{url}.zarr", storage_options=options) as remote:
            xr.testing.assert_equal(remote, local)
    assert zarr.open_array(f"{url}/scalar", mode="r", storage_options=options)[()] == 4.5
    for wrong in ({}, {"client_kwargs": {"headers": {"Authorization": "Bearer no"}}}):
        with pytest.raises(Exception, match=r"401|not found|No group|unauthorized") as refused:
            zarr.open_array(f"{url}/scalar", mode="r", storage_options=wrong)
        assert refused.value is not None


@pytest.mark.slow
def test_a_token_by_obstore(xr: Any, zarr: Any, obstore: Any, guarded: Served) -> None:
    store = over_obstore(guarded.url + "weather.nc", default_headers=HEADERS)
    with (
        xr.open_dataset(guarded.root / "weather.nc") as local,
        xr.open_zarr(store, chunks=None) as remote,
    ):
        xr.testing.assert_equal(remote, local)
    with pytest.raises(Exception, match="401"):
        zarr.open_array(over_obstore(guarded.url + "weather.nc/scalar"), mode="r")


@pytest.mark.slow
def test_a_token_by_tensorstore(tensorstore: Any, guarded: Served) -> None:
    kvstore = {
        "driver": "http",
        "base_url": guarded.url + "weather.nc/scalar/",
        "headers": [f"Authorization: Bearer {TOKEN}"],
    }
    spec = {"driver": "zarr3", "kvstore": kvstore}
    assert tensorstore.open(spec, open=True, read=True).result().read().result() == 4.5


# Errors: a client raises, and gives no fill values


def open_damaged(zarr: Any, served: Served, kind: str) -> Any:
    url = served.url + "damaged.h5/x"
    return zarr.open_array(over_obstore(url) if kind == "obstore" else url, mode="r")


@pytest.mark.parametrize("kind", ["fsspec", "obstore"])
def test_a_damaged_chunk(
    zarr: Any, served: Served, kind: str, request: pytest.FixtureRequest
) -> None:
    if kind == "obstore":
        request.getfixturevalue("obstore")
    array = open_damaged(zarr, served, kind)
    np.testing.assert_array_equal(array[:10], np.arange(10))
    with pytest.raises(Exception, match=r"500|chunk") as raised:
        array[200_000:200_010]
    assert not isinstance(raised.value, AssertionError)


@pytest.mark.parametrize(
    ("key", "statuses"),
    [
        ("weather.nc/air/c/99/0/0", {410, 422}),
        ("weather.nc/air/c/0/0", {410, 422}),
        ("weather.nc/air/c", {410, 422}),
        ("weather.nc/none/c/0", {410, 422}),
        ("weather.nc/air/c/0/0/-1", {410, 422}),
        ("weather.nc/air/0.0.0", {410, 422}),
        ("weather.nc/", {410, 422}),
        ("weather.nc", {410, 422}),
        ("none.nc/air/c/0/0/0", {410, 422}),
        ("weather.nc/none/zarr.json", {404}),
        ("weather.nc/.zgroup", {404}),
        ("weather.nc/air/.zarray", {404}),
        ("none.nc/zarr.json", {404}),
        ("damaged.h5/x/c/1", {500}),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_only_metadata_that_are_not_there_are_404(
    served: Served, method: str, key: str, statuses: set[int]
) -> None:
    answer = httpx.request(method, served.url + key, trust_env=False)
    assert answer.status_code in statuses


@pytest.mark.slow
def test_a_changed_file_is_no_mixture(zarr: Any, xr: Any, tmp_path: Path) -> None:
    """By a URL with its version, chunks of another one are refused."""

    def write(value: float) -> None:
        with h5py.File(tmp_path / "new", "w") as file:
            file.create_dataset("x", data=np.full(600_000, value), chunks=(300_000,))
        (tmp_path / "new").replace(tmp_path / "x.h5")

    write(1)
    with running("serve", str(tmp_path), "--port", "0") as server:
        url = f"{server.url}zarr/x.h5"
        version, end = None, monotonic() + PATIENCE
        while version is None:
            assert monotonic() < end
            version = zarr.open_group(url, mode="r").attrs.get("_asgihive_version")
        pinned = zarr.open_array(f"{url}/@{version}/x", mode="r")
        free = zarr.open_array(f"{url}/x", mode="r")
        assert pinned[0] == free[0] == 1
        write(2)
        with pytest.raises(Exception, match="410"):
            pinned[-1]
        assert free[-1] == 2
        with pytest.raises(Exception, match="410"):
            zarr.open_array(f"{url}/@{version}/x", mode="r")
