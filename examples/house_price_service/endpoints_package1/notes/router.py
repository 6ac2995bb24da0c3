"""`/api/notes`: list, create, read, delete."""

from typing import Annotated

from asgihive import Depends, HTTPException, Router

from ...cornerstones.db import Session
from . import service
from .db import Note
from .schemas import Limit, NoteId, NoteIn, NoteOut, Skip

router = Router()


async def wanted_note(session: Session, note_id: NoteId) -> Note:
    """The note that the path names, or 404."""
    note = await service.find_note(session, note_id)
    if note is None:
        raise HTTPException(404, f"There is no note {note_id}")
    return note


WantedNote = Annotated[Note, Depends(wanted_note)]


@router.get("")
async def query_notes(session: Session, skip: Skip = 0, limit: Limit = 100) -> list[NoteOut]:
    """The notes, the oldest first."""
    return [_shown(each) for each in await service.list_notes(session, skip, limit)]


@router.post("")
async def create_note(session: Session, note: NoteIn) -> NoteOut:
    """Store a note."""
    return _shown(await service.create_note(session, note.text, completed=note.completed))


@router.get("/{note_id}")
async def read_note(note: WantedNote) -> NoteOut:
    """One note."""
    return _shown(note)


@router.delete("/{note_id}")
async def delete_note(session: Session, note: WantedNote) -> None:
    """Delete one note."""
    await service.delete_note(session, note)


def _shown(note: Note) -> NoteOut:
    return NoteOut(note.id, note.text, note.completed)
