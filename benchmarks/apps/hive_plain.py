"""A hive of one endpoint, without request hooks."""

from asgihive.asgi import Router
from asgihive.hive import Component, Hive, HiveConfig
from benchmarks.apps.greeting import PATH, greet


def endpoint() -> Component:
    """Return the endpoint with the greeting."""
    router = Router()
    router.get(PATH)(greet)
    return Component(kind="endpoint", container="endpoints", name="greetings", router=router)


CONFIG = HiveConfig(
    cornerstone_package_path=(),
    hide_endpoint_container_in_api=True,
    hide_endpoint_in_api=True,
)


def create(_directory: str) -> Hive:
    return Hive(CONFIG, endpoints=[endpoint()], entry_points=False)
