"""The bare page of h5web over h5grove, as the documentation of both sets them up."""

import os

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from benchmarks.apps import h5grove


def create(directory: str) -> FastAPI:
    app = h5grove.create(directory)
    app.mount("/view", StaticFiles(directory=os.path.join(directory, "h5web_bare"), html=True))
    return app
