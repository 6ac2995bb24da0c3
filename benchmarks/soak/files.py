"""Files that say in every element which version they are, and what they were when."""

import io
import os
import random
import threading
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import h5py
import numpy as np

SHAPE = (16, 1 << 16)  # of bytes, a chunk per row
SMALL = 500

VERSIONS = 24  # then the first again
STEADY, CHANGING = 3, 8

BIG_SHAPE = (64, 1 << 20)

# Between a change and the next one, and while a file is cut off or away.
_PAUSE_SECONDS = (0.05, 0.4)
_BROKEN_SECONDS = (0.02, 0.3)

# How long the service waits for a file to stop changing before it says that it does not.
_SETTLE_SECONDS = 3.5

CUT_OFF, AWAY = 0, -1
"""Versions that are none."""


@cache
def content(version: int) -> bytes:
    """Return a whole file of a version; versions differ in size."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["version"] = version
        file["small"] = np.full(SMALL, version, "<i4")
        file["contiguous"] = np.full(SHAPE, version, "u1")
        file.create_dataset("chunked", SHAPE, "u1", chunks=(1, SHAPE[1]), compression=1)
        file["chunked"][...] = version
        file[f"group/version_{version}"] = np.zeros(100 * version, "u1")
    return buffer.getvalue()


@dataclass(slots=True)
class _Period:
    """What a file was, from when on: `begin` to `end` is the change to it."""

    version: int
    begin: float
    end: float


@dataclass(slots=True)
class History:
    """What a file was when."""

    _periods: list[_Period] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, version: int) -> None:
        """Note that a change to `version` begins; until it ends, both are there."""
        with self._lock:
            self._periods.append(_Period(version, time.monotonic(), float("inf")))

    def end(self) -> None:
        """Note that the last change is done."""
        with self._lock:
            self._periods[-1].end = time.monotonic()

    def versions(self, began: float, ended: float) -> set[int]:
        """Return what it was at any moment of a time."""
        with self._lock:
            found, until = set(), float("inf")
            for each in reversed(self._periods):
                if each.begin <= ended and until >= began:
                    found.add(each.version)
                until = each.end
                if until < began:
                    break
            return found

    def changed(self, began: float, ended: float) -> bool:
        """Return whether a change went on at any moment of a time."""
        with self._lock:
            return any(each.begin <= ended and each.end >= began for each in self._periods[1:])


class Folder:
    """The served directory: some files that change, some that never do, and a big one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.steady = [f"steady_{number}.h5" for number in range(STEADY)]
        self.changing = [f"changing_{number}.h5" for number in range(CHANGING)]
        self.changes = 0
        self._histories = {name: History() for name in (*self.steady, *self.changing)}
        for number, (name, history) in enumerate(self._histories.items()):
            history.begin(1 + number)
            (root / name).write_bytes(content(1 + number))
            history.end()
        with h5py.File(root / "big.h5", "w") as file:
            rows = file.create_dataset("rows", BIG_SHAPE, "u1")
            for row in range(BIG_SHAPE[0]):
                rows[row] = row

    @property
    def names(self) -> list[str]:
        return list(self._histories)

    def versions(self, name: str, began: float, ended: float) -> set[int]:
        """Return what a file was at any moment of a time."""
        return self._histories[name].versions(began, ended)

    def excuses(self, name: str, status: int, began: float, ended: float) -> bool:
        """Return whether the contract has this error for what happened to the file meanwhile."""
        history = self._histories[name]
        found = history.versions(began, ended)
        if status == 404:
            return AWAY in found
        if status == 422:
            return CUT_OFF in found or history.changed(began, ended)
        # It changed while it was read: an answer is 503, one that has begun is broken off.
        return history.changed(began - _SETTLE_SECONDS, ended)

    def change(self, chance: random.Random, over: threading.Event) -> None:
        """Change files until it is over, in every way there is."""
        ways = (self._overwrite, self._replace, self._cut_off, self._delete)
        while not over.wait(chance.uniform(*_PAUSE_SECONDS)):
            name = chance.choice(self.changing)
            version = chance.randint(1, VERSIONS)
            chance.choice(ways)(name, version, chance.uniform(*_BROKEN_SECONDS))
            self.changes += 1

    def _overwrite(self, name: str, version: int, _broken: float) -> None:
        """Overwrite it in place and at once, as `cp` does, but without being empty in between."""
        history, new = self._histories[name], content(version)
        history.begin(version)
        descriptor = os.open(self.root / name, os.O_WRONLY | os.O_CREAT)
        try:
            os.write(descriptor, new)
            os.ftruncate(descriptor, len(new))
        finally:
            os.close(descriptor)
        history.end()

    def _replace(self, name: str, version: int, _broken: float) -> None:
        """Replace it by another file, as `mv` and `rsync` do."""
        beside = self.root / f".{name}.new"
        beside.write_bytes(content(version))
        history = self._histories[name]
        history.begin(version)
        beside.rename(self.root / name)
        history.end()

    def _cut_off(self, name: str, version: int, broken: float) -> None:
        history = self._histories[name]
        history.begin(CUT_OFF)
        os.truncate(self.root / name, (self.root / name).stat().st_size // 2)
        history.end()
        time.sleep(broken)
        self._overwrite(name, version, broken)

    def _delete(self, name: str, version: int, broken: float) -> None:
        history = self._histories[name]
        history.begin(AWAY)
        (self.root / name).unlink()
        history.end()
        time.sleep(broken)
        self._replace(name, version, broken)
