"""`/metrics` of a service in isolation tells of its reader processes."""

from pathlib import Path

import anyio
import pytest

from asgihive.isolation.process import ReaderProcess
from asgihive.service import H5App
from asgihive.service.operations import Figures
from tests.gates import until
from tests.isolation import doubles
from tests.isolation.isolated import ask, check_good, pids, readers, refused
from tests.service import servers
from tests.service.test_metrics import Numbers, client, numbers, of

pytestmark = pytest.mark.anyio


async def next_status(reader: ReaderProcess) -> None:
    status = reader.status
    await until(lambda: reader.status is not status)


async def metrics(app: H5App) -> Numbers:
    """Return what is told once each process has said what it has come to by now."""
    for reader in list(readers(app).all):
        for _ in range(2):  # the first one may have been on its way
            with anyio.fail_after(servers.PATIENCE):
                await next_status(reader)
    async with client(app) as http:
        return numbers(await http.get("/metrics"))


def state(found: Numbers) -> tuple[float | None, ...]:
    lanes = (of(found, "lane_threads", lane=name) for name in ("library", "decode"))
    return of(found, "open_files"), *lanes


async def test_of_a_reader_and_of_the_one_after_it(app: H5App, root: Path) -> None:
    assert state(await metrics(app)) == (0, 0, 0)
    await check_good(app)
    found = await metrics(app)
    assert state(found) == (1, 1, 2)
    # A file that was written just now is waited for, and its answers are not kept at first.
    while not of(found, "cache_hits_total", cache="answers"):
        assert (await ask(app, "/meta")).status == 200
        found = await metrics(app)
    kept = of(found, "cache_bytes", cache="answers")
    assert kept is not None
    assert kept > 0
    counted = {
        (name, cache): of(found, f"cache_{name}_total", cache=cache)
        for name in ("hits", "misses")
        for cache in ("chunks", "answers")
    }
    before = pids(app)
    doubles.write(root / "bad.h5", "abort")
    refused(await ask(app, "/data", "bad.h5", path="values"), "bad.h5")
    await check_good(app)
    assert not before & pids(app)
    found = await metrics(app)
    assert state(found) == (1, 1, 2)
    left = of(found, "cache_bytes", cache="answers")
    assert left is not None
    assert left < kept
    for (name, cache), number in counted.items():
        assert of(found, f"cache_{name}_total", cache=cache) == number


def test_of_several_processes() -> None:
    one = Figures(open_files=2, decode_busy=1, chunk_hits=5, answer_misses=3)
    other = Figures(open_files=1, chunk_hits=7, chunk_bytes=100)
    assert Figures.sum([]) == Figures()
    assert Figures.sum([one, other]) == Figures(
        open_files=3, decode_busy=1, chunk_hits=12, answer_misses=3, chunk_bytes=100
    )
    assert one.keep_counts() == Figures(chunk_hits=5, answer_misses=3)
