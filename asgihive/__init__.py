"""HDF5 files over HTTP, and services out of components, in plain ASGI."""

import sys
from typing import TYPE_CHECKING, Any

from asgihive.asgi import (
    Body,
    Cookie,
    Depends,
    Form,
    Header,
    HTTPException,
    Query,
    Router,
    UploadFile,
)
from asgihive.asgi.markers import find_counterpart
from asgihive.hive import (
    CornerstoneAsyncHooks,
    CornerstoneHooks,
    EndpointAsyncHooks,
    EndpointHooks,
    FromHive,
    Hive,
    HiveConfig,
    HiveMiddleware,
    compose_lifespans,
)
from asgihive.settings import H5Settings

if TYPE_CHECKING:
    from asgihive.service import H5App

__all__ = [
    "Body",
    "Cookie",
    "CornerstoneAsyncHooks",
    "CornerstoneHooks",
    "Depends",
    "EndpointAsyncHooks",
    "EndpointHooks",
    "Form",
    "FromHive",
    "H5App",
    "H5Settings",
    "HTTPException",
    "Header",
    "Hive",
    "HiveConfig",
    "HiveMiddleware",
    "Query",
    "Router",
    "UploadFile",
    "compose_lifespans",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the HDF5 service, with h5py and NumPy, when `H5App` is first read (PEP 562)."""
    if name != "H5App":
        said = f"module {__name__!r} has no attribute {name!r}"
        if (instead := find_counterpart(name)) is not None:
            # Of an AttributeError `from asgihive import …` would not show what it says.
            raise ImportError(f"{said}; write {instead}")
        raise AttributeError(said)
    if sys.platform == "win32":
        raise ImportError("The HDF5 service (H5App) needs a POSIX system: Linux or macOS")
    from asgihive.service import H5App  # noqa: PLC0415  # a hive does without

    globals()[name] = H5App
    return H5App


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
