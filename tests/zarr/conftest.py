"""What the tests of Zarr stores share: the zoo, a service of some files, a reader of trees."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from asgihive.hdf5 import sandbox
from asgihive.service import H5App
from tests.service.conftest import zoo
from tests.zarr.reading import Reader
from tests.zarr.serving import make_root

__all__ = ["reader", "zoo"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_root(tmp_path_factory.mktemp("data") / "served")


@pytest.fixture(scope="module")
def app(root: Path) -> H5App:
    return H5App(root)


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    """A reader of the files in `tmp_path`, which are written just before they are read."""
    monkeypatch.setattr(sandbox, "FINE_TICK_NS", 0)
    found = Reader(tmp_path)
    yield found
    found.pool.close()
