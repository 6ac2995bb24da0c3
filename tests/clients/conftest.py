"""One server of all files, and the clients, each skipped where it is not installed."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import zoo
from tests.cli.processes import running

with contextlib.suppress(ImportError):
    # Before netCDF4, which lets libhdf5 find plugins of another libhdf5 otherwise.
    import hdf5plugin  # noqa: F401

SESSION_SECONDS = 3600.0
"""After so long a server that was left is ended."""


@dataclass(frozen=True, slots=True)
class Served:
    """A directory, and the URL below which its files are Zarr stores."""

    root: Path
    base: str
    """Of the service itself."""

    @property
    def url(self) -> str:
        return f"{self.base}/zarr/"


@pytest.fixture(scope="session")
def files_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the files of `tests.clients.files`, and the zoo in its folder `zoo`."""
    for module in ("hdf5plugin", "netCDF4", "h5netcdf", "xarray"):
        pytest.importorskip(module, reason=f"{module} is not installed: extra test-clients")
    from tests.clients import files  # noqa: PLC0415  # imports what may not be there

    root = tmp_path_factory.mktemp("clients")
    files.write_files(root)
    files.damage_chunk(root / "damaged.h5")
    (root / "zoo").mkdir()
    zoo.build(root / "zoo")
    return root


@pytest.fixture(scope="session")
def served(files_root: Path) -> Iterator[Served]:
    """A server in a process of its own, which pages of every origin may read."""
    arguments = ("serve", str(files_root), "--port", "0", "--cors", "*")
    with pytest.MonkeyPatch.context() as patch:
        # netCDF4 sets it, for a libhdf5 of its own.
        patch.delenv("HDF5_PLUGIN_PATH", raising=False)
        with running(*arguments, patience=SESSION_SECONDS) as server:
            yield Served(files_root, server.url.rstrip("/"))


def _import(module: str) -> Any:
    return pytest.importorskip(module, reason=f"{module} is not installed: extra test-clients")


@pytest.fixture(scope="session")
def xr() -> Any:
    """Return xarray, with what it reads local files by and HTTP."""
    for module in ("netCDF4", "h5netcdf", "zarr", "fsspec", "aiohttp"):
        _import(module)
    return _import("xarray")


@pytest.fixture(scope="session")
def zarr() -> Any:
    for module in ("fsspec", "aiohttp"):
        _import(module)
    return _import("zarr")


@pytest.fixture(scope="session")
def obstore() -> Any:
    return _import("obstore")


@pytest.fixture(scope="session")
def dask() -> Any:
    return _import("dask.array") and _import("dask")


@pytest.fixture(scope="session")
def distributed() -> Any:
    return _import("distributed")


@pytest.fixture(scope="session")
def tensorstore() -> Any:
    return _import("tensorstore")
