"""The table of the entries."""

import time

from sqlalchemy.orm import Mapped, mapped_column

from ...cornerstones.database import Base


class Entry(Base):
    """One entry, with what only the service is to see."""

    __tablename__ = "entry"

    id: Mapped[int] = mapped_column(primary_key=True)
    author: Mapped[str]
    text: Mapped[str]
    written: Mapped[float] = mapped_column(default=time.time)
    client: Mapped[str] = mapped_column(default="")
