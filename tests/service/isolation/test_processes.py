"""Worker processes: when they start, what they know, and that none outlives anybody."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from asgihive.service import H5App
from asgihive.settings import H5Settings
from tests.service import servers
from tests.service.isolation import doubles
from tests.service.isolation.services import ask, check_good, limited, pids, supervisor

pytestmark = pytest.mark.anyio


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_lifespan_ends_what_it_began(app: H5App) -> None:
    before = descriptors()
    async with app.running():
        await check_good(app)
        first = pids(app)
    assert not pids(app)
    assert not any(map(is_alive, first))
    assert descriptors() <= before
    # And again, as reload and tests do.
    async with app.running():
        await check_good(app)
    assert not pids(app)
    assert descriptors() <= before


async def test_there_is_a_spare_one(app: H5App) -> None:
    with anyio.fail_after(servers.PATIENCE):
        async with app.running():
            await check_good(app)
            while len(pids(app)) < 2:
                await anyio.lowlevel.checkpoint()
            [spare, at_work] = [link.process.pid for link in supervisor(app)._idle]
            os.kill(at_work, signal.SIGKILL)
            await check_good(app)
            assert supervisor(app)._idle[-1].process.pid == spare


@pytest.mark.slow
async def test_a_spare_one_that_ends_is_replaced_though_nobody_asks(app: H5App) -> None:
    with anyio.fail_after(servers.PATIENCE):
        async with app.running():
            await check_good(app)
            while len(pids(app)) < 2:
                await anyio.lowlevel.checkpoint()
            [spare, at_work] = [link.process.pid for link in supervisor(app)._idle]
            os.kill(spare, signal.SIGKILL)
            # A zombie, which has ended and was not waited for, is still there.
            while is_alive(spare) or len(supervisor(app)._idle) < 2:
                await anyio.lowlevel.checkpoint()
            assert spare not in pids(app)
            assert at_work in pids(app)
            await check_good(app)


@pytest.mark.parametrize("fault", ["hang", pytest.param("hang as a whole", marks=pytest.mark.slow)])
async def test_a_spare_one_serves_while_the_other_is_held_up(
    app: H5App, root: Path, fault: str
) -> None:
    doubles.write(root / "bad.h5", fault)
    with anyio.fail_after(servers.PATIENCE):
        async with app.running():
            await check_good(app)
            while len(pids(app)) < 2:
                await anyio.lowlevel.checkpoint()
            links = list(supervisor(app)._idle)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, app, "/meta", "bad.h5")
                while not any(link.is_asked for link in links):
                    await anyio.lowlevel.checkpoint()
                # One that waits behind it, and then one that comes later.
                assert (await ask(app, "/meta")).status == 200
                assert (await ask(app, "/meta", path="values")).status == 200
                assert {link.process.pid for link in links} <= pids(app)  # nothing was killed
                tasks.cancel_scope.cancel()


@pytest.mark.slow
async def test_without_a_lifespan_it_ends_with_the_application(root: Path) -> None:
    app = H5App(root, H5Settings(isolation="process"))
    assert not pids(app)
    await check_good(app)
    [pid] = pids(app)
    found = supervisor(app)
    await anyio.to_thread.run_sync(found._finalizer)  # as when it is collected
    assert not is_alive(pid)


def test_it_serves_one_event_loop_after_the_other(app: H5App) -> None:
    anyio.run(check_good, app, backend="asyncio")
    before = pids(app)
    anyio.run(check_good, app, backend="trio")
    anyio.run(check_good, app, backend="asyncio")
    assert pids(app) == before


PARENT = """
    import sys, anyio, httpx
    from asgihive.service import H5App
    from asgihive.settings import H5Settings

    async def main():
        app = H5App(sys.argv[1], H5Settings(isolation="process"))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as it:
            print((await it.get("/meta?file=good.h5")).status_code, flush=True)
            sys.stdin.read()

    anyio.run(main)
"""


@pytest.mark.parametrize("how", [pytest.param("end", marks=pytest.mark.slow), "kill"])
def test_it_ends_with_its_parent(root: Path, how: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(PARENT), str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"200\n"
        if how == "kill":
            parent.kill()
        else:
            parent.stdin.close()
        # The worker has it open, too.
        assert parent.stdout.read() == b""
        assert parent.wait(servers.PATIENCE) == (-signal.SIGKILL if how == "kill" else 0)


@limited(token="secret")
async def test_it_does_not_know_the_token(app: H5App) -> None:
    assert (await ask(app, "/meta")).status == 401
    assert (await ask(app, "/meta", token="secret")).status == 200
    [process] = supervisor(app)._all
    proc = Path("/proc") / str(process.pid)
    assert b"secret" not in (proc / "cmdline").read_bytes() + (proc / "environ").read_bytes()
    assert supervisor(app)._settings["token"] is None


async def test_the_parent_opens_no_file(app: H5App, root: Path) -> None:
    for route in ("/meta", "/file", "/files", "/health"):
        assert (await ask(app, route)).status == 200
    await check_good(app)
    assert len(app.store.pool) == 0
    assert servers.descriptors_below(root) == []


@pytest.mark.parametrize("value", ["threads", "", None, True])
def test_another_isolation_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"isolation is .*: 'none' or 'process' is accepted"):
        H5Settings(isolation=value)  # type: ignore[arg-type]


def test_it_is_read_from_the_environment() -> None:
    settings = H5Settings.from_environment({"ASGIHIVE_ISOLATION": "process"})
    assert settings.isolation == "process"


def test_where_no_process_can_be_started(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(ValueError, match="isolation is 'process', which needs"):
        H5App(root, H5Settings(isolation="process"))
