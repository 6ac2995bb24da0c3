"""The folder of seeded files, and what is asked for in them. The same seed gives the same bytes."""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import h5py
import numpy as np

SEED = 20_250_701
# A folder of another version is left alone and its data is made anew beside it.
VERSION = "v1"

_READ_BYTES = 8 << 20

# One member of a selection, as NumPy takes it and as a request names it.
Member = int | slice


@dataclass(frozen=True, slots=True)
class Place:
    """One thing to ask for: an entity of a file, or a selection of a dataset."""

    file: str
    path: str
    selection: tuple[Member, ...] = ()

    def target(self, route: str, **parameters: str) -> str:
        """Return the request target (RFC 9112, section 3.2) that asks `route` for this place."""
        query = {"file": self.file, "path": self.path, **parameters}
        if self.selection:
            query["selection"] = ",".join(_text(member) for member in self.selection)
        return f"{route}?{urlencode(query)}"


class DataFolder:
    """The directory that the servers serve; each kind of data is a folder in it.

    A kind's folder appears under its name only when all of its files are written, so what an
    interrupted run leaves behind is never taken for data.
    """

    def __init__(self, root: Path) -> None:
        self.root = root / VERSION
        self.root.mkdir(parents=True, exist_ok=True)

    def file(self, place: Place) -> Path:
        return self.root / place.file

    def read(self, place: Place) -> np.ndarray:
        """Return the values at `place` as h5py reads them, with which answers are compared."""
        with h5py.File(self.file(place), "r") as file:
            return np.asarray(file[place.path][place.selection])

    def bring_to_memory(self, places: Iterable[Place]) -> None:
        """Read the files once, since the first request would else wait for the disk."""
        for path in {self.file(place) for place in places}:
            with path.open("rb", buffering=0) as file:
                while file.read(_READ_BYTES):
                    pass

    def require(self, kind: str, write: Callable[[Path, np.random.Generator], None]) -> None:
        """Let `write` fill the folder `kind`, unless it is complete already."""
        folder = self.root / kind
        if folder.exists():
            return
        unfinished = self.root / f"{kind}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        write(unfinished, np.random.default_rng([SEED, *kind.encode()]))
        unfinished.rename(folder)


def _text(member: Member) -> str:
    if isinstance(member, int):
        return str(member)
    bounds = ("" if bound is None else str(bound) for bound in (member.start, member.stop))
    return ":".join([*bounds, *([] if member.step is None else [str(member.step)])])
