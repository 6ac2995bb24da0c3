"""Blocks in the lanes: in order, ahead within bounds, each chunk decoded once and none too many."""

import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgihive.concurrency import Lanes
from asgihive.errors import DamagedData, ReadTimeout
from asgihive.hdf5 import cache, chunks, virtual_sources
from asgihive.hdf5.datasets import Array, Dataset
from asgihive.hdf5.filters.pipeline import Pipeline
from asgihive.hdf5.opening import find_dataset
from asgihive.hdf5.plan import Block, Selection, parse_selection, plan_blocks, select_all
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.reader import Held, Reader
from asgihive.tasks import InFlight
from tests.efforts import at_most
from tests.hdf5.serving import descriptors, leased
from tests.hdf5.strategies import selections

pytestmark = pytest.mark.anyio


def reader_of(
    *,
    threads: int = 2,
    read_ahead_bytes: int = 1 << 20,
    in_flight_bytes: int = 1 << 28,
    seconds: float = 60,
) -> Reader:
    return Reader(Lanes(threads, 1000), read_ahead_bytes, InFlight(in_flight_bytes), seconds)


@asynccontextmanager
async def leasing(root: Path, **bounds: Any) -> AsyncIterator[Lease]:
    """As `leased`, whose system calls are not for the event loop."""
    context = leased(root, **bounds)
    lease = await anyio.to_thread.run_sync(context.__enter__)
    try:
        yield lease
    finally:
        await anyio.to_thread.run_sync(context.__exit__, None, None, None)


async def held_of(reader: Reader, lease: Lease, file: str, path: str) -> Held:
    def find() -> Dataset:
        return find_dataset(lease, lease.open_asked(file), path)

    return Held(await reader.lanes.library.run(find), lease, keep=True)


async def read_all(
    reader: Reader, held: Held, selection: Selection, block_bytes: int = 1 << 16
) -> Array:
    """What is read ahead, put together again."""
    dataset = held.dataset
    blocks = plan_blocks(selection, dataset.layout.chunks, dataset.item_bytes, block_bytes)
    flat = reader.read_blocks(held, blocks, lambda _, array: array.ravel())
    async with flat as ahead:
        parts = [part async for part in ahead]
    joined = np.concatenate(parts) if parts else np.empty(0, dataset.dtype)
    return joined.reshape((*selection.shape, *dataset.item_shape))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each chunk that is decoded."""
    counted: list[int] = []
    decode = Pipeline.decode

    def counting(self: Pipeline, stored: Any, mask: int) -> Any:
        counted.append(stored.size)
        return decode(self, stored, mask)

    monkeypatch.setattr(Pipeline, "decode", counting)
    return counted


SHAPE = (13, 17, 7)


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The same numbers in every layout, as `data.h5` and its sources."""
    root = tmp_path_factory.mktemp("reader")
    stored = np.random.default_rng(3).integers(0, 1000, SHAPE).astype("<i4")
    with h5py.File(root / "data.h5", "w") as file:
        file.create_dataset("contiguous", data=stored)
        file.create_dataset("gzip", data=stored, chunks=(3, 4, 5), compression="gzip")
        file.create_dataset("tall", data=stored, chunks=(13, 2, 2), shuffle=True)
        file.create_dataset("scale", data=stored, chunks=(3, 17, 7), scaleoffset=0)
        layout = h5py.VirtualLayout(SHAPE, "<i4")
        for number in range(SHAPE[0]):
            source = root / f"row_{number}.h5"
            with h5py.File(source, "w") as part:
                part.create_dataset("row", data=stored[number], chunks=(5, 7), compression="lzf")
            layout[number] = h5py.VirtualSource(source.name, "row", SHAPE[1:])
        file.create_virtual_dataset("virtual", layout)
    return root, stored


@pytest.mark.parametrize("path", ["contiguous", "gzip", "tall", "scale", "virtual"])
async def test_blocks_in_order_are_what_numpy_selects(
    laid_out: tuple[Path, Any], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, stored = laid_out
    # Each chunk is worth a thread, and two sources are many.
    monkeypatch.setattr(chunks, "SPLIT_BYTES", 1)
    monkeypatch.setattr(virtual_sources, "MAX_SOURCES_AT_ONCE", 2)
    reader = reader_of(threads=3)
    async with leasing(root, max_open=4, chunk_cache_bytes=0) as lease:
        held = await held_of(reader, lease, "data.h5", path)
        for text in ("", "5", "2:11:3,::2", ":,3,1:", "...,6", "12,16,6", "4:4"):
            expected = eval(f"stored[{text or '...'}]", {"stored": stored})
            for block_bytes in (200, 1 << 16):
                chosen = parse_selection(text, SHAPE)
                read = await read_all(reader, held, chosen, block_bytes)
                np.testing.assert_array_equal(read, expected)


@settings(max_examples=at_most(30), deadline=None)
@given(selections(SHAPE), st.integers(1, 5000), st.sampled_from(["contiguous", "gzip", "tall"]))
def test_any_selection_in_any_blocks(
    laid_out: tuple[Path, Any], text: str, block_bytes: int, path: str
) -> None:
    root, stored = laid_out

    async def check() -> None:
        reader = reader_of(read_ahead_bytes=2000)
        async with leasing(root) as lease:
            held = await held_of(reader, lease, "data.h5", path)
            chosen = parse_selection(text, SHAPE)
            read = await read_all(reader, held, chosen, block_bytes)
        expected = eval(f"stored[{text or '...'}]", {"stored": stored})
        np.testing.assert_array_equal(read, expected)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "SPLIT_BYTES", 100)
        anyio.run(check)


PLAIN = cast("Dataset", SimpleNamespace(item_bytes=1, virtual=None))


def numbered(count: int) -> Iterator[Block]:
    """Blocks of ten elements each."""
    return plan_blocks(select_all((10 * count,)), None, 1, 10)


@pytest.mark.parametrize(("budget", "most"), [(35, 3), (10, 1), (1, 1), (1000, 4)])
async def test_so_many_blocks_are_in_flight_as_the_budget_holds(budget: int, most: int) -> None:
    reader = reader_of(threads=3, read_ahead_bytes=budget)
    running: set[int] = set()
    peak = 0
    # Each ends only after the one behind it has begun, if that may be.
    begun = [anyio.Event() for _ in range(20)]

    async def read(block: Block) -> int:
        nonlocal peak
        number = block.first // 10
        running.add(number)
        peak = max(peak, len(running))
        begun[number].set()
        if most > 1 and number + 1 < len(begun) and number % most != most - 1:
            await begun[number + 1].wait()
        running.discard(number)
        return number

    with anyio.fail_after(5):
        async with reader.read_ahead(PLAIN, numbered(20), read) as ahead:
            taken = []
            async for number in ahead:
                taken.append(number)
                # What was taken last counts, too.
                assert len(running) <= max(1, min(4, budget // 10 - 1))
    assert taken == list(range(20))
    assert peak <= most


@pytest.mark.parametrize(("most_of_all", "blocks"), [(1000, 6), (30, 4), (10, 3)])
async def test_all_answers_share_what_is_in_flight(most_of_all: int, blocks: int) -> None:
    """Three that would have two blocks each: one they always may, more as long as there is room."""
    reader = reader_of(threads=3, read_ahead_bytes=20, in_flight_bytes=most_of_all)
    begun: list[int] = []
    release = anyio.Event()

    async def read(block: Block) -> int:
        begun.append(block.first)
        await release.wait()
        return block.first // 10

    async def answer(taken: list[int]) -> None:
        async with reader.read_ahead(PLAIN, numbered(9), read) as ahead:
            taken += [number async for number in ahead]

    answers: list[list[int]] = [[], [], []]
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for taken in answers:
                tasks.start_soon(answer, taken)
            while len(begun) < blocks:
                await anyio.lowlevel.checkpoint()
            await anyio.wait_all_tasks_blocked()
            assert len(begun) == blocks
            assert reader.in_flight.get() == [10 * blocks]
            release.set()
    assert answers == [list(range(9))] * 3
    assert reader.in_flight.get() == [0]


async def test_what_a_client_leaves_is_in_flight_no_longer() -> None:
    reader = reader_of(threads=3)

    async def read(block: Block) -> int:
        return block.first

    async with reader.read_ahead(PLAIN, numbered(9), read) as ahead:
        await anext(ahead)
        assert reader.in_flight.get() == [40]
    assert reader.in_flight.get() == [0]


async def test_a_block_that_fails_fails_in_its_turn_and_ends_the_others() -> None:
    reader = reader_of(threads=4)
    ended: list[int] = []

    async def read(block: Block) -> int:
        number = block.first // 10
        if number == 2:
            raise KeyError(number)
        if number > 2:
            try:
                await anyio.sleep_forever()
            finally:
                ended.append(number)
        return number

    taken = []
    with pytest.raises(KeyError, match="2"):
        async with reader.read_ahead(PLAIN, numbered(9), read) as ahead:
            taken += [number async for number in ahead]
    assert taken == []
    assert sorted(ended) == [3, 4, 5, 6]


async def test_what_the_body_raises_is_raised_as_it_is() -> None:
    reader = reader_of()

    async def read(block: Block) -> int:
        return block.first

    async def fail() -> None:
        async with reader.read_ahead(PLAIN, numbered(9), read) as ahead:
            await anext(ahead)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()


@pytest.mark.parametrize("cache_bytes", [1 << 20, 0])
async def test_two_hundred_who_want_one_chunk_decode_it_once(
    root: Path, decoded: list[int], cache_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        file.create_dataset("data", data=np.arange(4000), chunks=(4000,), compression="gzip")
    reader = reader_of(threads=2 if cache_bytes else 200)
    if not cache_bytes:
        # Nothing is kept, so all have to be there before the first one is done.
        waiting = threading.Semaphore(0)
        decode = Pipeline.decode

        class Counted(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                waiting.release()
                return super().wait(timeout)

        def once_all_wait(self: Pipeline, stored: Any, mask: int) -> Any:
            for _ in range(199):
                assert waiting.acquire(timeout=20)
            return decode(self, stored, mask)

        monkeypatch.setattr(Pipeline, "decode", once_all_wait)
        # Nothing public says that a thread waits for another one to decode.
        flight = cache._Decoding
        monkeypatch.setattr(cache, "_Decoding", lambda: flight(Counted()))
    results: list[int] = []
    async with leasing(root, chunk_cache_bytes=cache_bytes) as lease:
        held = await held_of(reader, lease, "main.h5", "data")

        async def ask() -> None:
            results.append(
                await reader.read(held, select_all((4000,)).axes, lambda a: int(a.sum()))
            )

        async with anyio.create_task_group() as tasks:
            for _ in range(200):
                tasks.start_soon(ask)
    assert len(decoded) == 1
    assert results == [sum(range(4000))] * 200


async def test_who_waits_for_a_damaged_chunk_hears_of_the_damage(root: Path) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        data = file.create_dataset("data", (100,), "<i4", chunks=(100,), compression="gzip")
        data.id.write_direct_chunk((0,), b"no zlib stream")
    reader = reader_of(threads=4)
    failures: list[str] = []
    async with leasing(root) as lease:
        held = await held_of(reader, lease, "main.h5", "data")

        async def ask() -> None:
            with pytest.raises(DamagedData, match=r"chunk \(0,\)") as caught:
                await reader.read(held, select_all((100,)).axes, len)
            failures.append(str(caught.value))

        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(ask)
    assert len(failures) == 8


async def test_nothing_more_is_decoded_once_nobody_waits(
    root: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        file.create_dataset("data", data=np.arange(1000), chunks=(10,), compression="gzip")
    begun, released, over = anyio.Event(), threading.Event(), threading.Event()
    counting = Pipeline.decode

    def slow(self: Pipeline, stored: Any, mask: int) -> Any:
        anyio.from_thread.run_sync(begun.set)
        assert released.wait(20)
        try:
            return counting(self, stored, mask)
        finally:
            over.set()

    monkeypatch.setattr(Pipeline, "decode", slow)
    reader = reader_of(threads=1)
    async with leasing(root) as lease:
        held = await held_of(reader, lease, "main.h5", "data")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read_all, reader, held, select_all((1000,)))
            await begun.wait()
            tasks.cancel_scope.cancel()
        lease.release()
        released.set()
        # The lane is free again when its thread is.
        with anyio.fail_after(20):
            await reader.lanes.decode.run(lambda: over.wait(20))
    assert len(decoded) == 1


async def test_a_block_takes_so_long_at_most(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        file.create_dataset("data", data=np.arange(100), chunks=(100,), compression="gzip")
    released = threading.Event()

    def stuck(self: Pipeline, stored: Any, mask: int) -> Any:
        assert released.wait(20)
        return stored

    monkeypatch.setattr(Pipeline, "decode", stuck)
    reader = reader_of(seconds=0.05)
    async with leasing(root) as lease:
        held = await held_of(reader, lease, "main.h5", "data")
        try:
            with pytest.raises(ReadTimeout):
                await reader.read(held, select_all((100,)).axes, len)
        finally:
            released.set()


async def test_what_is_long_is_not_kept_but_what_is_there_is_used(
    root: Path, decoded: list[int]
) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        file.create_dataset("data", data=np.arange(1000), chunks=(100,), compression="gzip")
    reader = reader_of()
    async with leasing(root) as lease:
        held = await held_of(reader, lease, "main.h5", "data")
        passing = Held(held.dataset, lease, keep=False)
        await read_all(reader, held, parse_selection(":100", (1000,)))
        await read_all(reader, passing, select_all((1000,)))
        assert (len(decoded), len(lease.pool.chunks)) == (10, 1)
        # A part of a chunk: the next one is likely to want the rest.
        await read_all(reader, passing, parse_selection("350:360", (1000,)))
        assert (len(decoded), len(lease.pool.chunks)) == (11, 2)


async def test_sources_are_given_back(laid_out: tuple[Path, Any]) -> None:
    root, stored = laid_out
    reader = reader_of()
    before = descriptors()
    async with leasing(root, max_open=20) as lease:
        held = await held_of(reader, lease, "data.h5", "virtual")
        read = await read_all(reader, held, select_all(SHAPE), 4 * stored[0].size * 5)
        np.testing.assert_array_equal(read, stored)
        pool = lease.pool
        others = [each for each in pool.files.values() if each not in lease.files.values()]
        assert len(others) == SHAPE[0]
        assert not any(each.holders for each in others)
        assert {os.path.basename(path) for path in lease.depends} >= {"data.h5", "row_12.h5"}
    assert descriptors() == before


@pytest.mark.slow_on_trio
async def test_later_mappings_win_however_they_are_read(root: Path) -> None:
    rng = np.random.default_rng(5)
    expected = np.zeros(500, "<i8")
    with h5py.File(root / "main.h5", "w") as file:
        layout = h5py.VirtualLayout((500,), "<i8")
        sources = []
        for number in range(40):
            start, length, step = int(rng.integers(400)), int(rng.integers(1, 50)), number % 3 + 1
            target = slice(start, min(500, start + length * step), step)
            count = len(range(*target.indices(500)))
            with h5py.File(root / f"{number}.h5", "w") as source:
                source.create_dataset(
                    "x", data=np.full(count, number + 1), chunks=(7,) if count > 7 else (1,)
                )
            sources.append((target, number, count))
        for target, number, count in sources:
            layout[target] = h5py.VirtualSource(f"{number}.h5", "x", (count,))
            expected[target] = number + 1
        file.create_virtual_dataset("data", layout)
    reader = reader_of(threads=8)
    async with leasing(root, max_open=5) as lease:
        held = await held_of(reader, lease, "main.h5", "data")
        for _ in range(5):
            read = await read_all(reader, held, select_all((500,)), 4000)
            np.testing.assert_array_equal(read, expected)
