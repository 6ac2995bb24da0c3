"""An HDF5 file as the bytes it is stored as, read past libhdf5."""

import os
import threading
import time

from asgihive.errors import FileChanged, FileUnreadable
from asgihive.hdf5.directory import has_signature
from asgihive.hdf5.identity import Identity
from asgihive.hdf5.open_file import Unsettled
from asgihive.hdf5.pool import Released
from asgihive.hdf5.sandbox import Place, Sandbox, open_regular, translated


class WholeFile:
    """One regular HDF5 file that is being sent, open from `open` to `close`.

    Attributes:
        name: as the client knows it.
        identity: of the content that is sent, and of no other.
        settled: whether each later change is certain to change the identity.
        is_direct: whether no symbolic link is passed through, which may lead elsewhere later.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.identity = Identity(0, 0, 0, 0, 0)
        self.settled = False
        self.is_direct = False
        self._descriptor = -1
        # The request, and the threads that may outlive it: who leaves last closes the file.
        self._users = 1
        self._lock = threading.Lock()

    def open(self, sandbox: Sandbox) -> None:
        """Open it; in a lane.

        Raises:
            FileUnreadable: it is not HDF5.
            FileMissing, FileForbidden
            Unsettled: it changed just now.
        """
        self._enter()
        try:
            self._open(sandbox.place(self.name))
        finally:
            self.close()

    def _open(self, place: Place) -> None:
        self._descriptor = open_regular(place)
        self.is_direct = place.asked == place.real
        with translated(self.name):
            status = os.fstat(self._descriptor)
            is_hdf5 = has_signature(self._descriptor, status.st_size)
        if not is_hdf5:
            raise FileUnreadable(self.name, "it has no signature of HDF5")
        self.identity = Identity.of(status)
        wait = self.identity.settles_in(time.time_ns())
        if wait > 0:
            raise Unsettled(self.name, wait)
        self.settled = wait == 0

    def read(self, start: int, length: int) -> bytes:
        """Bytes of the content that `identity` stands for; in a lane.

        Raises:
            FileChanged: they may be of another content, or are there no more.
            FileUnreadable: the storage fails.
        """
        self._enter()
        try:
            with translated(self.name):
                data = os.pread(self._descriptor, length, start)
                while len(data) < length and (
                    more := os.pread(self._descriptor, length - len(data), start + len(data))
                ):
                    data += more
                # Last: what is written after this is in no byte that was read.
                differs = self.identity.differs(os.fstat(self._descriptor))
        finally:
            self.close()
        if differs or len(data) < length:
            raise FileChanged(self.name)
        return data

    def _enter(self) -> None:
        with self._lock:
            if not self._users:
                raise Released
            self._users += 1

    def close(self) -> None:
        """The request is over, and so is the file when no thread reads it; from any thread."""
        with self._lock:
            self._users -= 1
            is_last = not self._users
        if is_last and self._descriptor >= 0:
            os.close(self._descriptor)
