"""asgihive behind jupyter-server-proxy, as JupyterLab's launcher opens it."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec  # type: ignore[import-untyped]
import h5py
import httpx
import pytest

from tests.browser.browsing import PATIENCE, Tab

TOKEN = {"token": "of-jupyter"}


@pytest.fixture(scope="module")
def jupyter(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Jupyter server over the sample files, below a prefix as of a JupyterHub."""
    pytest.importorskip("jupyter_server_proxy", reason="the extra `jupyter` is not installed")
    home = str(tmp_path_factory.mktemp("jupyter"))
    command = [
        *(sys.executable, "-m", "jupyter_server", "--no-browser", "--ServerApp.port=0"),
        *(f"--ServerApp.root_dir={demo}", f"--IdentityProvider.token={TOKEN['token']}"),
        *("--ServerApp.base_url=/user/me/", "--ServerApp.allow_root=True"),
    ]
    places = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "HOME")
    environment = {**os.environ, **dict.fromkeys(places, home)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        guard = threading.Timer(4 * PATIENCE, process.kill)
        guard.start()
        try:
            yield _read_url(process)
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE)
            guard.cancel()
            guard.join()


def _read_url(process: "subprocess.Popen[str]") -> str:
    """Read the log up to the URL; the rest is read so that the server never waits for it."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if found := re.search(r"http://127\.0\.0\.1:\d+/user/me/", line):
            return found[0] + "asgihive"
    pytest.fail("".join(said))


def test_the_launcher_leads_to_the_page(tab: Tab, jupyter: str) -> None:
    tab.open(f"{jupyter}/view/?token={TOKEN['token']}")
    tab.page.get_by_text("demo.nxs").first.click()
    tab.wait_for_picture()
    tab.open(f"{jupyter}/")  # with Jupyter's cookie
    tab.page.get_by_text("demo.nxs").first.wait_for()


def test_its_answers_pass_the_proxy(jupyter: str) -> None:
    answer = httpx.get(f"{jupyter}/meta", params={"file": "demo.nxs", **TOKEN}, timeout=PATIENCE)
    assert answer.json()["kind"] == "group"
    assert httpx.get(f"{jupyter}/meta", params={"file": "demo.nxs"}).status_code in {302, 403}


def test_files_are_read_with_their_size_said(jupyter: str, demo: Path) -> None:
    """The proxy says of HEAD that the body has no bytes, which fsspec takes for the size."""
    url = f"{jupyter}/file/demo.nxs?token={TOKEN['token']}"
    assert httpx.head(url, timeout=PATIENCE).headers["content-length"] == "0"
    listed = httpx.get(f"{jupyter}/files", params=TOKEN).json()["entries"]
    (size,) = (each["size"] for each in listed if each["name"] == "demo.nxs")
    assert size == (demo / "demo.nxs").stat().st_size
    with fsspec.filesystem("http").open(url, size=size) as remote, h5py.File(remote) as file:
        assert file["/entry/images/data"].shape == (20, 128, 192)
