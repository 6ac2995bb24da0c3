"""What files, lanes and caches have come to: the numbers that `/metrics` tells, beside requests."""

from collections.abc import Iterable
from typing import NamedTuple, Self

from asgihive.service.store import Store


class Figures(NamedTuple):
    """Of one process, or the sums of several.

    Hits and misses count from the beginning; the rest is of now, bytes included.
    """

    open_files: int = 0
    library_threads: int = 0
    library_busy: int = 0
    library_waiting: int = 0
    decode_threads: int = 0
    decode_busy: int = 0
    decode_waiting: int = 0
    chunk_bytes: int = 0
    chunk_hits: int = 0
    chunk_misses: int = 0
    answer_bytes: int = 0
    answer_hits: int = 0
    answer_misses: int = 0

    @classmethod
    def of(cls, store: Store) -> Self:
        """Those of now."""
        library, decode = store.lanes.library, store.lanes.decode
        chunks, answers = store.pool.chunks, store.answers
        return cls(
            *(len(store.pool),),
            *(library.threads, library.busy(), library.waiting()),
            *(decode.threads, decode.busy(), decode.waiting()),
            *(chunks.bytes, chunks.hits, chunks.misses),
            *(answers.bytes, answers.hits, answers.misses),
        )

    @classmethod
    def sum(cls, parts: Iterable[Self]) -> Self:
        """Those of several processes."""
        return cls(*map(sum, zip(cls(), *parts, strict=True)))

    def at_end(self) -> Self:
        """What is left of them when the process has ended: what it counted."""
        return type(self)(
            chunk_hits=self.chunk_hits,
            chunk_misses=self.chunk_misses,
            answer_hits=self.answer_hits,
            answer_misses=self.answer_misses,
        )
