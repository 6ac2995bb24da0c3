"""The service as an ASGI application: `uvicorn house_price_service.main:app --app-dir examples`."""

from asgihive import Hive, HiveConfig

CONFIG = HiveConfig(
    cornerstone_package_path="./cornerstones",
    endpoint_package_paths=("./endpoints_package1", "./endpoints_package2"),
    api_prefix="/api",
    hide_endpoint_container_in_api=True,
    hide_endpoint_in_tag=True,
)


def create_app() -> Hive:
    """The service; nothing is read, opened or connected before it is started."""
    hive = Hive(CONFIG, title="House prices", entry_points=False, optional_trailing_slash=True)

    @hive.router.get("/")
    async def root() -> str:
        """Where to look."""
        return "The documentation of the API is at /docs"

    return hive


app = create_app()
