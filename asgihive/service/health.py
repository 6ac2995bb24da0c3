"""`/health`: whether the service can do its work now."""

import errno
import os
import time

import anyio
from starlette.types import Receive, Scope, Send

from asgihive.asgi import BufferedResponse, HTTPException, answer_error
from asgihive.concurrency import Lane, run_in_worker
from asgihive.context import RequestContext, request_context
from asgihive.errors import Overloaded, RootUnreadable
from asgihive.service.store import Store

TIMEOUT_SECONDS = 5.0
"""How long the directory and the lanes may take to answer."""

HEALTH = "/health"
"""The path of the route."""

# However many ask, the directory is looked at this often.
_KEPT_SECONDS = 1.0

_CONTEXT = RequestContext(client="asgihive health")
_HEADERS = {"cache-control": "no-store"}
_WELL = BufferedResponse(
    b'{"status":"ok"}', headers={"content-type": "application/json", **_HEADERS}
)


class Health:
    """An ASGI application: 200 while the directory is readable and the lanes answer, else 503.

    Asked often, it looks once a second. A look that is stuck, in a network file system that
    hangs, is the only one: no further thread follows it there.

    Args:
        store: whose directory and lanes.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._timeout = TIMEOUT_SECONDS
        self._problem: str | None = None
        self._looked = -_KEPT_SECONDS
        self._looking: anyio.Event | None = None
        self._is_stuck = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = await self.find_problem()
        response = _WELL
        if problem is not None:
            response = answer_error(HTTPException(503, problem, _HEADERS))
        await response(scope, receive, send)

    async def find_problem(self) -> str | None:
        """Return why the service cannot do its work, None when it can; at most a second old."""
        while self._looking is not None:
            await self._looking.wait()
        if time.monotonic() - self._looked >= _KEPT_SECONDS:
            self._looking = anyio.Event()
            # It takes no longer than the bound, and others wait for it, too.
            with anyio.CancelScope(shield=True):
                self._problem = await self._look()
            self._looked = time.monotonic()
            self._looking.set()
            self._looking = None
        return self._problem

    async def _look(self) -> str | None:
        problems: list[str] = []

        async def ask(lane: Lane) -> None:
            # A turn of its own, whatever the client who asks has waiting.
            request_context.set(_CONTEXT)
            try:
                with anyio.fail_after(self._timeout):
                    await lane.run(_do_nothing)
            except TimeoutError:
                problems.append(f"The {lane.name} threads do not answer in {self._timeout:g} s")
            except Overloaded as error:
                problems.append(f"Overloaded: {error}")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, self._store.lanes.library)
            tasks.start_soon(ask, self._store.lanes.decode)
            directory = await self._ask_directory()
        self._store.note_root(directory, by_health=True)
        if directory is not None:
            problems.insert(0, str(RootUnreadable(directory)))
        return "; ".join(problems) or None

    async def _ask_directory(self) -> str | None:
        """Return why the directory cannot be read, None when it can."""
        text = f"it does not answer in {self._timeout:g} s"
        if self._is_stuck:
            return text
        reasons: list[str | None] = []
        with anyio.move_on_after(self._timeout):
            reasons.append(await run_in_worker(self._read_directory, abandon=True))
        return reasons[0] if reasons else text

    def _read_directory(self) -> str | None:
        """Return why the directory cannot be read, None when it can; in a thread."""
        self._is_stuck = True
        try:
            # A directory that is mounted on demand is, by this.
            with os.scandir(self._store.sandbox.root) as entries:
                next(entries, None)
            return self._store.sandbox.root_problem()
        except OSError as error:
            return os.strerror(error.errno or errno.EIO)
        finally:
            self._is_stuck = False


def _do_nothing() -> None:
    """What a lane that answers has done at once."""
