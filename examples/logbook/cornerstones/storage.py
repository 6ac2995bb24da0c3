"""Attachments, in a folder, each under the digest of its content."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import anyio.to_thread

from asgihive import UploadFile

from ..settings import make_folder

_BLOCK_BYTES = 1 << 20


class Storage:
    """Keeps files by the SHA-256 of their content."""

    def __init__(self, folder: Path) -> None:
        self._folder = anyio.Path(folder)

    async def save(self, upload: UploadFile) -> tuple[str, int]:
        """Return the key of a file and its size in bytes; it is never in memory as a whole."""
        digest, size = sha256(), 0
        part = self._folder / f"{uuid4().hex}.part"
        async with await part.open("wb") as target:
            while block := await upload.read(_BLOCK_BYTES):
                digest.update(block)
                size += len(block)
                await target.write(block)
        key = digest.hexdigest()
        await part.rename(self._folder / key)
        return key, size

    async def find(self, key: str) -> Path | None:
        """Return where a file is; None if there is none."""
        path = self._folder / key
        is_key = len(key) == 64 and key.isalnum()
        return Path(path) if is_key and await path.is_file() else None


provides = (Storage,)


@asynccontextmanager
async def lifespan(context: Any) -> AsyncIterator[None]:
    """Make the folder, in a thread."""
    folder = await anyio.to_thread.run_sync(make_folder)
    context.provide(Storage, Storage(folder / "attachments"))
    yield
