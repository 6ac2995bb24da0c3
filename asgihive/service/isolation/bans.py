"""Which contents of files are refused, since they crashed the reader."""

import time
from dataclasses import dataclass

from asgihive.errors import ReaderCrashed
from asgihive.hdf5.identity import Content


@dataclass(frozen=True, slots=True)
class Ban:
    """A content that is not opened again.

    until: by `time.monotonic`.
    detail: how it crashed the reader, for whoever asks for it.
    """

    content: Content
    until: float
    detail: str


class Bans:
    """Bans by content; what has run out is forgotten."""

    def __init__(self) -> None:
        self._by_content: dict[Content, Ban] = {}

    def __len__(self) -> int:
        return len(self._by_content)

    def pronounce(self, content: Content, seconds: float, detail: str) -> Ban:
        """Refuse a content for so many seconds from now."""
        now = time.monotonic()
        self._by_content = {key: each for key, each in self._by_content.items() if each.until > now}
        ban = Ban(content, now + seconds, detail)
        self._by_content[content] = ban
        return ban

    def check(self, name: str, content: Content) -> None:
        """Raise ReaderCrashed when this content of the file `name` is refused."""
        if not self._by_content:
            return
        ban = self._by_content.get(content)
        if ban is not None and time.monotonic() < ban.until:
            raise ReaderCrashed(name, ban.detail)
