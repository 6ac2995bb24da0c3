"""How a picture is answered: made once for all who ask at once, kept, and versioned by its file."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import anyio
from starlette.types import ASGIApp, Receive

from asgihive.asgi import BufferedResponse, run_while_connected
from asgihive.concurrency import LoopLocal, Portions
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.virtual_sources import SourcesFound
from asgihive.service.answering import answer_whole, find_or_make_answer, keep_whole
from asgihive.service.requests import (
    COMPRESS_OVER_BYTES,
    ReadRequest,
    Wanted,
    answer_preconditions,
)
from asgihive.service.store import Answer, Store

LARGE_POINTS = 1 << 20
"""Points of a picture, which are in memory as a whole; of larger ones few are made at a time."""

LARGE_AT_ONCE = 4
"""Large pictures that one event loop makes at the same time."""

LONGEST_HEADER = 4096
"""Characters of a header that says what is shown; a longer one is left out."""

P = TypeVar("P")

PictureMade = tuple[bytes, Mapping[str, str]]
"""The picture, and the headers that say what it shows."""

_turns: LoopLocal[anyio.CapacityLimiter] = LoopLocal()


def take_turn(points: int) -> AbstractAsyncContextManager[object]:
    """Return what waits until a picture of so many points may be in memory."""
    if points <= LARGE_POINTS:
        return nullcontext()
    return _turns.get(lambda: anyio.CapacityLimiter(LARGE_AT_ONCE))


async def answer_picture(  # noqa: PLR0913, PLR0917  # what is asked, by whom, and two steps
    store: Store,
    request: ReadRequest,
    wanted: Wanted,
    receive: Receive,
    find: Callable[[Lease], Portions[tuple[P, SourcesFound]]],
    make: Callable[[Store, ReadRequest, P, Lease], Awaitable[PictureMade]],
) -> ASGIApp | None:
    """Answer with a picture, or a 304; None when the client went away before it was there.

    Args:
        find: finds what is pictured, and what its values come from. In the library lane.
        make: reads it under the lease, and makes the picture.

    Raises:
        HTTPException: 412.
        Exception: whatever `find` and `make` raise.
    """
    make_answer = partial(_make_answer, store, request, wanted, find, make)
    answer = await run_while_connected(
        receive, partial(find_or_make_answer, store, request, make_answer)
    )
    return None if answer is None else await answer_whole(store, request, wanted, answer)


async def _make_answer(
    store: Store,
    request: ReadRequest,
    wanted: Wanted,
    find: Callable[[Lease], Portions[tuple[P, SourcesFound]]],
    make: Callable[[Store, ReadRequest, P, Lease], Awaitable[PictureMade]],
) -> Answer:
    picture: Any = request.encoder
    (found, sources), lease = await store.read(partial(store.in_portions, work=find))
    try:
        version = await store.make_version(request, lease, sources, is_large=False)
        if answer_preconditions(wanted, version) is not None:
            return Answer(version)  # the client has it: nothing need be made
        body, told = await make(store, request, found, lease)
    finally:
        lease.release()
    is_large = picture.is_compressible and len(body) > COMPRESS_OVER_BYTES
    version = replace(version, is_large=is_large)
    shown = {name: value for name, value in told.items() if len(value) <= LONGEST_HEADER}
    response = BufferedResponse(body, headers={"content-type": picture.media_type, **shown})
    return await keep_whole(store, request, wanted, version, response)
