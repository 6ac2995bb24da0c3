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
from asgihive.service.gate import STATUSES, ServiceGate
from asgihive.service.openapi import ServiceDocumentation
from asgihive.service.operations import HEALTH, METRICS, Figures, Health, Metrics, refuse_metrics
from asgihive.service.routes import Routes
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
            paths of hives do; else at the current directory.
        settings: `H5Settings.from_environment()` by default.

    Raises:
        FileNotFoundError, NotADirectoryError: `root` is not there, or no directory.
        ValueError: there can be no worker processes here, for `isolation="process"`.
    """

    gate: ServiceGate

    def __init__(self, root: str | os.PathLike[str], settings: H5Settings | None = None) -> None:
        self.settings = H5Settings.from_environment() if settings is None else settings
        folder = find_component_folder(sys._getframe(1)) or os.curdir  # noqa: SLF001  # as `Hive` does
        self.store = Store(os.path.abspath(os.path.join(folder, root)), self.settings)
        router = Routes(self.store).router
        parts = ReadingParts(
            _make_cornerstone(self.store), router, partial(Figures.read, self.store)
        )
        if self.settings.isolation == "process":
            from asgihive.isolation.front import isolate  # noqa: PLC0415  # only where it is asked for

            parts = isolate(self.store, router)
        metrics = Metrics.make(self.settings, parts.figures)
        parts.router.add(HEALTH, parts.health or Health(self.store), name="health")
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
        routes = [each.url for each in self.route_records()]
        self.gate = ServiceGate(self.gate.app, self.settings, routes, metrics)

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
