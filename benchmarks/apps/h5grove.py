"""The peer, as its documentation sets it up on FastAPI."""

from fastapi import FastAPI
from h5grove.fastapi_utils import router, settings


def create(directory: str) -> FastAPI:
    settings.base_dir = directory
    app = FastAPI()
    app.include_router(router)
    return app
