"""`H5App`: the HDF5 service, a hive of one cornerstone and one endpoint."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from starlette.types import ASGIApp

from asgihive.asgi import Documentation, Router
from asgihive.hive import Component, Hive, HiveConfig, ModuleHooks
from asgihive.hive.imports import find_component_folder
from asgihive.object_stores.locations import is_url
from asgihive.service.gate import STATUSES, ServiceGate, find_route_name
from asgihive.service.openapi import ServiceDocumentation
from asgihive.service.operations import (
    HEALTH,
    METRICS,
    Figures,
    Health,
    Metrics,
    answer_ok,
    refuse_metrics,
)
from asgihive.service.parameters import ZARR_PREFIX
from asgihive.service.routes import ReadRoute, Routes
from asgihive.service.store import Store
from asgihive.settings import H5Settings

# The components are built here, and their routes are the whole application's.
_CONFIG = HiveConfig(
    cornerstone_package_path=(),
    hide_endpoint_container_in_api=True,
    hide_endpoint_in_api=True,
    hide_endpoint_in_tag=True,
)


@dataclass(frozen=True, slots=True)
class ReadingParts:
    """The parts of `H5App` that depend on where its files are read."""

    cornerstone: Component
    """The shared facility, with its lifespan."""
    router: Router
    """The routes of the HDF5 service."""
    figures: Callable[[], Figures]
    """Of all processes that read files, asked on the event loop."""
    health: ASGIApp | None = None
    """Says whether all is well; None = `Health` of the store."""


class H5App(Hive):
    """Every HDF5 file of a directory over HTTP, as h5grove's API has it.

    An ASGI application: run it by itself, mount it, or make it the `router` of an endpoint.
    It answers without a lifespan; with one (its own, or `lifespan` handed to the outer
    application) idle files are closed in time, and all of them at shutdown.

    Args:
        root: the served directory; nothing outside of it is ever opened. A relative path begins
            at the folder of the file that calls this, if that is a component of a hive, as all
            paths of hives do; else at the current directory. Or the URL of a prefix in an object
            store, such as `s3://bucket/prefix`, see docs/object-stores.md.
        settings: `H5Settings.from_environment()` by default.

    Raises:
        FileNotFoundError, NotADirectoryError: `root` is not there, or no directory.
        ValueError: there can be no worker processes here, for `isolation="process"`; or the URL
            is none that can be served.
        ExtraMissing: a URL needs the extra `s3`.
    """

    gate: ServiceGate

    def __init__(self, root: str | os.PathLike[str], settings: H5Settings | None = None) -> None:
        self.settings = H5Settings.from_environment() if settings is None else settings
        folder = find_component_folder(sys._getframe(1)) or os.curdir  # noqa: SLF001  # as `Hive` does
        if not is_url(root):
            root = os.path.abspath(os.path.join(folder, root))
        self.store = Store(root, self.settings)
        routes, fronts = Routes(self.store), dict[str, Callable[[ASGIApp], ASGIApp]]()
        router = routes.router
        # The front has the permission, which is asked for each directory that is searched.
        fronts["files"] = lambda _: routes.listing
        if self.settings.zarr:
            from asgihive.zarr.relayed import RelayedZarr  # noqa: PLC0415  # it imports what is here
            from asgihive.zarr.routes import ZarrRoute  # noqa: PLC0415

            router.add(f"{ZARR_PREFIX}{{path:path}}", ZarrRoute(self.store), name="zarr")
            fronts["zarr"] = partial(RelayedZarr, self.store)
        if self.settings.pictures:
            from asgihive.viewer.images import answer_image  # noqa: PLC0415  # as above
            from asgihive.viewer.permission import PermittedPictures  # noqa: PLC0415
            from asgihive.viewer.plots import answer_plot  # noqa: PLC0415

            for name, answer in (("image", answer_image), ("plot", answer_plot)):
                permit = partial(PermittedPictures, route=name)
                route = ReadRoute(self.store, name, partial(answer, self.store))
                router.add(f"/{name}", permit(route), name=name)
                fronts[name] = permit
        parts = ReadingParts(
            _make_cornerstone(self.store), router, partial(Figures.read, self.store)
        )
        if self.settings.isolation == "process":
            from asgihive.isolation.front import isolate  # noqa: PLC0415  # only where it is asked for

            parts = isolate(self.store, router, fronts)
        metrics = Metrics.make(self.settings, parts.figures)
        parts.router.add(HEALTH, parts.health or Health(self.store), name="health")
        if self.settings.max_listeners:
            from asgihive.viewer.events import Events  # noqa: PLC0415  # as above

            parts.router.add("/events", Events(self.store, parts.router), name="events")
        if self.settings.viewer:
            from asgihive.viewer.page import add_page  # noqa: PLC0415  # as above

            add_page(parts.router, self.settings)
        else:
            parts.router.add("/", answer_ok, name="ok")
        if self.settings.metrics:
            parts.router.add(METRICS, metrics or refuse_metrics, name="metrics")
        super().__init__(
            _CONFIG,
            cornerstones=[parts.cornerstone],
            endpoints=[_make_endpoint(parts.router, metrics)],
            docs=self.settings.docs,
            entry_points=False,
            optional_trailing_slash=True,
        )
        names = {f"/{find_route_name(each.url)}" for each in self.route_records()}
        self.gate = ServiceGate(self.gate.app, self.settings, names, metrics)

    def _make_documentation(self, router: Router) -> Documentation | None:
        return ServiceDocumentation(router, self.settings) if self.settings.docs else None


def _make_cornerstone(store: Store) -> Component:
    return Component(
        kind="cornerstone",
        container="hdf5",
        name="store",
        modules=(ModuleHooks(lifespan=lambda _: store.running()),),
        state={"store": store},
        statuses=STATUSES,
        needs_lifespan=False,
    )


def _make_endpoint(router: Router, metrics: Metrics | None) -> Component:
    return Component(
        kind="endpoint",
        container="hdf5",
        name="routes",
        router=router,
        modules=() if metrics is None else (ModuleHooks(lifespan=lambda _: metrics.running()),),
        needs_lifespan=False,
    )
