"""A reader process with faults: files whose user block names one act accordingly.

Run as a reader process in the place of the real module; the rest of it is the real one.
"""

import ctypes
import os
import resource
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from asgihive.hdf5.datasets import Dataset
from asgihive.hdf5.open_file import OpenFile
from asgihive.hdf5.pool import FilePool, Lease
from asgihive.hdf5.sandbox import Identity, Place
from asgihive.isolation import reader

MODULE = "tests.isolation.doubles"

BLOCK = 512
GATE = "gate"  # a FIFO in the served directory, where one tells that it waits
RELEASED = "released"  # another one, which hears of each lease that is given back

STATUS_SECONDS = 0.1  # tests wait for what a process says of itself

VALUES = np.arange(100_000, dtype="<i4")  # more than is read anywhere but in a decode lane


def write(path: Path, fault: str = "", values: Any = VALUES) -> None:
    """A file that does what `fault` says; the whole and healthy one that it could be without."""
    with h5py.File(path, "w", userblock_size=BLOCK) as file:
        file["values"] = values
        file.attrs["name"] = path.stem
    with path.open("r+b") as raw:
        raw.write(fault.encode().ljust(16, b"\0"))


def _fault(descriptor: int) -> str:
    return os.pread(descriptor, 16, 0).rstrip(b"\0").decode("ascii", "replace")


def _wait_at_the_gate(gate: str) -> None:
    """Tell the test at the gate, and wait until the process ends; not if the gate is gone."""
    if os.path.exists(gate):
        with open(gate, "wb", buffering=0) as fifo:
            fifo.write(b".")
            threading.Event().wait()


# What happens where a file is opened, in the library lane.
AT_OPENING: dict[str, Callable[[str], object]] = {
    "abort": lambda _: os.abort(),
    "exit": lambda _: os._exit(3),
    "mistake": lambda _: 1 // 0,
    "hang": lambda _: threading.Event().wait(),
    # Which holds the GIL, so that the event loop hangs with it.
    "hang as a whole": lambda _: ctypes.PyDLL(None).pause(),
}

# And where values are read, in a decode lane.
AT_READING: dict[str, Callable[[str], object]] = {
    "segfault": lambda _: ctypes.string_at(0),
    "wait at gate": _wait_at_the_gate,
}


def _install() -> None:
    open_handle, read, release = FilePool.open_handle, Dataset.read, Lease.release

    def faulty_open(self: FilePool, place: Place, identity: Identity, descriptor: int) -> Any:
        act = AT_OPENING.get(_fault(descriptor))
        if act is not None:
            act(os.path.join(self.sandbox.root, GATE))
        return open_handle(self, place, identity, descriptor)

    def faulty_read(self: Dataset, lease: Lease, *arguments: Any, **options: Any) -> Any:
        file: OpenFile = self.file
        assert isinstance(file.descriptor, int)
        act = AT_READING.get(_fault(file.descriptor))
        if act is not None:
            with self.diagnosed(lease, ()):
                act(os.path.join(lease.pool.sandbox.root, GATE))
        return read(self, lease, *arguments, **options)

    def noted_release(self: Lease) -> None:
        release(self)
        fifo = os.path.join(self.pool.sandbox.root, RELEASED)
        if os.path.exists(fifo):
            descriptor = os.open(fifo, os.O_WRONLY)
            os.write(descriptor, b".")
            os.close(descriptor)

    pool: Any = FilePool
    dataset: Any = Dataset
    lease: Any = Lease
    pool.open_handle, dataset.read, lease.release = faulty_open, faulty_read, noted_release
    of_reader: Any = reader
    of_reader.STATUS_SECONDS = STATUS_SECONDS


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _install()
    reader.main()
