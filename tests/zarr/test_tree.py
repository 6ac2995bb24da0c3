"""The tree of a file: what is in it, what is left out, and why."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from asgihive.errors import EntityMissing, KindMismatch, LinkUnresolved
from asgihive.zarr.nodes import (
    ENUMERATION,
    INCOMPLETE,
    OMITTED,
    OMITTED_ATTRIBUTES,
    REAL_NAME,
    ArrayNode,
    GroupNode,
    walk_nodes,
)
from tests.zarr.reading import Reader, make_document


def list_paths(group: object) -> list[str]:
    assert isinstance(group, GroupNode)
    return [path for path, _ in walk_nodes(group)]


def test_every_member_is_a_node_or_listed(tmp_path: Path, reader: Reader) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["g/deep/a"] = np.arange(6, dtype=">i2").reshape(2, 3)
        file["g/s"] = "text"
        file["g/type"] = np.dtype("<f4")
        file["g/null"] = h5py.Empty("f4")
        file.create_dataset("g/refs", (2,), h5py.ref_dtype)
        file.create_dataset("g/long", data=np.zeros(2, np.longdouble))
        file["g/vlen"] = np.array([np.arange(2), np.arange(3)], h5py.vlen_dtype("i4"))
        file.create_dataset("e", (3,), h5py.enum_dtype({"A": 0, "B": 5}, "u1"))
    root = reader.read("x.h5")
    assert sorted(list_paths(root)) == ["e", "g", "g/deep", "g/deep/a", "g/s"]
    assert isinstance(root, GroupNode)
    group = root.members["g"]
    assert isinstance(group, GroupNode)
    assert group.omitted.keys() == {"type", "null", "refs", "long", "vlen"}
    document = make_document(root)
    found = document["consolidated_metadata"]["metadata"]
    assert len(found["g"]["attributes"][OMITTED]) == 5
    assert found["e"]["attributes"] == {ENUMERATION: ["A=0", "B=5"]}
    assert found["g/deep/a"]["shape"] == [2, 3]
    assert found["g/s"]["data_type"] == "string"
    assert found["g/s"]["shape"] == []


def test_names_that_clients_cannot_ask_for_are_replaced_and_lead_back(
    tmp_path: Path, reader: Reader
) -> None:
    names = ["a#1", "a?1", "a_1", "ä b", "zarr.json", "..x", "%41", "plain"]
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for number, name in enumerate(names):
            file[f"g#/{name}/value"] = number
        file[b"g#/caf\xe9"] = 99
    root = reader.read("x.h5")
    for path, node in walk_nodes(root):  # type: ignore[arg-type]
        real = reader.find_real_path("x.h5", f"/{path}")
        assert real == node.path
        alone = reader.read("x.h5", real)
        if isinstance(node, ArrayNode):
            assert alone == node
        last = real.rpartition("/")[2].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        shown = node.attributes.get(REAL_NAME, path.rpartition("/")[2])
        assert shown == last
    assert {"g_/a_1", "g_/a_1_2", "g_/a_1_3", "g_/caf_"} <= set(list_paths(root))
    with pytest.raises(EntityMissing):
        reader.find_real_path("x.h5", "/g_/b_1")
    with pytest.raises(EntityMissing):
        reader.find_real_path("x.h5", "/nothing")


def test_links_inside_are_followed_and_others_listed(tmp_path: Path, reader: Reader) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["values"] = [1, 2]
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["real/values"] = [1.0]
        file["soft"] = h5py.SoftLink("/real/values")
        file["external"] = h5py.ExternalLink("other.h5", "/values")
        file["broken"] = h5py.SoftLink("/nowhere")
        file["outside"] = h5py.ExternalLink("../../etc/passwd", "/x")
        file["missing"] = h5py.ExternalLink("gone.h5", "/x")
        file["circle"] = h5py.SoftLink("/circle")
    root = reader.read("x.h5")
    assert isinstance(root, GroupNode)
    assert sorted(list_paths(root)) == ["external", "real", "real/values", "soft"]
    assert root.omitted.keys() == {"broken", "outside", "missing", "circle"}
    assert all(root.omitted.values())
    with pytest.raises(LinkUnresolved):
        reader.read("x.h5", "/broken")


def test_repeated_groups_end_at_the_first_and_hard_links_come_first(
    tmp_path: Path, reader: Reader
) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["z/detector/values"] = [1]
        file["a/data"] = h5py.SoftLink("/z/detector")
        file["z/detector/again"] = file["z"]
        file["z/detector/self"] = h5py.SoftLink("/z/detector")
        file["b"] = file["z"]
    root = reader.read("x.h5")
    assert isinstance(root, GroupNode)
    assert sorted(list_paths(root)) == ["a", "b", "b/detector", "b/detector/values"]
    assert root.omitted == {"z": "it is /b again"}
    inner = reader.read("x.h5", "/a/data")
    assert "values" in list_paths(inner)


def test_a_soft_link_to_a_group_that_nothing_else_leads_to_is_entered(
    tmp_path: Path, reader: Reader
) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["g/values"] = [1, 2]
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["external"] = h5py.ExternalLink("other.h5", "/g")
    assert list_paths(reader.read("x.h5")) == ["external", "external/values"]


def test_too_many_nodes_are_cut_with_a_note(tmp_path: Path, reader: Reader) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for number in range(20):
            file[f"g{number % 4}/d{number}"] = number
    document = make_document(reader.read("x.h5", most_nodes=10))
    metadata = document["consolidated_metadata"]["metadata"]
    assert len(metadata) == 10
    cut = [path for path, node in metadata.items() if INCOMPLETE in node["attributes"]]
    assert cut == ["g1", "g2", "g3"]
    assert len(list_paths(reader.read("x.h5", "/g2"))) == 5


def test_an_attribute_that_is_large_is_left_out(tmp_path: Path, reader: Reader) -> None:
    with h5py.File(tmp_path / "x.h5", "w", libver="latest") as file:
        file["a"] = 1
        file["a"].attrs["large"] = np.zeros(1_000_000)
        file["a"].attrs["units"] = "m"
        file["a"].attrs["empty"] = h5py.Empty("f4")
        file["a"].attrs["target"] = file["a"].ref
    node = reader.read("x.h5", "/a")
    assert node.attributes["units"] == "m"
    listed = node.attributes[OMITTED_ATTRIBUTES]
    assert sorted(each.partition(":")[0] for each in listed) == ["empty", "large", "target"]


def test_what_is_no_node_says_what_it_is(tmp_path: Path, reader: Reader) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["type"] = np.dtype("<f4")
        file.create_dataset("refs", (2,), h5py.ref_dtype)
    with pytest.raises(KindMismatch, match="datatype"):
        reader.read("x.h5", "/type")
    with pytest.raises(KindMismatch, match="references"):
        reader.read("x.h5", "/refs")
    with pytest.raises(EntityMissing):
        reader.read("x.h5", "/none")
