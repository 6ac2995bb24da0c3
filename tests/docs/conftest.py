"""A folder with the files of the migration page and data to serve."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.docs.page import MIGRATION

LARGE_BYTES = 24 << 20  # more than the buffers of two sockets hold


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Also the current one, as it is for who types the page's code in."""
    MIGRATION.write_files(tmp_path)
    (tmp_path / "data").mkdir()
    with h5py.File(tmp_path / "data" / "x.h5", "w") as file:
        file["group/small"] = np.arange(24, dtype="<f8").reshape(4, 6)
        file["group/small"].attrs["unit"] = "counts"
        file["large"] = np.zeros(LARGE_BYTES, "u1")
    monkeypatch.chdir(tmp_path)
    return tmp_path
