"""What every command is tried with."""

import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest

from asgihive.settings import ENVIRONMENT_PREFIX


@pytest.fixture(autouse=True)
def no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(ENVIRONMENT_PREFIX)]:
        monkeypatch.delenv(name)


@pytest.fixture
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the tests are run in."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(sys, "__stdout__", None)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    directory.mkdir()
    with h5py.File(directory / "x.h5", "w") as file:
        file["values"] = np.arange(5)
    return directory


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Writes files by their paths into the current directory, which is an empty one.

    What is imported from there is forgotten afterwards.
    """
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)

    def write_files(files: Mapping[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text), encoding="utf-8")
        return tmp_path

    yield write_files
    new = [name for name in sys.modules if name not in before]
    for name in [name for name in new if _is_below(tmp_path, sys.modules[name])]:
        del sys.modules[name]


def _is_below(root: Path, module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    places = [file] if file else getattr(module, "__path__", ())
    return any(Path(str(each)).is_relative_to(root) for each in places)
