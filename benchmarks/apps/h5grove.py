"""The peer, as its documentation sets it up on FastAPI, with all filters that are installed."""

import importlib
from contextlib import suppress

from fastapi import FastAPI
from h5grove.fastapi_utils import router, settings

# libhdf5 finds the filters' plugins only once this was imported.
with suppress(ImportError):
    importlib.import_module("hdf5plugin")


def create(directory: str) -> FastAPI:
    settings.base_dir = directory
    app = FastAPI()
    app.include_router(router)
    return app
