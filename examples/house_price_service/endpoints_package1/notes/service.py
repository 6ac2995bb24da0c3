"""What can be done with notes, in the transaction of a session."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from .db import Note


async def list_notes(session: AsyncSession, skip: int, limit: int) -> list[Note]:
    """The notes in the order of their creation, from the one after the first `skip`."""
    found = await session.scalars(select(Note).order_by(Note.id).offset(skip).limit(limit))
    return list(found)


async def create_note(session: AsyncSession, text: str, *, completed: bool) -> Note:
    """Store a note."""
    note = Note(text=text, completed=completed)
    session.add(note)
    await session.flush()  # so that it has its number; the cornerstone commits
    return note


async def find_note(session: AsyncSession, note_id: int) -> Note | None:
    """The note of that number, None if there is none."""
    return await session.get(Note, note_id)


async def delete_note(session: AsyncSession, note: Note) -> None:
    """Delete a note."""
    await session.delete(note)
