"""The table of the notes."""

from sqlalchemy.orm import Mapped, mapped_column

from ...cornerstones.db import Base


class Note(Base):
    """One note."""

    __tablename__ = "note"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    completed: Mapped[bool]
