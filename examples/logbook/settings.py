"""What the environment says."""

import os
from pathlib import Path

from sqlalchemy import URL, make_url

_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}


def make_folder() -> Path:
    """`LOGBOOK_FOLDER`, by default `data` beside this file: the database and attachments."""
    folder = Path(os.environ.get("LOGBOOK_FOLDER") or Path(__file__).parent / "data").absolute()
    (folder / "attachments").mkdir(parents=True, exist_ok=True)
    return folder


def find_database() -> URL:
    """`LOGBOOK_DATABASE_URL`, by default an SQLite file in the folder, with an async driver."""
    default = f"sqlite:///{make_folder() / 'logbook.db'}"
    url = make_url(os.environ.get("LOGBOOK_DATABASE_URL") or default)
    return url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))


def read_tokens() -> dict[str, str]:
    """`LOGBOOK_TOKENS`, such as `secret=ada,other=grace`: who has which bearer token.

    Raises:
        ValueError: it is something else.
    """
    pairs = [each.strip() for each in os.environ.get("LOGBOOK_TOKENS", "").split(",")]
    tokens = {}
    for pair in filter(None, pairs):
        token, _, name = pair.partition("=")
        if not token or not name:
            raise ValueError("LOGBOOK_TOKENS: pairs such as secret=ada,other=grace are accepted")
        tokens[token] = name
    return tokens


def read_origins() -> list[str]:
    """`LOGBOOK_ORIGINS`: the sites whose pages may ask, separated by commas; none by default."""
    return [each for each in os.environ.get("LOGBOOK_ORIGINS", "").split(",") if each]
