"""HDF5 files over HTTP, fast and safely, in plain ASGI."""

from asgihive.asgi import HTTPException, Router
from asgihive.service import H5App
from asgihive.settings import H5Settings

__all__ = ["H5App", "H5Settings", "HTTPException", "Router"]

__version__ = "0.1.0"
