"""List, write, read and delete entries."""

from typing import Annotated

from msgspec import Meta, Struct, convert
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.background import BackgroundTasks
from starlette.requests import Request
from starlette.responses import Response

from asgihive import Depends, FromHive, HTTPException, Query, Router

from ...cornerstones.auth import SECURITY, CurrentUser, find_user
from ...cornerstones.feed import Feed
from ...cornerstones.problems import describe
from .db import Entry

router = Router(dependencies=[Depends(find_user)])

Id = Annotated[int, Meta(ge=1, le=2**31 - 1)]  # PostgreSQL's `integer`
Text = Annotated[str, Meta(min_length=1, max_length=10_000, pattern=r"^[^\x00]*$")]


class EntryIn(Struct):
    """What a client sends."""

    text: Text


class EntryOut(Struct):
    """What a client gets of an `Entry`: the hive leaves out what return annotations do not name."""

    id: int
    author: str
    text: str
    written: float
    """In seconds since 1970."""


class Page(Struct):
    """Which entries: the newest, or those before one of them."""

    before: Id | None = None
    limit: Annotated[int, Meta(ge=1, le=100)] = 20


async def find_entry(entry_id: Id, session: FromHive[AsyncSession]) -> Entry:
    """Return the entry that the path names, or 404."""
    entry = await session.get(Entry, entry_id)
    if entry is None:
        raise HTTPException(404, f"There is no entry {entry_id}")
    return entry


FoundEntry = Annotated[Entry, Depends(find_entry)]


@router.get("", security=SECURITY, responses=describe(401, 422))
async def list_entries(
    page: Annotated[Page, Query()],
    session: FromHive[AsyncSession],
    request: Request,
    response: Response,
) -> list[EntryOut]:
    """The newest entries first; `Link` leads to those before (RFC 8288)."""
    query = select(Entry).order_by(Entry.id.desc()).limit(page.limit)
    if page.before is not None:
        query = query.where(Entry.id < page.before)
    entries = list(await session.scalars(query))
    if len(entries) == page.limit:
        url = request.url.include_query_params(before=entries[-1].id, limit=page.limit)
        response.headers["link"] = f'<{url}>; rel="next"'
    return convert(entries, list[EntryOut], from_attributes=True)


@router.post("", status=201, security=SECURITY, responses=describe(401, 413, 415, 422))
async def write_entry(
    entry: EntryIn,
    user: CurrentUser,
    session: FromHive[AsyncSession],
    feed: FromHive[Feed],
    request: Request,
    response: Response,
    tasks: BackgroundTasks,
) -> EntryOut:
    """Write an entry; it is stored when the answer leaves, and told to listeners after it."""
    stored = Entry(author=user.name, text=entry.text, client=str(request.client))
    session.add(stored)
    await session.flush()  # gives it a number
    response.headers["location"] = str(request.url_for("read_entry", entry_id=stored.id))
    tasks.add_task(feed.publish, {"id": stored.id, "author": user.name, "text": entry.text})
    return convert(stored, EntryOut, from_attributes=True)


@router.get("/{entry_id}", security=SECURITY, responses=describe(401, 404, 422))
async def read_entry(entry: FoundEntry) -> EntryOut:
    """One entry."""
    return convert(entry, EntryOut, from_attributes=True)


@router.delete("/{entry_id}", security=SECURITY, responses=describe(401, 403, 404, 422))
async def delete_entry(
    entry: FoundEntry, user: CurrentUser, session: FromHive[AsyncSession]
) -> None:
    """Delete an entry of one's own."""
    if entry.author != user.name:
        raise HTTPException(403, "Only its author may delete an entry")
    await session.delete(entry)
