"""Chunks of Zarr arrays, decoded by zarr-python, against h5py on the same file."""

import struct
import zlib
from pathlib import Path
from typing import Any

import anyio
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgihive.errors import AnswerTooLarge, BadParameter, DamagedData, TypeUnsupported
from asgihive.hdf5 import sandbox
from asgihive.hdf5.datasets import Dataset
from asgihive.hdf5.filters.pipeline import Pipeline
from asgihive.zarr import chunks as module
from asgihive.zarr.data_types import NoDataType, name_data_type
from asgihive.zarr.grid import ChunkSource
from tests.efforts import at_most
from tests.zarr.asking import (
    ask_chunk,
    assert_same_values,
    fetch_array,
    make_store,
    open_plan,
)
from tests.zoo import chunks as crafted
from tests.zoo import oracle
from tests.zoo.findings import each_content

pytestmark = pytest.mark.anyio

ZSTD: dict[str, Any] = {"compression": 32015, "compression_opts": (3,)}
BLOSC: dict[str, Any] = {"compression": 32001}
VALUES = (np.arange(300 * 400) * 7919 % 60_000).astype("<u2").reshape(300, 400)


def can_write(options: dict[str, Any]) -> bool:
    return bool(h5py.h5z.filter_avail(options["compression"]))


needs_zstd = pytest.mark.skipif(not can_write(ZSTD), reason="hdf5plugin writes such files")


@each_content
async def test_every_dataset_of_the_zoo(zoo: Path, file: str) -> None:
    store, compared = make_store(zoo), 0
    for entity in oracle.datasets(zoo, file):
        if entity.shape is None or entity.dtype is None:
            continue
        try:
            fetched = await fetch_array(store, file, entity.path)
        except (NoDataType, TypeUnsupported):
            with pytest.raises(NoDataType):
                name_data_type(entity.dtype)
            continue
        assert_same_values(fetched.decode(), entity.value)
        compared += 1
    assert compared or file not in {"layouts.h5", "filters.h5"}


@given(
    shape=st.lists(st.integers(0, 40), max_size=3).map(tuple),
    data=st.data(),
    dtype=st.sampled_from(["<u2", ">f4", "?", "<c8", "i1"]),
    options=st.sampled_from(
        [
            {},
            {"compression": "gzip"},
            {"compression": "gzip", "shuffle": True, "fletcher32": True},
            {"fletcher32": True},
            {"shuffle": True},
            *([ZSTD, {**ZSTD, "fletcher32": True}, {**ZSTD, "shuffle": True}] * can_write(ZSTD)),
            *([BLOSC] * can_write(BLOSC)),
        ]
    ),
    stored=st.booleans(),
    compression=st.sampled_from(["zstd", "blosc", "none"]),
)
@settings(max_examples=at_most(12), deadline=None)
def test_any_shape_cut_and_filter(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, ...],
    data: st.DataObject,
    dtype: str,
    options: dict[str, Any],
    *,
    stored: bool,
    compression: str,
) -> None:
    root = tmp_path_factory.mktemp("any")
    values = (np.arange(np.prod(shape, dtype=int)) * 37 % 101).astype(dtype).reshape(shape)
    more: dict[str, Any] = {}
    if shape:
        cut = st.tuples(*(st.integers(1, max(1, extent) + 3) for extent in shape))
        more = {"maxshape": (None,) * len(shape), "chunks": data.draw(cut), **options}
    with h5py.File(root / "x.h5", "w") as file:
        file.create_dataset("v", data=values, **more)
        if shape:
            file.create_dataset("w", shape, dtype, fillvalue=np.ones((), dtype)[()], **more)
            for at in np.ndindex(*(min(1, extent) for extent in shape)):
                file["w"][at] = values[at]
        expected = {name: file[name][()] for name in file}

    async def fetch() -> dict[str, Any]:
        store = make_store(root, zarr_stored_chunks=stored, zarr_compression=compression)
        return {name: await fetch_array(store, "x.h5", f"/{name}") for name in expected}

    for name, fetched in anyio.run(fetch).items():
        assert_same_values(fetched.decode(), expected[name])


def write_stored(root: Path) -> None:
    """Chunks that go out as they lie: of 72 KiB, the last ones beyond the extent."""
    noise = np.random.default_rng(1).integers(0, 16, (300, 400)).astype("<u2")
    with h5py.File(root / "x.h5", "w") as file:
        file.create_dataset("plain", data=noise, chunks=(150, 240))
        if can_write(ZSTD):
            file.create_dataset("zstd", data=noise, chunks=(150, 240), **ZSTD)
            partly = file.create_dataset(
                "partly", (300, 400), "<u2", chunks=(150, 240), fillvalue=7, **ZSTD
            )
            partly[:10, :10] = noise[:10, :10]
        if can_write(BLOSC):
            file.create_dataset("blosc", data=noise, chunks=(150, 240), **BLOSC)
        file["contiguous"] = np.arange(2_000_000, dtype=">f4").reshape(1000, 2000)


def read_stored(path: Path, name: str) -> dict[tuple[int, ...], bytes]:
    with h5py.File(path, "r") as file:
        dataset = file[name]
        found = {}
        for number in range(dataset.id.get_num_chunks()):
            offset = dataset.id.get_chunk_info(number).chunk_offset
            at = tuple(a // chunk for a, chunk in zip(offset, dataset.chunks, strict=True))
            found[at] = dataset.id.read_direct_chunk(offset)[1]
        return found


class Counted:
    """Counts what runs."""

    def __init__(self, patch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        self.calls = 0
        before = getattr(owner, name)

        def count(*args: Any, **named: Any) -> Any:
            self.calls += 1
            return before(*args, **named)

        patch.setattr(owner, name, count)


@pytest.mark.parametrize("name", ["plain", "zstd", "blosc"])
async def test_stored_chunks_go_out_as_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_stored(tmp_path)
    if name != "plain" and not can_write({"zstd": ZSTD, "blosc": BLOSC}[name]):
        pytest.skip("hdf5plugin writes such files")
    expected = read_stored(tmp_path / "x.h5", name)
    monkeypatch.setattr(sandbox, "SLOW_STAT_SECONDS", 60.0)  # a busy machine is no slow disk
    store = make_store(tmp_path)
    plan, _ = await open_plan(store, "x.h5", f"/{name}")
    assert plan.source is ChunkSource.STORED
    decoded = Counted(monkeypatch, Pipeline, "decode")
    opened = Counted(monkeypatch, Dataset, "__init__")
    encoded = Counted(monkeypatch, module, "compress")
    library = Counted(monkeypatch, type(store.lanes.library), "run")
    for at, content in expected.items():
        version, response, place = await ask_chunk(store, "x.h5", f"/{name}", at)
        assert response.body == content
        assert version.validators.etag is not None
        assert place is not None
        offset, size = place.values
        assert size == len(content)
        assert (tmp_path / "x.h5").read_bytes()[offset : offset + size] == content
    # In no lane: all of it was in memory.
    assert (decoded.calls, opened.calls, encoded.calls, library.calls) == (0, 0, 0, 0)


@needs_zstd
async def test_a_chunk_that_was_never_written_is_sent_as_fill_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stored(tmp_path)
    store = make_store(tmp_path)
    encoded = Counted(monkeypatch, module, "compress")
    fetched = await fetch_array(store, "x.h5", "/partly")
    assert encoded.calls == 1  # of three such chunks, once
    assert len({response.body for response in fetched.chunks.values()}) == 2
    values = fetched.decode()
    assert values[299, 399] == values[10, 10] == 7
    with h5py.File(tmp_path / "x.h5", "r") as file:
        np.testing.assert_array_equal(values, file["partly"][()])


async def test_runs_of_contiguous_data_go_out_as_they_lie(tmp_path: Path) -> None:
    write_stored(tmp_path)
    store = make_store(tmp_path)
    plan, _ = await open_plan(store, "x.h5", "/contiguous")
    assert plan.counts == (4, 1)
    with h5py.File(tmp_path / "x.h5", "r") as file:
        begin, values = file["contiguous"].id.get_offset(), file["contiguous"][()]
    _, response, place = await ask_chunk(store, "x.h5", "/contiguous", (1, 0))
    assert response.body == values[250:500].tobytes()
    assert place is not None
    assert place.values == (begin + 2_000_000, 2_000_000)
    np.testing.assert_array_equal(
        (await fetch_array(store, "x.h5", "/contiguous")).decode(), values
    )


@needs_zstd
async def test_chunks_that_skipped_filters_are_encoded_anew(tmp_path: Path) -> None:
    raw = VALUES[:150, :240]
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, options in (("zstd", ZSTD), ("blosc", BLOSC), ("sum", {"fletcher32": True})):
            if "compression" in options and not can_write(options):
                continue
            dataset = file.create_dataset(name, (300, 240), "<u2", chunks=(150, 240), **options)
            dataset[...] = VALUES[:, :240]
            dataset.id.write_direct_chunk((0, 0), raw.tobytes(), filter_mask=1)
    store = make_store(tmp_path)
    with h5py.File(tmp_path / "x.h5", "r") as file:
        for name in file:
            plan, _ = await open_plan(store, "x.h5", f"/{name}")
            assert plan.source is ChunkSource.STORED
            assert_same_values(
                (await fetch_array(store, "x.h5", f"/{name}")).decode(), file[name][()]
            )


@needs_zstd
async def test_blosc_without_an_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not can_write(BLOSC):
        pytest.skip("hdf5plugin writes such files")
    monkeypatch.setattr(module, "_HAS_BLOSC", False)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", (300, 240), "<u2", chunks=(150, 240), fillvalue=5, **BLOSC)
    fetched = await fetch_array(make_store(tmp_path), "x.h5", "/x")
    np.testing.assert_array_equal(fetched.decode(), np.full((300, 240), 5))


@needs_zstd
@pytest.mark.parametrize(
    "stored",
    [
        b"no frame at all, but some bytes",
        bytes.fromhex("28b52ffd"),
        # Says another size than that of the chunk.
        bytes.fromhex("28b52ffd2004210000") + b"\x01\x02\x03\x04",
    ],
)
async def test_a_damaged_chunk_stays_damaged(tmp_path: Path, stored: bytes) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        dataset = file.create_dataset("x", (300, 240), "<u2", chunks=(150, 240), **ZSTD)
        dataset.id.write_direct_chunk((150, 0), stored)
    store = make_store(tmp_path)
    for _ in range(2):
        with pytest.raises(DamagedData, match=r"chunk \(1, 0\)"):
            await ask_chunk(store, "x.h5", "/x", (1, 0))
        await ask_chunk(store, "x.h5", "/x", (0, 0))


@needs_zstd
async def test_a_chunk_larger_than_any_filter_makes_is_damaged(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        dataset = file.create_dataset("x", (4,), "<u2", chunks=(4,), **ZSTD)
        dataset.id.write_direct_chunk((0,), bytes(1 << 20))
    with pytest.raises(DamagedData, match="at most"):
        await ask_chunk(make_store(tmp_path), "x.h5", "/x", (0,))


async def test_a_chunk_beyond_the_end_of_its_file_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("x", data=VALUES, chunks=(300, 400), maxshape=(None, 400))
        begin = dataset.id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    # Its address in the index, a version 1 B-tree without a checksum.
    at = content.rindex(struct.pack("<Q", begin))
    content[at : at + 8] = struct.pack("<Q", len(content) - 100)
    path.write_bytes(content)
    store = make_store(tmp_path)
    plan, _ = await open_plan(store, "x.h5", "/x")
    assert plan.source is ChunkSource.STORED
    for _ in range(2):
        with pytest.raises(DamagedData, match="ends"):
            await ask_chunk(store, "x.h5", "/x", (0, 0))


@pytest.mark.parametrize("stored", [False, True])
async def test_crafted_chunks_are_damaged_or_as_they_lie(tmp_path: Path, stored: bool) -> None:
    cases = crafted.crafted()
    crafted.write(tmp_path / "crafted.h5", cases)
    store = make_store(tmp_path, zarr_stored_chunks=stored)
    for case in cases:
        plan, _ = await open_plan(store, "crafted.h5", f"/{case.name}")
        assert plan.source is ChunkSource.READ
        with pytest.raises(DamagedData):
            await ask_chunk(store, "crafted.h5", f"/{case.name}", (0,))
    fetched = await fetch_array(store, "crafted.h5", "/whole")
    np.testing.assert_array_equal(fetched.decode()[crafted.ITEMS :], crafted.VALUES)


async def test_a_wrong_checksum_is_damage(tmp_path: Path) -> None:
    raw = VALUES[:150, :240].tobytes()
    with h5py.File(tmp_path / "x.h5", "w") as file:
        dataset = file.create_dataset(
            "x", (300, 240), "<u2", chunks=(150, 240), compression="gzip", fletcher32=True
        )
        dataset.id.write_direct_chunk((0, 0), zlib.compress(raw) + b"\x01\x02\x03\x04")
        dataset[150:] = VALUES[150:, :240]
    store = make_store(tmp_path, zarr_stored_chunks=True)
    plan, _ = await open_plan(store, "x.h5", "/x")
    assert plan.source is ChunkSource.STORED
    with pytest.raises(DamagedData, match="checksum"):
        await ask_chunk(store, "x.h5", "/x", (0, 0))
    _, response, place = await ask_chunk(store, "x.h5", "/x", (1, 0))
    assert place is not None
    assert place.values[1] + len(place.head) == len(response.body)
    assert zlib.decompress(response.body[len(place.head) :]) == VALUES[150:, :240].tobytes()


async def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = np.array([[b"a", b"\xc3\xa4"], [b"", b"\xb5m"]], "S4")
        file.create_dataset("y", data=[b"\xff"], dtype=h5py.string_dtype())
    store = make_store(tmp_path)
    fetched = await fetch_array(store, "x.h5", "/x")
    assert fetched.decode().tolist() == [["a", "ä"], ["", "\ufffdm"]]
    assert (await fetch_array(store, "x.h5", "/y")).decode().tolist() == ["\ufffd"]


@pytest.mark.parametrize("coordinates", [(), (0,), (2, 0), (0, 1), (0, 0, 0), (10**18, 0)])
async def test_no_such_chunk(tmp_path: Path, coordinates: tuple[int, ...]) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=VALUES, chunks=(150, 400))
    with pytest.raises(BadParameter, match="2 x 1 chunks"):
        await ask_chunk(make_store(tmp_path), "x.h5", "/x", coordinates)


async def test_a_chunk_larger_than_an_answer_may_be(tmp_path: Path) -> None:
    write_stored(tmp_path)
    store = make_store(tmp_path, max_response_bytes=72_000)
    await ask_chunk(store, "x.h5", "/plain", (0, 0))
    with pytest.raises(AnswerTooLarge, match="its chunks are as large"):
        await ask_chunk(store, "x.h5", "/contiguous", (0, 0))


async def test_what_zarr_cannot_express_has_no_chunk(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", (3,), h5py.vlen_dtype(np.dtype("<i4")))
        file["empty"] = h5py.Empty("<f4")
    store = make_store(tmp_path)
    for name in ("x", "empty"):
        with pytest.raises(TypeUnsupported):
            await ask_chunk(store, "x.h5", f"/{name}", (0,))


@pytest.mark.parametrize("bytes_of_cache", [0, 1 << 20])
async def test_a_chunk_is_encoded_once_however_many_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bytes_of_cache: int
) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=VALUES, chunks=(150, 400), compression="gzip")
    store = make_store(tmp_path, zarr_cache_bytes=bytes_of_cache)
    encoded = Counted(monkeypatch, module, "compress")
    bodies = []

    async def ask() -> None:
        bodies.append((await ask_chunk(store, "x.h5", "/x", (0, 0)))[1].body)

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(ask)
    assert len(bodies) == 5
    assert len(set(bodies)) == 1
    assert encoded.calls == (1 if bytes_of_cache else 5)


async def test_a_client_that_has_the_chunk_gets_a_304(tmp_path: Path) -> None:
    write_stored(tmp_path)
    store = make_store(tmp_path)
    version, _, _ = await ask_chunk(store, "x.h5", "/plain", (0, 0))
    tag = version.validators.etag
    assert tag is not None
    _, response, _ = await ask_chunk(store, "x.h5", "/plain", (0, 0), if_none_match=tag)
    assert (response.status, response.body) == (304, b"")
