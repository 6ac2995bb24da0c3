"""`H5App`: the HDF5 service, a hive of one cornerstone and one endpoint."""

import os
import sys
from functools import partial

from asgihive.asgi import Documentation, Router
from asgihive.hive import Component, Hive, HiveConfig, ModuleHooks
from asgihive.hive.discovery import find_component_folder
from asgihive.service.core import Core
from asgihive.service.figures import Figures
from asgihive.service.gate import STATUSES, ServiceGate
from asgihive.service.health import HEALTH, Health
from asgihive.service.metrics import METRICS, Metrics, refuse_metrics
from asgihive.service.openapi import ServiceDocumentation
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
        core = Core(_store_cornerstone(self.store), router, partial(Figures.of, self.store))
        if self.settings.isolation == "process":
            from asgihive.isolation.front import isolate  # noqa: PLC0415  # only where it is asked for

            core = isolate(self.store, router)
        metrics = Metrics.of(self.settings, core.figures)
        core.router.add(HEALTH, core.health or Health(self.store), name="health")
        if self.settings.metrics:
            core.router.add(METRICS, metrics or refuse_metrics, name="metrics")
        super().__init__(
            _CONFIG,
            cornerstones=[core.cornerstone],
            endpoints=[_routes_endpoint(core.router, metrics)],
            docs=self.settings.docs,
            entry_points=False,
            optional_trailing_slash=True,
        )
        routes = [each.url for each in self.route_records()]
        self.gate = ServiceGate(self.gate.app, self.settings, routes, metrics)

    def _make_documentation(self, router: Router) -> Documentation | None:
        return ServiceDocumentation(router, self.settings) if self.settings.docs else None


def _store_cornerstone(store: Store) -> Component:
    return Component(
        kind="cornerstone",
        container="hdf5",
        name="store",
        modules=(ModuleHooks(lifespan=lambda _: store.running()),),
        state={"store": store},
        statuses=STATUSES,
        needs_lifespan=False,
    )


def _routes_endpoint(router: Router, metrics: Metrics | None) -> Component:
    return Component(
        kind="endpoint",
        container="hdf5",
        name="routes",
        router=router,
        modules=() if metrics is None else (ModuleHooks(lifespan=lambda _: metrics.running()),),
        needs_lifespan=False,
    )
