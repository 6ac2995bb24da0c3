"""The greeting in plain Starlette."""

from starlette.applications import Starlette
from starlette.routing import Route

from benchmarks.apps.greeting import PATH, greet


def create(_directory: str) -> Starlette:
    return Starlette(routes=[Route(PATH, greet)])
