"""What a process has come to, in memory that outlives it."""

import mmap
import os
import struct
import tempfile
from typing import Self

from asgihive.service.figures import Figures

_FIGURES = struct.Struct(f"<{len(Figures._fields)}q")


class Board:
    """Shared memory. One process writes it; another one reads it, when the first has ended, too."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, 0)

    @classmethod
    def create(cls) -> tuple[Self, int]:
        """A new board, and a descriptor for whoever shares it."""
        descriptor = _anonymous_file()
        os.ftruncate(descriptor, _FIGURES.size)
        return cls(descriptor), descriptor

    def tell(self, figures: Figures) -> None:
        """Note what the process has come to."""
        _FIGURES.pack_into(self._memory, 0, *figures)

    def figures(self) -> Figures:
        """What was told last; zeros before."""
        return Figures(*_FIGURES.unpack_from(self._memory, 0))

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("asgihive-board")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
