"""The greeting in FastAPI, with three hooks as fastapi-hive puts them around a request."""

import time
from functools import partial

from fastapi import FastAPI
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response

from benchmarks.apps.greeting import PATH, greet


async def _time(
    state: dict[str, float], request: Request, call_next: RequestResponseEndpoint
) -> Response:
    begun = time.perf_counter()
    response = await call_next(request)
    state["seconds"] += time.perf_counter() - begun
    return response


def create(_directory: str) -> FastAPI:
    app = FastAPI()
    app.add_api_route(PATH, greet)
    for _ in range(3):
        app.add_middleware(BaseHTTPMiddleware, dispatch=partial(_time, {"seconds": 0.0}))
    return app
