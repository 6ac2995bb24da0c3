"""How much is in flight: read and not yet sent, for one answer and for all of them."""

from asgihive.concurrency import LoopLocal


class InFlight:
    """Bytes of blocks that answers of one event loop have in flight, together.

    Args:
        most: over which no answer reads ahead.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._used: LoopLocal[list[int]] = LoopLocal()

    def here(self) -> list[int]:
        """The bytes of the running event loop, as the only member of a list."""
        return self._used.get(lambda: [0])


class Budget:
    """What one answer may have in flight; one block at a time it always may.

    Args:
        most: bytes.
        in_flight: with those of all others.

    Attributes:
        used: bytes.
    """

    def __init__(self, most: int, in_flight: InFlight) -> None:
        self.used = 0
        self._most = most
        self._most_of_all = in_flight.most
        self._all = in_flight.here()

    def has_room(self, size: int) -> bool:
        """Whether so many more bytes may be read ahead."""
        return self.used + size <= self._most and self._all[0] + size <= self._most_of_all

    def take(self, size: int) -> None:
        """So many more are in flight."""
        self.used += size
        self._all[0] += size

    def give(self, size: int) -> None:
        """So many fewer are."""
        self.used -= size
        self._all[0] -= size
