"""A browser for tests: the page as it is built, a service behind it, and what may not go wrong."""

import fcntl
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from asgihive.viewer import page
from benchmarks.chromium import PICTURE_COLOURS, count_colours, read_pixels

T = TypeVar("T")

SOURCE = Path(__file__).parents[2] / "viewer"
PATIENCE = 60.0  # seconds until what never comes fails; a busy machine takes some of them

# A file without a picture has no small one, which browsers call an error on the console.
_ALWAYS_ALLOWED = (re.compile(r"status of (404|422) .*/image\?"),)

DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}


def build_page() -> str | None:
    """Build the page from its sources as they are now; return why there is none.

    It is built where `asgihive viewer build` builds it, which has to have been run once: nothing
    is downloaded here.
    """
    npm, dist = shutil.which("npm"), Path(page.DIST)
    if npm is not None and (SOURCE / "node_modules").is_dir():
        dist.mkdir(exist_ok=True)
        # Of several processes of tests one builds.
        with open(SOURCE / "node_modules" / ".asgihive-lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_current(dist):
                command = [npm, "run", "build"]
                done = subprocess.run(
                    command, cwd=SOURCE, capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, done.stdout + done.stderr
    if page.find_dist() is None:
        return "the page is not built: run `asgihive viewer build`"
    return None


def _is_current(dist: Path) -> bool:
    index = dist / page.INDEX
    if not index.is_file():
        return False
    sources = [each for each in SOURCE.iterdir() if each.is_file()]
    for folder in ("src", "public"):
        sources += [each for each in (SOURCE / folder).rglob("*") if each.is_file()]
    return max(each.stat().st_mtime_ns for each in sources) < index.stat().st_mtime_ns


class Tab:
    """A tab of the browser, and what went wrong in it.

    Args:
        page: Playwright's.
    """

    def __init__(self, page: Any) -> None:
        self.page = page
        self.complaints: list[str] = []
        self._allowed = [*_ALWAYS_ALLOWED]
        page.set_default_timeout(PATIENCE * 1000)
        page.on("console", self._note_message)
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("crash", lambda _: self.complaints.append("the tab has crashed"))

    def _note_message(self, message: Any) -> None:
        if message.type == "error":
            where = message.location.get("url", "")
            self.complaints.append(f"{message.text} [{where}]")

    def allow(self, pattern: str) -> None:
        """Let a complaint pass that a test provokes, such as `status of 404 .*no.h5`."""
        self._allowed.append(re.compile(pattern))

    def open(self, url: str) -> None:
        """Go to a URL, and wait until the page is there."""
        self.page.goto(url)

    def check(self) -> None:
        """Make sure that nothing went wrong but what may."""
        wrong = [each for each in self.complaints if not any(p.search(each) for p in self._allowed)]
        assert not wrong, "\n".join(wrong)

    def get_pixels(self, selector: str = "canvas") -> npt.NDArray[np.uint8]:
        """Return what an element looks like, as rows of red, green and blue."""
        return read_pixels(self.page, selector)

    def count_colours(self, selector: str = "canvas") -> int:
        """Return how many colours an element has: a picture has many, an empty one few."""
        return count_colours(self.page, selector)

    def wait_for_picture(self, selector: str = "canvas", colours: int = PICTURE_COLOURS) -> None:
        """Wait until an element shows a picture of so many colours."""
        self.page.locator(selector).first.wait_for()
        self.wait_until(lambda: self.count_colours(selector) >= colours)

    def wait_until(self, ask: Callable[[], T]) -> T:
        """Ask until the answer is true, and return it."""
        end = time.monotonic() + PATIENCE
        while not (answer := ask()):
            assert time.monotonic() < end, f"{ask} says {answer!r}"
            self.page.wait_for_timeout(20)  # in which the browser's events are heard
        return answer

    def read_text(self, selector: str = "body") -> str:
        """Return the text that is shown."""
        text: str = self.page.locator(selector).first.inner_text()
        return text
