"""The zoo, once a session, and one service over it."""

import contextlib
from pathlib import Path
from typing import Any

import pytest

from tests import zoo as animals
from tests.zoo import oracle

with contextlib.suppress(ImportError):  # h5py reads some filters of the zoo only with it
    import hdf5plugin  # noqa: F401


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `tests.zoo.FILES` and the awkward file."""
    root = tmp_path_factory.mktemp("zoo")
    animals.build(root)
    for file in animals.FILES:
        oracle.read(root, file)
    return root


@pytest.fixture(scope="session")
def zoo_app(zoo: Path) -> Any:
    """One service for every test, so for one event loop after the other."""
    from asgihive.service import H5App  # noqa: PLC0415  # h5grove is tested without it

    return H5App(zoo)
