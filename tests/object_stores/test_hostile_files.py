"""Hostile and damaged files in an S3 server: plain errors, and nothing of what lies elsewhere."""

import gc
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from asgihive.service import H5App
from tests.asgi.exchange import http, run
from tests.fuzz.mutations import mutate, source
from tests.fuzz.questions import Question, about_entities, about_store, opening
from tests.object_stores.conftest import Bucket, name_server
from tests.object_stores.test_zoo import ask, compare, find_paths, told
from tests.service import test_hostile_structures as structures
from tests.service.test_sandbox_http import NAMES_OUTSIDE, PATIENCE_SECONDS
from tests.zoo import chunks, layouts, links
from tests.zoo.hostile import INSIDE, MARKER, Hostile, build

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow_on_trio,
    # As h5py lets go of damaged objects.
    pytest.mark.filterwarnings("ignore:Exception ignored in. .h5py._objects.ObjectID"),
]

ROUTES = ("/meta", "/attr", "/data", "/stats", "/paths", "/file")
DAMAGED = (*layouts.FILES[:1], *links.FILES[:1])
MANY = pytest.param(range(6, 200), id="many", marks=pytest.mark.slow)

# libhdf5 2.0.0 divides by zero, and ends the process, when it lists a damaged group of this file:
# in a directory as well, which is what `isolation="process"` is for.
CRASHING = {("links.h5", 109)}

# What each honest target of `Hostile` names by way of the machine's file system, which a store has
# not: symbolic links, and absolute paths.
BY_THE_MACHINE = (
    *("/honest/symlink", "/honest_absolute", "/honest_absolute_part"),
    *("symlink_inside.h5", "directory_inside/up.h5", "hostile_storage.h5", "/honest/out_and_in"),
)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Hostile:
    return build(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def app(hostile: Hostile, s3_port: int) -> Iterator[H5App]:
    """A service over a prefix, beside which lie the secrets that its files lead to."""
    with pytest.MonkeyPatch.context() as patch:
        name_server(patch, s3_port)
        bucket = Bucket(s3_port)
        top = hostile.root.parent
        for each in top.rglob("*"):
            if each.is_file() and not each.is_symlink() and not _is_linked(each, top):
                bucket.put(each.relative_to(top).as_posix(), each.read_bytes(), prefix="")
        yield H5App(f"s3://{bucket.name}/root")


def _is_linked(path: Path, top: Path) -> bool:
    return any(each.is_symlink() for each in path.parents if each != top)


async def test_what_files_point_to(app: H5App, hostile: Hostile) -> None:
    for file, path in hostile.escapes:
        at = {"file": file, "path": path}
        questions = [Question(route, at) for route in ROUTES if route != "/file"]
        questions += [Question("/data", {**at, "format": each}) for each in ("bin", "npy", "tiff")]
        questions += [
            Question(each, {**at, "resolve_links": "all"}) for each in ("/meta", "/paths")
        ]
        for question in questions:
            with anyio.fail_after(PATIENCE_SECONDS):
                answer = await ask(app, question)
            assert MARKER not in answer.body, str(question)
            assert MARKER not in bytes(_numbers(answer.body)), str(question)
            assert answer.status in {200, 404, 422}, (str(question), answer.body)


def _numbers(body: bytes) -> list[int]:
    cells = body.strip(b"[]").split(b",")
    return [int(each) for each in cells if each.isdigit() and int(each) < 256]


async def test_targets_inside_are_served(app: H5App, hostile: Hostile) -> None:
    served = 0
    for file, path in hostile.honest:
        if file in BY_THE_MACHINE or path in BY_THE_MACHINE:
            continue
        answer = await ask(app, Question("/data", {"file": file, "path": path}))
        expected = INSIDE[1:] if path.endswith("_part") else INSIDE
        assert (answer.status, answer.json) == (200, expected.tolist()), (file, path)
        served += 1
    assert served >= 5


@pytest.mark.parametrize("route", ROUTES)
async def test_names_that_lead_out(app: H5App, hostile: Hostile, route: str) -> None:
    for name in [*NAMES_OUTSIDE, str(hostile.outside / "secret.h5")]:
        raw = "".join(f"%{byte:02x}" for byte in os.fsencode(name))
        with anyio.fail_after(PATIENCE_SECONDS):
            answer = await run(app, http(route, query_string=f"file={raw}".encode()))
        assert answer.status in {404, 422}, (name, answer.status, answer.body)
        assert MARKER not in answer.body


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of what is in the bucket."""
    return tmp_path_factory.mktemp("damaged")


@pytest.fixture(scope="module")
def services(root: Path, s3_port: int) -> Iterator[tuple[H5App, H5App, Bucket]]:
    """Services over a bucket and over the directory."""
    with pytest.MonkeyPatch.context() as patch:
        name_server(patch, s3_port)
        bucket = Bucket(s3_port)
        stored, local = H5App(bucket.url), H5App(root)
        yield stored, local, bucket
        for app in (stored, local):
            app.store.pool.close()
        gc.collect()  # what a damaged object says when it goes belongs to these tests


Services = tuple[H5App, H5App, Bucket]


async def compare_damaged(stored: H5App, local: H5App, questions: list[Question]) -> None:
    """Compare answers as `compare`, but for what is said of a damage, by libhdf5 for one.

    A damaged index may answer differently when it is searched, at first, and when it is listed.
    """
    for question in questions:
        there = told(await ask(stored, question))
        here = [told(await ask(local, question)) for _ in range(2)]
        if there[0] == 200 and not question.route.endswith("/zarr.json"):
            assert there in here, (str(question), here, there)
        else:
            assert there[0] in {each[0] for each in here}, (str(question), here, there)
            # The document of a store tells what libhdf5 says of each damaged member.
            assert there[1][b"content-type"] == b"application/json"


async def compare_file(
    services: Services, file: Path, questions: list[Question], compare: Any = compare
) -> None:
    stored, local, bucket = services
    content = await anyio.Path(file).read_bytes()
    await anyio.to_thread.run_sync(bucket.put, file.name, content)
    with anyio.fail_after(10 * PATIENCE_SECONDS):
        await compare(stored, local, questions)


async def test_crafted_chunks(services: Services, root: Path) -> None:
    file = root / "crafted.h5"
    chunks.write(file, chunks.crafted())
    questions = [
        Question(route, {"file": file.name, "path": f"/{case.name}", **more})
        for case in chunks.crafted()
        for route, more in (("/data", {"format": "bin"}), ("/stats", {}), ("/meta", {}))
    ]
    await compare_file(services, file, questions)


@pytest.mark.slow
@pytest.mark.parametrize("make", structures.HEADERS)
async def test_headers_that_would_keep_libhdf5_busy(
    services: Services, root: Path, make: Callable[[int], bytes], anyio_backend_name: str
) -> None:
    paths = ("/", "/victim", "/victim/member", "/pad", "/type", "/typed", "/attributed")
    for number, victim in enumerate(("victim", "pad", "type", "/")):
        # The service still has the file of the other event loop open.
        file = root / f"{make.__name__}_{number}_{anyio_backend_name}.h5"
        structures.write(file)
        structures.replace_header(file, victim, make)
        questions = [
            Question(route, {"file": file.name, "path": path})
            for route in ("/meta", "/attr", "/data", "/paths")
            for path in paths
        ]
        await compare_file(services, file, questions)


@pytest.mark.parametrize("sound", DAMAGED)
@pytest.mark.parametrize("seeds", [pytest.param(range(6), id="few"), MANY])
async def test_damaged_files(
    services: Services, root: Path, tmp_path: Path, sound: str, seeds: range
) -> None:
    (layouts if sound in layouts.FILES else links).write(tmp_path)
    content = (tmp_path / sound).read_bytes()
    paths = find_paths(tmp_path / sound)
    parts = range(1, 8) if seeds.start == 0 else ()
    damaged = {f"cut_{part}_{sound}": content[: len(content) * part // 8] for part in parts}
    known = source(sound, content)
    damaged |= {
        f"{seed}_{sound}": mutate(known, seed).content
        for seed in seeds
        if (sound, seed) not in CRASHING
    }
    for name, body in damaged.items():
        (root / name).write_bytes(body)
        chance = random.Random(name)
        questions = [
            *opening(name),
            *about_entities(name, paths, chance, 12),
            *about_store(name, paths, chance, 4),
        ]
        await compare_file(services, root / name, questions, compare_damaged)
