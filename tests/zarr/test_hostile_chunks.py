"""Chunks of files that lie, of files that change, and keys of anything: an error, or the values."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgihive.errors import AsgihiveError, BadParameter, DamagedData, TypeUnsupported
from asgihive.service import H5App
from asgihive.service.store import Store
from asgihive.zarr.data_types import NoDataType, name_data_type
from tests.efforts import at_most
from tests.zarr.asking import (
    ask_chunk,
    assert_same_values,
    fetch_array,
    list_coordinates,
    make_store,
    open_plan,
)
from tests.zarr.serving import ask
from tests.zoo import streams
from tests.zoo.hostile import INSIDE, MARKER, Hostile, build

pytestmark = pytest.mark.anyio

# A chunk that is 404 is fill values to a client, without a word.
NEVER = (404, 405, 500)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    built = build(tmp_path_factory.mktemp("hostile"))
    yield built
    for fifo in built.fifos:
        # Frees a thread that a failed test has left waiting in `open`.
        os.close(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))


@pytest.mark.slow_on_trio
async def test_nothing_outside_is_in_a_chunk_and_no_chunk_is_404(hostile: Hostile) -> None:
    app = H5App(hostile.root)
    for file, path in hostile.escapes:
        for key in ("c/0", "c/0/0"):
            got = await ask(app, f"/zarr/{file}{path}/{key}")
            assert got.status not in NEVER, (file, path, got.body)
            assert MARKER not in got.body
    for file, path in hostile.honest:
        got = await ask(app, f"/zarr/{file}{path}/c/0")
        assert got.status == 200, (file, path, got.body)
        np.testing.assert_array_equal(np.frombuffer(got.body, "u1")[-len(INSIDE) :], INSIDE)


@dataclass(frozen=True)
class Streams:
    """Files, and what h5py reads of them: None of those that would crash it."""

    root: Path
    sources: list[streams.Streams]
    expected: dict[tuple[str, str], Any]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Streams:
    root = tmp_path_factory.mktemp("streams")
    expected: dict[tuple[str, str], Any] = {}
    streams.build(root)
    # libhdf5 refuses to have one file open in two ways.
    sources = streams.find(root)
    for source in sources:
        with h5py.File(root / source.name) as file:
            for name, dataset in file.items():
                is_sound = source.name.removesuffix(".h5") not in streams.FORGED
                expected[source.name, name] = dataset[()] if is_sound else None
    return Streams(root, sources, expected)


@pytest.mark.parametrize("stored", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.slow_on_trio
async def test_every_filter(files: Streams, stored: bool) -> None:
    """Those that h5py reads; others are errors, or chunks that say so when they are decoded."""
    store, compared = make_store(files.root, zarr_stored_chunks=stored), 0
    for (file, name), expected in files.expected.items():
        if expected is None:
            continue
        try:
            fetched = await fetch_array(store, file, f"/{name}")
        except TypeUnsupported:
            with pytest.raises(NoDataType):
                name_data_type(expected.dtype)
            continue
        assert_same_values(fetched.decode(), expected)
        compared += 1
    assert compared > 20


@given(data=st.data(), stored=st.booleans())
@settings(max_examples=at_most(60), deadline=None)
def test_a_damaged_file_gives_chunks_or_errors(
    files: Streams, data: st.DataObject, *, stored: bool
) -> None:
    source = data.draw(st.sampled_from(files.sources))
    content = bytearray((files.root / source.name).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.sampled_from(source.anchors or (0,))) + data.draw(st.integers(0, 40))
        content[min(at, len(content) - 1)] = data.draw(st.integers(0, 255))
    (files.root / "damaged.h5").write_bytes(content)
    names = [name for file, name in files.expected if file == source.name]

    async def try_all(store: Store) -> None:
        for name in names:
            with contextlib.suppress(AsgihiveError):
                plan, _ = await open_plan(store, "damaged.h5", f"/{name}")
                for at in list_coordinates(plan):
                    await ask_chunk(store, "damaged.h5", f"/{name}", at)

    anyio.run(try_all, make_store(files.root, zarr_stored_chunks=stored))


@given(st.lists(st.one_of(st.integers(0, 3), st.integers(-1, 2**80)), max_size=5).map(tuple))
@settings(max_examples=at_most(40), deadline=None)
def test_any_coordinates(small: Path, coordinates: tuple[int, ...]) -> None:

    async def try_it(store: Store) -> None:
        for name in ("stored", "read", "run", "scalar"):
            plan, _ = await open_plan(store, "x.h5", f"/{name}")
            if plan.has_chunk(coordinates):
                _, response, _ = await ask_chunk(store, "x.h5", f"/{name}", coordinates)
                assert response.status == 200
            else:
                with pytest.raises(BadParameter):
                    await ask_chunk(store, "x.h5", f"/{name}", coordinates)

    anyio.run(try_it, make_store(small))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("small")
    with h5py.File(root / "x.h5", "w") as file:
        values = np.zeros((3, 400, 400), "<u2")
        file.create_dataset("stored", data=values, chunks=(1, 200, 400))
        file.create_dataset("read", data=values, chunks=(2, 200, 399), compression="gzip")
        file["run"] = values
        file["scalar"] = 1.0
    return root


@pytest.mark.parametrize("compression", [None, "gzip"])
async def test_a_file_that_was_rewritten_has_new_chunks(
    tmp_path: Path, compression: str | None
) -> None:
    app, tags = H5App(tmp_path), set()
    for number in range(3):
        values = np.full((300, 400), number, "<u2")
        with h5py.File(tmp_path / "new.h5", "w") as file:
            file.create_dataset("x", data=values, chunks=(300, 400), compression=compression)
        (tmp_path / "new.h5").replace(tmp_path / "x.h5")
        for _ in range(3):
            got = await ask(app, "/zarr/x.h5/x/c/0/0")
            assert got.status == 200
            tags.add(got.headers["etag"])
        fetched = await fetch_array(app.store, "x.h5", "/x")
        np.testing.assert_array_equal(fetched.decode(), values)
        assert fetched.chunks[0, 0].body == got.body
    assert len(tags) == 3


async def test_a_file_that_was_cut_off_gives_no_old_chunk(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.ones((300, 400), "<u2"), chunks=(300, 400))
    app = H5App(tmp_path)
    for _ in range(2):
        assert (await ask(app, "/zarr/x.h5/x/c/0/0")).status == 200
    os.truncate(path, 4096)
    got = await ask(app, "/zarr/x.h5/x/c/0/0")
    assert got.status in {422, 500, 503}
    with pytest.raises((DamagedData, AsgihiveError)):
        await ask_chunk(app.store, "x.h5", "/x", (0, 0))
