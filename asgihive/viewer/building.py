"""Builds the page out of its sources by npm.

It needs the standard library alone: `hatch_build.py` loads this file by its path, where none of the
packages is installed that asgihive needs.
"""

import json
import os
import re
import shutil
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

Report = Callable[[str, float | None], object]
"""Is told what is being done, and which part of it is done (0 to 1); None = that is not known."""

INDEX = "index.html"

LAST_LINES = 12
"""Of what npm says, so many are shown where it fails."""

# How often it is counted how much of the packages is there.
_COUNT_SECONDS = 0.2


class BuildFailed(Exception):
    """The page cannot be built; its text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class PageSource:
    """The sources of the page, and where it is built.

    Args:
        folder: of the sources, with `package.json`.
        dist: the folder that vite builds into, as its configuration says.
    """

    folder: Path
    dist: Path

    @classmethod
    def of_checkout(cls, root: Path) -> "PageSource":
        """Return those of a clone of the repository, or of an unpacked source distribution."""
        return cls(root / "viewer", root / "asgihive" / "viewer" / "dist")

    def is_there(self) -> bool:
        """Return whether there are sources."""
        return (self.folder / "package.json").is_file()

    def is_built(self) -> bool:
        """Return whether the page is built, of whichever sources."""
        return (self.dist / INDEX).is_file()


def find_npm(source: PageSource) -> str:
    """Return the path of an npm whose Node.js is new enough.

    Raises:
        BuildFailed: there is none, or nothing that it could build.
    """
    if not source.is_there():
        raise BuildFailed(
            f"its sources are not in {source.folder}: build it in a clone of the repository, or "
            "install a wheel of asgihive, which has it"
        )
    package = json.loads((source.folder / "package.json").read_text(encoding="utf-8"))
    wanted = package["engines"]["node"].removeprefix(">=")
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        raise BuildFailed(
            f"there is no npm: install Node.js {wanted} or later, which brings it "
            "(https://nodejs.org, or `apt install npm`)"
        )
    said = _ask_version(node)
    if _read_version(said) < _read_version(wanted):
        raise BuildFailed(
            f"Node.js {wanted} or later is needed, and {node} is {said or 'of no known version'}"
        )
    return npm


def _ask_version(node: str) -> str:
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(  # noqa: S603  # a program that the user has installed
            [node, "--version"], capture_output=True, text=True, timeout=60, check=False
        )
        return done.stdout.strip()
    return ""


def _read_version(text: str) -> tuple[int, ...]:
    found = re.match(r"v?(\d+)(?:\.(\d+))?", text)
    return (0, 0) if found is None else tuple(int(each or 0) for each in found.groups())


def build_page(source: PageSource, npm: str, report: Report) -> None:
    """Install what the page is made of, and build it.

    Args:
        source: of the page.
        npm: from `find_npm`.
        report: is told what is done.

    Raises:
        BuildFailed: npm fails; the text has the last lines that it says.
    """
    # A proxy, a mirror or a certificate of the user's is in the environment or in `.npmrc`.
    if not _has_packages(source.folder):
        text = "Installing what the page is made of"
        report(text, 0.0)
        with _Counting(source.folder, lambda part: report(text, part)):
            _run([npm, "ci", "--no-progress"], source.folder)
    report("Building the page", None)
    _run([npm, "run", "build"], source.folder)
    if not source.is_built():
        raise BuildFailed(f"npm has built no {source.dist / INDEX}")


def _has_packages(folder: Path) -> bool:
    """Return whether the packages of the lock file are installed, as npm notes by a file."""
    try:
        noted = (folder / "node_modules" / ".package-lock.json").stat()
        return noted.st_mtime_ns >= (folder / "package-lock.json").stat().st_mtime_ns
    except FileNotFoundError:
        return False


def _run(command: Sequence[str], folder: Path) -> None:
    with subprocess.Popen(  # noqa: S603  # a program that the user has installed
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as process:
        try:
            assert process.stdout is not None  # noqa: S101  # for the type
            last = deque((line.rstrip() for line in process.stdout), LAST_LINES)
        except BaseException:
            process.terminate()  # the user has pressed Ctrl+C
            raise
    if process.returncode != 0:
        words = " ".join(["npm", *command[1:]])
        lines = "\n".join(f"  {line}" for line in last if line)
        raise BuildFailed(f"`{words}` fails (exit code {process.returncode}):\n{lines}")


class _Counting:
    """Tells which part of the packages is there, as long as the context lasts."""

    def __init__(self, folder: Path, report: Callable[[float], object]) -> None:
        self._places = list(_list_packages(folder))
        self._report = report
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._count, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _count(self) -> None:
        while not self._ended.wait(_COUNT_SECONDS):
            found = sum(os.path.isfile(each) for each in self._places)
            self._report(found / max(1, len(self._places)))


def _list_packages(folder: Path) -> Iterator[str]:
    """Yield what is there once a package is; those of other systems are left out."""
    lock = json.loads((folder / "package-lock.json").read_text(encoding="utf-8"))
    for place, package in lock["packages"].items():
        if place and not package.get("optional"):
            yield os.path.join(folder, place, "package.json")
