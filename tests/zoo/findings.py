"""Asking for everything in a file, and telling at the end all that differs."""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.zoo import FILES, formats, layouts
from tests.zoo.client import Asker

# What a file holds has nothing to do with the event loop: every file meets one of the two.
BACKENDS: tuple[tuple[str, dict[str, object]], ...] = (("asyncio", {}), ("trio", {}))


def _each_file(slow: Iterable[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("anyio_backend", "file"),
        [
            pytest.param(BACKENDS[index % 2], file, marks=[pytest.mark.slow] * (file in slow))
            for index, file in enumerate(FILES)
        ],
        indirect=["anyio_backend"],
        ids=FILES,
    )


# Of each layout and filter, where types and names make no difference.
each_storage = _each_file(slow=set(FILES) - {*layouts.FILES})
# What other files have as well, in another version of the format or by another name, is slow.
REPEATED = set(formats.FILES) - {"earliest.h5"}
each_content = _each_file(slow=REPEATED)
each_sync_content = pytest.mark.parametrize(
    "file", [pytest.param(file, marks=[pytest.mark.slow] * (file in REPEATED)) for file in FILES]
)


def one_in(number: int) -> pytest.MarkDecorator:
    """The fast test takes one in so many of all that may be asked of a file, the slow one all.

    Each kind of request is among them where the number and that of the kinds have no divisor.
    """
    everything = pytest.param(1, id="all", marks=pytest.mark.slow)
    return pytest.mark.parametrize("step", [pytest.param(number, id="some"), everything])


@dataclass(slots=True)
class Findings:
    """What differs, collected over a whole file so that one run shows it all."""

    file: str
    lines: list[str] = field(default_factory=list)

    def check(self, good: bool, asked: Any, answer: httpx.Response, expected: Any = "") -> bool:
        if not good:
            given = f"{answer.status_code} {answer.content[:300]!r}"
            self.lines.append(f"{self.file} {asked!s:.200}: {given}, expected {expected!s:.300}")
        return good

    def report(self) -> None:
        shown = "\n".join(self.lines[:30])
        assert not self.lines, f"{len(self.lines)} answers differ:\n{shown}"


async def ask(asker: Asker, route: str, file: str, **more: Any) -> httpx.Response:
    return await asker.get(route, params={"file": file, **more})


def document(answer: httpx.Response) -> Any:
    """The document; the answer itself, which equals nothing, when there is none."""
    if answer.status_code == 200 and answer.headers["content-type"] == "application/json":
        with contextlib.suppress(ValueError):
            return answer.json()
    return answer
