"""What is said of files: h5py's own answers are the oracle."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t, h5z

from asgihive.errors import EntityMissing, LinkUnresolved
from asgihive.hdf5.inspection import CODECS_EXTRA, Inspection, StorageReport, Way, inspect_path
from asgihive.hdf5.opening import find_dataset
from tests import zoo
from tests.hdf5.serving import forge, leased
from tests.zoo import awkward
from tests.zoo.findings import each_sync_content


@pytest.fixture(scope="module")
def animals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("zoo")
    zoo.build(root)
    return root


def inspected(root: Path, file: str, path: str = "/") -> Inspection:
    with leased(root) as lease:
        return inspect_path(lease, lease.open_asked(file), path)


def storage_of(root: Path, file: str, path: str) -> StorageReport:
    storage = inspected(root, file, path).storage
    assert storage is not None
    return storage


def groups(root: Path, file: str) -> list[Inspection]:
    """All groups along hard links; cycles, which have ever longer paths, three times around."""
    found = [inspected(root, file)]
    for group in found:
        found += [
            inspected(root, file, child.path)
            for child in group.children or ()
            if child.kind == "group" and not child.links and child.path.count("/") < 4
        ]
    return found


def opened(group: h5py.Group, name: str) -> Any:
    """What h5py finds there; None where it does not."""
    try:
        return group[name]
    except (KeyError, OSError, RuntimeError):
        return None


@each_sync_content
def test_groups_are_what_h5py_says(animals: Path, file: str) -> None:
    seen = 0
    found = groups(animals, file)
    with h5py.File(animals / file) as oracle:
        for group in found:
            theirs = oracle[group.path]
            assert group.children is not None
            assert [child.name for child in group.children] == sorted(theirs, key=str.encode)
            assert group.members == len(theirs)
            for child in group.children:
                compare_child(child, theirs)
                seen += 1
    assert seen


def compare_child(child: Inspection, group: h5py.Group) -> None:
    link = group.get(child.name, getlink=True)
    target = opened(group, child.name)
    if isinstance(link, h5py.HardLink):
        assert not child.links
    else:
        (ours,) = child.links
        assert ours.target_path == link.path
        assert ours.target_file == getattr(link, "filename", None)
        assert ours.resolves == (target is not None)
        assert (ours.problem is None) == ours.resolves
    if target is None:
        assert child.kind in {"soft_link", "external_link"}
        assert child.problem == child.links[0].problem
        return
    assert child.problem is None
    assert child.kind == type(target).__name__.lower()
    assert child.object_path is not None
    assert target.file[child.object_path] == target
    assert child.file is not None
    assert target.file.filename.endswith(child.file)
    if isinstance(target, h5py.Dataset):
        assert child.storage is not None
        compare_storage(child.storage, target)


def compare_storage(ours: StorageReport, theirs: h5py.Dataset) -> None:
    assert ours.shape == theirs.shape
    assert ours.dataspace == {None: "null", (): "scalar"}.get(theirs.shape, "simple")
    item_bytes = theirs.id.get_type().get_size()
    assert ours.raw_bytes == (theirs.size or 0) * item_bytes
    if theirs.is_virtual:
        assert (ours.layout, ours.stored_bytes, ours.way) == ("virtual", None, Way.VIRTUAL)
        return
    assert ours.maxshape == theirs.maxshape
    assert ours.stored_bytes == theirs.id.get_storage_size()
    properties = theirs.id.get_create_plist()
    filters = [properties.get_filter(index) for index in range(properties.get_nfilters())]
    assert [(each.id, each.name.encode(), each.values) for each in ours.filters] == [
        (number, name, values) for number, _, values, name in filters
    ]
    if theirs.chunks is None:
        assert ours.chunks is None
    else:
        assert ours.chunks is not None
        assert ours.chunks.shape == theirs.chunks
        assert ours.chunks.raw_bytes == np.prod(theirs.chunks) * item_bytes
        assert ours.chunks.stored == theirs.id.get_num_chunks()
        assert ours.chunks.in_grid == (len(list(theirs.iter_chunks())) if theirs.size else 0)


def datasets(root: Path, file: str) -> list[str]:
    paths: list[str] = []

    def note(path: str, entity: object) -> None:
        if isinstance(entity, h5py.Dataset):
            paths.append(f"/{path}")

    with h5py.File(root / file) as opened_file:
        opened_file.visititems(note)
    return paths


@each_sync_content
def test_the_way_is_the_one_that_a_read_takes(animals: Path, file: str) -> None:
    for path in datasets(animals, file):
        storage = storage_of(animals, file, path)
        if not storage.shape and storage.dataspace != "scalar":
            assert storage.way is None
            continue
        if 0 in (storage.shape or ()) and storage.layout != "virtual":
            assert storage.way is None
            continue
        with leased(animals) as lease:
            dataset = find_dataset(lease, lease.open_asked(file), path)
            assert dataset.needs_library == (storage.way not in {Way.ENGINE, Way.CONTIGUOUS}), path
            assert (dataset.contiguous is not None) == (storage.way is Way.CONTIGUOUS)
            assert (dataset.virtual is not None) == (storage.way is Way.VIRTUAL)
        assert (storage.reason is not None) == (storage.way is Way.LIBRARY)


@pytest.mark.parametrize(
    ("path", "way", "words"),
    [
        ("/gzip_shuffle", Way.ENGINE, None),
        ("/gzip_text", Way.LIBRARY, "variable-length strings"),
        ("/scale_offset", Way.LIBRARY, "filter 6 (scaleoffset)"),
        ("/nbit", Way.LIBRARY, "filter 5 (nbit)"),
    ],
)
def test_reasons(animals: Path, path: str, way: Way, words: str | None) -> None:
    storage = storage_of(animals, "filters.h5", path)
    assert storage.way is way
    assert words is None or words in (storage.reason or "")


@pytest.mark.parametrize(
    ("path", "way", "words"),
    [
        ("/compact", Way.CONTIGUOUS, None),
        ("/contiguous_never_written", Way.LIBRARY, "nothing is stored"),
        ("/spaces/null", None, "no elements"),
        ("/spaces/zero_0x3", None, "no elements"),
        ("/external_storage", Way.RAW_STORAGE, None),
    ],
)
def test_reasons_of_layouts(animals: Path, path: str, way: Way | None, words: str | None) -> None:
    storage = storage_of(animals, "layouts.h5", path)
    assert storage.way is way
    assert words is None or words in (storage.reason or "")


@pytest.mark.parametrize("path", ["/gzip", "/masked_chunk", "/fletcher32"])
def test_sizes_of_chunks(animals: Path, path: str) -> None:
    chunks = storage_of(animals, "filters.h5", path).chunks
    with h5py.File(animals / "filters.h5") as file:
        dataset = file[path].id
        infos = [dataset.get_chunk_info(index) for index in range(dataset.get_num_chunks())]
    sizes = sorted(info.size for info in infos)
    assert chunks is not None
    assert (chunks.smallest, chunks.largest) == (sizes[0], sizes[-1])
    assert chunks.median == sizes[(len(sizes) - 1) // 2]


def test_ratio(animals: Path) -> None:
    storage = storage_of(animals, "filters.h5", "/gzip_bool")
    assert storage.raw_bytes == 31 * 23
    assert storage.ratio == 31 * 23 / (storage.stored_bytes or 0)
    # 24 bytes of addresses are no measure of a text.
    assert storage_of(animals, "filters.h5", "/gzip_text").ratio is None
    assert storage_of(animals, "layouts.h5", "/chunked_never_written").ratio is None


def test_sources_of_virtual_datasets(animals: Path) -> None:
    sources = storage_of(animals, "virtual.h5", "/stack").sources
    assert sources is not None
    assert [(each.file, each.dataset, each.found, each.way) for each in sources] == [
        *((f"sources/{name}.h5", "data", True, Way.CONTIGUOUS) for name in ("one", "two", "three")),
        ("sources/missing.h5", "data", False, None),
    ]
    assert "sources/missing.h5" in (sources[3].problem or "")
    numbered = storage_of(animals, "virtual.h5", "/printf").sources or ()
    assert [each.file for each in numbered] == [f"sources/part_{number}.h5" for number in range(3)]
    (local,) = storage_of(animals, "virtual.h5", "/same_file").sources or ()
    assert (local.file, local.found, local.way) == (".", True, Way.ENGINE)
    (nested,) = storage_of(animals, "virtual.h5", "/nested").sources or ()
    assert nested.way is Way.VIRTUAL
    (absent,) = storage_of(animals, "virtual.h5", "/source_dataset_missing").sources or ()
    assert not absent.found
    assert storage_of(animals, "virtual.h5", "/without_sources").sources == ()


def test_sources_and_segments_outside_are_not_found(root: Path) -> None:
    outside = root.parent / "outside"
    with h5py.File(outside / "secret.h5", "w") as file:
        file["data"] = np.arange(4)
    (outside / "raw.bin").write_bytes(bytes(16))
    (root / "raw.bin").write_bytes(bytes(16))
    with h5py.File(root / "main.h5", "w") as file:
        layout = h5py.VirtualLayout((4,), "i8")
        layout[...] = h5py.VirtualSource("../outside/secret.h5", "data", (4,))
        file.create_virtual_dataset("virtual", layout)
        raw = [("raw.bin", 0, 16), ("../outside/raw.bin", 4, 16)]
        file.create_dataset("raw", (8,), "<i4", external=raw)
        file["link"] = h5py.ExternalLink("../outside/secret.h5", "/data")
    (source,) = storage_of(root, "main.h5", "/virtual").sources or ()
    assert (source.found, source.way) == (False, None)
    segments = storage_of(root, "main.h5", "/raw").segments or ()
    assert [(each.file, each.offset, each.bytes, each.found) for each in segments] == [
        ("raw.bin", 0, 16, True),
        ("../outside/raw.bin", 4, 16, False),
    ]
    link = inspected(root, "main.h5", "/link")
    assert link.kind == "external_link"
    assert not link.links[0].resolves


def test_links_on_the_path(animals: Path) -> None:
    found = inspected(animals, "links.h5", "/external/group/sibling")
    assert [(link.path, link.kind, link.target_path) for link in found.links] == [
        ("/external/group", "external_link", "/group"),
        ("/external/group/sibling", "soft_link", "inner"),
    ]
    assert (found.file, found.object_path) == ("target.h5", "/group/inner")
    assert found.path == "/external/group/sibling"


def test_what_is_not_there(animals: Path) -> None:
    with pytest.raises(EntityMissing):
        inspected(animals, "links.h5", "/nothing")
    with pytest.raises(LinkUnresolved):
        inspected(animals, "links.h5", "/soft/broken/below")
    broken = inspected(animals, "links.h5", "/soft/broken")
    assert (broken.kind, broken.storage, broken.object_path) == ("soft_link", None, None)
    assert broken.problem == "there is no 'no' in its target"


def test_what_h5py_cannot_read(animals: Path) -> None:
    found = inspected(animals, awkward.FILE)
    children = {child.name: child for child in found.children or ()}
    assert children["time"].storage is not None
    assert children["time"].storage.way is None
    assert "no NumPy equivalent" in (children["time"].storage.reason or "")
    assert children["time"].storage.shape == (4,)
    assert children["opaque_tagged"].kind == "dataset"
    assert children["group \ufffd"].members == 1
    assert children["dataset \ufffd"].storage is not None
    assert children["dataset \ufffd"].storage.way is Way.CONTIGUOUS
    assert inspected(animals, awkward.FILE, "/group \ufffd").children is not None


def missing_filter(root: Path, number: int, mask: int) -> StorageReport:
    """Of a dataset whose only chunk went through filter `number`, if `mask` is 0."""
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_chunk((4,))
    properties.set_filter(h5z.FILTER_DEFLATE, 0, (4,))
    with h5py.File(root / "main.h5", "w") as file:
        data = h5d.create(file.id, b"data", h5t.STD_I32LE, h5s.create_simple((4,)), properties)
        data.write_direct_chunk((0,), bytes(16), mask)
    # The filter message: number 1, length of its name, flags, number of values, name.
    rest = b"\x08\x00\x00\x00\x01\x00"
    new = number.to_bytes(2, "little") + rest + b"unknown"
    forge(root / "main.h5", b"\x01\x00" + rest + b"deflate", new)
    listed = inspected(root, "main.h5").children or ()
    storage = storage_of(root, "main.h5", "/data")
    assert listed[0].storage is not None
    assert (listed[0].storage.way, listed[0].storage.reason) == (storage.way, storage.reason)
    return storage


def test_a_missing_filter(root: Path) -> None:
    storage = missing_filter(root, 0x7777, 0)
    assert (storage.way, storage.reason) == (None, "missing: filter 30583 (unknown)")
    (missing,) = storage.filters
    assert missing.decoder is None
    assert "HDF5_PLUGIN_PATH" in (missing.install or "")


def test_a_missing_filter_that_no_chunk_went_through(root: Path) -> None:
    storage = missing_filter(root, 0x7777, 1)
    assert (storage.way, storage.reason) == (Way.LIBRARY, "filter 30583 (unknown)")


def test_a_missing_filter_of_the_extra(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As if hdf5plugin were not there: sperr has no other decoder.
    monkeypatch.setattr(h5z, "filter_avail", lambda number: number != 32028)
    storage = missing_filter(root, 32028, 0)
    assert storage.way is None
    assert storage.filters[0].install == "pip install 'asgihive[codecs]'"


def test_the_extra_is_known() -> None:
    plugin = pytest.importorskip("hdf5plugin")
    assert set(plugin.FILTERS.values()) <= CODECS_EXTRA


def test_a_damaged_child_hides_no_other(root: Path) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        file["a"] = np.arange(3)
        file["b"] = np.arange(4)
        address = h5py.h5o.get_info(file["a"].id).addr
    with (root / "main.h5").open("r+b") as raw:
        raw.seek(address)
        raw.write(b"\xff" * 16)
    damaged, good = inspected(root, "main.h5").children or ()
    assert damaged.kind == "other"
    assert "damaged" in (damaged.problem or "")
    assert good.storage is not None
    assert good.storage.way is Way.CONTIGUOUS


def test_a_huge_and_almost_empty_dataset(root: Path) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        data = file.create_dataset("data", (1 << 40,), "u1", chunks=(1 << 10,), compression="gzip")
        data[5] = 1
    storage = storage_of(root, "main.h5", "/data")
    assert storage.raw_bytes == 1 << 40
    assert storage.chunks is not None
    assert (storage.chunks.in_grid, storage.chunks.stored) == (1 << 30, 1)
    assert storage.chunks.smallest == storage.chunks.largest == storage.stored_bytes
    assert storage.way is Way.ENGINE
