"""The notes of who is where, what is concluded from them, and who is refused for that."""

import os
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgihive.errors import ReaderCrashed
from asgihive.service.figures import Figures
from asgihive.service.isolation.bans import Bans
from asgihive.service.isolation.blame import Verdict, judged
from asgihive.service.isolation.board import Board, Touched, Visit, Visitor

A, B = (Touched(name, (1, number, 3, -4)) for number, name in enumerate(("a.h5", "ö/\udcff")))
SLOTS = 3


@pytest.fixture
def boards() -> Iterator[tuple[Board, Board]]:
    """The one that is written, and the one that is read."""
    reader, descriptor = Board.create(SLOTS)
    writer = Board(descriptor)
    os.close(descriptor)
    yield writer, reader
    writer.close()
    reader.close()


def shown(board: Board) -> list[tuple[int, Touched | None, Touched | None]]:
    now = time.monotonic()
    assert all(now - 60 < each.since <= now for each in board.visits())
    return [(each.request, each.asked, each.inside) for each in board.visits()]


def test_a_visit_is_seen_while_it_lasts(boards: tuple[Board, Board]) -> None:
    writer, reader = boards
    visitor = Visitor(writer, Bans(), 7)

    def work() -> str:
        assert shown(reader) == [(7, None, None)]
        visitor.touch(A.name, A.content)
        assert shown(reader) == [(7, None, A)]
        visitor.touch(B.name, B.content)
        assert shown(reader) == [(7, None, B)]
        return "done"

    assert visitor.visit(work) == "done"
    assert shown(reader) == []
    visitor.visit(lambda: shown(reader) == [(7, A, B)] or pytest.fail("not what was touched"))
    with pytest.raises(KeyError):
        visitor.visit(lambda: os.environ["NO_SUCH_VARIABLE"])
    assert shown(reader) == []


def test_figures_lie_beside_the_visits(boards: tuple[Board, Board]) -> None:
    writer, reader = boards
    assert reader.figures() == Figures()
    told = Figures(*range(1, 1 + len(Figures._fields)))
    visitor = Visitor(writer, Bans(), 2**64 - 1)

    def work(slots: int) -> None:
        writer.tell(told)
        assert len(reader.visits()) == SLOTS - slots
        if slots:
            visitor.touch(B.name, B.content)
            visitor.visit(lambda: work(slots - 1))
        assert reader.figures() == told

    work(SLOTS)
    assert shown(reader) == []
    assert reader.figures() == told


def test_more_visits_than_slots_are_not_held_up(boards: tuple[Board, Board]) -> None:
    writer, reader = boards
    gate, inside = threading.Event(), threading.Barrier(SLOTS + 2)

    def work() -> None:
        inside.wait(10)
        gate.wait(10)

    threads = [
        threading.Thread(target=Visitor(writer, Bans(), number + 1).visit, args=(work,))
        for number in range(SLOTS + 1)
    ]
    for each in threads:
        each.start()
    inside.wait(10)
    assert len(shown(reader)) == SLOTS
    gate.set()
    for each in threads:
        each.join()
    assert shown(reader) == []


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_names_of_any_length(name: str) -> None:
    reader, descriptor = Board.create(1)
    os.close(descriptor)
    visitor = Visitor(reader, Bans(), 1)
    visitor.touch(name, A.content)
    [seen] = visitor.visit(reader.visits)
    assert seen.asked == seen.inside is not None
    encoded = seen.inside.name.encode("utf-8", "surrogateescape")
    assert name.encode().startswith(encoded)
    assert len(encoded) >= min(len(name.encode()), 200)
    reader.close()


def visit(request: int, asked: Touched | None = A, inside: Touched | None = A) -> Visit:
    return Visit(request, 0.0, asked, inside)


@pytest.mark.parametrize(
    ("visits", "late", "is_certain", "verdict"),
    [
        ([], set(), True, Verdict()),
        ([visit(1)], set(), True, Verdict(1, frozenset(), A)),
        ([visit(1)], set(), False, Verdict(suspects=frozenset({1}))),
        ([visit(1), visit(2)], set(), True, Verdict(suspects=frozenset({1, 2}))),
        ([visit(1), visit(2)], {2}, True, Verdict(2, frozenset(), A)),
        ([visit(1), visit(2)], {3}, True, Verdict(suspects=frozenset({1, 2}))),
        # Lanes that work for one request: in one file, in several, in one that nobody noted.
        ([visit(1, A, B), visit(1, A, B)], set(), True, Verdict(1, frozenset(), B)),
        ([visit(1, A, A), visit(1, A, B)], set(), True, Verdict(1, frozenset(), A)),
        ([visit(1, None, None)], set(), True, Verdict(1)),
    ],
)
def test_who_is_to_blame(
    visits: list[Visit], late: set[int], is_certain: bool, verdict: Verdict
) -> None:
    assert judged(visits, frozenset(late), "", is_certain=is_certain) == verdict


def test_a_ban_is_of_one_content_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    bans = Bans()
    bans.check(A.name, A.content)
    first = bans.pronounce(A.content, 10, "it hung")
    for name in (A.name, "another name"):
        with pytest.raises(ReaderCrashed, match=f"{name} crashed the reader: it hung"):
            bans.check(name, A.content)
    bans.check(B.name, B.content)
    assert (bans.since(0), bans.since(first.number)) == ([first], [])
    now = 110.0
    bans.check(A.name, A.content)
    second = bans.pronounce(B.content, 10, "")
    assert (len(bans), bans.since(0), bans.since(first.number)) == (1, [second], [second])
