"""HDF5 files over HTTP, and services out of components, in plain ASGI."""

from asgihive.asgi import Body, Cookie, Depends, Header, HTTPException, Query, Router
from asgihive.hive import (
    CornerstoneAsyncHooks,
    CornerstoneHooks,
    EndpointAsyncHooks,
    EndpointHooks,
    Hive,
    HiveConfig,
    HiveMiddleware,
    compose_lifespans,
)
from asgihive.service import H5App
from asgihive.settings import H5Settings

__all__ = [
    "Body",
    "Cookie",
    "CornerstoneAsyncHooks",
    "CornerstoneHooks",
    "Depends",
    "EndpointAsyncHooks",
    "EndpointHooks",
    "H5App",
    "H5Settings",
    "HTTPException",
    "Header",
    "Hive",
    "HiveConfig",
    "HiveMiddleware",
    "Query",
    "Router",
    "compose_lifespans",
]

__version__ = "0.1.0"
