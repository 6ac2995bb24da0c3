"""Files that crash or hang a reader process: which one is refused, and what others notice."""

import os
from pathlib import Path

import anyio
import h5py
import numpy as np
import pytest

from asgihive.service import H5App
from tests.asgi.exchange import http, run
from tests.gates import until
from tests.isolation import doubles
from tests.isolation.isolated import (
    ask,
    check_good,
    check_values,
    limited,
    pids,
    readers,
    refused,
    wait_for_spare,
)
from tests.service import servers
from tests.zoo.client import client

pytestmark = pytest.mark.anyio

VALUES = {"path": "values", "format": "bin"}


@pytest.mark.parametrize(
    ("fault", "route", "reason"),
    [
        pytest.param("abort", "/meta", "SIGABRT", marks=pytest.mark.slow),
        ("segfault", "/data", "SIGSEGV"),
        pytest.param("exit", "/meta", "code 3", marks=pytest.mark.slow),
    ],
)
async def test_a_file_that_crashes_its_reader_is_refused(
    app: H5App, root: Path, fault: str, route: str, reason: str
) -> None:
    query = VALUES if route == "/data" else {}
    doubles.write(root / "bad.h5", fault)
    await check_good(app)
    before = pids(app)
    first = await ask(app, route, "bad.h5", **query)
    refused(first, "bad.h5", reason, "600 seconds")
    await check_good(app)
    after = pids(app)
    assert not before & after
    again = await ask(app, route, "./bad.h5", **query)
    assert (again.status, again.message) == (500, f"./{first.message}")
    await check_good(app)
    assert pids(app) == after


@pytest.mark.slow
@limited(read_timeout_seconds=4.0)
@pytest.mark.parametrize("fault", ["hang", "hang as a whole"])
async def test_a_file_that_hangs_its_reader_twice_is_refused(
    app: H5App, root: Path, fault: str
) -> None:
    doubles.write(root / "bad.h5", fault)
    answers = {}

    async def keep(file: str, route: str) -> None:
        answers[file] = await ask(app, route, file)

    async with app.running():
        await wait_for_spare(app)  # to start takes longer than a request may
        await check_good(app)
        await wait_for_spare(app)
        before = pids(app)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep, "bad.h5", "/meta")
            tasks.start_soon(keep, "good.h5", "/meta")  # which waits behind it
        assert (answers["bad.h5"].status, answers["good.h5"].status) == (504, 200)
        await until(lambda: before - pids(app))
        await wait_for_spare(app)
        while (again := await ask(app, "/meta", "bad.h5")).status == 504:
            await wait_for_spare(app)  # one that has to start first may come too late
        refused(again, "bad.h5", "hung for more than 4 seconds")
        refused(await ask(app, "/meta", "bad.h5"), "bad.h5", "hung")
        await wait_for_spare(app)
        await check_good(app)


@pytest.mark.slow
async def test_it_is_asked_again_when_it_has_changed(app: H5App, root: Path) -> None:
    doubles.write(root / "bad.h5", "abort")
    refused(await ask(app, "/meta", "bad.h5"), "bad.h5")
    doubles.write(root / "bad.h5", values=doubles.VALUES[:5])
    check_values(await ask(app, "/data", "bad.h5", **VALUES), doubles.VALUES[:5])


@pytest.mark.slow
async def test_it_is_asked_again_after_a_while(app: H5App, root: Path) -> None:
    doubles.write(root / "bad.h5", "abort")
    seen: set[int] = set()
    for _ in range(2):
        refused(await ask(app, "/meta", "bad.h5"), "bad.h5")
        await check_good(app)
        assert not seen & pids(app)
        seen |= pids(app)
        for record in readers(app).records.values():
            record.until = 0.0  # that while is over


def arrived(gate: Path) -> None:
    """Wait until somebody waits at the gate, and take it away."""
    with gate.open("rb", buffering=0) as fifo:
        assert fifo.read(1) == b"."
    gate.unlink()


@pytest.mark.slow
async def test_of_several_in_the_lanes_only_the_guilty_one_is_refused(
    app: H5App, root: Path
) -> None:
    gate = root / doubles.GATE
    os.mkfifo(gate)
    doubles.write(root / "waits.h5", "wait at gate")
    doubles.write(root / "bad.h5", "abort")
    await check_good(app)
    answers = {}

    async def keep(file: str, route: str) -> None:
        answers[file] = await ask(app, route, file, **VALUES if route == "/data" else {})

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keep, "waits.h5", "/data")
        # It is in a decode lane, and will be there when the other one crashes.
        await anyio.to_thread.run_sync(arrived, gate)
        tasks.start_soon(keep, "bad.h5", "/meta")
    check_values(answers["waits.h5"])
    refused(answers["bad.h5"], "bad.h5", "SIGABRT")
    # And from now on, neither is doubted.
    check_values(await ask(app, "/data", "waits.h5", **VALUES))
    before = pids(app)
    refused(await ask(app, "/meta", "bad.h5"), "bad.h5")
    assert pids(app) == before


@pytest.mark.slow
async def test_the_file_with_the_link_is_the_one_that_is_refused(app: H5App, root: Path) -> None:
    doubles.write(root / "bad.h5", "abort")
    with h5py.File(root / "links.h5", "w") as file:
        file["own"] = doubles.VALUES
        file["link"] = h5py.ExternalLink("bad.h5", "/values")
    check_values(await ask(app, "/data", "links.h5", path="own", format="bin"))
    refused(await ask(app, "/data", "links.h5", path="link", format="bin"), "links.h5")
    before = pids(app)
    refused(await ask(app, "/data", "links.h5", path="own", format="bin"), "links.h5")
    assert pids(app) == before
    refused(await ask(app, "/meta", "bad.h5"), "bad.h5")
    # A user who mends the one file mends the other by writing it anew.
    doubles.write(root / "bad.h5")
    os.utime(root / "links.h5", ns=(1, 1))
    children = (await ask(app, "/meta", "links.h5")).json["children"]
    assert {each["kind"] for each in children} == {"dataset"}


@pytest.mark.slow
async def test_the_virtual_dataset_is_the_one_that_is_refused(app: H5App, root: Path) -> None:
    doubles.write(root / "bad.h5", "abort")
    layout = h5py.VirtualLayout((2, len(doubles.VALUES)), "<i4")
    for row, name in enumerate(("good.h5", "bad.h5")):
        layout[row] = h5py.VirtualSource(name, "values", (len(doubles.VALUES),))
    with h5py.File(root / "virtual.h5", "w") as file:
        file.create_virtual_dataset("rows", layout)
    rows = {"path": "rows", "format": "bin"}
    check_values(await ask(app, "/data", "virtual.h5", **rows, selection="0"))
    refused(await ask(app, "/data", "virtual.h5", **rows), "virtual.h5", "SIGABRT")
    await check_good(app)
    before = pids(app)
    refused(await ask(app, "/data", "virtual.h5", **rows, selection="0"), "virtual.h5")
    assert pids(app) == before
    doubles.write(root / "bad.h5")
    os.utime(root / "virtual.h5", ns=(1, 1))
    answer = await ask(app, "/data", "virtual.h5", **rows)
    check_values(answer, np.concatenate([doubles.VALUES] * 2))


async def test_of_a_batch_one_member_fails(app: H5App, root: Path) -> None:
    doubles.write(root / "bad.h5", "abort")
    members = [
        {"route": "meta", "params": {"file": name}} for name in ("good.h5", "bad.h5", "good.h5")
    ]
    async with client(app) as asker:
        answers = (await asker.post("/batch", json=members)).json()
    assert [each["status"] for each in answers] == [200, 500, 200]
    assert "bad.h5 crashed the reader" in str(answers[1])


async def test_when_many_crash_requests_are_refused_for_a_while(app: H5App, root: Path) -> None:
    readers(app).ends.extend([float("inf")] * 20)
    answer = await ask(app, "/meta")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert "20 readers crashed" in answer.message
    readers(app).ends.clear()
    await check_good(app)


async def test_killing_a_reader_blames_no_file(app: H5App) -> None:
    await check_good(app)
    [pid] = pids(app)
    os.kill(pid, 9)
    await check_good(app)
    assert len(readers(app).records) == 0
    assert pid not in pids(app)


async def test_what_a_reader_logs_is_logged_here(
    app: H5App, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    doubles.write(root / "odd.h5", "mistake")
    answer = await ask(app, "/meta", "odd.h5")
    assert (answer.status, answer.message) == (500, "Internal server error")
    with anyio.fail_after(servers.PATIENCE):
        await until(lambda: caplog.records)  # it comes through another socket than the answer
    [record] = [each for each in caplog.records if each.name.startswith("asgihive.asgi")]
    assert record.levelname == "ERROR"
    assert "ZeroDivisionError" in record.getMessage()


async def test_a_reader_that_does_not_start_is_said(
    app: H5App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/no/such/python")
    with anyio.fail_after(servers.PATIENCE):
        answer = await run(app, http("/meta?file=good.h5"))
    assert (answer.status, "No such file" in answer.message) == (503, True)
