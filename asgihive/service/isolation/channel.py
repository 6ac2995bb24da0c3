"""One end of a connection: frames in and out of a socket, without ever waiting for it."""

import socket
from collections import deque

from asgihive.service.isolation.frames import HEAD, Decoder, Frame, Kind

# How many buffers one system call takes; any system takes as many.
_MOST_BUFFERS = 16

_BUFFER_BYTES = 1 << 20


MOST_JOINED_BYTES = 1 << 16
"""Longer frames may be sent from the thread that flushes alone."""


class ChannelClosed(Exception):  # each end has its own answer to it
    """The other end is gone, or sends what is no frame."""


class Channel:
    """Frames over a socket that does not block; for one thread at a time, but for `put`."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):  # as much as the system grants
            connection.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
        self.socket = connection
        self._decoder = Decoder()
        self._unsent: deque[bytes | memoryview] = deque()

    def put(self, kind: Kind, request: int = 0, payload: bytes | memoryview = b"") -> None:
        """Let `flush` send a frame, after those before it."""
        head = HEAD.pack(len(payload), kind, request)
        # In one piece, which no other thread's comes between, where that is cheap.
        if len(payload) <= MOST_JOINED_BYTES:
            self._unsent.append(head + payload)
        else:
            self._unsent.append(head)
            self._unsent.append(payload)

    @property
    def has_unsent(self) -> bool:
        """Whether anything waits for `flush`."""
        return bool(self._unsent)

    def flush(self) -> bool:
        """Send what the socket takes now; whether that is all. Raises ChannelClosed."""
        unsent = self._unsent
        while unsent:
            buffers = [unsent[index] for index in range(min(len(unsent), _MOST_BUFFERS))]
            try:
                count = self.socket.sendmsg(buffers)
            except BlockingIOError:
                return False
            except OSError as error:
                raise ChannelClosed from error
            for each in buffers:
                if count < len(each):
                    unsent[0] = memoryview(each)[count:]
                    break
                count -= len(each)
                unsent.popleft()
        return True

    def read(self) -> list[Frame]:
        """The frames that are there now, at least one unless it has to be waited for.

        Raises:
            ChannelClosed
        """
        while True:
            try:
                count = self.socket.recv_into(self._decoder.room())
                frames = self._decoder.take(count)
            except BlockingIOError:
                return []
            except (OSError, ValueError) as error:
                raise ChannelClosed from error
            if not count:
                raise ChannelClosed
            if frames:
                return frames

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()
