"""Answers kept in memory, served from the event loop while their files are unchanged."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import anyio

from asgihive.asgi import BufferedResponse, Validators
from asgihive.concurrency import Lane
from asgihive.hdf5.cache import BytesCache
from asgihive.hdf5.identity import Identity, identity_on_loop

# A `stat` takes microseconds; one that takes this long tells of a sick file system.
_SLOW_STAT_SECONDS = 0.005

# So often in a row it must have been quick again: a busy machine is slow now and then.
_QUICK_AGAIN = 32

# Beyond that, the event loop has no time for them.
_MOST_STATS_ON_LOOP = 256

Key = tuple[object, ...]
Depends = Mapping[str, Identity | None]


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of an answer, or all of it.

    validators: of the answer as it is, in no content coding.
    depends: the identities of all files that took part in it.
    is_large: whether it is worth compression.
    body: None = it is made anew each time.
    responses: what was sent of it already, by content coding; None = as it is.
    """

    validators: Validators
    depends: Depends
    is_large: bool
    body: BufferedResponse | None = None
    responses: Mapping[str | None, BufferedResponse] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """What it takes in memory, about."""
        # Unless it is coded, a response has the body itself.
        bodies = {id(each.body): len(each.body) for each in self.responses.values()}
        if self.body is not None:
            bodies[id(self.body.body)] = len(self.body.body)
        return sum(bodies.values()) + sum(len(path) + 200 for path in self.depends)


class AnswerCache:
    """Answers by request, each with the identities of all files that took part in it.

    Args:
        max_bytes: bodies kept in all; 0 keeps none.
        lane: where identities are checked when the file system is slow.

    Attributes:
        hits, misses: how often an answer was kept, and still right, or not.
    """

    def __init__(self, max_bytes: int, lane: Lane) -> None:
        self._kept: BytesCache[Key, Answer] = BytesCache(max_bytes)
        self._landed: dict[Key, anyio.Event] = {}
        self._lane = lane
        self._slow = False
        self._quick = 0
        self.hits = 0
        self.misses = 0

    @property
    def bytes(self) -> int:
        """What is kept, with the overhead of keeping it."""
        return self._kept.bytes

    async def find(self, key: Key) -> Answer | None:
        """The answer, if it is kept and no file of it has changed.

        This is where the event loop makes system calls: a `stat` per file. Once one takes
        over 5 ms, further ones are made in a lane, as very many are, until they were quick for
        a while.
        """
        kept = self._kept.get(key)
        if kept is not None:
            if self._takes_a_lane(kept):
                unchanged, seconds = await self._lane.run(partial(_compared, kept.depends))
            else:
                unchanged, seconds = _compared(kept.depends)
            kept = self._judge(key, kept, seconds, unchanged=unchanged)
        self.hits += kept is not None
        self.misses += kept is None
        return kept

    def at_hand(self, key: Key) -> Answer | None:
        """The same without a thread; None also where it takes one. It counts nothing."""
        kept = self._kept.get(key)
        if kept is None or self._takes_a_lane(kept):
            return None
        unchanged, seconds = _compared(kept.depends)
        return self._judge(key, kept, seconds, unchanged=unchanged)

    def _takes_a_lane(self, kept: Answer) -> bool:
        return self._slow or len(kept.depends) > _MOST_STATS_ON_LOOP

    def _judge(self, key: Key, kept: Answer, seconds: float, *, unchanged: bool) -> Answer | None:
        self._note(is_quick=seconds <= _SLOW_STAT_SECONDS * len(kept.depends))
        if not unchanged:
            self._kept.drop(key)
        return kept if unchanged else None

    def _note(self, *, is_quick: bool) -> None:
        self._quick = self._quick + 1 if is_quick else 0
        self._slow = not is_quick or (self._slow and self._quick < _QUICK_AGAIN)

    def keep(self, key: Key, answer: Answer) -> None:
        """Keep an answer, the body that it has included."""
        size = answer.bytes + sum(len(each) for each in key if isinstance(each, str | bytes))
        self._kept.put(key, answer, size)

    def keep_response(
        self, key: Key, answer: Answer, coding: str | None, response: BufferedResponse
    ) -> None:
        """Keep what is sent of `answer` in a content coding, if that is kept itself."""
        kept = self._kept.peek(key)
        if kept is not None and kept.body is answer.body:
            self.keep(key, replace(kept, responses={**kept.responses, coding: response}))

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


def _compared(depends: Depends) -> tuple[bool, float]:
    """Whether all files are what they were, and how many seconds it took to see that."""
    start = time.perf_counter()
    unchanged = all(identity_on_loop(path) == identity for path, identity in depends.items())
    return unchanged, time.perf_counter() - start
