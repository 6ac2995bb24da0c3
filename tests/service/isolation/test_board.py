"""What is concluded from the end of a worker, who is refused for that, and the figures it left."""

import os
import time

import pytest

from asgihive.errors import ReaderCrashed
from asgihive.service.figures import Figures
from asgihive.service.isolation.bans import Bans
from asgihive.service.isolation.blame import Verdict, Visit, judged
from asgihive.service.isolation.board import Board

A, B = (1, 0, 3, -4), (1, 1, 3, -4)


def test_figures_are_seen_by_the_other_one() -> None:
    reader, descriptor = Board.create()
    writer = Board(descriptor)
    os.close(descriptor)
    assert reader.figures() == Figures()
    told = Figures(*range(1, 1 + len(Figures._fields)))
    writer.tell(told)
    assert reader.figures() == told
    writer.close()
    assert reader.figures() == told
    reader.close()


def visit(request: int, file: str | None = "a.h5") -> Visit:
    return Visit(request, 0.0, file)


@pytest.mark.parametrize(
    ("visits", "late", "is_certain", "verdict"),
    [
        ([], set(), True, Verdict()),
        ([visit(1)], set(), True, Verdict(1, frozenset(), "a.h5")),
        ([visit(1)], set(), False, Verdict(suspects=frozenset({1}))),
        ([visit(1), visit(2)], set(), True, Verdict(suspects=frozenset({1, 2}))),
        ([visit(1), visit(2)], {2}, True, Verdict(2, frozenset(), "a.h5")),
        ([visit(1), visit(2)], {3}, True, Verdict(suspects=frozenset({1, 2}))),
        ([visit(1, None)], set(), True, Verdict(1)),
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
    bans.check("a.h5", A)
    bans.pronounce(A, 10, "it hung")
    for name in ("a.h5", "another name"):
        with pytest.raises(ReaderCrashed, match=f"{name} crashed the reader: it hung"):
            bans.check(name, A)
    bans.check("b.h5", B)
    now = 110.0
    bans.check("a.h5", A)
    bans.pronounce(B, 10, "")
    assert len(bans) == 1
