"""Structures that libhdf5 would walk for minutes, or without an end: they are said as damage."""

import struct
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from h5py import h5o

from asgihive.hdf5.pool import Lease
from asgihive.hdf5.structure_checks import MAX_TREE_DEPTH, check_links, check_object
from asgihive.service import H5App
from tests import zoo as animals
from tests.fuzz.checksums import checked, repair
from tests.hdf5.serving import pool_of
from tests.service.asking import ask

CONTINUATION = 0x10
SUPERBLOCK_END_OF_FILE = 40  # of version 0, with addresses of eight bytes
PAD_BYTES = 1 << 20


def message(kind: int, body: bytes) -> bytes:
    """Section IV.A.1.a: of a version 1 header."""
    return struct.pack("<HHBxxx", kind, len(body), 0) + body


def header(messages: bytes) -> bytes:
    return struct.pack("<BxHIIxxxx", 1, 0xFFFF, 1, len(messages)) + messages


def write(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["good"] = 1
        victim = file.create_group("victim")
        victim["member"] = 2
        file["type"] = np.dtype("<i4")
        file.create_dataset("typed", (2,), file["type"])
        file["attributed"] = 3
        file["attributed"].attrs.create("a", 1, dtype=file["type"])
        # Zeros are NIL messages without a body.
        file["pad"] = np.zeros(PAD_BYTES, "u1")


def replace_header(path: Path, name: str, make: Callable[[int], bytes]) -> None:
    """Let all that leads to the object lead to a new header, made for where the zeros are."""
    with h5py.File(path) as file:
        old = h5o.get_info(file[name].id).addr
        pad = file["pad"].id.get_offset()
    content = bytearray(path.read_bytes())
    content += bytes(-len(content) % 8)
    new = len(content)
    content = content.replace(struct.pack("<Q", old), struct.pack("<Q", new))
    content += make(pad)
    struct.pack_into("<Q", content, SUPERBLOCK_END_OF_FILE, len(content))
    path.write_bytes(content)


def overlapping(pad: int) -> bytes:
    """Of 200 continuations, each a little shorter than the one before it."""
    places = [(pad + 8 * number, PAD_BYTES - 8 * number) for number in range(200)]
    return header(b"".join(message(CONTINUATION, struct.pack("<QQ", *each)) for each in places))


def numerous(pad: int) -> bytes:
    """Of continuations that do not overlap, with more messages than any header has."""
    size = PAD_BYTES // 4
    places = [(pad + size * number, size) for number in range(4)]
    return header(b"".join(message(CONTINUATION, struct.pack("<QQ", *each)) for each in places))


HEADERS = [overlapping, numerous]


@pytest.mark.anyio
@pytest.mark.parametrize("make", [overlapping, pytest.param(numerous, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("victim", "route", "path"),
    [
        ("victim", "/meta", "victim"),
        ("victim", "/meta", "victim/member"),
        ("victim", "/attr", "victim"),
        ("victim", "/paths", "/"),
        ("pad", "/data", "pad"),
        ("pad", "/stats", "pad"),
        ("type", "/meta", "type"),
        ("type", "/data", "typed"),
        ("type", "/meta", "typed"),
        ("type", "/attr", "attributed"),
    ],
)
@pytest.mark.slow_on_trio
async def test_a_header_that_would_keep_libhdf5_busy(
    tmp_path: Path, make: Callable[[int], bytes], victim: str, route: str, path: str
) -> None:
    write(tmp_path / "x.h5")
    replace_header(tmp_path / "x.h5", victim, make)
    app = H5App(tmp_path)
    answer = await ask(app, route, path=path)
    assert answer.status == 422, answer.body
    assert "its header" in answer.message
    assert (await ask(app, "/data", path="good")).json == 1
    # One damaged child hides no other.
    listed = (await ask(app, "/meta")).json["children"]
    kinds = {each["name"]: each["kind"] for each in listed}
    assert kinds[victim] == "other"
    assert kinds["good"] == "dataset"


@pytest.mark.anyio
@pytest.mark.parametrize("make", HEADERS)
async def test_a_root_that_would_keep_libhdf5_busy(
    tmp_path: Path, make: Callable[[int], bytes]
) -> None:
    write(tmp_path / "x.h5")
    replace_header(tmp_path / "x.h5", "/", make)
    answer = await ask(H5App(tmp_path), "/meta")
    assert answer.status == 422
    assert "its header" in answer.message


# B-trees of links

MANY = 3000


def write_tree(path: Path) -> dict[int, tuple[int, int]]:
    """A group with a B-tree of several levels; level and number of children, by node."""
    with h5py.File(path, "w") as file:
        group = file.create_group("many")
        for number in range(MANY):
            group[f"{number:05}"] = h5py.SoftLink("/x")
        file["good"] = 1
    content = path.read_bytes()
    nodes: dict[int, tuple[int, int]] = {}
    at = content.find(b"TREE")
    while at >= 0:
        level, used = struct.unpack_from("<BH", content, at + 5)
        nodes[at] = level, used
        at = content.find(b"TREE", at + 4)
    assert max(level for level, _ in nodes.values()) >= 1
    return nodes


def child_at(node: int, number: int) -> int:
    return node + 24 + 8 + 16 * number


def lead_to_themselves(content: bytearray, nodes: dict[int, tuple[int, int]]) -> None:
    for node, (level, used) in nodes.items():
        for number in range(used if level else 0):
            struct.pack_into("<Q", content, child_at(node, number), node)


def lead_to_one(content: bytearray, nodes: dict[int, tuple[int, int]]) -> None:
    for node, (level, used) in nodes.items():
        (first,) = struct.unpack_from("<Q", content, child_at(node, 0))
        for number in range(used if level else 0):
            struct.pack_into("<Q", content, child_at(node, number), first)


def repeat_leaves(content: bytearray, nodes: dict[int, tuple[int, int]]) -> None:
    for node, (level, used) in nodes.items():
        (first,) = struct.unpack_from("<Q", content, child_at(node, 0))
        for number in range(used if not level else 0):
            struct.pack_into("<Q", content, child_at(node, number), first)


def stay_on_a_level(content: bytearray, nodes: dict[int, tuple[int, int]]) -> None:
    # Not the first one, which is the root group's.
    for node in sorted(nodes)[1:]:
        content[node + 5] = 1


@pytest.mark.anyio
@pytest.mark.parametrize("forge", [lead_to_themselves, lead_to_one, repeat_leaves, stay_on_a_level])
@pytest.mark.parametrize("route", ["/meta", "/paths"])
@pytest.mark.slow_on_trio
async def test_a_tree_without_an_end(
    tmp_path: Path,
    forge: Callable[[bytearray, dict[int, tuple[int, int]]], None],
    route: str,
) -> None:
    path = tmp_path / "x.h5"
    nodes = write_tree(path)
    content = bytearray(path.read_bytes())
    forge(content, nodes)
    path.write_bytes(content)
    app = H5App(tmp_path)
    answer = await ask(app, route, path="many")
    assert answer.status == 422, answer.body
    assert "B-tree" in answer.message
    assert (await ask(app, "/data", path="good")).json == 1


@pytest.mark.anyio
@pytest.mark.parametrize("what", ["links", "attributes"])
@pytest.mark.slow_on_trio
async def test_a_tree_that_is_too_deep(tmp_path: Path, what: str) -> None:
    """libhdf5 goes down as far as the tree's header says, by recursion."""
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver="latest") as file:
        group = file.create_group("many")
        for number in range(100):
            if what == "links":
                group[f"{number:05}"] = h5py.SoftLink("/x")
            else:
                group.attrs[f"{number:05}"] = number
        file["good"] = 1
    sound = path.read_bytes()
    content = bytearray(sound)
    at = content.find(b"BTHD")
    assert at >= 0
    while at >= 0:
        struct.pack_into("<H", content, at + 12, 5000)
        at = content.find(b"BTHD", at + 4)
    repair(content, checked(sound))
    path.write_bytes(content)
    app = H5App(tmp_path)
    # Attributes in the header itself are read without libhdf5.
    for route in ("/meta", "/attr") if what == "attributes" else ("/meta", "/paths"):
        answer = await ask(app, route, path="many")
        assert answer.status == 422, answer.body
        assert f"more than {MAX_TREE_DEPTH} levels" in answer.message
    assert (await ask(app, "/data", path="good")).json == 1


# What is sound


@pytest.mark.parametrize("file", animals.FILES)
def test_nothing_of_a_sound_file_is_refused(zoo: Path, file: str) -> None:
    lease = Lease(pool_of(zoo))
    try:
        opened = lease.open_asked(file)
        found: list[h5o.ObjInfo] = []

        def note(_name: bytes, info: h5o.ObjInfo) -> None:
            found.append(info)

        h5o.visit(opened.root, note, info=True)
        for info in found:
            check_object(opened, info.addr)
            check_links(opened, info.addr)
    finally:
        lease.release()
        lease.pool.close()
