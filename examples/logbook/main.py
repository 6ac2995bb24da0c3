"""The service as an ASGI application: `uvicorn examples.logbook.main:app`."""

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from asgihive import Hive, HiveConfig

from . import settings


def create_app() -> Hive:
    """Return the service; nothing is opened or connected before it is started."""
    config = HiveConfig(
        cornerstone_package_path="./cornerstones",
        endpoint_package_paths="./endpoints",
        api_prefix="/api",
        hide_endpoint_container_in_api=True,
    )
    cors = Middleware(
        CORSMiddleware,
        allow_origins=settings.read_origins(),
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["authorization"],
        expose_headers=["link", "location"],
    )
    return Hive(config, title="Logbook", version="1.0", middleware=[cors], entry_points=False)


app = create_app()
