"""Walks: every kind of link, followed and shown."""

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from asgihive.concurrency import run_at_once
from asgihive.errors import EntityMissing, FileUnreadable, KindMismatch, LinkUnresolved
from asgihive.hdf5 import links
from asgihive.hdf5.links import (
    Entity,
    ExternalLink,
    LinkResolution,
    Resolved,
    SoftLink,
    kind_of,
    list_paths,
    walk,
)
from tests.hdf5.serving import described, forge, leased

MAX_PATHS = 100

NONE, ONLY_VALID, ALL = LinkResolution.NONE, LinkResolution.ONLY_VALID, LinkResolution.ALL


@pytest.fixture
def linked(root: Path) -> Path:
    with h5py.File(root.parent / "outside/secret.h5", "w") as file:
        file["secret"] = np.arange(3)
    (root / "sub").mkdir()
    with h5py.File(root / "sub/other.h5", "w") as file:
        file["x/data"] = np.arange(4)
        file["x/back"] = h5py.ExternalLink("../main.h5", "/group")
        file["x/relative"] = h5py.SoftLink("data")
        file["x/soft"] = h5py.SoftLink("/x/data")
    with h5py.File(root / "main.h5", "w") as file:
        group = file.create_group("group")
        group["data"] = np.arange(5)
        group["relative"] = h5py.SoftLink("data")
        group["absolute"] = h5py.SoftLink("/group/./data/")
        group["to_group"] = h5py.SoftLink("/group")
        group["to_root"] = h5py.SoftLink("/")
        group["broken"] = h5py.SoftLink("/nowhere/at/all")
        group["through_data"] = h5py.SoftLink("data/below")
        group["self"] = h5py.SoftLink("self")
        group["ping"], group["pong"] = h5py.SoftLink("pong"), h5py.SoftLink("ping")
        group["external"] = h5py.ExternalLink("sub/other.h5", "/x")
        group["external_data"] = h5py.ExternalLink("sub/other.h5", "x/soft")
        group["no_file"] = h5py.ExternalLink("absent.h5", "/x")
        group["no_entity"] = h5py.ExternalLink("sub/other.h5", "/absent")
        group["not_hdf5"] = h5py.ExternalLink("text.h5", "/")
        group["escape"] = h5py.ExternalLink("../outside/secret.h5", "/secret")
        outside = str(root.parent / "outside/secret.h5")
        group["absolute_escape"] = h5py.ExternalLink(outside, "/secret")
        group["hard_cycle"] = group
        file["type"] = np.dtype("<i2")
    (root / "text.h5").write_text("not HDF5")
    return root


def walked(
    root: Path, path: str, resolution: LinkResolution = ALL, file: str = "main.h5"
) -> Entity:
    with leased(root) as lease:
        return walk(lease, lease.open_asked(file), path, resolution)


@pytest.mark.parametrize(
    ("path", "kind", "file"),
    [
        ("/", "group", "main.h5"),
        ("", "group", "main.h5"),
        ("//./", "group", "main.h5"),
        ("group", "group", "main.h5"),
        ("/type", "datatype", "main.h5"),
        ("/group/data", "dataset", "main.h5"),
        ("group//data/", "dataset", "main.h5"),
        ("/group/relative", "dataset", "main.h5"),
        ("/group/absolute", "dataset", "main.h5"),
        ("/group/to_root", "group", "main.h5"),
        ("/group/to_root/group/to_group/relative", "dataset", "main.h5"),
        ("/group/hard_cycle/hard_cycle/data", "dataset", "main.h5"),
        ("/group/external", "group", "sub/other.h5"),
        ("/group/external/data", "dataset", "sub/other.h5"),
        ("/group/external/relative", "dataset", "sub/other.h5"),
        ("/group/external_data", "dataset", "sub/other.h5"),
        ("/group/external/back/data", "dataset", "main.h5"),
    ],
)
def test_followed(linked: Path, path: str, kind: str, file: str) -> None:
    for resolution in (ONLY_VALID, ALL):
        entity = walked(linked, path, resolution)
        assert isinstance(entity, Resolved)
        assert kind_of(entity) == kind
        assert os.path.samefile(entity.file.place.real, linked / file)


BROKEN = ["broken", "through_data", "self", "ping", "no_file", "no_entity", "not_hdf5", "escape"]


@pytest.mark.parametrize("name", [*BROKEN, "absolute_escape"])
def test_links_that_cannot_be_followed(linked: Path, name: str) -> None:
    with pytest.raises(LinkUnresolved, match="Cannot resolve"):
        walked(linked, f"/group/{name}")
    with pytest.raises((LinkUnresolved, EntityMissing)):
        walked(linked, f"/group/{name}/further", ONLY_VALID)
    for resolution in (NONE, ONLY_VALID):
        shown = walked(linked, f"/group/{name}", resolution)
        assert isinstance(shown, SoftLink | ExternalLink)
        assert shown.path == f"/group/{name}"


def test_last_link_is_shown_and_those_before_are_followed(linked: Path) -> None:
    shown = walked(linked, "/group/to_group/relative", NONE)
    assert isinstance(shown, SoftLink)
    assert shown.target_path == "data"
    external = walked(linked, "/group/to_root/group/external", NONE)
    assert isinstance(external, ExternalLink)
    assert (external.target_file, external.target_path) == ("sub/other.h5", "/x")
    assert isinstance(walked(linked, "/group/data", NONE), Resolved)


@pytest.mark.parametrize(
    "path", ["/absent", "/group/absent", "/group/data/below", "/group/..", "/\0", "/group\0"]
)
def test_paths_that_name_nothing(linked: Path, path: str) -> None:
    for resolution in LinkResolution:
        with pytest.raises(EntityMissing, match="not a valid path"):
            walked(linked, path, resolution)


def test_chains_are_followed_as_far_as_allowed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        file["link_0"] = 1
        for number in range(1, 6):
            file[f"link_{number}"] = h5py.SoftLink(f"/link_{number - 1}")
    monkeypatch.setattr(links, "MAX_LINK_HOPS", 5)
    assert isinstance(walked(root, "/link_5"), Resolved)
    monkeypatch.setattr(links, "MAX_LINK_HOPS", 4)
    with pytest.raises(LinkUnresolved, match="too many"):
        walked(root, "/link_5")
    assert isinstance(walked(root, "/link_5", ONLY_VALID), SoftLink)


def test_hops_count_along_the_whole_path(linked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "MAX_LINK_HOPS", 5)
    assert isinstance(walked(linked, "/group" + "/to_group" * 5), Resolved)
    with pytest.raises(LinkUnresolved, match="too many"):
        walked(linked, "/group" + "/to_group" * 6)


def test_names_that_are_not_utf8(root: Path) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        file["caf?"] = 1
        file["twin?a"], file["twin@a"] = 1, 2
        file["é"] = 3
    content = (root / "main.h5").read_bytes()
    for old, new in [(b"caf?", b"caf\xe9"), (b"twin?a", b"twin\xe9a"), (b"twin@a", b"twin\xeaa")]:
        content = content.replace(old, new)
    (root / "main.h5").write_bytes(content)
    names = {child["name"] for child in described(root, "main.h5")["children"]}
    assert names == {"caf\ufffd", "twin\ufffda", "é"}
    assert isinstance(walked(root, "/caf\ufffd"), Resolved)
    assert isinstance(walked(root, "/caf\udce9"), Resolved)
    assert isinstance(walked(root, "/twin\udceaa"), Resolved)
    assert isinstance(walked(root, "/é"), Resolved)
    with pytest.raises(EntityMissing):  # one of two
        walked(root, "/twin\ufffda")


def children(root: Path, file: str) -> dict[str, dict[str, Any]]:
    return {child["name"]: child for child in described(root, file)["children"]}


def test_a_forged_name_with_a_slash_is_not_a_path(root: Path) -> None:
    """libhdf5 would follow `external` to what is not served."""
    outside = root.parent / "outside/secret.h5"
    with h5py.File(outside, "w") as file:
        file["secret"] = np.arange(3)
        file["secret"].attrs["private"] = 1
    for content in (np.arange(5.0), h5py.SoftLink("/external")):
        with h5py.File(root / "main.h5", "w") as file:
            file["external"] = h5py.ExternalLink(str(outside), "/")
            file["external?secret"] = content
        forge(root / "main.h5", b"external?secret", b"external/secret")
        assert children(root, "main.h5")["external/secret"] == {
            "name": "external/secret",
            "kind": "other",
        }
        with pytest.raises(LinkUnresolved):
            walked(root, "/external/secret")


def test_a_link_of_a_user_defined_kind(root: Path) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        file["link"] = h5py.ExternalLink("absent.h5", "/x")
        file["data"] = 1
    # Link message: type of link 64 (external), length of the name, name.
    forge(root / "main.h5", b"\x40\x04link", b"\x41\x04link")
    assert children(root, "main.h5")["link"] == {"name": "link", "kind": "other"}
    assert children(root, "main.h5")["data"]["kind"] == "dataset"
    for resolution in LinkResolution:
        with pytest.raises(LinkUnresolved, match="only its writer"):
            walked(root, "/link", resolution)


def test_a_damaged_object_does_not_hide_its_siblings(root: Path) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        file["good"] = np.arange(3)
        file["bad"] = np.arange(3)
        header = h5py.h5o.get_info(file["bad"].id).addr
    content = bytearray((root / "main.h5").read_bytes())
    content[header] = 0xEE
    (root / "main.h5").write_bytes(content)
    found = children(root, "main.h5")
    assert found["bad"] == {"name": "bad", "kind": "other"}
    assert found["good"]["shape"] == (3,)
    with pytest.raises(FileUnreadable, match="/bad is damaged"):
        walked(root, "/bad")


@pytest.mark.parametrize("signature", [b"TREE", b"HEAP", b"SNOD"])
def test_a_damaged_group_is_named(root: Path, signature: bytes) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        file["data"] = 1
    content = (root / "main.h5").read_bytes()
    (root / "main.h5").write_bytes(content.replace(signature, b"????"))
    for path in ("/data", "/absent", "/absent\ufffd"):
        with pytest.raises(FileUnreadable, match="damaged"):
            walked(root, path)


def paths(root: Path, path: str, resolution: LinkResolution) -> list[str]:
    with leased(root) as lease:
        entity = walk(lease, lease.open_asked("main.h5"), path, ALL)
        return run_at_once(list_paths(lease, entity, resolution, MAX_PATHS))


def test_paths_list_links_and_enter_none(linked: Path) -> None:
    found = paths(linked, "/", ONLY_VALID)
    assert found[0] == "/"
    assert "/group/external" in found
    assert "/group/broken" in found
    assert not any(path.startswith(("/group/external/", "/group/to_root/")) for path in found)
    assert len(found) == len(set(found))
    with pytest.raises(LinkUnresolved):
        paths(linked, "/", ALL)
    with pytest.raises(KindMismatch, match="a dataset, but a group"):
        paths(linked, "/group/data", ALL)
