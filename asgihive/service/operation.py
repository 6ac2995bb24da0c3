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
    """Add `/health`, and `/metrics` where the settings want it.

    Args:
        metrics: None where they are not wanted, or not installed.
        health: says whether all is well; None = `Health` of `store`.
    """
    router.add(HEALTH, health or Health(store), name="health")
    if store.settings.metrics:
        router.add(METRICS, metrics or measures.refuse, name="metrics")
