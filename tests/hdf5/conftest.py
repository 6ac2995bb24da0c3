"""What the tests of files share: a clock that needs no waiting for, and a fresh directory."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from asgihive.hdf5 import sandbox


@pytest.fixture(scope="session", autouse=True)
def trusted_clock() -> Iterator[None]:
    """Files are written just before they are read; none is changed within a tick."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox, "FINE_TICK_NS", 0)
        yield


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A served directory with an unserved neighbour."""
    served = tmp_path / "served"
    served.mkdir()
    (tmp_path / "outside").mkdir()
    return served
