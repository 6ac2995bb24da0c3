"""Files in an S3 server, read through `H5App` as files of a directory are."""

import io
from typing import Any

import h5py
import numpy as np
import pytest

from tests.object_stores.conftest import Bucket, MakeApp
from tests.object_stores.servers import Proxy, find_size
from tests.service.asking import ask

pytestmark = [pytest.mark.anyio, pytest.mark.slow_on_trio]

FRAMES = np.random.default_rng(0).integers(0, 1 << 12, (24, 256, 512), "u2")

EARLIER = 0.0
"""`store_identity_seconds`, so that each request asks whether the object has changed."""


def make_file(**content: Any) -> bytes:
    """The bytes of a file with these datasets."""
    body = io.BytesIO()
    with h5py.File(body, "w") as file:
        for name, values in content.items():
            file[name] = values
    return body.getvalue()


@pytest.fixture(scope="module")
def stack() -> bytes:
    """A file of some 12 MiB, with chunks of some 200 KiB."""
    body = io.BytesIO()
    with h5py.File(body, "w") as file:
        options = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
        file.create_dataset("entry/frames", data=FRAMES, chunks=(1, 256, 512), **options)
        file["entry/plain"] = FRAMES
        file["entry/names"] = ["a", "bb", "ccc"]
        file.create_dataset("entry/unfiltered", data=FRAMES[:8], chunks=(1, 128, 512))
        file["entry"].attrs["title"] = "a scan"
    return body.getvalue()


async def test_metadata_and_values_are_what_h5py_reads(
    bucket: Bucket, make_app: MakeApp, stack: bytes
) -> None:
    bucket.put("scans/x.h5", stack)
    app = make_app()
    file = "scans/x.h5"
    meta = await ask(app, "/meta", file=file, path="/entry/frames")
    assert meta.status == 200
    assert meta.json["shape"] == [24, 256, 512]
    attributes = await ask(app, "/attr", file=file, path="/entry")
    assert attributes.json == {"title": "a scan"}
    names = await ask(app, "/data", file=file, path="/entry/names")
    assert names.json == ["a", "bb", "ccc"]
    for name, values in (("frames", FRAMES), ("plain", FRAMES), ("unfiltered", FRAMES[:8])):
        for selection, index in (
            ("", ()),
            ("3", 3),
            ("2:7:2,10:200,5", (slice(2, 7, 2), slice(10, 200), 5)),
            ("-1,0,0", (-1, 0, 0)),
        ):
            query = {"file": file, "path": f"/entry/{name}", "format": "bin"}
            if selection:
                query["selection"] = selection
            values_read = await ask(app, "/data", **query)
            assert values_read.status == 200, values_read.body
            assert values_read.body == np.ascontiguousarray(values[index]).tobytes()
    stats = await ask(app, "/stats", file=file, path="/entry/frames")
    assert stats.json["mean"] == pytest.approx(FRAMES.mean())


async def test_a_frame_takes_one_request(
    bucket: Bucket, make_app: MakeApp, stack: bytes, proxy: Proxy
) -> None:
    bucket.put("x.h5", stack)
    app = make_app(store_identity_seconds=3600)
    await ask(app, "/data", path="/entry/frames", selection="0,0,0")
    for number in (11, 5, 8):  # the last of them lies behind the first block
        before = len(proxy.seen)
        frame = await ask(app, "/data", path="/entry/frames", selection=str(number), format="bin")
        assert frame.body == FRAMES[number].tobytes()
        [request] = proxy.seen[before:]
        assert request.range is not None
        assert request.condition is not None
        assert find_size(request.range) < FRAMES[0].nbytes


async def test_frames_that_lie_together_are_asked_for_together(
    bucket: Bucket, make_app: MakeApp, stack: bytes, proxy: Proxy
) -> None:
    bucket.put("x.h5", stack)
    app = make_app(store_identity_seconds=3600)
    await ask(app, "/meta", path="/entry/frames")
    before = len(proxy.seen)
    frames = await ask(app, "/data", path="/entry/frames", selection="8:16", format="bin")
    assert frames.body == FRAMES[8:16].tobytes()
    assert len(proxy.seen) - before <= 2


async def test_the_first_metadata_take_at_most_three_requests(
    bucket: Bucket, make_app: MakeApp, stack: bytes, proxy: Proxy
) -> None:
    bucket.put("x.h5", stack)
    assert (await ask(make_app(), "/meta")).status == 200
    assert len(proxy.seen) <= 3


async def test_all_of_a_little_file_is_there_after_two_requests(
    bucket: Bucket, make_app: MakeApp, proxy: Proxy
) -> None:
    names = [f"d{number}" for number in range(12)]
    bucket.put("x.h5", make_file(**dict.fromkeys(names, FRAMES[:2])))
    app = make_app(store_identity_seconds=3600)
    assert len((await ask(app, "/meta")).json["children"]) == len(names)
    for name in names:
        read = await ask(app, "/data", path=f"/{name}", selection="1", format="bin")
        assert read.body == FRAMES[1].tobytes()
    assert len(proxy.seen) == 2


async def test_a_file_is_sent_whole_and_in_ranges(
    bucket: Bucket, make_app: MakeApp, stack: bytes
) -> None:
    bucket.put("x.h5", stack)
    app = make_app()
    whole = await ask(app, "/file")
    assert whole.body == stack
    assert whole.headers["etag"]
    part = await ask(app, "/file", {"Range": "bytes=1000000-3000000"})
    assert part.status == 206
    assert part.body == stack[1_000_000:3_000_001]
    unchanged = await ask(app, "/file", {"If-None-Match": whole.headers["etag"]})
    assert unchanged.status == 304


async def test_chunks_of_zarr_are_those_of_the_file(
    bucket: Bucket, make_app: MakeApp, stack: bytes, proxy: Proxy
) -> None:
    bucket.put("scans/x.h5", stack)
    app = make_app(zarr_stored_chunks=True, store_identity_seconds=3600)
    store = "/zarr/scans/x.h5/entry"
    meta = await ask(app, f"{store}/unfiltered/zarr.json")
    assert meta.json["shape"] == [8, 256, 512]
    before = len(proxy.seen)
    chunk = await ask(app, f"{store}/unfiltered/c/1/1/0")
    assert chunk.body == FRAMES[1, 128:].tobytes()
    assert len(proxy.seen) - before == 1
    assert (await ask(app, f"{store}/frames/c/9/0/0")).status == 200
    plain = await ask(app, f"{store}/plain/zarr.json")
    assert plain.status == 200


async def test_a_folder_is_listed(bucket: Bucket, make_app: MakeApp) -> None:
    stack = make_file(values=[1])
    for key in ("b.h5", "a/x.nxs", "a/deep/er.h5", "c.txt", ".hidden.h5"):
        bucket.put(key, stack if key == "b.h5" else b"text")
    bucket.put("secret.h5", stack, prefix="")
    bucket.put("served-too/secret.h5", stack, prefix="")
    app = make_app()
    top = (await ask(app, "/files")).json
    assert [(each["name"], each["kind"], each["size"]) for each in top["entries"]] == [
        ("a", "directory", None),
        ("b.h5", "hdf5", len(stack)),
        ("c.txt", "file", 4),
    ]
    below = (await ask(app, "/files", dir="a")).json
    assert [each["file"] for each in below["entries"]] == ["a/deep", "a/x.nxs"]
    found = (await ask(app, "/files", recursive="true", search=".h5")).json
    assert sorted(each["file"] for each in found["entries"]) == ["a/deep/er.h5", "b.h5"]
    assert (await ask(app, "/files", dir="nowhere")).status == 404
    assert (await ask(app, "/files", dir="b.h5")).status == 404


@pytest.mark.parametrize(
    "name", ["../secret.h5", "a/../../secret.h5", "..%2Fsecret.h5", "/../secret.h5", "\udcff.h5"]
)
async def test_no_key_outside_of_the_prefix_is_read(
    name: str, bucket: Bucket, make_app: MakeApp, proxy: Proxy
) -> None:
    bucket.put("secret.h5", make_file(values=[1]), prefix="")
    app = make_app()
    if "\udcff" not in name:
        assert (await ask(app, "/meta", file=name)).status == 404
        assert (await ask(app, "/file", file=name)).status == 404
        assert (await ask(app, "/files", dir=name)).status == 404
    else:
        assert (await ask(app, f"/file/{name}")).status == 404
    assert not any(each.key.endswith(f"{bucket.name}/secret.h5") for each in proxy.seen)


async def test_links_and_virtual_sources_inside_the_prefix_are_followed(
    bucket: Bucket, make_app: MakeApp
) -> None:
    values = np.arange(6.0).reshape(2, 3)
    for number in range(2):
        bucket.put(f"raw/part{number}.h5", make_file(values=values[number]))
    bucket.put("secret.h5", make_file(values=values), prefix="")
    layout = h5py.VirtualLayout((2, 3), "f8")
    for number in range(2):
        layout[number] = h5py.VirtualSource(f"raw/part{number}.h5", "values", (3,))
    body = io.BytesIO()
    with h5py.File(body, "w") as file:
        file.create_virtual_dataset("virtual", layout)
        file["link"] = h5py.ExternalLink("raw/part1.h5", "values")
        file["absolute"] = h5py.ExternalLink("/beamline/raw/part1.h5", "values")
        file["out"] = h5py.ExternalLink("../secret.h5", "values")
    bucket.put("x.h5", body.getvalue())
    app = make_app()
    assert (await ask(app, "/data", path="/virtual")).json == values.tolist()
    assert (await ask(app, "/data", path="/link")).json == values[1].tolist()
    for name in ("out", "absolute"):
        refused = await ask(app, "/data", path=f"/{name}")
        assert refused.status == 404
        assert "Cannot resolve" in refused.message
    # An absolute name is one of another machine: it is looked for beside the file.
    bucket.put("part1.h5", make_file(values=values[0]))
    assert (await ask(make_app(), "/data", path="/absolute")).json == values[0].tolist()


async def test_external_raw_storage_inside_the_prefix_is_read(
    bucket: Bucket, make_app: MakeApp, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.arange(1000, dtype="<i4")
    monkeypatch.chdir(tmp_path)
    with h5py.File("x.h5", "w") as file:
        file.create_dataset("raw", (1000,), "<i4", external=[("raw.bin", 0, 4000)])
    bucket.put("x.h5", (tmp_path / "x.h5").read_bytes())
    bucket.put("raw.bin", values.tobytes())
    read = await ask(make_app(), "/data", path="/raw", format="bin")
    assert read.body == values.tobytes()


async def test_what_is_no_hdf5_and_what_is_not_there(bucket: Bucket, make_app: MakeApp) -> None:
    bucket.put("note.txt", b"text")
    bucket.put("empty.h5", b"")
    app = make_app()
    for name in ("note.txt", "empty.h5"):
        answer = await ask(app, "/meta", file=name)
        assert answer.status == 422
        assert "not a readable HDF5 file" in answer.message
        assert (await ask(app, "/file", file=name)).status == 422
    missing = await ask(app, "/meta", file="none.h5")
    assert missing.status == 404
    assert "File not found" in missing.message


async def test_a_replaced_file_is_noticed(bucket: Bucket, make_app: MakeApp) -> None:
    bucket.put("x.h5", make_file(values=[1, 2, 3]))
    app = make_app(store_identity_seconds=EARLIER)
    first = await ask(app, "/data", path="/values")
    again = await ask(app, "/data", {"If-None-Match": first.headers["etag"]}, path="/values")
    assert (first.json, again.status) == ([1, 2, 3], 304)
    bucket.put("x.h5", make_file(values=[4, 5, 6]))
    second = await ask(app, "/data", {"If-None-Match": first.headers["etag"]}, path="/values")
    assert (second.status, second.json) == (200, [4, 5, 6])
    bucket.delete("x.h5")
    assert (await ask(app, "/data", path="/values")).status == 404


async def test_an_unchanged_file_is_asked_for_once_in_a_while(
    bucket: Bucket, make_app: MakeApp, proxy: Proxy
) -> None:
    bucket.put("x.h5", make_file(values=[1, 2, 3]))
    app = make_app(store_identity_seconds=3600)
    await ask(app, "/data", path="/values")
    before = len(proxy.seen)
    for _ in range(5):
        assert (await ask(app, "/data", path="/values")).json == [1, 2, 3]
        assert (await ask(app, "/meta")).status == 200
    assert len(proxy.seen) == before
    asking = make_app(store_identity_seconds=EARLIER)
    await ask(asking, "/data", path="/values")
    before = len(proxy.seen)
    assert (await ask(asking, "/data", path="/values")).json == [1, 2, 3]
    assert {(each.method, bool(each.condition)) for each in proxy.seen[before:]} == {("HEAD", True)}


async def test_a_file_of_an_old_writer_is_read_by_libhdf5(
    bucket: Bucket, make_app: MakeApp, tmp_path: Any
) -> None:
    """What is not plain goes through h5py's driver for Python's files."""
    kind = np.dtype([("name", h5py.string_dtype()), ("values", h5py.vlen_dtype("i4"))])
    rows = np.array([("a", np.arange(3)), ("b", np.arange(5))], kind)
    with h5py.File(tmp_path / "x.h5", "w", fs_strategy="page", fs_page_size=4096) as file:
        file["rows"] = rows
    bucket.put("x.h5", (tmp_path / "x.h5").read_bytes())
    read = await ask(make_app(), "/data", path="/rows")
    assert read.json == [["a", [0, 1, 2]], ["b", [0, 1, 2, 3, 4]]]
