"""What is pictured of a file or a group that names no dataset: the NeXus default, or a search."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from asgihive.hdf5 import nexus
from asgihive.service import H5App
from tests.service.asking import ask

pytestmark = pytest.mark.anyio

IMAGE = np.arange(12.0).reshape(3, 4)


def add_group(parent: Any, name: str, nx_class: str, **attributes: Any) -> Any:
    group = parent.create_group(name)
    group.attrs.update({"NX_class": nx_class, **attributes})
    return group


def by_attributes(file: Any) -> None:
    file["first"] = IMAGE
    file.attrs["default"] = "entry"
    entry = add_group(file, "entry", "NXentry", default="data")
    add_group(entry, "other", "NXdata", signal="x")["x"] = IMAGE
    add_group(entry, "data", "NXdata", signal="wanted")["wanted"] = IMAGE


def by_a_path(file: Any) -> None:
    file["first"] = IMAGE
    file.attrs["default"] = "/entry/sub/data"
    entry = add_group(file, "entry", "NXentry")
    add_group(entry.create_group("sub"), "data", "NXdata", signal="wanted")["wanted"] = IMAGE


def by_classes(file: Any) -> None:
    file["a"] = IMAGE
    add_group(file, "b", "NXroot")
    entry = add_group(file, "entry", "NXentry")
    add_group(entry, "instrument", "NXinstrument")["x"] = IMAGE
    add_group(entry, "data", "NXdata", signal="wanted")["wanted"] = IMAGE


def by_older_attributes(file: Any) -> None:
    file["a"] = IMAGE
    data = add_group(add_group(file, "entry", "NXentry"), "data", "NXdata")
    data["other"] = IMAGE
    data["wanted"] = IMAGE
    data["wanted"].attrs["signal"] = 1


def by_fixed_strings(file: Any) -> None:
    file.attrs["default"] = np.bytes_("entry")
    entry = add_group(file, "entry", "NXentry")
    entry.attrs["default"] = np.array([b"data"])
    add_group(entry, "data", "NXdata", signal=np.array(["wanted"], object))["wanted"] = IMAGE


def by_links(file: Any) -> None:
    data = add_group(add_group(file, "entry", "NXentry"), "data", "NXdata", signal="wanted")
    file["hidden"] = IMAGE
    data["wanted"] = h5py.SoftLink("/hidden")
    file.attrs["default"] = "short"
    file["short"] = h5py.SoftLink("/entry")


def by_search(file: Any) -> None:
    file["line"] = np.arange(5)
    file["column"] = np.zeros((5, 1))
    file["empty"] = np.zeros((0, 5))
    file["text"] = [[b"a", b"b"], [b"a", b"b"]]
    file["complex"] = IMAGE + 1j
    file["below/deep"] = np.stack(5 * [IMAGE])
    file["mask"] = IMAGE
    file["wanted"] = np.stack([IMAGE, IMAGE])
    file["lost"] = h5py.SoftLink("/nowhere")


def by_search_where_the_default_leads_nowhere(file: Any) -> None:
    file.attrs["default"] = "missing"
    file["group/wanted"] = IMAGE


def by_search_in_cycles(file: Any) -> None:
    one, other = file.create_group("one"), file.create_group("other")
    one["other"], other["one"], one["self"] = other, one, one
    one.attrs["default"] = "other"
    other.attrs["default"] = "one"
    file.attrs["default"] = "one"
    other["wanted"] = IMAGE


PATHS: dict[Callable[[Any], None], str] = {
    by_attributes: "/entry/data/wanted",
    by_a_path: "/entry/sub/data/wanted",
    by_classes: "/entry/data/wanted",
    by_older_attributes: "/entry/data/wanted",
    by_fixed_strings: "/entry/data/wanted",
    by_links: "/short/data/wanted",
    by_search: "/wanted",
    by_search_where_the_default_leads_nowhere: "/group/wanted",
    by_search_in_cycles: "/other/wanted",
}


@pytest.mark.parametrize("write", PATHS, ids=lambda each: each.__name__)
async def test_a_file_is_pictured(tmp_path: Path, write: Callable[[Any], None]) -> None:
    with h5py.File(tmp_path / "x.h5", "w", track_order=True) as file:
        write(file)
    answer = await ask(H5App(tmp_path), "/image")
    assert answer.status == 200, answer.body
    assert answer.headers["x-asgihive-paths"] == PATHS[write]


async def test_a_group_is_pictured_by_its_own_default(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        by_attributes(file)
    app = H5App(tmp_path)
    answer = await ask(app, "/image", None, "GET", path="/entry/other")
    assert answer.headers["x-asgihive-paths"] == "/entry/other/x"


async def test_a_default_in_another_file_is_found(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "y.h5", "w") as file:
        add_group(file, "far", "NXdata", signal="wanted")["wanted"] = IMAGE
    with h5py.File(tmp_path / "x.h5", "w") as file:
        entry = add_group(file, "entry", "NXentry", default="data")
        entry["data"] = h5py.ExternalLink("y.h5", "/far")
        file["out"] = h5py.ExternalLink("../z.h5", "/")
        file.attrs["default"] = "entry"
    app = H5App(tmp_path)
    answer = await ask(app, "/image")
    assert answer.headers["x-asgihive-paths"] == "/entry/data/wanted"
    answer = await ask(app, "/image", None, "GET", path="/out")
    assert answer.status == 404


async def test_nothing_to_picture_is_not_found_in_words(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["line"] = np.arange(5)
    for route in ("/image", "/plot"):
        answer = await ask(H5App(tmp_path), route)
        assert answer.status == 404
        assert "no NeXus default" in answer.message


async def test_a_default_of_one_dimension_is_no_image(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        add_group(file, "data", "NXdata", signal="y")["y"] = np.arange(5)
    app = H5App(tmp_path)
    answer = await ask(app, "/image")
    assert (answer.status, "/plot shows one" in answer.message) == (422, True)
    assert (await ask(app, "/plot")).status == 200


async def test_the_search_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(tmp_path / "x.h5", "w", track_order=True) as file:
        for number in range(30):
            file[f"line_{number}"] = number
        file["image"] = IMAGE
    app = H5App(tmp_path)
    assert (await ask(app, "/image")).status == 200
    monkeypatch.setattr(nexus, "MAX_SEARCHED", 20)
    assert (await ask(H5App(tmp_path), "/image")).status == 404


async def test_virtual_datasets_are_pictured(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "source.h5", "w") as file:
        file["v"] = IMAGE
    with h5py.File(tmp_path / "x.h5", "w") as file:
        layout = h5py.VirtualLayout((2, 3, 4), "f8")
        layout[0] = h5py.VirtualSource("source.h5", "v", (3, 4))
        layout[1] = h5py.VirtualSource("missing.h5", "v", (3, 4))
        file.create_virtual_dataset("v", layout)
    app = H5App(tmp_path)
    answer = await ask(app, "/image")
    assert (answer.status, answer.headers["x-asgihive-paths"]) == (200, "/v")
    answer = await ask(app, "/image", None, "GET", path="/v", selection="1")
    assert answer.headers["missing-sources"].startswith("1 of 1")
