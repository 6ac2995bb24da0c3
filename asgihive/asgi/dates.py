"""HTTP dates (RFC 9110 §5.6.7)."""

import re
from datetime import UTC, datetime
from email.utils import formatdate
from functools import lru_cache

_MONTHS = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1
    )
}
_MONTH = f"(?P<month>{'|'.join(_MONTHS)})"
_TIME = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_DAY = r"(?P<day>[0-9]{2})"
_YEAR = r"(?P<year>[0-9]{4})"
_FORMATS = tuple(
    map(
        re.compile,
        (
            rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), {_DAY} {_MONTH} {_YEAR} {_TIME} GMT",
            rf"[A-Z][a-z]{{2,5}}day, {_DAY}-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT",
            rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) {_MONTH} (?P<day>[0-9 ][0-9]) {_TIME} {_YEAR}",
        ),
    )
)
_LAST_SECOND = 253_402_300_799  # of the year 9999


@lru_cache(maxsize=1024)  # of the files that are asked for now
def http_date(seconds: int) -> str:
    """`Sun, 06 Nov 1994 08:49:37 GMT` for whole seconds since 1970.

    Raises:
        ValueError: the year has not four digits (`has_http_date` tells).
    """
    if not has_http_date(seconds):
        raise ValueError(f"{seconds} seconds since 1970 is not a date of HTTP")
    return formatdate(seconds, usegmt=True)


def has_http_date(seconds: int) -> bool:
    """Whether there is an HTTP date for that: file systems hold stranger ones."""
    return 0 <= seconds <= _LAST_SECOND


def parse_http_date(text: str) -> int | None:
    """Whole seconds since 1970, from any of the three formats; None when it is no date.

    A year of two digits that seems more than 50 years in the future is one of the past.
    """
    for pattern in _FORMATS:
        found = pattern.fullmatch(text)
        if found is not None:
            break
    else:
        return None
    year = int(found["year"])
    if len(found["year"]) == 2:
        now = datetime.now(UTC).year
        year += now - now % 100
        if year > now + 50:
            year -= 100
    # A leap second is the last one of its minute to a clock that knows none.
    second = min(59, int(found["second"])) if found["second"] == "60" else int(found["second"])
    try:
        date = datetime(
            year,
            _MONTHS[found["month"]],
            int(found["day"]),
            int(found["hour"]),
            int(found["minute"]),
            second,
            tzinfo=UTC,
        )
    except ValueError:
        return None
    return int(date.timestamp())
