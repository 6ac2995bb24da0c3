"""What the environment says; read when the service starts, and nowhere else."""

import os
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
}


def api_key() -> str:
    """`API_KEY`: what a client of the guarded routes sends as the header `token`.

    Raises:
        ValueError: it is not set.
    """
    key = os.environ.get("API_KEY", "")
    if not key:
        raise ValueError("API_KEY is not set: it is the key that clients send as header 'token'")
    return key


def data_folder() -> Path:
    """`DATA_FOLDER`, by default `data` beside this file; it is made."""
    folder = Path(os.environ.get("DATA_FOLDER") or Path(__file__).parent / "data").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def models_folder() -> Path:
    """The part of the data folder that is served, the HDF5 files; it is made."""
    folder = data_folder() / "models"
    folder.mkdir(exist_ok=True)
    return folder


def database_url() -> URL:
    """`DATABASE_URL`, by default an SQLite file in the data folder, with an async driver.

    Raises:
        ValueError: it is no URL of a database.
    """
    text = os.environ.get("DATABASE_URL") or f"sqlite:///{data_folder() / 'notes.db'}"
    try:
        url = make_url(text)
    except ArgumentError as error:
        accepted = "sqlite:///file.db or postgresql://user:password@host/database is accepted"
        raise ValueError(f"DATABASE_URL is no URL of a database: {accepted}") from error
    return url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))
