"""Where an endpoint's routes are, and under which tag: pure functions of the configuration."""

from asgihive.hive.config import HiveConfig


def endpoint_prefix(config: HiveConfig, container: str, name: str) -> str:
    """What stands before the paths of an endpoint's routes."""
    parts = [config.api_prefix]
    if not config.hide_endpoint_container_in_api:
        parts.append(container)
    if not config.hide_endpoint_in_api:
        parts.append(name)
    return "/".join(parts) if parts != [""] else ""


def endpoint_tag(config: HiveConfig, container: str, name: str) -> str:
    """The OpenAPI tag of an endpoint's routes."""
    return container if config.hide_endpoint_in_tag else f"{container}.{name}"
