"""Every entity of many files, opened here and in h5web over h5grove: no more errors here.

`TEST_HDF5_DIRECTORY` names a directory of more files to open, each with all its entities.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import httpx
import numpy as np
import pytest

from asgihive.cli.demo_files import write_demo
from asgihive.service import H5App
from benchmarks.client import BenchmarkError
from benchmarks.questions.viewer_first_image import build_bare_page
from tests import zoo
from tests.browser.browsing import PATIENCE, Tab
from tests.browser.entities import Shown, list_entities, open_entities
from tests.browser.nexus_files import write_nexus
from tests.service.servers import serving
from tests.zoo import names

_DIRECTORY = "TEST_HDF5_DIRECTORY"

FOREIGN = Path(os.environ[_DIRECTORY]) if _DIRECTORY in os.environ else None

# h5web has no way to show these, whatever serves them, and says so.
_OF_H5WEB = {
    "Expected number": "a member of a compound that is neither a number nor text",
    "Abscissas have undefined domain": "a line without points",
    "signal entity to exist": "NXdata whose signal is not there",
    "Expected array to have length": "an axis of NXdata that does not fit its signal",
    "Expected some value": "NXnote without data",
}

# What SwiftShader draws takes its time by the pixel.
SMALL = {"width": 800, "height": 600}

_SUFFIXES = {".h5", ".hdf5", ".nxs", ".nx5"}

Write = Callable[[Path], None]


def _list_files(root: Path) -> list[str]:
    found = (each for each in root.rglob("*") if each.suffix in _SUFFIXES and each.is_file())
    return sorted(str(each.relative_to(root)) for each in found)


def _find_entities(root: Path) -> dict[str, list[str]]:
    with serving(H5App(root), "uvicorn-httptools") as url:
        return {file: list_entities(url, file) for file in _list_files(root)}


def _open_all(
    tab: Tab, address: str, entities: dict[str, list[str]]
) -> dict[tuple[str, str], Shown]:
    return {
        (file, path): shown
        for file, paths in entities.items()
        for path, shown in open_entities(tab, address, file, paths).items()
    }


@pytest.fixture(scope="module")
def bare_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """h5web alone, built once."""
    folder: Path = tmp_path_factory.mktemp("bare") / "h5web_bare"
    try:
        build_bare_page(folder, np.random.default_rng(0))
    except BenchmarkError as error:
        pytest.skip(str(error))
    return folder


@contextmanager
def _serve_bare(bare: ModuleType, bare_page: Path, root: Path, copy: Path) -> Iterator[str]:
    """Serve h5web over h5grove; HDF5 in one process cannot open a file in two ways."""
    shutil.copytree(root, copy, symlinks=True)
    shutil.copytree(bare_page, copy / bare_page.name)
    with serving(bare.create(str(copy)), "uvicorn-httptools") as url:
        yield f"{url}/view/"


def find_worse(
    tab: Tab, bare_page: Path, root: Path, copy: Path, ours: dict[tuple[str, str], Shown]
) -> Iterator[str]:
    """Yield where h5web shows an entity over h5grove that the page does not.

    Only what the page does not show is opened there.
    """
    reason = "h5grove is not installed: the extra bench"
    bare = pytest.importorskip("benchmarks.apps.h5web_bare", reason=reason)
    suspects = dict[str, list[str]]()
    for (file, path), shown in ours.items():
        if shown.boxes or shown.isMissing or shown.isEmpty:
            suspects.setdefault(file, []).append(path)
    with _serve_bare(bare, bare_page, root, copy) as address:
        theirs = _open_all(tab, address, suspects)
    for (file, path), other in theirs.items():
        shown = ours[file, path]
        if (
            len(shown.boxes) > len(other.boxes)
            or (shown.isMissing and not other.isMissing)
            or (shown.isEmpty and not (other.isEmpty or other.isMissing or other.boxes))
        ):
            yield f"{file} {path}: {shown.boxes or shown}; h5grove: {other.boxes or other}"


def _copy_foreign(root: Path) -> None:
    assert FOREIGN is not None
    shutil.copytree(FOREIGN, root, symlinks=True, dirs_exist_ok=True)


needs_directory = pytest.mark.skipif(FOREIGN is None, reason=f"{_DIRECTORY} names none")


@pytest.mark.parametrize(
    ("write", "explained"),
    [
        pytest.param(write_demo, (), id="demo"),
        pytest.param(write_nexus, tuple(_OF_H5WEB), id="nexus"),
        pytest.param(names.write, (), id="names"),
        pytest.param(_copy_foreign, ("",), id="foreign", marks=needs_directory),
    ],
)
def test_each_entity_is_shown_here_if_h5grove_shows_it(
    tabs: Callable[..., Tab],
    bare_page: Path,
    tmp_path: Path,
    write: Write,
    explained: tuple[str, ...],
) -> None:
    """And has a box only for what h5web cannot show, of which the sample files have nothing."""
    root = tmp_path / "files"
    root.mkdir()
    write(root)
    tab, other = tabs(size=SMALL), tabs(size=SMALL)
    for words in explained:
        tab.allow(words)
    other.allow("")  # what h5grove cannot tell is on the console, too
    entities = _find_entities(root)
    with serving(H5App(root), "uvicorn-httptools") as url:
        shown = _open_all(tab, f"{url}/view/", entities)
    assert len(shown) > 20
    unexplained = {
        place: each
        for place, each in shown.items()
        if each.isMissing or not all(any(words in box for words in explained) for box in each.boxes)
    }
    worse = list(find_worse(other, bare_page, root, tmp_path / "h5grove", shown))
    assert not worse, "\n".join(worse)
    if write is not _copy_foreign:
        assert unexplained == {}


@pytest.fixture(scope="module")
def zoo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("zoo")
    zoo.build(root)
    return root


@pytest.mark.parametrize("file", ["types.h5", "links.h5", "layouts.h5", "filters.h5"])
def test_the_zoo_has_boxes_where_the_service_has_no_values(
    tab: Tab, serve: Callable[..., str], zoo_root: Path, file: str
) -> None:
    tab.allow("status of (404|422|500|501) ")  # what a box says then
    for words in _OF_H5WEB:
        tab.allow(words)
    url = serve(zoo_root)
    wrong = []
    for path, shown in open_entities(tab, f"{url}/view/", file, list_entities(url, file)).items():
        asked = {"file": file, "path": path, "format": "json"}
        answer = httpx.get(f"{url}/data", params=asked, timeout=PATIENCE, trust_env=False)
        # A group has no values, and no box.
        is_refused = answer.is_error and "is a group" not in answer.json()["message"]
        if not is_refused and not all(map(_is_explained, shown.boxes)):
            wrong.append((path, shown.boxes))
    assert not wrong


def _is_explained(box: str) -> bool:
    return any(words in box for words in _OF_H5WEB)
