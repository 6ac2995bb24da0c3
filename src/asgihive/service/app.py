"""`H5App`: the HDF5 service, a hive of one cornerstone and one endpoint."""

import os

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from asgihive.hive import Component, Hive, HiveConfig, Part
from asgihive.service.routes import Routes
from asgihive.service.statuses import STATUSES
from asgihive.service.store import Store
from asgihive.settings import H5Settings

# The components are built here, and their routes are the whole application's.
_CONFIG = HiveConfig(
    cornerstone_package_path=(),
    hide_endpoint_container_in_api=True,
    hide_endpoint_in_api=True,
    hide_endpoint_in_tag=True,
)


# What a page of another origin may read of an answer, beside what each may (Fetch standard).
EXPOSED_HEADERS = (
    "content-disposition",
    "content-length",
    "x-asgihive-factors",
    "x-asgihive-method",
    "x-asgihive-shape",
)


class H5App(Hive):
    """Every HDF5 file of a directory over HTTP, as h5grove's API has it.

    An ASGI application: run it by itself, mount it, or make it the `router` of an endpoint.
    It answers without a lifespan; with one (its own, or `lifespan` handed to the outer
    application) idle files are closed in time, and all of them at shutdown.

    Args:
        root: the served directory; nothing outside of it is ever opened.
        settings: `H5Settings.from_environment()` by default.

    Raises:
        FileNotFoundError, NotADirectoryError: `root` is not there, or no directory.
    """

    def __init__(self, root: str | os.PathLike[str], settings: H5Settings | None = None) -> None:
        self.settings = H5Settings.from_environment() if settings is None else settings
        self.store = Store(root, self.settings)
        super().__init__(
            _CONFIG,
            cornerstones=[_store_cornerstone(self.store)],
            endpoints=[_routes_endpoint(self.store)],
            docs=False,
            entry_points=False,
            optional_trailing_slash=True,
        )
        self._shared: ASGIApp = super().__call__
        if self.settings.cors_origins:
            self._shared = CORSMiddleware(
                self._shared,
                allow_origins=self.settings.cors_origins,
                allow_methods=("GET", "HEAD"),
                allow_headers=("*",),
                expose_headers=EXPOSED_HEADERS,
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._shared(scope, receive, send)


def _store_cornerstone(store: Store) -> Component:
    return Component(
        kind="cornerstone",
        container="hdf5",
        name="store",
        parts=(Part(lifespan=lambda _: store.running()),),
        state={"store": store},
        statuses=STATUSES,
        needs_lifespan=False,
    )


def _routes_endpoint(store: Store) -> Component:
    return Component(
        kind="endpoint",
        container="hdf5",
        name="routes",
        router=Routes(store).router,
        needs_lifespan=False,
    )
