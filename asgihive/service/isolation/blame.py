"""Who is to blame for the end of a worker: a function of what was asked of it, without any I/O."""

from collections.abc import Collection
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Visit:
    """A request that a worker has.

    request: its number.
    since: when it was asked, by `time.monotonic`.
    file: that it names, if it names one.
    """

    request: int
    since: float
    file: str | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the end of a worker means for the requests that it had.

    guilty: the one that is to blame, None where that is not certain.
    suspects: requests of which one may be to blame; each is tried alone.
    culprit: the file that the guilty one asked for, None where that is not known.
    reason: how the worker ended.
    """

    guilty: int | None = None
    suspects: frozenset[int] = field(default_factory=frozenset)
    culprit: str | None = None
    reason: str = ""


def judged(
    visits: Collection[Visit], late: frozenset[int], reason: str, *, is_certain: bool
) -> Verdict:
    """Who is to blame.

    Args:
        visits: the requests that waited for their answers, when the worker ended.
        late: the requests for which it was killed, if it was for some.
        is_certain: whether it can only have ended by what was asked of it. Who was there alone
            when it ended otherwise, as by an administrator, is suspected, too, but not guilty.
    """
    inside = {each.request: each for each in visits}
    suspects = (inside.keys() & late) or inside.keys()
    if len(suspects) != 1 or not is_certain:
        return Verdict(suspects=frozenset(suspects), reason=reason)
    [guilty] = suspects
    return Verdict(guilty=guilty, culprit=inside[guilty].file, reason=reason)
