"""Lists of paths: as libhdf5's own walk has them, and bounded where that is not."""

import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asgihive.concurrency import run_at_once
from asgihive.errors import TooManyPaths
from asgihive.hdf5 import links
from asgihive.hdf5.links import LinkResolution, list_paths, walk
from tests.efforts import at_most
from tests.hdf5.serving import forge, leased

ONLY_VALID = LinkResolution.ONLY_VALID
MANY = 1_000_000


def listed(root: Path, name: str, path: str = "/", most: int = MANY) -> list[str]:
    with leased(root) as lease:
        entity = walk(lease, lease.open_asked(name), path, ONLY_VALID)
        return run_at_once(list_paths(lease, entity, ONLY_VALID, most))


def visited(file: Path, path: str) -> list[str]:
    """What libhdf5's walk lists."""
    with h5py.File(file, "r") as opened:
        names: list[bytes] = []
        group = opened[path]
        group.id.links.visit(names.append)
    return [path, *(f"{path.rstrip('/')}/{name.decode()}" for name in names)]


_nodes = st.lists(
    st.tuples(
        st.sampled_from(["group", "dataset", "type", "hard", "soft", "external"]),
        st.integers(0, 20),
        st.integers(0, 20),
        st.text("abcB", min_size=1, max_size=3),
    ),
    max_size=25,
)


@given(nodes=_nodes, libver=st.sampled_from(["earliest", "latest"]), tracked=st.booleans())
@settings(max_examples=at_most(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_as_libhdf5_lists_them(
    tmp_path_factory: pytest.TempPathFactory,
    nodes: list[tuple[str, int, int, str]],
    libver: str,
    tracked: bool,
) -> None:
    """Any graph of groups: names that sort oddly, cycles, objects with several names."""
    root = tmp_path_factory.mktemp("root")
    with h5py.File(root / "x.h5", "w", libver=libver, track_order=tracked) as file:
        groups: list[h5py.Group] = [file]
        for kind, at, other, name in nodes:
            group = groups[at % len(groups)]
            if name in group:
                continue
            if kind == "group":
                groups.append(group.create_group(name, track_order=tracked))
            elif kind == "dataset":
                group[name] = at
            elif kind == "type":
                group[name] = np.dtype("<f4")
            elif kind == "hard":
                group[name] = groups[other % len(groups)]
            elif kind == "soft":
                group[name] = h5py.SoftLink("/a/b")
            else:
                group[name] = h5py.ExternalLink("x.h5", "/a")
        paths = {group.name for group in groups}
    for path in paths:
        assert listed(root, "x.h5", path) == visited(root / "x.h5", path)


def nest(file: Path, depth: int) -> None:
    with h5py.File(file, "w", libver="latest") as opened:
        group = opened.id
        for _ in range(depth):
            group = h5py.h5g.create(group, b"a")


@pytest.mark.parametrize("depth", [2_500, pytest.param(20_000, marks=pytest.mark.slow)])
def test_a_depth_that_ends_a_walk_by_recursion(root: Path, depth: int) -> None:
    nest(root / "deep.h5", depth)
    deep = listed(root, "deep.h5", "/a" * (depth - 1_000))
    assert len(deep) == 1_001
    assert deep[-1] == "/a" * depth


@pytest.mark.slow
def test_paths_that_are_hundreds_of_megabytes_of_text(root: Path) -> None:
    nest(root / "deep.h5", 20_000)
    with pytest.raises(TooManyPaths, match="ask for a group further below"):
        listed(root, "deep.h5")


def test_the_number_and_the_length_of_paths_are_bounded(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with h5py.File(root / "x.h5", "w") as file:
        for index in range(9):
            file[f"group/{index}"] = index
    assert len(listed(root, "x.h5", most=11)) == 11
    with pytest.raises(TooManyPaths) as refused:
        listed(root, "x.h5", "/group", most=9)
    assert (refused.value.path, refused.value.most) == ("/group", 9)
    monkeypatch.setattr(links, "MAX_PATHS_CHARACTERS", 40)
    with pytest.raises(TooManyPaths):
        listed(root, "x.h5", most=11)


def test_a_cycle_whose_reference_count_was_forged(root: Path) -> None:
    """libhdf5 looks for cycles only among objects whose header counts several links."""
    with h5py.File(root / "x.h5", "w") as file:
        group = file.create_group("group")
        group["again"] = group
        address = h5py.h5o.get_info(group.id).addr
    content = bytearray((root / "x.h5").read_bytes())
    # Version 1 of the object header: version, number of messages, reference count (IV.A.1.a).
    assert struct.unpack_from("<BxHI", content, address)[2] == 2
    struct.pack_into("<I", content, address + 4, 1)
    (root / "x.h5").write_bytes(content)
    assert listed(root, "x.h5") == ["/", "/group", "/group/again"]


def test_names_that_are_forged_are_listed_and_not_taken_for_paths(root: Path) -> None:
    with h5py.File(root / "x.h5", "w") as file:
        file["e/vault/deep"] = 1
        file["e_vault/own"] = 2
    forge(root / "x.h5", b"e_vault", b"e/vault")
    expected = ["/", "/e", "/e/vault", "/e/vault/deep", "/e/vault", "/e/vault/own"]
    assert listed(root, "x.h5") == expected


def test_two_links_of_one_name_are_entered_each(root: Path) -> None:
    with h5py.File(root / "x.h5", "w") as file:
        file["name_a/one"] = 1
        file["name_b/two"] = 2
    forge(root / "x.h5", b"name_b", b"name_a")
    assert listed(root, "x.h5") == ["/", "/name_a", "/name_a/one", "/name_a", "/name_a/two"]
