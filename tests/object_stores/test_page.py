"""What the page asks for, of an object store: events, pictures, and files by a part of a name."""

from pathlib import Path

import anyio
import pytest

from asgihive.service import H5App
from tests.object_stores.conftest import Bucket, MakeApp
from tests.object_stores.test_reading import FRAMES, make_file
from tests.service.asking import ask
from tests.viewer.test_events import listening

pytestmark = pytest.mark.anyio


async def test_listeners_are_told_of_a_replaced_object(bucket: Bucket, make_app: MakeApp) -> None:
    bucket.put("scans/x.h5", make_file(rows=FRAMES[0, :3]))
    app = make_app(poll_seconds=0.05, store_identity_seconds=0)
    async with listening(app, "/events?file=scans/x.h5&path=/rows") as listener:
        bucket.put("scans/x.h5", make_file(rows=FRAMES[0, :5]))
        kind, told = await listener.next_event()
        assert (kind, told["file"]) == ("changed", "scans/x.h5")
        shape = [5, FRAMES.shape[2]]
        assert await listener.next_event() == ("grown", {"path": "/rows", "shape": shape})
        bucket.delete("scans/x.h5")
        assert await listener.next_event() == ("gone", {"file": "scans/x.h5"})


async def test_pictures_are_those_of_a_directory(
    bucket: Bucket, make_app: MakeApp, tmp_path: Path
) -> None:
    content = make_file(frames=FRAMES[:2], curve=FRAMES[0, 0])
    bucket.put("x.h5", content)
    await anyio.Path(tmp_path / "x.h5").write_bytes(content)
    stored, local = make_app(), H5App(tmp_path)
    for route, query in (
        ("/image", {"path": "/frames", "selection": "1", "shape": "64,64"}),
        ("/image", {"path": "/frames", "selection": "0", "format": "webp"}),
        ("/plot", {"path": "/curve"}),
    ):
        here, there = await ask(local, route, **query), await ask(stored, route, **query)
        assert (there.status, there.body) == (here.status, here.body), route
        assert here.status == 200, here.body


async def test_the_page_finds_files_in_all_folders(
    bucket: Bucket, make_app: MakeApp, tmp_path: Path
) -> None:
    local = await ask(H5App(tmp_path), "/view/")  # where it was not built, how to build it
    for key in ("2026/may/lysozyme_1.h5", "2026/june/lysozyme_2.nxs", "2026/other.h5"):
        bucket.put(key, b"")
    app = make_app()
    page = await ask(app, "/view/")
    assert (page.status, page.body) == (local.status, local.body)
    found = (await ask(app, "/files", recursive="true", search="lyso")).json
    assert sorted(each["name"] for each in found["entries"]) == ["lysozyme_1.h5", "lysozyme_2.nxs"]
