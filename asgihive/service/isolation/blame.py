"""Who is to blame for the end of a worker: a function of what was noted, without any I/O."""

from collections.abc import Collection
from dataclasses import dataclass, field

from asgihive.service.isolation.board import Touched, Visit


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the end of a worker means for the requests that it had.

    guilty: the one that is to blame, None where that is not certain.
    suspects: requests of which one may be to blame; each is tried alone.
    culprit: the file that the guilty one was in, None where that is not known.
    reason: how the worker ended.
    """

    guilty: int | None = None
    suspects: frozenset[int] = field(default_factory=frozenset)
    culprit: Touched | None = None
    reason: str = ""


def judged(
    visits: Collection[Visit], late: frozenset[int], reason: str, *, is_certain: bool
) -> Verdict:
    """Who is to blame.

    Args:
        visits: to the lanes, when the worker ended.
        late: the requests for which it was killed, if it was for some.
        is_certain: whether it can only have ended by what was in the lanes. Who was there alone
            when it ended otherwise, as by an administrator, is suspected, too, but not guilty.
    """
    inside = frozenset(each.request for each in visits)
    suspects = (inside & late) or inside
    if len(suspects) != 1 or not is_certain:
        return Verdict(suspects=suspects, reason=reason)
    [guilty] = suspects
    culprit = _culprit([each for each in visits if each.request == guilty])
    return Verdict(guilty=guilty, culprit=culprit, reason=reason)


def _culprit(visits: list[Visit]) -> Touched | None:
    """The file that all visits of a request were in; else the one that it asked for."""
    inside = {each.inside.content: each.inside for each in visits if each.inside is not None}
    if len(inside) == 1:
        return next(iter(inside.values()))
    return visits[0].asked
