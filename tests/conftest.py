"""Fixtures of every room: both event loops, and a guard against whatever blocks them."""

import gc
import os
import threading
from collections.abc import Iterator
from concurrent.futures.thread import _threads_queues as executor_threads

import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import settings

from tests.gates import Gate

# No deadline: first uses build tables, and machines are shared. The gate always tries the same
# examples, so that it says the same of the same commit; runs by hand look for new ones.
# Only `--hypothesis-profile=thorough` tries as many as Hypothesis itself would.
FEW, MANY = 20, 100
for name, examples in {"asgihive": FEW, "thorough": MANY}.items():
    settings.register_profile(
        name, deadline=None, derandomize="CI" in os.environ, max_examples=examples
    )
settings.load_profile("asgihive")

EVENT_LOOPS = ("asyncio", "trio")

# How long a thread may take that was told to end.
ENDING_SECONDS = 10.0


@pytest.hookimpl(tryfirst=True)  # before what is slow is left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let what is `slow_on_trio` be slow there, and each of several cases fast on one event loop.

    The cases of a test take turns, so that each test is tried on asyncio and on trio.
    """
    tests: dict[tuple[object, str], dict[tuple[str, ...], list[pytest.Function]]] = {}
    for item in items:
        if isinstance(item, pytest.Function) and (event_loop := _find_event_loop(item)):
            if item.get_closest_marker("slow_on_trio"):
                if event_loop == "trio":
                    item.add_marker(pytest.mark.slow)
            elif not item.get_closest_marker("slow"):
                case = tuple(each for each in item.callspec.id.split("-") if each != event_loop)
                cases = tests.setdefault((item.parent, item.originalname), {})
                cases.setdefault(case, []).append(item)
    for cases in tests.values():
        on_both = [each for each in cases.values() if len(each) == len(EVENT_LOOPS)]
        for number, functions in enumerate(on_both if len(on_both) > 1 else ()):
            for function in functions:
                if _find_event_loop(function) != EVENT_LOOPS[number % len(EVENT_LOOPS)]:
                    function.add_marker(pytest.mark.slow)


def _find_event_loop(item: pytest.Function) -> str | None:
    """Return `asyncio` or `trio` of a test that is tried on both."""
    backend = item.callspec.params.get("anyio_backend") if hasattr(item, "callspec") else None
    return backend[0] if isinstance(backend, tuple) else None


def pytest_collection(session: pytest.Session) -> None:
    """Let the garbage collector pass over the tests themselves, which live as long as the process.

    Else each full collection looks at half a million objects of theirs, which takes 0.2 s.
    """
    gc.disable()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def bytecode(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let child processes keep what they compile, where none may be kept beside the sources."""
    with pytest.MonkeyPatch.context() as patch:
        if "PYTHONDONTWRITEBYTECODE" in os.environ:
            patch.delenv("PYTHONDONTWRITEBYTECODE")
            patch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path_factory.mktemp("bytecode")))
        yield


@pytest.fixture(
    params=[
        pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
        pytest.param(("trio", {}), id="trio"),
    ]
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    backend: tuple[str, dict[str, object]] = request.param
    return backend


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()  # a failed test must not leave a thread behind


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    """Fail whatever leaves a thread running, which would slow down all that comes after it."""
    before = set(threading.enumerate())
    yield
    # Those of an executor, which only its private list knows, wait and end with the process.
    left = set(threading.enumerate()) - before - set(executor_threads)
    for thread in left:
        # AnyIO's end with their event loop, which some fixtures keep for the next test.
        if not thread.daemon and not thread.name.startswith("AnyIO worker"):
            thread.join(ENDING_SECONDS)
            assert not thread.is_alive(), f"{thread} still runs"


@pytest.fixture(scope="module", autouse=True)  # it takes a millisecond to be there
def blockbuster() -> Iterator[BlockBuster]:
    """Fail whatever blocks an asyncio event loop inside asgihive."""
    with blockbuster_ctx("asgihive") as guard:
        # The one system call that the loop may make: a thread costs fifty times as much.
        guard.functions["os.stat"].can_block_in("asgihive/hdf5/sandbox.py", {"ask"})
        # Coverage locks what it counts when a code object is first seen, in any thread.
        guard.functions["threading.Lock.acquire"].can_block_in(
            "coverage/collector.py", {"lock_data"}
        )
        # An application is built before it serves; the command line asks for the rest.
        at_rest = {"__init__", "graph", "route_records"}
        for function in guard.functions.values():
            # The event loop of a client, whose thread is there to be blocked.
            function.can_block_in("asgihive/tasks.py", {"_run"})
            function.can_block_in("asgihive/service/app.py", {"__init__"})
            function.can_block_in("asgihive/hive/hive.py", at_rest)
        yield guard
