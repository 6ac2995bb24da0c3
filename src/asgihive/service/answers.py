"""Encoded answers kept in memory, served from the event loop while their files are unchanged."""

import time
from dataclasses import dataclass

import anyio

from asgihive.asgi import BufferedResponse
from asgihive.hdf5.cache import BytesCache
from asgihive.hdf5.identity import Identity, identity_on_loop
from asgihive.lanes import Lane

# A `stat` takes microseconds; one that takes this long tells of a sick file system.
_SLOW_STAT_SECONDS = 0.005

Key = tuple[str, bytes, bytes]
Depends = dict[str, Identity | None]


@dataclass(frozen=True, slots=True)
class _Kept:
    response: BufferedResponse
    depends: Depends


class AnswerCache:
    """Responses by request, each with the identities of all files that took part in it.

    Args:
        max_bytes: bodies kept in all; 0 keeps none.
        lane: where identities are checked when the file system is slow.
    """

    def __init__(self, max_bytes: int, lane: Lane) -> None:
        self._kept: BytesCache[Key, _Kept] = BytesCache(max_bytes)
        self._landed: dict[Key, anyio.Event] = {}
        self._lane = lane
        self._slow = False

    async def find(self, key: Key) -> BufferedResponse | None:
        """The answer, if it is kept and no file of it has changed.

        This is where the event loop makes system calls: a `stat` per file. Once one takes
        over 5 ms, all further ones are made in a lane.
        """
        kept = self._kept.get(key)
        if kept is None:
            return None
        if self._slow:
            unchanged = await self._lane.run(lambda: _unchanged(kept.depends))
        else:
            start = time.perf_counter()
            unchanged = _unchanged(kept.depends)
            self._slow = time.perf_counter() - start > _SLOW_STAT_SECONDS * len(kept.depends)
        if unchanged:
            return kept.response
        self._kept.drop(key)
        return None

    def keep(self, key: Key, response: BufferedResponse, depends: Depends) -> None:
        """Keep an answer that was made of files of these identities."""
        paths = sum(len(path) + 200 for path in depends)
        self._kept.put(key, _Kept(response, depends), len(response.body) + len(key[1]) + paths)

    async def join(self, key: Key) -> bool:
        """Whether the caller is to make the answer; else someone did, successfully or not.

        Who is told to make it must call `land`, whatever happens.
        """
        landed = self._landed.get(key)
        if landed is None:
            self._landed[key] = anyio.Event()
            return True
        await landed.wait()
        return False

    def land(self, key: Key) -> None:
        """The answer was made, or failed; those who waited look again."""
        self._landed.pop(key).set()


def _unchanged(depends: Depends) -> bool:
    return all(identity_on_loop(path) == identity for path, identity in depends.items())
