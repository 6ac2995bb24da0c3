"""The files themselves: `/files` lists a directory, `/file` gives one HDF5 file as it is."""

import base64
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
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
    BadParameter,
    DescriptorsExhausted,
    FileError,
    FileMissing,
    FileUnreadable,
    Overloaded,
    ReadTimeout,
)
from asgihive.hdf5.directory import (
    Entry,
    ListingRequest,
    Page,
    Rank,
    SortKey,
    WholeFile,
)
from asgihive.hdf5.file_bytes import encoded, text
from asgihive.hdf5.pool import Lease
from asgihive.service.gate import Permission, RequestedEntity, find_permission, is_permitted
from asgihive.service.parameters import find_file_in_path
from asgihive.service.requests import (
    COMPRESS_OVER_BYTES,
    ReadRequest,
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

_INTEGER = re.compile(rb"-?[0-9]{1,20}")


class Files:
    """The two routes over one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sending = 0

    async def list(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer `/files`: a page of a directory, or of all below it, made in a lane."""
        request = read_request(scope, "files")
        encoder = cast("DocumentEncoder", request.encoder)
        asked, permission = _read_listing(request), find_permission(scope)
        try:
            body, has_entries = await self._list(asked, permission, encoder)
        except (FileMissing, FileUnreadable):
            await self._store.check_root()
            raise
        except DescriptorsExhausted:
            await self._store.close_unheld_files()
            body, has_entries = await self._list(asked, permission, encoder)
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

    async def _list(
        self, asked: ListingRequest, permission: Permission | None, encoder: DocumentEncoder
    ) -> tuple[bytes, bool]:
        """Return a page of a directory as a document, and whether it has entries.

        The directory may be listed; of those below it, what the permission says.
        """
        run, listing = self._store.lanes.decode.run, self._store.make_listing(asked)

        def encode() -> tuple[bytes, bool]:
            page = listing.make_page()
            return encoder.document(_describe_page(asked, page)), bool(page.entries)

        def list_one() -> tuple[bytes, bool]:
            listing.add(asked.directory)
            return encode()

        if not asked.is_recursive:  # at one go: a lane may have many who wait for it
            return await run(list_one)
        pending = await run(partial(listing.add, asked.directory))
        while pending:
            directory = pending.pop()
            if permission is not None:
                requested = RequestedEntity("files", directory, "/")
                if not await is_permitted(permission, requested):
                    continue
            with suppress(FileError):  # it has gone meanwhile, or cannot be read
                pending += await run(partial(listing.add, directory))
        return await run(encode)

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
            yield await self._read_block(file, start, length, seconds)

    async def _read_block(self, file: WholeFile, start: int, length: int, seconds: float) -> bytes:
        read = partial(file.read, start, length)
        with anyio.move_on_after(seconds):
            async with file.holding(start, length):
                return await self._store.lanes.decode.run(read, patient=True)
        raise ReadTimeout(seconds)


def _make_validators(file: WholeFile) -> Validators:
    """Return none where the next change might not show: no two answers are surely the same then."""
    if not file.settled:
        return Validators()
    identity = file.identity
    tag = f'"{identity.version}"'
    if not file.is_direct:  # an older file may be there next, and its date would say nothing
        return Validators(tag)
    return Validators.from_times(tag, identity.mtime_ns, identity.ctime_ns, time.time_ns())


def _read_listing(request: ReadRequest) -> ListingRequest:
    """Return what a request asks for. Raises BadParameter: `after` is of another order."""
    values = request.values
    sort, after = values["sort"], values["after"]
    try:
        rank = _parse_cursor(after, sort) if after else None
    except ValueError as error:
        shown = base64.urlsafe_b64encode(after).decode().rstrip("=")
        raise BadParameter("after", shown, str(error)) from None
    return ListingRequest(
        values["dir"],
        values["limit"],
        tuple(values["search"].split()),
        values["recursive"],
        sort,
        values["order"] == "descending",
        rank,
    )


def _make_cursor(rank: Rank, sort: SortKey) -> str:
    """Return the text that asks for what comes after an entry."""
    value, name, folder = rank
    if sort is not SortKey.NAME or folder:
        # No name of a file has a byte 0.
        name = b"\0".join((sort.encode(), b"%d" % value, name, folder))
    return base64.urlsafe_b64encode(name).decode().rstrip("=")


def _parse_cursor(cursor: bytes, sort: SortKey) -> Rank:
    """Return the entry that a cursor names. Raises ValueError: it is of another order."""
    match cursor.split(b"\0"):
        case [name] if sort is SortKey.NAME:
            return 0, name, b""
        case [key, value, name, folder] if key == sort.encode() and _INTEGER.fullmatch(value):
            return int(value), name, folder
    raise ValueError(f"the `next` of the page before, sorted by {sort} as well, is accepted")


def _describe_page(asked: ListingRequest, page: Page) -> dict[str, Any]:
    """Return a page as a document.

    `file` is the path to ask with; in `encoded` it is what stands behind `file=`, `dir=` or
    `/file/` in a URL, which also says names that are not UTF-8.
    """
    return {
        "dir": text(encoded(asked.directory)),
        "entries": [_describe_entry(each) for each in page.entries],
        "next": None if page.next is None else _make_cursor(page.next, asked.sort),
        "complete": page.is_complete,
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
