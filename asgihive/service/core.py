"""What a service is built around, wherever its files are read."""

from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import ASGIApp

from asgihive.asgi import Router
from asgihive.hive import Component
from asgihive.service.figures import Figures


@dataclass(frozen=True, slots=True)
class Core:
    """The parts of `H5App` that depend on its isolation.

    cornerstone: the shared facility, with its lifespan.
    router: the routes of the HDF5 service.
    figures: of all processes that read files, asked on the event loop.
    health: says whether all is well; None = `Health` of the store.
    """

    cornerstone: Component
    router: Router
    figures: Callable[[], Figures]
    health: ASGIApp | None = None
