"""The `zarr.json` of nodes, as zarr-python reads it."""

import json
from typing import Any

import pytest

from asgihive.zarr.nodes import INCOMPLETE, OMITTED, ArrayNode, GroupNode, format_document

zarr = pytest.importorskip("zarr", reason="zarr is not installed")

CODECS = ({"name": "bytes", "configuration": {"endian": "little"}},)


def make_array(path: str, **attributes: Any) -> ArrayNode:
    return ArrayNode(path, (2, 3), (1, 3), "int16", 7, CODECS, ("y", "x"), attributes)


def make_root() -> GroupNode:
    inner = GroupNode("/g#", {}, {"a": make_array("/g#/a", units="m")}, {"r": "Zarr has none"})
    deep = GroupNode("/g#/deep", {}, {"b": make_array("/g#/deep/b")})
    inner.members["deep"] = deep
    return GroupNode("/", {"title": "t"}, {"g_": inner, "z": make_array("/z")}, incomplete="more")


def open_document(document: dict[str, Any]) -> Any:
    stored = zarr.core.buffer.cpu.Buffer.from_bytes(json.dumps(document, allow_nan=False).encode())
    return zarr.open_group(zarr.storage.MemoryStore({"zarr.json": stored}), mode="r")


def test_zarr_python_reads_a_whole_tree_from_one_document() -> None:
    root = open_document(format_document(make_root()))
    assert root.attrs["title"] == "t"
    assert root.attrs[INCOMPLETE] == "more"
    found = dict(root.members(max_depth=None))
    assert sorted(found) == ["g_", "g_/a", "g_/deep", "g_/deep/b", "z"]
    array = found["g_/a"]
    assert (array.shape, array.chunks, array.dtype.str) == ((2, 3), (1, 3), "<i2")
    assert (array.fill_value, array.metadata.dimension_names) == (7, ("y", "x"))
    assert dict(array.attrs) == {"units": "m"}
    assert found["g_"].attrs[OMITTED] == ["r: Zarr has none"]


def test_a_deep_tree_is_no_recursion() -> None:
    root = node = GroupNode("/", {})
    for depth in range(5000):
        node.members["g"] = node = GroupNode(f"/{depth}", {})
    assert len(format_document(root)["consolidated_metadata"]["metadata"]) == 5000
