"""Pictures of files that lie or are damaged: an error in words, and nothing that grows."""

from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import h5py
import numpy as np
import pytest

from asgihive.service import H5App
from asgihive.service.gate import PERMISSION, RequestedEntity
from asgihive.settings import H5Settings
from asgihive.viewer import answering, images
from asgihive.viewer.points import read_points
from tests.asgi.exchange import http, run
from tests.service.asking import ask, held
from tests.viewer.pictures import ask_image

pytestmark = pytest.mark.anyio

TERA = 1_000_000


async def test_a_huge_dataset_that_was_never_written(tmp_path: Path) -> None:
    """A small file of 10^12 values: where nothing is read, its picture is small."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("a", (TERA, TERA), "f8", chunks=(1000, 1000))
    app = H5App(tmp_path)
    answer = await ask_image(app, selection=":2000,:3000", shape="100,100")
    assert answer.status == 200
    answer = await ask_image(app, method="nearest", shape="4,4")
    assert answer.status == 200
    app = H5App(tmp_path, H5Settings(read_timeout_seconds=0.3))
    answer = await ask_image(app)
    assert answer.status == 504
    assert not held(app)


async def test_a_damaged_chunk_is_told(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        options = {"chunks": (10, 10), "compression": "gzip"}
        file.create_dataset("a", data=np.ones((20, 20)), **options)
        file["a"].id.write_direct_chunk((10, 0), b"no deflate stream")
    app = H5App(tmp_path)
    assert (await ask_image(app)).status == 500
    assert (await ask_image(app, selection=":10,:")).status == 200
    assert (await ask(app, "/plot", None, "GET", path="/a", selection="15,:")).status == 500
    assert not held(app)


async def test_many_axes_and_names_lead_nowhere(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        group = file.create_group("g")
        group.attrs.update({"NX_class": "NXdata", "signal": "v", "default": "../../g"})
        group.attrs["axes"] = ["../g", "v" * 1000, "/", "."]
        group.attrs["auxiliary_signals"] = ["v"] * 3000
        group["v"] = np.arange(12.0).reshape(3, 4)
        group["errors"] = np.arange(5)
        file["g"].attrs["v_indices"] = np.arange(1000)
    app = H5App(tmp_path)
    answer = await ask(app, "/plot", None, "GET", path="/g/v")
    assert answer.headers["x-asgihive-paths"] == "/g/v"
    answer = await ask(app, "/plot")
    assert answer.status == 200
    assert answer.body.count(b'class="line"') <= 32
    answer = await ask(app, "/image")
    assert answer.status == 200


async def test_a_name_is_told_in_a_header_as_it_is_in_a_url(tmp_path: Path) -> None:
    name = "a\r\nx-evil: 1,é\N{SNOWMAN}"
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file[name] = np.eye(3)
    answer = await ask(H5App(tmp_path), "/image")
    assert answer.headers["x-asgihive-paths"] == "/a%0D%0Ax-evil%3A%201%2C%C3%A9%E2%98%83"
    assert "x-evil" not in answer.headers


async def test_a_permission_sees_the_name_itself(tmp_path: Path) -> None:
    name, seen = "a,b%2C é", []
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file[name] = np.eye(3)

    def permission(entity: RequestedEntity) -> bool:
        seen.append(entity.path)
        return True

    answer = await run(H5App(tmp_path), http("/image?file=x.h5", state={PERMISSION: permission}))
    assert answer.status == 200
    assert seen == ["/", f"/{name}"]


async def test_what_is_too_long_for_a_header_is_not_told_and_not_permitted(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["é" * 2000] = np.eye(3)
    app = H5App(tmp_path)
    answer = await ask(app, "/image")
    assert (answer.status, "x-asgihive-paths" in answer.headers) == (200, False)
    answer = await run(app, http("/image?file=x.h5", state={PERMISSION: lambda _: True}))
    assert answer.status == 403


async def test_few_large_pictures_are_made_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "LARGE_POINTS", 1000)
    monkeypatch.setattr(answering, "LARGE_AT_ONCE", 1)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a"] = np.eye(100)
    app, running, most = H5App(tmp_path), 0, 0

    async def read(*arguments: Any) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.lowlevel.checkpoint()
        points = await read_points(*arguments)
        running -= 1
        return points

    monkeypatch.setattr(images, "read_points", read)
    for shape, is_large in (("100,100", True), ("20,20", False)):
        most = 0
        async with anyio.create_task_group() as tasks:
            for number in range(5):
                query = partial(ask_image, app, vmax=str(number + 1), shape=shape)
                tasks.start_soon(query)
        # Of small ones as many as come in time.
        assert (most == 1) is is_large
    assert not held(app)
