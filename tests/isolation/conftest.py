"""A directory of files with faults, and a service in isolation over it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asgihive.isolation import process
from asgihive.service import H5App
from asgihive.settings import H5Settings
from tests.isolation import doubles
from tests.isolation.isolated import close


@pytest.fixture(
    params=[
        pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
        # Each test starts processes, which takes most of its time.
        pytest.param(("trio", {}), id="trio", marks=pytest.mark.slow),
    ]
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    backend: tuple[str, dict[str, object]] = request.param
    return backend


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    root.mkdir()
    doubles.write(root / "good.h5")
    return root


@pytest.fixture
def app(
    root: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[H5App]:
    """With the settings of `@limited(…)`; its processes have faults, and are gone at the end."""
    monkeypatch.setattr(process, "MODULE", doubles.MODULE)
    given: dict[str, Any] = {
        "isolation": "process",
        "decode_lanes": 2,
        "read_timeout_seconds": 120.0,
    }
    given |= getattr(request, "param", {})
    app = H5App(root, H5Settings(**given))
    yield app
    close(app)
