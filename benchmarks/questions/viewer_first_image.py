"""From an address to the picture of a dataset, in a browser that knows nothing yet."""

import importlib.util
import shutil
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from asgihive.viewer import page
from benchmarks.chromium import PICTURE_COLOURS, count_colours, find_chromium, start_browser
from benchmarks.client import BenchmarkError
from benchmarks.data import DataFolder, Place
from benchmarks.kinds.frames import gzip_frames
from benchmarks.question import Figure, Target, Turn
from benchmarks.servers import REPOSITORY, SUBJECT, Launch, Server, on_uvicorn

BARE = "h5web over h5grove"

_FIRST_IMAGE = "first image"
_OPENINGS = 3
"""Of a turn, each in a browser that was just started; one before them is not counted."""

_LONGEST_SECONDS = 60


class FirstImage:
    """The page around h5web, and h5web alone: how long until the canvas has a picture."""

    name = "viewer_first_image"
    asks = (
        "from the address to the picture of a gzip+shuffle stack of 1024x1024 uint16 in a cold "
        "Chromium: the page at `/view/`, and h5web alone over h5grove"
    )
    figures = (
        Figure(name=_FIRST_IMAGE, unit="ms", better="lower", target=Target(ratio=1), peer=BARE),
    )
    servers: Mapping[str, Launch] = {SUBJECT: on_uvicorn(SUBJECT), BARE: on_uvicorn("h5web_bare")}
    environment: Mapping[str, str] = {}
    heavy = True

    def prepare(self, data: DataFolder) -> None:
        if page.find_dist() is None:
            raise BenchmarkError("the page is not built: asgihive viewer build")
        executable = find_chromium()
        if executable is None:
            raise BenchmarkError("needs Chromium")
        if importlib.util.find_spec("playwright") is None:
            raise BenchmarkError("needs Playwright: pip install -e '.[test-browser]'")
        self._chromium = executable
        data.require("h5web_bare", build_bare_page)
        place = gzip_frames(data)[0]
        self._place = Place(place.file, place.path)
        data.bring_to_memory([self._place])

    def verify(self, servers: Sequence[Server]) -> None:
        """Open each page once; the files of the page are in memory then."""
        for server in servers:
            self._open(server)

    def measure(self, server: Server, turn: Turn) -> Mapping[str, float]:  # noqa: ARG002  # openings are counted
        times = [self._open(server) for _ in range(_OPENINGS)]
        return {_FIRST_IMAGE: statistics.median(times) * 1e3}

    def _open(self, server: Server) -> float:
        """Return the seconds from the address to the picture."""
        url = f"http://127.0.0.1:{server.port}{self._place.target('/view/')}"
        with start_browser(self._chromium) as browser:
            tab = browser.new_page(viewport={"width": 1280, "height": 800})
            began = time.perf_counter()
            tab.goto(url, wait_until="commit")
            tab.locator("canvas").first.wait_for(timeout=_LONGEST_SECONDS * 1e3)
            while count_colours(tab) < PICTURE_COLOURS:
                if time.perf_counter() - began > _LONGEST_SECONDS:
                    raise BenchmarkError(f"{server.name}: no picture")
            return time.perf_counter() - began


def build_bare_page(folder: Path, _random: np.random.Generator) -> None:
    """Build h5web alone; raise BenchmarkError where the tools for it are not there."""
    npm = shutil.which("npm")
    source = REPOSITORY / "viewer"
    if npm is None or not (source / "node_modules").is_dir():
        raise BenchmarkError("needs the packages of the page: cd viewer && npm ci")
    command = [npm, "exec", "--", "vite", "build", "bare", "--base", "./", "--emptyOutDir"]
    done = subprocess.run(
        [*command, "--outDir", str(folder)], cwd=source, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BenchmarkError(f"the bare page cannot be built: {done.stderr}")


QUESTION = FirstImage()
