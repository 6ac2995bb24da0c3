"""Chunk indexes that are damaged, or forged: refused, or told as they are, and always soon."""

import dataclasses
import io
import struct
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgihive.errors import DamagedData
from asgihive.hdf5 import chunk_trees, chunks, file_bytes, headers
from asgihive.hdf5.chunk_grid import StoredChunks
from asgihive.hdf5.chunk_index import DamagedIndex
from asgihive.hdf5.file_bytes import DamagedMetadata
from asgihive.hdf5.plan import parse_selection, select_all
from tests.efforts import at_most
from tests.fuzz.checksums import lookup3
from tests.hdf5.serving import dataset_of, values
from tests.hdf5.test_chunk_index import ALL, go_on, storage

COUNT = 3000
# A dataset of each index that has structures of its own.
KINDS: dict[str, dict[str, Any]] = {
    "TREE": {"libver": "earliest"},
    "FADB": {"libver": "latest"},
    "EADB": {"libver": "latest", "maxshape": (None,)},
    "BTLF": {"libver": "latest", "shape": (COUNT // 50, 50), "maxshape": (None, None)},
}
STRUCTURES = {
    "TREE": (b"TREE",),
    "FADB": (b"FAHD", b"FADB"),
    "EADB": (b"EAHD", b"EAIB", b"EASB", b"EADB"),
    "BTLF": (b"BTHD", b"BTIN", b"BTLF"),
}

# Bytes of those that are followed by other things soon (sections III.A.2 and VII.B).
SHORT_STRUCTURES = {b"BTHD": 38, b"FAHD": 28}


def written(path: Path, kind: str, filters: dict[str, Any]) -> np.ndarray[Any, Any]:
    """One dataset of chunks of one element each; every third chunk was never written."""
    file, content = _made(kind, tuple(filters.items()))
    path.write_bytes(file)
    return content.copy()


@cache
def _made(kind: str, filters: tuple[tuple[str, Any], ...]) -> tuple[bytes, np.ndarray[Any, Any]]:
    """The bytes of such a file, and its values."""
    options = KINDS[kind] | dict(filters)
    shape, libver = options.pop("shape", (COUNT,)), options.pop("libver")
    content = np.arange(1, COUNT + 1, dtype="<i4").reshape(shape)
    made = io.BytesIO()
    with h5py.File(made, "w", libver=libver) as file:
        chunk = (1,) * len(shape)
        data = file.create_dataset("data", shape, "<i4", chunks=chunk, fillvalue=-1, **options)
        for position in np.ndindex(shape):
            if content[position] % 3:
                data[position] = content[position]
            else:
                content[position] = -1
    return made.getvalue(), content


@dataclasses.dataclass
class Sound:
    """A sound file with an index of one kind."""

    kind: str
    content: bytes
    values: np.ndarray[Any, Any]

    def draw_change(
        self,
        data: st.DataObject,
        first: int,
        news: Callable[[int], st.SearchStrategy[bytes]],
    ) -> bytes:
        """The content with one of `news` of a structure, at its byte `first` or later."""
        start = data.draw(st.sampled_from(places_of(self.content, self.kind)), "structure")
        size = SHORT_STRUCTURES.get(self.content[start : start + 4], 61)
        at = start + data.draw(st.integers(first, size - 1), "byte")
        new = data.draw(news(start), "new")[: start + size - at]
        changed = self.content[:at] + new + self.content[at + len(new) :]
        return changed[: len(self.content)]


@pytest.fixture(scope="module")
def sound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sound:
    """A file of the kind that `of_kinds` names, filtered or not."""
    kind, filters = request.param
    path = tmp_path_factory.mktemp("sound") / "main.h5"
    content = written(path, kind, filters)
    return Sound(kind, path.read_bytes(), content)


def of_kinds(*kinds: str) -> pytest.MarkDecorator:
    filters = {"plain": {}, "filtered": {"fletcher32": True}}
    # Each kind is fast with one of the two.
    each = [
        pytest.param(
            (kind, given), id=f"{kind}-{name}", marks=[pytest.mark.slow] * ((row + column) % 2)
        )
        for row, kind in enumerate(kinds)
        for column, (name, given) in enumerate(filters.items())
    ]
    return pytest.mark.parametrize("sound", each, indirect=True)


def places_of(content: bytes, kind: str) -> list[int]:
    """Where structures of that kind of index begin."""
    found = [at for each in STRUCTURES[kind] for at in all_of(content, each)]
    # A B-tree of version 1 may be a group's.
    return [at for at in found if kind != "TREE" or content[at + 4] == 1]


def all_of(content: bytes, part: bytes) -> list[int]:
    found, at = [], content.find(part)
    while at >= 0:
        found.append(at)
        at = content.find(part, at + 1)
    return found


@given(data=st.data())
@settings(max_examples=at_most(40))
@of_kinds(*KINDS)
def test_mutated_indexes(
    tmp_path_factory: pytest.TempPathFactory, sound: Sound, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("mutated")
    changed = sound.draw_change(data, 0, lambda _: st.binary(min_size=1, max_size=8))
    (root / "main.h5").write_bytes(changed)
    text = data.draw(st.sampled_from(["", "7", "::50", "40:"]), "selection")
    selection = parse_selection(text or None, sound.values.shape)
    index = eval(f"numpy.s_[{text or '...'}]", {"numpy": np})
    try:
        read = values(root, "main.h5", "data", text or None)
    except DamagedData:
        return
    assert read.shape == selection.shape
    # Only a checksum tells that a place is another chunk's, or a chunk none any more.
    if sound.kind != "TREE":
        np.testing.assert_array_equal(read, sound.values[index])


@given(data=st.data())
@settings(max_examples=at_most(40))
@of_kinds(*[kind for kind in KINDS if kind != "TREE"])
def test_forged_indexes(
    tmp_path_factory: pytest.TempPathFactory, sound: Sound, data: st.DataObject
) -> None:
    """As above, with checksums that are made right again, so that all of it is believed."""

    def forged(start: int) -> st.SearchStrategy[bytes]:
        place = start.to_bytes(8, "little")
        return st.sampled_from([b"\xff" * 8, b"\0" * 8, b"\1", b"\xfe", place])

    root = tmp_path_factory.mktemp("forged")
    (root / "main.h5").write_bytes(sound.draw_change(data, 4, forged))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_bytes, "is_checked", bytes.startswith)
        patch.setattr(chunk_trees, "is_checked", bytes.startswith)
        with dataset_of(root, "main.h5", "data") as (_, dataset):
            stored = storage(dataset).index.stored or refused
            tracemalloc.start()
            try:
                table = stored.gather(None, ALL, go_on)
                assert table is not None
                assert set(table.numbers.tolist()) <= set(range(COUNT))
            except DamagedMetadata:
                pass
            finally:
                _, peak = tracemalloc.get_traced_memory()
                tracemalloc.stop()
            for number in range(0, COUNT, 501):
                with suppress(DamagedMetadata):
                    stored.find(tuple(map(int, np.unravel_index(number, sound.values.shape))))
    assert peak < 32 << 20


# Of an index that is of another kind by now, which only libhdf5 is asked for.
refused = DamagedIndex("not plain")


def stored_of(root: Path, check: Callable[[StoredChunks], None]) -> None:
    with dataset_of(root, "main.h5", "data") as (_, dataset):
        stored = storage(dataset).index.stored
        assert stored is not None
        check(stored)


def forge_tree(root: Path, change: Callable[[bytearray, list[int]], None]) -> None:
    """A version 1 B-tree of two levels, and `change` of where its nodes are, the root first."""
    written(root / "main.h5", "TREE", {})
    content = bytearray((root / "main.h5").read_bytes())
    nodes = [at for at in all_of(bytes(content), b"TREE") if content[at + 4] == 1]
    nodes.sort(key=lambda at: -content[at + 5])
    assert content[nodes[0] + 5] > content[nodes[-1] + 5] == 0
    change(content, nodes)
    (root / "main.h5").write_bytes(content)


# In a node: the address of the first child, behind a head and a key.
CHILD, KEY = 24 + 24, 24


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content, nodes: put(content, nodes[0] + CHILD, nodes[0]), "another level|none"),
        (lambda content, nodes: put(content, nodes[0] + CHILD, 1 << 40), "the file ends"),
        (lambda content, nodes: put(content, nodes[0] + CHILD, (1 << 64) - 9), "the file ends"),
        (lambda content, nodes: put(content, nodes[0] + CHILD, nodes[0] + 8), "no node|none"),
        (lambda content, nodes: put(content, nodes[0] + 6, 0xFFFF, 2), "no node|none"),
    ],
)
def test_trees_that_lead_nowhere(
    root: Path, change: Callable[[bytearray, list[int]], None], words: str
) -> None:
    forge_tree(root, change)

    def check(stored: StoredChunks) -> None:
        with pytest.raises(DamagedMetadata, match=words):
            stored.find((0,))
        with pytest.raises(DamagedMetadata, match=words):
            stored.gather(None, ALL, go_on)

    stored_of(root, check)


def put(content: bytearray, at: int, value: int, width: int = 8) -> None:
    content[at : at + width] = value.to_bytes(width, "little")


def test_children_of_several_parents(root: Path) -> None:
    """A small file that would be a tree of very many nodes."""

    def change(content: bytearray, nodes: list[int]) -> None:
        entry = KEY + 8
        used = int.from_bytes(content[nodes[0] + 6 : nodes[0] + 8], "little")
        for position in range(used):
            put(content, nodes[0] + CHILD + position * entry, nodes[-1])

    forge_tree(root, change)

    def check(stored: StoredChunks) -> None:
        with pytest.raises(DamagedMetadata, match="twice"):
            stored.gather(None, ALL, go_on)

    stored_of(root, check)


def test_a_chunk_that_is_there_twice_is_the_one_that_is_found(root: Path) -> None:
    def change(content: bytearray, nodes: list[int]) -> None:
        leaf = next(at for at in nodes if content[at + 5] == 0)
        content[leaf + KEY + 32 : leaf + KEY + 56] = content[leaf + KEY : leaf + KEY + 24]

    forge_tree(root, change)

    def check(stored: StoredChunks) -> None:
        with pytest.raises(DamagedMetadata, match="twice"):
            stored.gather(None, ALL, go_on)

    stored_of(root, check)
    # Another part of the tree is as sound as it was.
    assert values(root, "main.h5", "data", "2998:3000").tolist() == [2999, -1]


def test_what_is_damaged_is_named_and_the_rest_is_read(root: Path) -> None:
    forge_tree(root, lambda content, nodes: put(content, nodes[-1], 0, 4))
    with dataset_of(root, "main.h5", "data") as (lease, dataset):
        damaged = []
        for position in range(0, COUNT, 7):
            try:
                dataset.read(lease, parse_selection(str(position), (COUNT,)).axes)
            except DamagedData:
                damaged.append(position)
        assert 0 < len(damaged) < 20
        with pytest.raises(DamagedData, match=r"chunk \(\d+,\) \(there is no node"):
            dataset.read(lease, select_all((COUNT,)).axes)


def test_absurd_numbers_in_a_header_that_is_believed(root: Path) -> None:
    written(root / "main.h5", "FADB", {})
    content = bytearray((root / "main.h5").read_bytes())
    at = content.index(b"FAHD")
    put(content, at + 8, 1 << 60)
    content[at + 24 : at + 28] = struct.pack("<I", lookup3(content[at : at + 24]))
    (root / "main.h5").write_bytes(content)
    with pytest.raises(DamagedData, match="a block of its index has"):
        values(root, "main.h5", "data")


FORGED_SIZES = (1, 16, 511, 513, 4608, 1 << 20)


@pytest.mark.parametrize("size", FORGED_SIZES)
@pytest.mark.parametrize("count", [8, 3000])
@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("filters", [{}, {"compression": "gzip"}])
def test_sizes_are_compared_with_the_layout(
    root: Path, libver: str, filters: dict[str, Any], count: int, size: int
) -> None:
    """Of chunks that no filter was given, the size is known; nothing else is ever read."""
    with h5py.File(root / "main.h5", "w", libver=libver) as file:
        options = filters | {"chunks": (512,), "maxshape": (None,)}
        data = file.create_dataset("data", (count * 512,), "u1", **options)
        data[512:1024] = 7
        if libver == "latest" and not filters:
            return  # such an index has no sizes
        data.id.write_direct_chunk((0,), b"A" * size, filter_mask=1 if filters else 0)
    assert values(root, "main.h5", "data", "512:1024").tolist() == [7] * 512
    for text in ("0:10", "0:512", None):
        with pytest.raises(DamagedData, match=rf"chunk \(0,\) \(it gives {size} bytes, 512 are"):
            values(root, "main.h5", "data", text)


def test_a_filtered_chunk_is_no_larger_than_filters_make_it(root: Path) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        data = file.create_dataset("data", (1024,), "u1", chunks=(512,), compression="gzip")
        data.id.write_direct_chunk((0,), bytes(1 << 20))
    with pytest.raises(DamagedData, match="1048576 bytes are stored, for 512 at most"):
        values(root, "main.h5", "data", "0:512")


@pytest.mark.parametrize(
    ("shape", "most"), [((1 << 30,), (None,)), ((1 << 15, 1 << 15), (None, None))]
)
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_chunks_that_were_never_written_cost_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, libver: str, shape: Any, most: Any
) -> None:
    with h5py.File(root / "main.h5", "w", libver=libver) as file:
        chunk = (1,) * len(shape)
        data = file.create_dataset("data", shape, "u1", maxshape=most, chunks=chunk, fillvalue=5)
        data[tuple(extent // 2 for extent in shape)] = 6
    # A part for each chunk would be four million objects.
    monkeypatch.setattr(chunks, "cut_by_chunks", None)
    rows = (1 << 22) // (1 if len(shape) == 1 else shape[1])
    text = f"{shape[0] // 2 - rows // 2}:{shape[0] // 2 + rows // 2}"
    with dataset_of(root, "main.h5", "data") as (lease, dataset):
        axes = parse_selection(text, shape).axes
        tracemalloc.start()
        try:
            read = dataset.read(lease, axes)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert (read.sum(dtype=np.int64), read.max()) == (5 * read.size + 1, 6)
        assert peak < read.nbytes + (8 << 20)
        assert len(storage(dataset).split(axes, 4)) <= 4


def test_very_many_stored_chunks_are_read_in_several_goes(root: Path) -> None:
    with h5py.File(root / "main.h5", "w", libver="latest") as file:
        data = file.create_dataset("data", (40_000,), "u1", maxshape=(None,), chunks=(1,))
        for position in range(0, 40_000, 2):
            data.id.write_direct_chunk((position,), bytes([position % 251]))
    expected = np.where(np.arange(40_000) % 2, 0, np.arange(40_000) % 251)
    with dataset_of(root, "main.h5", "data") as (lease, dataset):
        shares = storage(dataset).split(select_all((40_000,)).axes, 1)
        assert len(shares) == 3
        read = np.ones(40_000, "u1")
        for each in shares:
            dataset.read_into(read[each.target], lease, each.axes, None, keep=False)
        np.testing.assert_array_equal(read, expected)
        # Known by now: half of them are stored.
        assert len(storage(dataset).split(select_all((40_000,)).axes, 1)) == 2


def test_a_request_that_is_over_ends_the_listing(root: Path) -> None:
    written(root / "main.h5", "TREE", {})

    class OverError(Exception):
        pass

    def over() -> None:
        raise OverError

    with dataset_of(root, "main.h5", "data") as (_, dataset), pytest.raises(OverError):
        storage(dataset).index.locate(select_all((COUNT,)).axes, over)


def test_the_image_of_a_cache_is_left_to_libhdf5(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metadata that lie in it are not where addresses lead."""
    content = written(root / "main.h5", "EADB", {})
    read_superblock, read_messages = file_bytes.read_superblock, headers.read_messages

    def with_extension(*given: Any, **named: Any) -> file_bytes.FileBytes:
        return dataclasses.replace(read_superblock(*given, **named), extension=1 << 30)

    def with_image(
        file: file_bytes.FileBytes, address: int, chosen: frozenset[int]
    ) -> dict[int, bytes]:
        return {0x18: b""} if address == 1 << 30 else read_messages(file, address, chosen)

    monkeypatch.setattr(headers, "read_superblock", with_extension)
    monkeypatch.setattr(headers, "read_messages", with_image)
    with dataset_of(root, "main.h5", "data") as (lease, dataset):
        assert storage(dataset).index.needs_library
        np.testing.assert_array_equal(dataset.read(lease, select_all((COUNT,)).axes), content)


def test_without_libhdf5s_checksum_it_is_asked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = written(root / "main.h5", "EADB", {})
    monkeypatch.setattr(file_bytes, "checksum", None)
    with dataset_of(root, "main.h5", "data") as (lease, dataset):
        assert storage(dataset).index.needs_library
        np.testing.assert_array_equal(dataset.read(lease, select_all((COUNT,)).axes), content)
        assert not storage(dataset).index.needs_library


@pytest.mark.parametrize("address", [0x2010_1010_0000_0FB0, 2**63, 2**64 - 2])
def test_an_address_that_no_file_has_is_the_same_however_it_is_found(
    tmp_path: Path, address: int
) -> None:
    """Else the second answer, for which chunks are listed, would differ from the first."""

    def change(content: bytearray, nodes: list[int]) -> None:
        for node in nodes:
            if content[node + 5] == 0:
                content[node + CHILD : node + CHILD + 8] = address.to_bytes(8, "little")

    def check(stored: StoredChunks) -> None:
        table = stored.gather(None, ALL, go_on)
        assert table is not None
        beyond = np.flatnonzero(table.offsets > 2**60)
        assert len(beyond) > 1
        for number in table.numbers[beyond].tolist():
            assert stored.find((number,)) == table.get(number)

    forge_tree(tmp_path, change)
    stored_of(tmp_path, check)
    with pytest.raises(DamagedData, match="the file ends"):
        values(tmp_path, "main.h5", "data", "0")
