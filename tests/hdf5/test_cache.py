"""The bytes-bounded cache against a list."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from asgihive.hdf5.cache import ENTRY_OVERHEAD_BYTES, BytesCache
from tests.efforts import at_most

KEYS = st.integers(0, 6)
MOST = 4 * ENTRY_OVERHEAD_BYTES


class Caching(RuleBasedStateMachine):
    """The model: `(key, value, size)`, least recently used first."""

    def __init__(self) -> None:
        super().__init__()
        self.cache: BytesCache[int, object] = BytesCache(MOST)
        self.model: list[tuple[int, object, int]] = []

    def _without(self, key: int) -> list[tuple[int, object, int]]:
        return [each for each in self.model if each[0] != key]

    @rule(key=KEYS, size=st.integers(0, 3 * ENTRY_OVERHEAD_BYTES))
    def put(self, key: int, size: int) -> None:
        value = object()
        self.cache.put(key, value, size)
        self.model = [*self._without(key), (key, value, size + ENTRY_OVERHEAD_BYTES)]
        while sum(each[2] for each in self.model) > MOST:
            self.model.pop(0)

    @rule(key=KEYS)
    def put_too_large(self, key: int) -> None:
        self.cache.put(key, object(), MOST)
        self.model = self._without(key)

    @rule(key=KEYS)
    def get(self, key: int) -> None:
        found = [each for each in self.model if each[0] == key]
        assert self.cache.get(key) is (found[0][1] if found else None)
        self.model = self._without(key) + found

    @rule(key=KEYS)
    def drop(self, key: int) -> None:
        self.cache.drop(key)
        self.model = self._without(key)

    @invariant()
    def bytes_are_counted_exactly(self) -> None:
        assert self.cache.bytes == sum(each[2] for each in self.model) <= MOST
        assert len(self.cache) == len(self.model)

    @precondition(lambda self: self.model)
    @invariant()
    def everything_is_there(self) -> None:
        for key, value, _ in list(self.model):
            assert self.cache.get(key) is value  # in the model's order, so the order stays


Caching.TestCase.settings = settings(
    max_examples=at_most(60), stateful_step_count=30, deadline=None
)
TestCaching = Caching.TestCase


def test_no_bytes_keep_nothing() -> None:
    cache: BytesCache[str, int] = BytesCache(0)
    cache.put("a", 1, 0)
    assert (cache.get("a"), len(cache), cache.bytes) == (None, 0, 0)
