"""The routes for those who run the service: `/health` and `/metrics`."""

from starlette.types import ASGIApp

from asgihive.asgi import Router
from asgihive.service import metrics as measures
from asgihive.service.health import Health
from asgihive.service.metrics import Metrics
from asgihive.service.store import Store

HEALTH, METRICS = "/health", "/metrics"


def add_operation(
    router: Router, store: Store, metrics: Metrics | None, health: ASGIApp | None
) -> None:
    """Add the routes that the settings want, each 404 where they do not.

    Args:
        metrics: None where they are not wanted, or not installed.
        health: says whether all is well; None = `Health` of `store`.
    """
    settings = store.settings
    if settings.health:
        health = health or Health(store, settings.health_timeout_seconds)
        router.add(HEALTH, health, name="health")
    if settings.metrics:
        router.add(METRICS, metrics or measures.refuse, name="metrics")
