"""The lifespan protocol of ASGI: a hive answers its server by it, and starts applications by it."""

import importlib
import logging
import os
import traceback
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NoReturn

import anyio
from starlette.types import ASGIApp, Message, Receive, Send

from asgihive.concurrency import run_in_worker

_logger = logging.getLogger("asgihive.hive")

_PACKAGE_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

_STANDARD_LIBRARY = os.path.dirname(os.__file__) + os.sep
_INSTALLED = f"{os.sep}site-packages{os.sep}"

# How long an application may take to return once it has given its last answer.
_SECONDS_TO_RETURN = 5.0

# How many of the user's own frames are shown of an exception.
_FRAMES = 6


async def answer_lifespan(
    run: Callable[[], AbstractAsyncContextManager[object]], receive: Receive, send: Send
) -> None:
    """Start at the server's word, and stop at its word.

    What fails is said to the server and raised, as Starlette does: a server ends, and a test
    client, which waits for the application to end, ends with the exception.

    Raises:
        Exception: what `run` raised, after the server was told of it.
    """
    await receive()
    phase = "startup"
    try:
        async with run():
            await send({"type": "lifespan.startup.complete"})
            phase = "shutdown"
            await receive()
    except Exception as error:
        message = "\n".join(_list_messages(error))
        if phase == "startup":
            # Failing teardowns are logged with their tracebacks one by one.
            shown = await run_in_worker(format_user_traceback, error)  # which reads the source
            message = f"{message}\n{shown}".rstrip()
        await send({"type": f"lifespan.{phase}.failed", "message": message})
        raise
    await send({"type": "lifespan.shutdown.complete"})


def _list_messages(error: Exception) -> Iterator[str]:
    """List the sentences of an exception, and of every one in a group, with their notes."""
    if isinstance(error, ExceptionGroup):
        for each in error.exceptions:
            yield from _list_messages(each)
        return
    yield str(error)
    yield from getattr(error, "__notes__", ())


def format_user_traceback(error: BaseException) -> str:
    """Format the traceback of what the user's code raised, as far as it is the user's code.

    Of an exception that only says where another one happened, that is the other one.
    """
    cause = error.__cause__ or error
    frames = find_user_frames(cause)
    if not frames:
        return ""
    lines = ["Traceback (the service's own code):\n", *frames.format()]
    return "".join([*lines, *traceback.format_exception_only(cause)])


def find_user_frames(error: BaseException) -> traceback.StackSummary:
    """Return the last frames, from the first one on that is the user's own.

    Those of the import system and of asgihive are left out wherever they are.
    """
    frames = [
        each
        for each in traceback.extract_tb(error.__traceback__)
        if not each.filename.startswith("<frozen ")
        and (each.filename, each.name) != ("<string>", "__init__")  # of a dataclass
        and each.filename != importlib.__file__
        and not os.path.abspath(each.filename).startswith(_PACKAGE_FOLDER + os.sep)
    ]
    is_installed = [
        each.filename.startswith(_STANDARD_LIBRARY) or _INSTALLED in each.filename
        for each in frames
    ]
    first = is_installed.index(False) if False in is_installed else 0
    return traceback.StackSummary.from_list(frames[first:][-_FRAMES:])


class LifespanFailed(Exception):
    """An application said that its start or its end failed; the message is its own."""


class _LifespanUnknown(Exception):
    """An application does something else with a lifespan scope than the protocol says."""


class _LifespanDialogue:
    """The server's side of the protocol, for one application in a task of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self.state: dict[str, Any] = {}
        self.is_started = False
        self.answered = anyio.Event()
        """Set by each answer, and when the application has ended."""
        self.ended = anyio.Event()
        self._app = app
        self._error: Exception | None = None
        self._message: str | None = None
        self._was_asked = False
        self._was_told_to_stop = False
        self._stop = anyio.Event()

    async def run(self) -> None:
        asgi = {"version": "3.0", "spec_version": "2.0"}
        scope = {"type": "lifespan", "asgi": asgi, "state": self.state}
        try:
            await self._app(scope, self._receive, self._send)
        except Exception as error:  # noqa: BLE001  # raised by `find_failure`
            self._error = self._error or error
        finally:
            self.ended.set()
            self.answered.set()

    def find_failure(self) -> Exception | None:
        """Return why the application did not start, or did not stop as it should.

        ASGI has it that an application which raises before it answers knows no lifespan.
        """
        if self._message is not None:
            return self._error or LifespanFailed(self._message)
        if self.is_started:
            return self._error
        if self._error is not None and not isinstance(self._error, _LifespanUnknown):
            _logger.debug("%r takes no lifespan", self._app, exc_info=self._error)
        return None

    async def stop(self) -> None:
        """Tell the application to stop, and wait until it has, and for its last words."""
        if not self.ended.is_set():
            self.answered = anyio.Event()
            self._stop.set()
            await self.answered.wait()
        with anyio.move_on_after(_SECONDS_TO_RETURN):
            await self.ended.wait()

    async def _receive(self) -> Message:
        if not self._was_asked:
            self._was_asked = True
            return {"type": "lifespan.startup"}
        if not self.is_started and self._message is None:
            self._refuse("asks for a second event before it has started")
        if self._message is not None or self._was_told_to_stop:
            # There is no further event, for which some wait all the same.
            self.ended.set()
            await anyio.sleep_forever()
        await self._stop.wait()
        self._was_told_to_stop = True
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        kind = message["type"]
        if not kind.startswith("lifespan."):
            self._refuse(f"sends {kind}")
        if kind == "lifespan.startup.complete":
            self.is_started = True
        elif kind.endswith(".failed"):
            self._message = message.get("message") or "it does not say why"
        self.answered.set()

    def _refuse(self, what: str) -> NoReturn:
        self._error = _LifespanUnknown(f"it {what}")
        self.answered.set()
        raise self._error


@asynccontextmanager
async def run_lifespan(app: ASGIApp) -> AsyncIterator[Mapping[str, Any]]:
    """Start an ASGI application by the lifespan protocol, and stop it.

    It yields what the application put into the lifespan's `state`. An application that does
    not know the protocol is left alone: one that raises or returns without an answer, or
    answers something else than a lifespan.

    Raises:
        LifespanFailed: the application said so, and raised nothing.
        Exception: what it raised when it said so, or after it had started.
    """
    dialogue = _LifespanDialogue(app)
    failure = None
    async with anyio.create_task_group() as group:
        group.start_soon(dialogue.run)
        await dialogue.answered.wait()
        if not dialogue.is_started:
            with anyio.move_on_after(_SECONDS_TO_RETURN):
                await dialogue.ended.wait()
            failure = dialogue.find_failure()
        if failure is None:
            try:
                yield dialogue.state
            finally:
                if dialogue.is_started:
                    with anyio.CancelScope(shield=True):
                        await dialogue.stop()
                    failure = dialogue.find_failure()
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
