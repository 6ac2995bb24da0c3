"""`docs/zarr.md`: the statuses are those of a service, and its code reads what is there."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from asgihive import H5App
from asgihive.settings import H5Settings, describe_settings
from tests.cli.processes import PATIENCE
from tests.docs.page import Page
from tests.service.servers import client, serving

ZARR = Page("docs/zarr.md", ("python", "console", "text"))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root: Path = tmp_path_factory.mktemp("data")
    (root / "2026").mkdir()
    (root / "notes.txt").write_text("not HDF5")
    for name in ("run.h5", "2026/run.h5"):
        with h5py.File(root / name, "w") as file:
            file["counts"] = np.arange(10)
            file["entry/data"] = np.arange(3)
    with serving(H5App(root), "uvicorn-httptools") as url:
        yield url


def test_the_statuses(url: str) -> None:
    with client(url) as asker:
        for asked, status in ZARR.table("| asked for | status |"):
            assert asker.get(f"/zarr/{asked}").status_code == int(status), asked


def test_the_urls(url: str) -> None:
    rows = [each for each, _ in ZARR.table("| URL behind `/zarr/` | is |")]
    with client(url) as asker:
        version = asker.get("/zarr/run.h5/zarr.json").json()["attributes"]["_asgihive_version"]
        for row in rows:
            for each in row.replace("VERSION", version).split(", "):
                is_key = each.rpartition("/")[2][:1] in {"z", "0"}
                got = asker.get(f"/zarr/{each}" if is_key else f"/zarr/{each}/zarr.json")
                assert got.status_code == 200, each


def test_the_settings() -> None:
    settings = describe_settings(H5Settings)
    rows = ZARR.table("| setting | default | |")
    assert [name for name, _, _ in rows] == [each for each in settings if each.startswith("zarr")]
    for name, default, _ in rows:
        assert settings[name].read(default) == settings[name].default


def test_the_code(url: str, tmp_path: Path) -> None:
    pytest.importorskip("xarray")
    pytest.importorskip("zarr")
    pytest.importorskip("aiohttp")
    [(name, code)] = ZARR.code().items()
    (tmp_path / name).write_text(code.replace("http://127.0.0.1:8000", url))
    done = subprocess.run(
        [sys.executable, name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout == "[1 2]\n", done.stderr
