"""Reader processes: when they start, what they know, and that none outlives its service."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from asgihive.service import H5App
from asgihive.settings import H5Settings
from tests.gates import until
from tests.isolation import doubles
from tests.isolation.isolated import ask, check_good, limited, pids, readers, wait_for_spare
from tests.service import servers

pytestmark = pytest.mark.anyio


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def serving(app: H5App) -> int:
    """Return the number of the process that serves."""
    active = readers(app).active
    assert active is not None
    return active.pid


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


@pytest.mark.slow  # so does the one that serves while another is held up
async def test_there_is_a_spare_one(app: H5App) -> None:
    with anyio.fail_after(4 * servers.PATIENCE):
        async with app.running():
            await check_good(app)
            await wait_for_spare(app)
            [spare] = [each.pid for each in readers(app).spare]
            os.kill(serving(app), signal.SIGKILL)
            await check_good(app)
            await check_good(app)
            assert serving(app) == spare


@pytest.mark.slow
async def test_a_spare_one_that_ends_is_replaced_though_no_request_comes(app: H5App) -> None:
    with anyio.fail_after(4 * servers.PATIENCE):
        async with app.running():
            await check_good(app)
            await wait_for_spare(app)
            at_work = serving(app)
            [spare] = [each.pid for each in readers(app).spare]
            os.kill(spare, signal.SIGKILL)
            # A zombie, which has ended and was not waited for, is still there.
            await until(lambda: not is_alive(spare) and readers(app).spare)
            assert spare not in pids(app)
            assert serving(app) == at_work
            await check_good(app)


@limited(read_timeout_seconds=servers.PATIENCE)
@pytest.mark.parametrize("fault", ["hang", pytest.param("hang as a whole", marks=pytest.mark.slow)])
async def test_a_spare_one_serves_while_the_other_is_held_up(
    app: H5App, root: Path, fault: str
) -> None:
    doubles.write(root / "bad.h5", fault)
    with anyio.fail_after(4 * servers.PATIENCE):
        async with app.running():
            await check_good(app)
            await wait_for_spare(app)
            before = pids(app)
            held_up = readers(app).active
            assert held_up is not None
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, app, "/meta", "bad.h5")
                await until(lambda: held_up.waiting)
                # One that waits behind it, and then one that comes later.
                assert (await ask(app, "/meta")).status == 200
                assert (await ask(app, "/meta", path="values")).status == 200
                assert before <= pids(app)  # no process has been ended
                assert serving(app) != held_up.pid
                tasks.cancel_scope.cancel()


@pytest.mark.slow
@limited(read_timeout_seconds=3.0)
async def test_one_that_hangs_is_ended_though_its_client_has_gone(app: H5App, root: Path) -> None:
    doubles.write(root / "bad.h5", "hang")
    with anyio.fail_after(4 * servers.PATIENCE):
        async with app.running():
            await wait_for_spare(app)  # to start takes longer than a request may
            await check_good(app)
            hung = readers(app).active
            assert hung is not None
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, app, "/meta", "bad.h5")
                await until(lambda: hung.waiting)
                tasks.cancel_scope.cancel()
            await until(lambda: not is_alive(hung.pid))
            await wait_for_spare(app)
            await check_good(app)


async def test_without_a_lifespan_it_ends_with_the_application(root: Path) -> None:
    app = H5App(root, H5Settings(isolation="process"))
    assert not pids(app)
    await check_good(app)
    [pid] = pids(app)
    await anyio.to_thread.run_sync(readers(app).close)  # as when it is collected
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
        # The reader process has it open, too.
        assert parent.stdout.read() == b""
        assert parent.wait(servers.PATIENCE) == (-signal.SIGKILL if how == "kill" else 0)


@limited(token="secret")
async def test_it_does_not_know_the_token(app: H5App) -> None:
    assert (await ask(app, "/meta")).status == 401
    assert (await ask(app, "/meta", token="secret")).status == 200
    [pid] = pids(app)
    proc = Path("/proc") / str(pid)
    assert b"secret" not in (proc / "cmdline").read_bytes() + (proc / "environ").read_bytes()
    # Of what it is told, this is all that could hold it.
    assert readers(app).setup.settings.token is None


async def test_the_parent_opens_no_file(app: H5App, root: Path) -> None:
    for route in ("/meta", "/file", "/files", "/health"):
        assert (await ask(app, route)).status == 200
    await check_good(app)
    assert len(app.store.pool) == 0
    assert servers.descriptors_below(root) == []


@pytest.mark.parametrize("value", ["threads", "", None, True])
def test_another_isolation_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"isolation is .*: one of none, process is accepted"):
        H5Settings(isolation=value)  # type: ignore[arg-type]


def test_it_is_read_from_the_environment() -> None:
    settings = H5Settings.from_environment({"ASGIHIVE_ISOLATION": "process"})
    assert settings.isolation == "process"


def test_where_no_process_can_be_started(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(ValueError, match="isolation is 'process', which needs"):
        H5App(root, H5Settings(isolation="process"))
