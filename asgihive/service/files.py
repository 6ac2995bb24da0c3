"""The files themselves: `/files` lists a directory, `/file` gives one HDF5 file as it is."""

import base64
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, cast
from urllib.parse import quote

import anyio
from starlette.types import ASGIApp, Receive, Scope, Send

from asgihive.asgi import (
    BufferedResponse,
    ByteRange,
    StreamedResponse,
    closing,
    format_content_disposition,
    parse_query,
)
from asgihive.asgi.request_fields import (
    Validators,
    check_preconditions,
    choose_range,
    select_304_headers,
)
from asgihive.encoders.protocol import DocumentEncoder
from asgihive.errors import (
    DescriptorsExhausted,
    FileMissing,
    FileUnreadable,
    Overloaded,
    ReadTimeout,
)
from asgihive.hdf5.directory import Entry, Page, WholeFile, list_directory
from asgihive.hdf5.file_bytes import encoded, text
from asgihive.hdf5.pool import Lease
from asgihive.service.parameters import find_file_in_path
from asgihive.service.requests import (
    COMPRESS_OVER_BYTES,
    Version,
    Wanted,
    finish_response,
    parse_parameters,
    parse_wanted,
    read_request,
)
from asgihive.service.store import Store

MEDIA_TYPE = "application/x-hdf5"

BLOCK_BYTES = 1 << 20
"""How much of a file is read and sent at one go."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Files:
    """The two routes over one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sending = 0

    async def list(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer `/files`: a page of a directory, made in a lane."""
        request = read_request(scope, "files")
        encoder = cast("DocumentEncoder", request.encoder)
        directory, after, limit = (request.values[name] for name in ("dir", "after", "limit"))
        sandbox = self._store.sandbox

        def document() -> tuple[bytes, bool]:
            page = list_directory(sandbox, directory, after, limit)
            return encoder.document(_describe_page(directory, page)), bool(page.entries)

        try:
            body, has_entries = await self._store.lanes.decode.run(document)
        except (FileMissing, FileUnreadable):
            await self._store.check_root()
            raise
        except DescriptorsExhausted:
            await self._store.close_unheld_files()
            body, has_entries = await self._store.lanes.decode.run(document)
        if not has_entries:  # as where nothing is mounted any more
            await self._store.check_root()
        response = BufferedResponse(body, headers={"content-type": encoder.media_type})
        cache_control = self._store.settings.cache_control
        wanted = parse_wanted(
            scope, cache_control, has_format=request.has_format, is_compressible=True
        )
        version = Version(is_large=len(body) > COMPRESS_OVER_BYTES)
        # Without preconditions: a page has no version that they could be about.
        answer = await finish_response(wanted, version, response, self._store.run_in_decode_lane)
        await answer(scope, receive, send)

    async def send(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer `/file` and `/file/{path}`: the bytes of one HDF5 file, or a range of them.

        They are read from the descriptor that was checked, block by block. The extension
        `http.response.pathsend` is not used where a server has it: a server that sends a
        path neither sends what was checked, nor stops when the file changes meanwhile.
        """
        name = find_file_in_path(scope)
        if name is None:
            name = parse_parameters("file", parse_query(scope["query_string"]))["file"]
        with self._count_sending():
            file, lease = await self._store.read(partial(self._open, name))
            lease.release()
            try:
                cache_control = self._store.settings.cache_control
                wanted = parse_wanted(scope, cache_control, has_format=True, is_compressible=False)
                response = self._make_response(file, wanted)
                await response(scope, receive, send)
            finally:
                file.close()

    @contextmanager
    def _count_sending(self) -> Iterator[None]:
        """Count a file that is sent: it is one that is open, whatever the pool holds."""
        most = self._store.pool.max_open
        if self._sending >= most:
            raise Overloaded(f"{most} files are being sent")
        self._sending += 1
        try:
            yield
        finally:
            self._sending -= 1

    async def _open(self, name: str, _lease: Lease) -> WholeFile:
        file = WholeFile(name)
        try:
            await self._store.lanes.decode.run(partial(file.open, self._store.sandbox))
        except BaseException:
            file.close()
            raise
        return file

    def _make_response(self, file: WholeFile, wanted: Wanted) -> ASGIApp:
        """Return the response: the file, a range of it, or a 304.

        Raises:
            HTTPException: 412 or 416.
        """
        size = file.identity.size
        validators = _make_validators(file)
        headers = {
            "content-type": MEDIA_TYPE,
            "content-disposition": format_content_disposition(
                text(encoded(file.name)).rpartition("/")[2]
            ),
            "accept-ranges": "bytes",
            **validators.to_headers(),
            **wanted.common,
        }
        if check_preconditions(wanted.fields, validators):
            return BufferedResponse(b"", 304, select_304_headers(headers))
        part = choose_range(wanted.fields, validators, size) if wanted.has_range else None
        if part is not None:
            headers["content-range"] = part.format_content_range(size)
        sent = part or ByteRange(0, size)
        return StreamedResponse(
            body_chunks=closing(self._read_blocks(file, sent)),
            content_length=sent.length,
            status=200 if part is None else 206,
            headers=headers,
        )

    async def _read_blocks(self, file: WholeFile, sent: ByteRange) -> AsyncIterator[bytes]:
        """Yield blocks; a lane is held for each block alone, never while a client takes it."""
        seconds = self._store.settings.read_timeout_seconds
        for start in range(sent.start, sent.stop, BLOCK_BYTES):
            length = min(BLOCK_BYTES, sent.stop - start)
            yield await self._read_block(partial(file.read, start, length), seconds)

    async def _read_block(self, read: Callable[[], bytes], seconds: float) -> bytes:
        with anyio.move_on_after(seconds):
            return await self._store.lanes.decode.run(read, patient=True)
        raise ReadTimeout(seconds)


def _make_validators(file: WholeFile) -> Validators:
    """Return none where the next change might not show: no two answers are surely the same then."""
    if not file.settled:
        return Validators()
    identity = file.identity
    # Without the device: machines that share a network file system number it as they like.
    parts = (identity.inode, identity.size, identity.mtime_ns, identity.ctime_ns)
    tag = f'"{hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()}"'
    if not file.is_direct:  # an older file may be there next, and its date would say nothing
        return Validators(tag)
    return Validators.from_times(tag, identity.mtime_ns, identity.ctime_ns, time.time_ns())


def _describe_page(directory: str, page: Page) -> dict[str, Any]:
    """Return a page as a document.

    `file` is the path to ask with; in `encoded` it is what stands behind `file=`, `dir=` or
    `/file/` in a URL, which also says names that are not UTF-8.
    """
    cursor = None
    if page.next is not None:
        cursor = base64.urlsafe_b64encode(page.next).decode().rstrip("=")
    return {
        "dir": text(encoded(directory)),
        "entries": [_describe_entry(each) for each in page.entries],
        "next": cursor,
    }


def _describe_entry(entry: Entry) -> dict[str, Any]:
    return {
        "name": text(encoded(entry.name)),
        "file": text(encoded(entry.file)),
        "encoded": quote(encoded(entry.file)),
        "kind": str(entry.kind),
        "size": entry.size,
        "modified": _format_time(entry.modified_ns),
    }


def _format_time(time_ns: int) -> str | None:
    """Return ISO 8601 in UTC, to the microsecond; None beyond the years 1 to 9999."""
    try:
        moment = _EPOCH + timedelta(microseconds=time_ns // 1000)
    except OverflowError:
        return None
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
