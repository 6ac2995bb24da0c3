"""Files that lead outside, that were forged, and that are damaged: no tree shows a secret."""

import struct
from pathlib import Path

import h5py
import numpy as np
import pytest

from asgihive.errors import AsgihiveError, FileUnreadable
from asgihive.zarr import tree
from asgihive.zarr.nodes import OMITTED_ATTRIBUTES, GroupNode, walk_nodes
from asgihive.zarr.object_attributes import explain
from tests.fuzz.mutations import mutate, source
from tests.zarr.reading import Reader, make_document
from tests.zoo import forged, hostile


@pytest.mark.usefixtures("reader")
def test_no_tree_shows_what_lies_outside(tmp_path: Path) -> None:
    places = hostile.build(tmp_path)
    names = {*forged.write(places.root, places.outside), *(file for file, _ in places.escapes)}
    reader = Reader(places.root)
    for name in sorted(names):
        try:
            root = reader.read(name)
        except AsgihiveError:
            continue
        shown = str(make_document(root))
        assert hostile.MARKER.decode() not in shown
        assert isinstance(root, GroupNode)
        found = {node.path for _, node in walk_nodes(root)}
        for file, path in places.escapes:
            if file == name and "links" in file:
                assert path not in found
        for file, path in places.honest:
            if file == name:
                assert path in found
    reader.pool.close()


def test_a_damaged_member_does_not_spoil_its_group(tmp_path: Path, reader: Reader) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        for name in ("a", "b", "c"):
            file[name] = np.arange(3.0)
            file[name].attrs["units"] = "m"
        address = h5py.h5o.get_info(file["b"].id).addr
    with path.open("r+b") as stored:
        stored.seek(address)
        stored.write(b"\xff" * 16)
    root = reader.read("x.h5")
    assert isinstance(root, GroupNode)
    assert root.members.keys() == {"a", "c"}
    assert root.omitted.keys() == {"b"}


def test_deep_nesting_is_bounded_and_no_recursion(tmp_path: Path, reader: Reader) -> None:
    with h5py.File(tmp_path / "x.h5", "w", libver="latest") as file:
        group = file["/"]
        for _ in range(1000):
            group = group.create_group("g")
        group["a"] = 1
    root = reader.read("x.h5")
    assert isinstance(root, GroupNode)
    assert len(list(walk_nodes(root))) == 1001


def test_many_links_to_many_attributes_are_bounded(tmp_path: Path, reader: Reader) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["first"] = 1
        for number in range(7):
            file["first"].attrs[f"a{number}"] = np.zeros(8000, "i1")
        for number in range(60):
            file[f"d{number}"] = file["first"]
    document = make_document(reader.read("x.h5"))
    assert len(str(document)) < 40_000_000
    assert "_asgihive_incomplete" in document["attributes"]


@pytest.mark.parametrize("what", ["type", "name"])
def test_types_and_names_that_many_members_have_are_bounded(
    tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(tree, "MAX_TREE_BYTES", 1 << 20)
    with h5py.File(tmp_path / "x.h5", "w", libver="latest") as file:
        if what == "type":
            compound = np.dtype([(f"member{number}", "i4") for number in range(100)])
            shown = file.create_dataset("first", (), compound)
        else:  # which stands in what is said of each
            shown = file.create_group("a" * 3000)
        for number in range(1200):
            h5py.h5o.link(shown.id, file.id, f"d{number}".encode())
    document = make_document(reader.read("x.h5"))
    assert len(str(document)) < 4_000_000
    assert "_asgihive_incomplete" in document["attributes"]


def test_an_element_too_large_for_metadata_is_left_out(tmp_path: Path, reader: Reader) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, size in (("large", 64 << 20), ("small", 1 << 20)):
            opaque = h5py.h5t.create(h5py.h5t.OPAQUE, size)
            h5py.h5d.create(file.id, name.encode(), opaque, h5py.h5s.create_simple((1,)))
    root = reader.read("x.h5")
    assert isinstance(root, GroupNode)
    assert list(root.members) == ["small"]
    assert root.omitted.keys() == {"large"}


def test_references_to_nothing_give_dimensions_by_size(tmp_path: Path, reader: Reader) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(3)
        file["x"].make_scale("x")
        file["a"] = np.zeros(3)
        file["a"].dims[0].attach_scale(file["x"])
        address = h5py.h5o.get_info(file["x"].id).addr
    content = path.read_bytes()
    at = content.index(b"GCOL")
    place = content.index(struct.pack("<Q", address), at)
    path.write_bytes(content[:place] + b"\xf0\xff\xff\x7f\0\0\0\0" + content[place + 8 :])
    root = reader.read("x.h5")
    assert isinstance(root, GroupNode)
    assert root.members["a"].dimension_names == ("dim_3",)  # type: ignore[union-attr]


def test_attributes_of_one_name_and_of_odd_types(tmp_path: Path, reader: Reader) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a"] = 1
        for name in ("CLASS", "NAME", "DIMENSION_LIST", "axes", "_FillValue", "scale_factor"):
            file["a"].attrs[name] = np.zeros((2, 2), "V3")
        file.attrs["axes"] = np.arange(5)
        file.attrs["NX_class"] = h5py.Empty("S3")
        scalar = h5py.h5s.create(h5py.h5s.SCALAR)
        h5py.h5a.create(file.id, b"caf\xe9", h5py.h5t.NATIVE_INT8, scalar).write(np.array(5, "i1"))
    root = reader.read("x.h5")
    assert isinstance(root, GroupNode)
    assert root.attributes["caf\ufffd"] == 5
    listed = [each.partition(":")[0] for each in root.members["a"].attributes[OMITTED_ATTRIBUTES]]
    assert listed == ["CLASS", "NAME", "_FillValue", "axes", "scale_factor"]


@pytest.mark.parametrize("wrong", ["number", "both numbers", "reach"])
def test_a_heap_that_libhdf5_never_leaves_is_damaged(
    tmp_path: Path, reader: Reader, wrong: str
) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["a"] = 1
        file["a"].attrs.update({"units": "m", "words": "n"})
    content = bytearray(path.read_bytes())
    first = content.index(b"GCOL") + 16
    free = first + 2 * 24  # behind the header and the two objects
    assert content[free : free + 2] == b"\0\0"
    beyond = struct.unpack_from("<Q", content, free + 8)[0] + 4096
    struct.pack_into("<Q", content, free + 8, beyond if wrong == "reach" else 0)
    # So that they are looked for in vain.
    content[first] = 9
    content[first + 24] = 9 if wrong == "both numbers" else 8
    path.write_bytes(content)
    node = reader.read("x.h5", "/a")
    assert not {"units", "words"} & node.attributes.keys()
    listed = node.attributes[OMITTED_ATTRIBUTES]
    assert len(listed) == 2
    assert all("has an impossible size or number" in each for each in listed)


def test_reasons_are_text_whatever_the_names_in_them_are() -> None:
    assert explain(FileUnreadable("x.h5", "/a\udcff is damaged")).endswith("/a\ufffd is damaged")


def write_sample(path: Path) -> None:
    with h5py.File(path, "w") as file:
        group = file.create_group("g")
        group.attrs.update({"NX_class": "NXdata", "axes": ["x", "."]})
        group["x"] = np.arange(3.0)
        group["x"].make_scale("x")
        group["a"] = np.zeros((3, 4), "f4")
        group["a"].dims[0].attach_scale(group["x"])
        group["a"].attrs.update({"units": "m", "_FillValue": np.float32(1), "words": ["a", "b"]})
        group["text"] = ["a", "b"]
        group["soft"] = h5py.SoftLink("/g/a")
        group["kind"] = np.zeros(2, h5py.enum_dtype({"A": 0}))


@pytest.mark.parametrize("first", [0, pytest.param(60, marks=pytest.mark.slow)])
def test_damaged_files_end_in_an_error_that_is_known(
    tmp_path: Path, reader: Reader, first: int
) -> None:
    path = tmp_path / "sample.h5"
    write_sample(path)
    sound = source("sample.h5", path.read_bytes())
    for seed in range(first, 10 * first or 60):
        damaged = tmp_path / f"{seed}.h5"
        damaged.write_bytes(mutate(sound, seed).content)
        try:
            make_document(reader.read(damaged.name))
        except AsgihiveError:
            continue
        finally:
            damaged.unlink()
