"""Objects opened by address, each way of it, and libhdf5 kept from following links."""

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5d, h5g, h5o, h5t

from asgihive.hdf5 import objects
from asgihive.hdf5.objects import LINK_ACCESS

Opener = Callable[[Any, int], Any]

REFUSALS = (KeyError, OSError, RuntimeError, ValueError, TypeError)


@pytest.fixture(params=["direct", "reference"])
def open_object(request: pytest.FixtureRequest) -> Opener:
    if request.param == "reference":
        return objects.ReferenceOpener()
    chosen = objects.find_opener()
    assert isinstance(chosen, objects.DirectOpener)
    return chosen


@pytest.fixture(params=[0, 1024], ids=["plain", "behind a user block"])
def file(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[h5py.File]:
    with h5py.File(tmp_path / "x.h5", "w", userblock_size=request.param) as written:
        written["data"] = np.arange(3)
        written["group/below"] = 2
        written["type"] = np.dtype("<f4")
    with h5py.File(tmp_path / "x.h5", "r") as opened:
        yield opened


def test_every_kind_of_object(file: h5py.File, open_object: Opener) -> None:
    kinds = {b"data": h5d.DatasetID, b"group": h5g.GroupID, b"type": h5t.TypeFloatID}
    for name, kind in kinds.items():
        address = file.id.links.get_info(name).u
        found = open_object(h5g.open(file.id, b"/"), address)
        assert isinstance(found, kind)
        assert h5o.get_info(found).addr == address
        assert h5o.open(file.id, name) == found


def test_an_identifier_is_closed_with_its_last_reference(
    file: h5py.File, open_object: Opener
) -> None:
    root = h5g.open(file.id, b"/")
    address = file.id.links.get_info(b"data").u
    before = h5py.h5f.get_obj_count(file.id)
    for _ in range(3):
        open_object(root, address)
    assert h5py.h5f.get_obj_count(file.id) == before


@pytest.mark.parametrize("address", [0, 1, 9, 1 << 20, 1 << 63, (1 << 64) - 1])
def test_where_no_object_is(file: h5py.File, open_object: Opener, address: int) -> None:
    with pytest.raises(REFUSALS, match=r"."):
        open_object(h5g.open(file.id, b"/"), address)


def test_a_build_that_hides_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(name: str) -> object:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "PyDLL", no_library)
    assert isinstance(objects.find_opener(), objects.ReferenceOpener)
    assert objects.make_link_access().get_nlinks() == 1


def test_libhdf5_opens_no_other_file(tmp_path: Path) -> None:
    """By whatever name, with the properties that are passed wherever there is a name."""
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["vault/x"] = 1
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["e"] = h5py.ExternalLink("other.h5", "/")
        file["deep"] = h5py.ExternalLink("other.h5", "/vault")
        calls: list[Callable[[Any], Any]] = [
            lambda access: h5o.open(file.id, b"e/vault", access),
            lambda access: h5o.open(file.id, b"deep", access),
            lambda access: file.id.links.get_info(b"e/vault", lapl=access),
            lambda access: file.id.links.exists(b"e/vault", lapl=access),
            lambda access: file.id.links.iterate(lambda _: None, obj_name=b"e", lapl=access),
        ]
        for call in calls:
            call(None)  # else the test would prove nothing
            with pytest.raises(REFUSALS):
                call(LINK_ACCESS)
