"""The links of a group, in portions."""

from pathlib import Path

import h5py
import pytest
from h5py import h5o

from asgihive.concurrency import run_at_once
from asgihive.hdf5 import objects
from asgihive.hdf5.objects import StoredObject, find_object, list_links
from tests.hdf5.serving import leased


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("tracked", [True, False])
@pytest.mark.parametrize("count", [0, 1, 7, 300, 3000])
def test_links_are_listed_as_h5py_does(
    root: Path, monkeypatch: pytest.MonkeyPatch, libver: str, tracked: bool, count: int
) -> None:
    path = root / "x.h5"
    with h5py.File(path, "w", libver=libver) as file:
        group = file.create_group("many", track_order=tracked)
        for number in range(count):
            group[f"{number * 7919 % 4001:x}"] = h5py.SoftLink("/x")
        wanted = [(name.encode(), group.id.links.get_val(name.encode())) for name in group]
    assert len(wanted) == count
    # So that it is listed in many portions, and sorted in several runs.
    monkeypatch.setattr(objects, "LISTING_SECONDS", 0.0)
    monkeypatch.setattr(objects, "SORTED_AT_ONCE", 500)
    with leased(root) as lease:
        opened = lease.open_asked("x.h5")
        address = h5o.get_info(h5o.open(opened.root, b"many")).addr
        by_library = StoredObject(opened, address, None)
        work = list_links(by_library, by_creation=True)
        assert sum(1 for _ in work) >= count // 256
        for group in (by_library, find_object(opened, address)):
            links = run_at_once(list_links(group, by_creation=True))
            assert [each.name for each in links] == [name for name, _ in wanted]
            by_name = run_at_once(list_links(group))
            assert [each.name for each in by_name] == sorted(name for name, _ in wanted)
